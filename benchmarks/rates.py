"""The learning rate of each cell: that of the lowest validation loss is the one of `fastlstm.comparison_plan`.

usage: python -m benchmarks.rates [--text NAME] [--steps N] [--seeds N] --out RESULTS.json [--readme FILE]

Networks of the sizes of a comparison are trained with its recipe and several rates, as a sweep (`benchmarks.sweep`): an
interrupted one goes on where it stopped, and the file has a result for each run.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.sweep import Result, compare_settings, conditions, mean_and_spread
from benchmarks.table import rows
from fastlstm.cells import CellName
from fastlstm.comparison_plan import ORDER, RECIPE, ComparisonPlan, shapes
from fastlstm.config import ModelConfig

RATES = (0.003, 0.005, 0.008, 0.015, 0.02, 0.03)

#: About four passes over the text `shakespeare`.
STEPS = 2000

_PLAN = ComparisonPlan()

#: The sizes of the cells, for the 65 symbols of the text `shakespeare`.
SIZES = shapes(_PLAN, ORDER, 65)


def setting(cell: CellName, rate: float) -> str:
    """The name of a setting of the grid."""
    return f"{cell}, {rate:g}"


def options(model: ModelConfig, rate: float) -> list[str]:
    """The options of `train` for a network and a rate; the program chooses the dropout."""
    values = {
        "cell": model.cell, "layers": model.layers, "hidden": model.hidden, "embedding": model.embedding,
        "seq_len": _PLAN.seq_len, "batch": _PLAN.batch, **RECIPE, "precision": "float32", "lr": rate,
    }  # fmt: skip
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", str(value))]


#: A grid of `benchmarks.sweep`.
GRID = {setting(cell, rate): options(model, rate) for cell, model in SIZES.items() for rate in RATES}


def markdown(results: Sequence[Result]) -> str:
    """A row for each rate, with the losses of each cell."""
    first = results[0]
    about = f"Validation loss in nats after {first['steps']:,} steps on {first['text']} ({conditions(results)}):"
    header = ["rate", *(f"{cell.upper()} 1x{model.hidden}" for cell, model in SIZES.items())]
    return f"{about}\n\n{rows([header, *(row(rate, results) for rate in RATES)])}"


def row(rate: float, results: Sequence[Result]) -> list[str]:
    """The mean over the seeds of each cell's loss with a rate."""
    groups = ([one for one in results if one["setting"] == setting(cell, rate)] for cell in ORDER)
    return [f"{rate:g}", *(mean_and_spread(group)[0] if group else "" for group in groups)]


def main(argv: Sequence[str] | None = None) -> None:
    compare_settings(
        "rates", "Compare the learning rates of each cell.", GRID, markdown, argv, steps=STEPS, seeds=1
    )  # fmt: skip


if __name__ == "__main__":
    main()
