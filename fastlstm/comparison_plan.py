"""The settings of a comparison of cells, and the trainings that follow from them.

This module imports no heavy library: the command line reads the settings here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fastlstm.cells import CellName
from fastlstm.config import (
    LARGEST_SEED,
    MOST_LAYERS,
    MOST_MINUTES,
    MOST_PARAMETERS,
    MOST_STEPS,
    MOST_SYMBOLS,
    MOST_THREADS,
    ModelConfig,
    TrainConfig,
)
from fastlstm.defaults import dropout_output
from fastlstm.errors import ConfigError
from fastlstm.presets import PRESETS, preset
from fastlstm.settings import Settings, documented, setting

Equal = Literal["steps", "seconds"]
PresetName = Literal["assignment"]
Role = Literal["compared", "forget bias", "assignment"]

#: Minutes of a comparison without a length.
USUAL_MINUTES = 3.0

#: A learning rate that suits each cell, by `benchmarks.rates`.
RATES: dict[CellName, float] = {"rnn": 5e-3, "gru": 8e-3, "lstm": 2e-2}

#: The cells of a comparison, in its order.
ORDER: tuple[CellName, ...] = tuple(RATES)

#: Rates for the recall task. The RNN was tried with 0.001 to 0.02: none lets it recall a symbol over more than a few
#: distractors, and this one is among the best for few.
RECALL_RATES: dict[CellName, float] = {"rnn": 6e-3, "gru": 2e-2, "lstm": 2e-2}

#: Everything else is what `fastlstm.defaults` chooses for an LSTM, and the same for all cells.
RECIPE: dict[str, Any] = {
    "optimizer": "adamw", "beta2": 0.99, "weight_decay": 0.1, "clip_norm": 1.0, "warmup": 100, "schedule": "cosine",
}  # fmt: skip

#: The initial forget biases of the LSTM that are compared besides the usual one.
OTHER_FORGET_BIASES = (0.0, 3.0)

#: Points of a curve of validation losses, and samples of a training.
POINTS, SAMPLES, SAMPLE_LENGTH = 24, 6, 400

#: Largest number of symbols of the validation part, which the last validation reads one after another.
_MOST_VALIDATED = 120_000

#: Fraction of the text for validation.
_VAL_FRAC = 0.1


@documented
@dataclass(frozen=True)
class ComparisonPlan(Settings):
    """Settings of a comparison: networks of several cells, trained alike on one text."""

    equal: Equal = setting("steps", "what every training gets equally much of", "comparison")
    seeds: int = setting(3, "trainings of each cell, with different seeds", "comparison", at_least=1, at_most=1000)
    minutes: float | None = setting(
        None, "wall time of the whole command, without compiling; measured speeds fix the steps", "comparison",
        above=0.0, at_most=MOST_MINUTES, none=f"{USUAL_MINUTES:g}, unless steps are given", exclusive="length",
    )  # fmt: skip
    steps: int | None = setting(
        None, "steps of each training; with equal seconds, those of the slowest cell", "comparison", at_least=1,
        at_most=MOST_STEPS, none="as many as fit into the minutes", exclusive="length",
    )  # fmt: skip
    preset: PresetName | None = setting(
        None, "the assignment's own settings, which differ in size, rather than equal parameters", "comparison",
        none="equal parameters",
    )  # fmt: skip
    hidden: int = setting(
        256, "hidden units per layer of the LSTM; other cells get equally many parameters", "model", at_least=1,
        at_most=MOST_PARAMETERS,
    )  # fmt: skip
    layers: int = setting(1, "number of layers", "model", at_least=1, at_most=MOST_LAYERS)
    embedding: int = setting(64, "length of an embedding vector", "model", at_least=1, at_most=MOST_PARAMETERS)
    seq_len: int = setting(64, "characters per sequence", "training", unit="T", at_least=1, at_most=MOST_SYMBOLS)
    batch: int = setting(32, "sequences trained in parallel", "training", unit="B", at_least=1, at_most=MOST_SYMBOLS)
    recall_steps: int | None = setting(
        None, "training steps of each network of the recall task; 0: no such task", "exhibits", at_least=0,
        at_most=MOST_STEPS, none="as the length of the comparison allows",
    )  # fmt: skip
    recovery_steps: int = setting(
        20_000, "training steps of the assignment's networks, whose recovery is measured; 0: not measured", "exhibits",
        at_least=0, at_most=MOST_STEPS,
    )  # fmt: skip
    seed: int = setting(0, "seed of the first training of each cell", "computing", at_least=0, at_most=LARGEST_SEED)
    threads: int | None = setting(
        None, "worker threads", "computing", at_least=1, at_most=MOST_THREADS, none="all cores"
    )

    @property
    def usual_minutes(self) -> float | None:
        """Minutes of the whole comparison; ``None``: it has so many steps."""
        return USUAL_MINUTES if self.minutes is None and self.steps is None else self.minutes


@dataclass(frozen=True)
class Training:
    """One training of a comparison.

    Attributes
    ----------
    name : of its files.
    model, train : its settings; the seed of the initialisation is that of ``train``.
    role : one of the compared cells, or a network of a single exhibit.
    """

    name: str
    model: ModelConfig
    train: TrainConfig
    role: Role = "compared"

    @property
    def cell(self) -> CellName:
        """The cell of the model."""
        return self.model.cell

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return {"name": self.name, "model": self.model.to_dict(), "train": self.train.to_dict()}


def checked_cells(cells: Sequence[str], plan: ComparisonPlan) -> tuple[CellName, ...]:
    """The cells to compare, in the usual order; empty: all that there are, with a preset all of its templates.

    Raises
    ------
    ConfigError
        When a cell is unknown, or the preset has no template for it.
    """
    if unknown := [name for name in cells if name not in ORDER]:
        raise ConfigError(f"no cell is named {unknown[0]!r}: choose among {', '.join(ORDER)}")
    chosen = tuple(cell for cell in ORDER if cell in cells)
    if plan.preset is None:
        return chosen or ORDER
    for cell in chosen:
        preset(plan.preset, cell)  # raises an error if there is none
    return chosen or tuple(cell for cell in ORDER if cell in PRESETS[plan.preset])


def shapes(plan: ComparisonPlan, cells: Sequence[CellName], vocab_size: int) -> dict[CellName, ModelConfig]:
    """The model of each cell: with as many parameters as the LSTM of the plan, or that of the preset."""
    if plan.preset is not None:
        return {cell: ModelConfig(vocab_size, cell=cell, **preset(plan.preset, cell).model) for cell in cells}
    lstm = ModelConfig(vocab_size, hidden=plan.hidden, layers=plan.layers, embedding=plan.embedding)
    return {cell: lstm.with_parameters(lstm.parameter_count, cell) for cell in cells}


def train_config(plan: ComparisonPlan, cell: CellName, steps: int, symbols: int, seed: int = 0) -> TrainConfig:
    """The settings of a training of so many steps, on a text of so many symbols.

    Those of a preset leave no text for validation; here a part is left, so that the losses can be compared.
    """
    common: dict[str, Any] = {
        "steps": steps, "seed": seed, "threads": plan.threads, "precision": "float32", "checks": POINTS,
        "val_frac": round(min(_VAL_FRAC, _MOST_VALIDATED / symbols), 4), "sample_every": math.ceil(steps / SAMPLES),
        "sample_length": SAMPLE_LENGTH,
    }  # fmt: skip
    if plan.preset is not None:
        return TrainConfig(**{**preset(plan.preset, cell).train, **common})
    epochs = steps * plan.seq_len * plan.batch / ((1 - common["val_frac"]) * symbols)
    return TrainConfig(
        seq_len=plan.seq_len, batch=plan.batch, lr=RATES[cell], dropout_output=dropout_output(epochs), **RECIPE,
        **common,
    )  # fmt: skip


def compared(
    plan: ComparisonPlan, models: Mapping[CellName, ModelConfig], steps: Mapping[CellName, int], symbols: int
) -> list[Training]:
    """The trainings of the compared cells: all cells with the first seed, then with the next one.

    Parameters
    ----------
    models, steps : by cell.
    symbols : of the text.
    """
    return [
        Training(f"{cell}-seed-{seed}", model, train_config(plan, cell, steps[cell], symbols, seed))
        for seed in range(plan.seed, plan.seed + plan.seeds)
        for cell, model in models.items()
    ]


def forget_biases(
    plan: ComparisonPlan, models: Mapping[CellName, ModelConfig], steps: Mapping[CellName, int], symbols: int
) -> list[Training]:
    """Trainings of the LSTM with other forget biases; none without the LSTM, and with a preset, which sets its own."""
    if "lstm" not in models or plan.preset is not None:
        return []
    train = train_config(plan, "lstm", steps["lstm"], symbols, plan.seed)
    return [
        Training(
            f"lstm-forget-bias-{bias:g}", dataclasses.replace(models["lstm"], forget_bias=bias), train, "forget bias"
        )
        for bias in OTHER_FORGET_BIASES
    ]


def of_assignment(plan: ComparisonPlan, cells: Sequence[CellName], vocab_size: int) -> list[Training]:
    """The assignment's own networks, whose recovery is measured, and an LSTM with as many parameters as its RNN."""
    if not plan.recovery_steps:
        return []
    more: dict[str, Any] = {
        "steps": plan.recovery_steps, "seed": plan.seed, "threads": plan.threads, "precision": "float32",
        "sample_length": 0, "checks": 1,
    }  # fmt: skip
    found = {
        cell: Training(
            f"{cell}-assignment",
            ModelConfig(vocab_size, cell=cell, **one.model),
            TrainConfig(**{**one.train, **more}),
            role="assignment",
        )
        for cell, one in PRESETS["assignment"].items()
        if cell in cells
    }
    trainings = [found[cell] for cell in ORDER if cell in found]
    if "rnn" in found and "lstm" in found:
        larger = found["lstm"].model.with_parameters(found["rnn"].model.parameter_count, "lstm")
        trainings.append(Training("lstm-assignment-large", larger, found["lstm"].train, role="assignment"))
    return trainings
