"""What dropout and the other optimizers add to a training step, in turn with the plain step (Adagrad, no dropout).

usage: python -m benchmarks.dropout [--rounds N] [--seconds S] [--threads N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import output_file, positive
from benchmarks.networks import Training
from benchmarks.timing import median_seconds, warm_up
from benchmarks.workloads import TRAINING
from fastlstm.dropout import Dropout
from fastlstm.threads import default_threads

NAMES = ("b50-h128", "b50-h256", "b50-h512")

#: Each addition to the plain step.
ADDITIONS: dict[str, dict[str, Any]] = {
    "output 0.5": {"dropout": Dropout(output=0.5)},
    "output 0.5, held": {"dropout": Dropout(output=0.5, held=True)},
    "layers 0.5": {"dropout": Dropout(layers=0.5)},
    "embedding 0.1": {"dropout": Dropout(embedding=0.1)},
    "adamw": {"optimizer": "adamw"},
}


def ratios(name: str, rounds: int, seconds: float, threads: int) -> dict[str, float]:
    """Median over the rounds of the time of a step with each addition, relative to that of the plain step."""
    workload = TRAINING[name]
    plain = Training(workload, threads=threads)
    made = {addition: Training(workload, threads=threads, **extra) for addition, extra in ADDITIONS.items()}
    for training in (plain, *made.values()):
        warm_up(training.step)
    found: dict[str, list[float]] = {addition: [] for addition in ADDITIONS}
    for _ in range(rounds):
        for addition, training in made.items():
            found[addition].append(median_seconds(training.step, seconds) / median_seconds(plain.step, seconds))
    return {addition: statistics.median(values) for addition, values in found.items()}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dropout", description="What dropout and the optimizers add to a training step."
    )
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="number of turns of each (7)")
    parser.add_argument("--seconds", type=float, default=0.4, metavar="S", help="length of a turn (0.4)")
    parser.add_argument("--threads", type=positive, default=default_threads(), metavar="N", help="workers (all cores)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    table = Table("added to a step", *ADDITIONS)
    results = {}
    for name in NAMES:
        results[name] = found = ratios(name, options.rounds, options.seconds, options.threads)
        table.add_row(name, *(f"{ratio - 1:+.1%}" for ratio in found.values()))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
