"""Time per character against every size of a model and of its batches, compared with the number of operations.

usage: python -m benchmarks.scaling [SIZE ...] [--threads N] [--seconds S] [--json FILE] [--png FILE]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import output_file, positive
from benchmarks.charts import draw_scaling
from benchmarks.networks import Training
from benchmarks.peak import multiply_add_rate
from benchmarks.timing import median_seconds, warm_up
from benchmarks.workloads import Workload
from fastlstm.threads import default_threads

#: The base configuration, of which one size is varied at a time.
BASE = Workload(V=65, E=64, H=256, L=1, T=50, B=32)

SIZES: dict[str, list[int]] = {
    "H": [16, 32, 64, 100, 128, 200, 256, 400, 512, 768, 1024],
    "B": [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128],
    "T": [4, 8, 16, 32, 64, 128],
    "L": [1, 2, 3, 4],
    "V": [16, 32, 65, 128, 256, 1024, 4096],
}
THREADS = "threads"

Point = dict[str, Any]


def values_of(varied: str, threads: int) -> list[int]:
    """The values a size takes; threads go up to ``threads``."""
    return SIZES[varied] if varied in SIZES else list(range(1, threads + 1))


def measure(varied: str, value: int, threads: int, seconds: float) -> Point:
    """One point: a workload's time per character, and the minimum for its multiply-adds."""
    workload, workers = BASE, threads
    if varied == THREADS:
        workers = value
    else:
        workload = BASE._replace(**{varied: value})
    training = Training(workload, threads=workers)
    warm_up(training.step)
    # The peak is measured before and after each point: clock rates change, and other programs can only make the machine
    # appear slower than it is.
    peak = multiply_add_rate(workers)
    us = 1e6 * median_seconds(training.step, seconds) / workload.chars
    peak = max(peak, multiply_add_rate(workers))
    limit = 1e-3 * workload.train_flops / peak
    return {
        "varied": varied, "value": value, "workload": workload._asdict(), "threads": workers, "us": us,
        "limit_us": limit, "gflops": 1e-3 * workload.train_flops / us, "peak_gflops": peak, "share_of_peak": limit / us,
    }  # fmt: skip


def measure_all(sizes: Sequence[str], threads: int, seconds: float) -> Iterator[Point]:
    """All points of the sizes to be varied."""
    for varied in sizes:
        for value in values_of(varied, threads):
            yield measure(varied, value, threads, seconds)


def table(points: Sequence[Point]) -> Table:
    """Points as a table for the terminal."""
    base = ", ".join(f"{name} {value}" for name, value in BASE._asdict().items())
    made = Table(
        "size", "value", "us per character", "flops / peak", "GFLOP/s", "of the peak", title=f"one varied, else {base}"
    )
    for column in made.columns[1:]:
        column.justify = "right"
    for before, point in zip([None, *points], points, strict=False):
        if before and before["varied"] != point["varied"]:
            made.add_section()
        made.add_row(
            point["varied"], str(point["value"]), f"{point['us']:.3f}", f"{point['limit_us']:.3f}",
            f"{point['gflops']:.1f}", f"{point['share_of_peak']:.0%}",
        )  # fmt: skip
    return made


def main(argv: Sequence[str] | None = None) -> None:
    names = [*SIZES, THREADS]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description="Time a character against the sizes of model and batch."
    )
    parser.add_argument("sizes", nargs="*", metavar="SIZE", help=f"{', '.join(names)} (default: all)")
    parser.add_argument("--threads", type=positive, default=default_threads(), metavar="N", help="workers (all cores)")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="time for each point (0.5)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the points to FILE")
    parser.add_argument("--png", type=output_file, metavar="FILE", help="draw the curves to FILE")
    options = parser.parse_args(argv)
    # Not `choices`: without arguments, argparse would require the default list to be one of them.
    if unknown := [name for name in options.sizes if name not in names]:
        parser.error(f"no size {unknown[0]!r}: there are {', '.join(names)}")
    points = list(measure_all(options.sizes or names, options.threads, options.seconds))
    Console().print(table(points))
    if options.json:
        options.json.write_text(json.dumps(points, indent=1) + "\n")
    if options.png:
        draw_scaling(points, options.png)


if __name__ == "__main__":
    main()
