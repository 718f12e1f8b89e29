"""Training in float32 and in bf16: do the validation losses differ by more than those of different seeds?

usage: python -m benchmarks.precision [--text NAME] [--steps N] [--seeds N] --out RESULTS.json [--readme FILE]

Models of one layer with 256 and with 512 units are trained with the same settings, steps and seeds in both precisions,
as a sweep (`benchmarks.sweep`): an interrupted one goes on where it stopped, and the file has a result for each run.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from benchmarks.sweep import Result, compare_settings, conditions, mean_and_spread
from benchmarks.table import rows

HIDDEN = (256, 512)
PRECISIONS = ("float32", "bf16")

#: Symbols that a run of the default length is trained on, about three times the text `shakespeare`.
STEPS = 5000


def setting(hidden: int, precision: str) -> str:
    """The name of a setting of the grid."""
    return f"1x{hidden}, {precision}"


#: A grid of `benchmarks.sweep`. The program chooses the other settings from the text and the steps.
GRID = {
    setting(hidden, precision): ["--hidden", str(hidden), "--layers", "1", "--precision", precision]
    for hidden in HIDDEN
    for precision in PRECISIONS
}

HEADER = [
    "model", "float32 val_nats", "lowest to highest", "bf16 val_nats", "lowest to highest", "difference",
    "spread of float32", "within", "time float32 / bf16", "seeds",
]  # fmt: skip


def markdown(results: Sequence[Result]) -> str:
    """A row for each model: means and spreads of both precisions, and the difference of the means."""
    first = results[0]
    about = f"Validation loss in nats after {first['steps']:,} steps on {first['text']} ({conditions(results)}):"
    return f"{about}\n\n{rows([HEADER, *(row(hidden, results) for hidden in HIDDEN)])}"


def row(hidden: int, results: Sequence[Result]) -> list[str]:
    """The row of a model; its difference is that of the means, and *within* whether it is at most the spread."""
    float32, bf16 = (
        [result for result in results if result["setting"] == setting(hidden, precision)] for precision in PRECISIONS
    )
    compared = ["", "", "no"]
    if float32 and bf16 and all(result["val_nats"] is not None for result in (*float32, *bf16)):
        difference = _mean(bf16) - _mean(float32)
        spread = spread_of(float32)
        compared = [f"{difference:+.4f}", f"{spread:.4f}", "yes" if abs(difference) <= spread else "no"]
    return [
        f"1x{hidden}", *_figures(float32), *_figures(bf16), *compared, _times_as_fast(float32, bf16),
        " + ".join(str(len(group)) for group in (float32, bf16)),
    ]  # fmt: skip


def spread_of(group: Sequence[Result]) -> float:
    """The highest validation loss less the lowest."""
    losses = [result["val_nats"] for result in group]
    return float(max(losses) - min(losses))


def _mean(group: Sequence[Result]) -> float:
    return statistics.mean(result["val_nats"] for result in group)


def _figures(group: Sequence[Result]) -> tuple[str, str]:
    return mean_and_spread(group) if group else ("", "")


def _times_as_fast(float32: Sequence[Result], bf16: Sequence[Result]) -> str:
    if not float32 or not bf16:
        return ""
    seconds = [statistics.median(result["trained"]["seconds"] for result in group) for group in (float32, bf16)]
    return f"{seconds[0] / seconds[1]:.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    compare_settings("precision", "Compare validation losses of float32 and bf16.", GRID, markdown, argv, steps=STEPS)


if __name__ == "__main__":
    main()
