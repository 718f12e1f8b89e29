"""Worker threads: plain Python threads that run a kernel together, with the interpreter's lock released.

Numba's own `prange` is not used: it starts a parallel region for every loop, its default layer is not made for being
entered from several Python threads at once, and it compiles much longer. Here a step is one call a worker, and what
must wait inside it waits at a barrier of `fastlstm.kernels.sync`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm.kernels.sync import CANCELLED, START

Call = Callable[[int], Any]


class _Thread:
    """A daemon thread that runs one call at a time, under its number."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.wake = threading.Semaphore(0)
        self.call: Call | None = None
        self.running = False
        self.dismissed = False
        threading.Thread(target=self._run, name=f"fastlstm-{number}", daemon=True).start()

    def start(self, call: Call) -> None:
        self.call = call
        self.wake.release()

    def dismiss(self) -> None:
        self.dismissed = True
        self.wake.release()

    def _run(self) -> None:
        while True:
            self.wake.acquire()
            if self.dismissed:
                return
            self.running = True  # before the call is taken: see `Workers._cancel`
            call, self.call = self.call, None
            if call is not None:
                call(self.number)
            del call
            self.running = False


class Workers:
    """``count`` workers: the calling thread and ``count - 1`` threads, which sleep between calls.

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
        self._threads = [_Thread(number) for number in range(1, self.count)]
        weakref.finalize(self, _dismiss, self._threads)

    def run(self, call: Call) -> Any:
        """Run ``call(worker)`` for every worker number at once; returns what worker 0's call returns.

        Whatever interrupts this (Ctrl-C, say) is raised when no worker is inside the kernel: before any has begun, or
        after all have finished.
        """
        if self.count == 1:
            return call(0)
        if self._process != os.getpid():  # a fork has our memory, but not our threads
            self._engage()
        try:
            for thread in self._threads:
                thread.start(call)
            return call(0)
        except BaseException:
            self._cancel()
            raise

    def _cancel(self) -> None:
        """Bring back the workers that have started: without worker 0 they wait for the start, and look at CANCELLED."""
        self.sync[CANCELLED] = 1
        for thread in self._threads:
            thread.call = None
        while any(thread.running for thread in self._threads):
            time.sleep(1e-4)
        self.sync[START] = self.sync[CANCELLED] = 0


def _dismiss(threads: list[_Thread]) -> None:
    for thread in threads:
        thread.dismiss()
