"""How a call is timed, here and in every peer. Needs nothing but the standard library."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

#: Calls measured even when they take longer than the time given.
FEWEST = 3

#: Calls before the first that counts: caches, allocators and thread pools settle.
WARM_UP = 3


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Median wall time of ``call``, repeated for about ``seconds``."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST or time.perf_counter() < end:
        times.append(seconds_of(call))
    return statistics.median(times)


def warm_up(call: Callable[[], object]) -> None:
    """Run ``call`` a few times, unmeasured."""
    for _ in range(WARM_UP):
        call()
