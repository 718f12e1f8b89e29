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
from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.sync import CANCELLED, START, linger

Call = Callable[[int], Any]


class _Job:
    """One call for every worker. A worker needs its ticket to begin, and a ticket is taken once."""

    def __init__(self, call: Call, numbers: range) -> None:
        self.call = call
        self.tickets = set(numbers)
        self.begun: set[int] = set()
        self.done: set[int] = set()

    def work(self, number: int) -> None:
        """Make the call if there is still a ticket."""
        self.begun.add(number)  # first: whoever withdraws the tickets must know all who may have one
        try:
            if self._take(number):
                self.call(number)
        finally:
            self.done.add(number)

    def _take(self, number: int) -> bool:
        try:
            self.tickets.remove(number)
        except KeyError:
            return False
        return True


def _work(number: int, jobs: queue.SimpleQueue[_Job | None], wait: Callable[[], Any]) -> None:
    """What a worker thread does: one job after the other, until there is `None`; in between it waits a moment awake."""
    while (job := jobs.get()) is not None:
        job.work(number)
        del job  # and with it the arrays it holds, while waiting for the next
        wait()


class Workers:
    """``count`` workers: the calling thread and ``count - 1`` threads, which sleep when no call follows at once.

    `run` is for kernels that begin with `fastlstm.kernels.sync.start_together` and end with a barrier of all
    workers: when the caller's part is done, all are.

    Parameters
    ----------
    count : workers.
    sync : the counters that the kernel's barriers use.
    """

    def __init__(self, count: int, sync: np.ndarray) -> None:
        self.count = count
        self.sync = sync
        self._engage()

    def _engage(self) -> None:
        self._process = os.getpid()
        self._job: _Job | None = None  # the one at work, or not brought to its end
        # A SimpleQueue is written in C: unlike other locks, no signal can leave it half done.
        self._queues: list[queue.SimpleQueue[_Job | None]] = [queue.SimpleQueue() for _ in range(1, self.count)]
        if self.count > 1:
            wait = functools.partial(jit.compiled_for(linger, self.sync), self.sync)
        for number, jobs in enumerate(self._queues, start=1):
            threading.Thread(target=_work, args=(number, jobs, wait), name=f"fastlstm-{number}", daemon=True).start()
        weakref.finalize(self, _dismiss, self._queues)

    def run(self, call: Call) -> Any:
        """Run ``call(worker)`` for every worker number at once; returns what worker 0's call returns.

        Whatever interrupts this (Ctrl-C, say) is raised when no worker is inside the kernel: before any has begun, or
        after all have finished.
        """
        if self.count == 1:
            return call(0)
        if self._process != os.getpid():  # a fork has our memory, but not our threads
            self._engage()
        if self._job is not None:  # another signal has interrupted its end
            self._cancel(self._job)
        job = self._job = _Job(call, range(1, self.count))
        try:
            for jobs in self._queues:
                jobs.put(job)
            result = call(0)
        except BaseException:
            self._cancel(job)
            raise
        self._job = None
        return result

    def _cancel(self, job: _Job) -> None:
        """Bring back the workers that have begun: without worker 0 they wait for the start, and look at CANCELLED.

        Every line may be interrupted, and all of them run again.
        """
        self.sync[CANCELLED] = 1
        job.tickets.clear()
        while not job.done >= job.begun:
            time.sleep(1e-4)
        self.sync[START] = self.sync[CANCELLED] = 0
        self._job = None


def _dismiss(queues: list[queue.SimpleQueue[_Job | None]]) -> None:
    for jobs in queues:
        jobs.put(None)
