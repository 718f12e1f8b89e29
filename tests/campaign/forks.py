"""Children forked from a trial's process: they start at once, and may die."""

import multiprocessing
import os
import sys
import time
import traceback
import warnings

from harness import LONGEST_WAIT, BrokenPromiseError, Outcome

#: Exit status of a child whose function raised an exception.
RAISED = 99


def fork(function):
    """Fork a child that calls the function and exits with its result, 0 for ``None``; returns its process number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it warns of forks with threads, which are tested here
        child = os.fork()
    if child == 0:
        status = RAISED
        try:
            status = function() or 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)
    return child


def status_of(child, seconds=LONGEST_WAIT):
    """The exit status of a forked child, negative if a signal killed it; one that takes longer counts as a hang."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(1e-3)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise BrokenPromiseError(Outcome.HANG, "the child does not end")


def result_in_child(function, seconds=LONGEST_WAIT):
    """Call a function in a forked child; returns its result. A `BrokenPromiseError` is raised here too."""
    reader, writer = multiprocessing.Pipe(duplex=False)

    def call():
        try:
            writer.send((function(), None))
        except BrokenPromiseError as broken:
            writer.send((broken.outcome, str(broken)))

    child = fork(call)
    writer.close()
    status = status_of(child, seconds)
    if status:
        raise BrokenPromiseError(Outcome.CRASH if status < 0 else Outcome.TRACEBACK, f"a child ended with {status}")
    with reader:
        result, detail = reader.recv()
    if detail is not None:
        raise BrokenPromiseError(result, detail)
    return result
