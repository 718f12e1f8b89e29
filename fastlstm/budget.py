"""A limit on the time that is spent on a repeated operation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Budget:
    """Limits the time spent on a repeated operation to a fraction of the elapsed time.

    Parameters
    ----------
    share : largest fraction of the time since the budget was created.
    expected : expected seconds of the first operation; later ones are expected to take as long as the last one did.
    """

    def __init__(self, share: float, expected: float) -> None:
        self._share, self._next = share, expected
        self._spent = 0.0
        self._made = time.perf_counter()

    def allows(self) -> bool:
        """Whether the operation fits into the budget now."""
        return self._spent + self._next <= self._share * (time.perf_counter() - self._made)

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Charge the time spent in this context to the budget."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._next = time.perf_counter() - started
            self._spent += self._next
