"""Worker threads: Python threads that run a kernel together, with the GIL released.

Numba's `prange` is not used: it starts a parallel region for every loop, its default threading layer cannot be entered
from several Python threads at once, and it takes much longer to compile. Here a step is one call per worker, and
workers wait for each other inside it at the barriers of `fastlstm.kernels.sync`.
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

#: Arguments: the call's number, the worker's seat, the number of workers wanted and the patience, as for `meet`.
Call = Callable[[int, int, int, int], Any]

#: Nanoseconds for which a caller that needs all workers waits for the next one to arrive.
LONGEST_PATIENCE = 10**9


class _Job(NamedTuple):
    """A call for helpers to join; it has no seat, because that differs between helpers."""

    call: Call
    number: int
    wanted: int
    patience: int


class _Helper:
    """A worker thread, not started yet, and the queue of its jobs.

    Attributes
    ----------
    present : whether the thread takes jobs. (`Thread.is_alive` is not used: a signal during it can corrupt its state.)
    """

    def __init__(self, seat: int, wait: Callable[[int], Any], workers: Workers) -> None:
        # A SimpleQueue is written in C: unlike `queue.Queue`, no signal can interrupt it halfway.
        self.jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.present = False
        self._workers = weakref.ref(workers, self.jobs.put)  # ends the thread once they are deleted
        self.thread = threading.Thread(target=self._work, args=(seat, wait), name=f"fastlstm-{seat}", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `RuntimeError` when the system allows no more threads."""
        self.thread.start()
        self.present = True

    def _work(self, seat: int, wait: Callable[[int], Any]) -> None:
        """Run jobs until the queue yields something else; after each, spin for a moment before sleeping.

        An exception ends only this thread. A call proceeds without helpers that do not arrive, and if the call itself
        is at fault, the caller gets the same exception. A later call starts a new thread in this one's place.
        """
        try:
            while isinstance(job := self.jobs.get(), _Job):
                number = job.number
                job.call(number, seat, job.wanted, job.patience)
                del job  # do not keep its arrays alive while waiting for the next one
                wait(number)
        except BaseException:
            self.present = False


class Workers:
    """``count`` workers: the calling thread and ``count - 1`` helpers, which sleep unless the next call comes at once.

    `run` is for kernels that begin with `fastlstm.kernels.sync.meet` and end with a barrier of all
    workers: when the caller's part is done, all parts are.

    Parameters
    ----------
    count : maximum number of workers. There are fewer if the system allows fewer threads.
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
        self._present(count - 1)  # not in a call: a start that a signal interrupts corrupts `threading`

    def _engage(self) -> None:
        """Reset to a state without helpers; also in a forked process, which inherits the memory but not the threads."""
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._helpers: list[_Helper] = []
        prepare_sync(self.sync)

    def turn(self) -> threading.RLock:
        """The lock to hold around a call and the use of its results: the workers have one caller at a time."""
        if self._process != os.getpid():
            self._engage()
        return self._lock

    def run(self, call: Call, kind: int = 0, work: float = 1.0) -> Any:
        """Run a call in several workers at once; returns its result in worker 0, the calling thread.

        An interruption (Ctrl-C, for example) is raised when no worker is inside the kernel: before any has begun, or
        after all have finished.

        Parameters
        ----------
        call : function of the arguments of `meet`.
        kind : any number; the time of calls of one kind is proportional to their ``work``.
        work : units of work of this call.
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
        """The first ``wanted`` helpers; those not started yet, and those that have ended, are replaced by new ones."""
        helpers = self._helpers
        for n in range(wanted):
            if n < len(helpers) and helpers[n].present:
                continue
            for absent in helpers[n : n + 1]:
                absent.jobs.put(None)  # its start may have been interrupted when the thread was running
            helpers[n : n + 1] = [_Helper(n + 1, self._wait, self)]
            try:
                helpers[n].start()
            except RuntimeError:  # the system allows no more threads: use the existing ones
                return helpers[:n]
        return helpers[:wanted]
