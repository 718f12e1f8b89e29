"""Worker threads: plain Python threads that run a kernel together, with the interpreter's lock released.

Numba's own `prange` is not used: it starts a parallel region for every loop, its default layer may not be
entered from two Python threads, and it compiles much longer. Here a step is one call a worker, and what
must wait inside it waits at a barrier of `fastlstm.kernels.sync`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any


class _Thread:
    """A daemon thread that runs one call at a time."""

    def __init__(self, name: str) -> None:
        self.wake = threading.Semaphore(0)
        self.call: Callable[[], Any] | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def start(self, call: Callable[[], Any] | None) -> None:
        self.call = call
        self.wake.release()

    def _run(self) -> None:
        while True:
            self.wake.acquire()
            call, self.call = self.call, None
            if call is None:
                return
            call()
            del call


class Workers:
    """``count`` workers: the calling thread and ``count - 1`` threads, which sleep between calls.

    `run` is for kernels that end with a barrier of all workers: when the caller's part is done, all are.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._threads = [_Thread(f"fastlstm-{n}") for n in range(1, count)]
        weakref.finalize(self, _dismiss, self._threads)

    def run(self, call: Callable[[int], Any]) -> Any:
        """Run ``call(worker)`` for every worker number at once; returns what worker 0's call returns."""
        try:
            for number, thread in enumerate(self._threads, start=1):
                thread.start(lambda number=number: call(number))  # type: ignore[misc]
        finally:
            # Even when a signal interrupts the loop: workers that have started wait for worker 0 at their barrier.
            result = call(0)
        return result


def _dismiss(threads: list[_Thread]) -> None:
    for thread in threads:
        thread.start(None)
