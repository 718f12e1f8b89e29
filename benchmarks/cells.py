"""Training steps of all cells, in turn: the share of the multiply-add peak that each reaches.

usage: python -m benchmarks.cells [--rounds N] [--seconds S] [--threads N] [--json FILE]

Operations are counted for the products as the model is written (`benchmarks.workloads`), so a cell with three gates
counts three quarters of the operations of one with four.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import output_file, positive
from benchmarks.networks import Training, with_cell
from benchmarks.peak import multiply_add_rate
from benchmarks.timing import median_seconds, warm_up
from benchmarks.workloads import TRAINING
from fastlstm.cells import CELLS, CellName
from fastlstm.threads import default_threads

#: Workloads with at least 256 units.
NAMES = ("b50-h256", "b50-h512", "b50-h512x3", "b64-h1024")


def shares(name: str, rounds: int, seconds: float, threads: int) -> dict[CellName, float]:
    """Median over the rounds of each cell's share of the peak, which is measured again in each round."""
    workloads = {cell: with_cell(TRAINING[name], cell) for cell in CELLS}
    made = {cell: Training(workload, threads=threads) for cell, workload in workloads.items()}
    for training in made.values():
        warm_up(training.step)
    found: dict[CellName, list[float]] = {cell: [] for cell in CELLS}
    for _ in range(rounds):
        peak = 1e9 * multiply_add_rate(threads)
        for cell, training in made.items():
            rate = workloads[cell].step_flops / median_seconds(training.step, seconds)
            found[cell].append(rate / peak)
    return {cell: statistics.median(values) for cell, values in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cells", description="The share of the multiply-add peak that each cell reaches."
    )
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="number of turns of each cell (5)")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="length of a turn (0.5)")
    parser.add_argument("--threads", type=positive, default=default_threads(), metavar="N", help="workers (all cores)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    table = Table("share of the peak", *CELLS, "gru / lstm")
    results = {}
    for name in NAMES:
        results[name] = found = shares(name, options.rounds, options.seconds, options.threads)
        table.add_row(name, *(f"{share:.0%}" for share in found.values()), f"{found['gru'] / found['lstm']:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
