"""Worker threads: plain Python threads that run a kernel together, with the interpreter's lock released.

Numba's own `prange` is not used: it starts a parallel region for every loop, its default layer is not made for being
entered from several Python threads at once, and it compiles much longer. Here a step is one call a worker, and what
must wait inside it waits at a barrier of `fastlstm.kernels.sync`.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.pacing import Pacing
from fastlstm.kernels.sync import abandon, linger, prepare_sync
from fastlstm.threads import usable_cores

#: Of the call's number, the worker's seat, the workers wanted and the caller's patience, as `meet` needs them.
Call = Callable[[int, int, int, int], Any]

#: Nanoseconds for which a caller that wants all workers waits for the next to come.
LONGEST_PATIENCE = 10**9


class _Job(NamedTuple):
    """A call for helpers to join; it says nothing of the seat, which differs."""

    call: Call
    number: int
    wanted: int
    patience: int


class _Helper:
    """A worker thread, not started yet, and the queue of its jobs.

    Attributes
    ----------
    present : whether the thread takes jobs. (`Thread.is_alive` does not bear to be interrupted by a signal.)
    """

    def __init__(self, seat: int, wait: Callable[[int], Any], workers: Workers) -> None:
        # A SimpleQueue is written in C: unlike other locks, no signal can leave it half done.
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.present = False
        self._workers = weakref.ref(workers, self.jobs.put)  # when they are gone: a call that no signal interrupts
        self.thread = threading.Thread(target=self._work, args=(seat, wait), name=f"fastlstm-{seat}", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` where the system grants no more threads."""
        self.thread.start()
        self.present = True

    def _work(self, seat: int, wait: Callable[[int], Any]) -> None:
        """Do one job after the other, until there is something else; in between wait a moment awake.

        An exception ends the thread, and nothing else: a call goes on without the helpers that do not come, and its
        caller meets by itself whatever is wrong with the call. The next call gets another thread.
        """
        try:
            while isinstance(job := self.jobs.get(), _Job):
                number = job.number
                job.call(number, seat, job.wanted, job.patience)
                del job  # and with it the arrays it holds, while waiting for the next
                wait(number)
        except BaseException:
            self.present = False


class Workers:
    """``count`` workers: the calling thread and ``count - 1`` helpers, which sleep when no call follows at once.

    `run` is for kernels that begin with `fastlstm.kernels.sync.meet` and end with a barrier of all
    workers: when the caller's part is done, all are.

    Parameters
    ----------
    count : workers at most. Where the system grants fewer threads there are fewer.
    sync : the counters that the kernel's barriers use.

    Attributes
    ----------
    adaptive : whether calls use fewer workers while that is faster; else all take part in every call.
    """

    def __init__(self, count: int, sync: np.ndarray) -> None:
        self.count = count
        self.sync = sync
        self.adaptive = True
        self._number = 0
        self._pacings: dict[int, Pacing] = {}
        if count > 1:
            self._wait = functools.partial(jit.compiled_for(linger, sync, 0), sync)
        self._engage()
        self._present(count - 1)  # here, where a signal does less harm: an interrupted start confuses `threading`

    def _engage(self) -> None:
        """Begin anew, without helpers: in a forked process too, which has our memory but not our threads."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._helpers: list[_Helper] = []
        prepare_sync(self.sync)

    def turn(self) -> threading.RLock:
        """The lock to hold around a call and whatever belongs to it: the workers have one caller at a time."""
        if self._process != os.getpid():
            self._engage()
        return self._lock

    def run(self, call: Call, kind: int = 0, work: float = 1.0) -> Any:
        """Make a call in several workers at once; returns what it returns in worker 0, the calling thread.

        Whatever interrupts this (Ctrl-C, say) is raised when no worker is inside the kernel: before any has begun, or
        after all have finished.

        Parameters
        ----------
        call : takes what `meet` needs to know.
        kind, work : calls of one kind, which may be any number, take a time in proportion to their work.
        """
        if self.count == 1:
            return call(0, 0, 1, 0)
        if not self.adaptive:
            return self._run(call, self.count, LONGEST_PATIENCE)
        if kind not in self._pacings:
            self._pacings[kind] = Pacing(self.count, usable_cores())
        pacing = self._pacings[kind]
        started = time.perf_counter()
        result = self._run(call, pacing.workers, pacing.patience)
        pacing.record(time.perf_counter() - started, work)
        return result

    def _run(self, call: Call, wanted: int, patience: int) -> Any:
        if wanted == 1:
            return call(0, 0, 1, 0)
        number = self._number = self._number + 2
        job = _Job(call, number, wanted, patience)
        try:
            for helper in self._present(wanted - 1):
                helper.jobs.put(job)
            return call(number, 0, wanted, patience)
        except BaseException:
            abandon(self.sync, number)
            raise

    def _present(self, wanted: int) -> list[_Helper]:
        """The first ``wanted`` helpers; new ones in the place of those that are not there yet, or no longer."""
        helpers = self._helpers
        for n in range(wanted):
            if n < len(helpers) and helpers[n].present:
                continue
            for absent in helpers[n : n + 1]:
                absent.jobs.put(None)  # its start may have been interrupted when it had all but begun
            helpers[n : n + 1] = [_Helper(n + 1, self._wait, self)]
            try:
                helpers[n].start()
            except RuntimeError:  # the system grants no more threads: do with those there are
                return helpers[:n]
        return helpers[:wanted]
