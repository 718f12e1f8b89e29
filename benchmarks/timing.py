"""Timing of a call, here and in every peer. Needs only the standard library."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

#: Minimum number of calls measured, even if they take longer than the time given.
FEWEST = 3

#: Calls before the first measured one, in which caches, allocators and thread pools settle.
WARM_UP = 3


def seconds_of(call: Callable[[], object]) -> float:
    """Wall time of one call in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], seconds: float) -> float:
    """Median wall time of ``call`` in seconds, repeated for about ``seconds``."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < FEWEST or time.perf_counter() < end:
        times.append(seconds_of(call))
    return statistics.median(times)


def warm_up(call: Callable[[], object]) -> None:
    """Run ``call`` a few times without measuring it."""
    for _ in range(WARM_UP):
        call()
