"""Additional values in the reports of pytest-benchmark."""

from __future__ import annotations

from typing import Any

from benchmarks.peak import multiply_add_rate


def median_of(benchmark: Any) -> float | None:
    """Median seconds of a call; ``None`` with ``--benchmark-disable``."""
    return None if benchmark.stats is None else float(benchmark.stats.stats.median)


def report(
    benchmark: Any, *, flops: int = 0, chars: int = 0, threads: int = 1, calls: int = 1, peak: bool = False,
    dtype: str = "float32",
) -> None:  # fmt: skip
    """Add characters/s, GFLOP/s and, with ``peak``, the share of the peak of ``threads`` cores, which is measured now.

    ``dtype`` is that of the peak, see `benchmarks.peak.multiply_add_rate`. ``flops`` and ``chars`` are those of one
    repetition; the benchmark's call makes ``calls`` of them.
    """
    seconds = median_of(benchmark)
    if seconds is None:
        return
    info = benchmark.extra_info
    info["threads"] = threads
    if chars:
        info["chars_per_s"] = round(calls * chars / seconds)
    if flops:
        gflops = 1e-9 * calls * flops / seconds
        info["gflops"] = round(gflops, 2)
        if peak:
            limit = multiply_add_rate(threads, dtype)
            info["peak_gflops"], info["share_of_peak"] = round(limit, 1), round(gflops / limit, 3)
