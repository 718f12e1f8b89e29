"""Presets: named combinations of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastlstm.cells import CellName
from fastlstm.errors import ConfigError


@dataclass(frozen=True)
class Preset:
    """Values of a preset for fields of `fastlstm.ModelConfig` and of `fastlstm.TrainConfig`, and for ``escape``."""

    model: Mapping[str, Any]
    train: Mapping[str, Any]
    escape: bool = False


_ASSIGNMENT_LOOP: dict[str, Any] = {
    "batch": 1, "optimizer": "adagrad", "schedule": "constant", "reduction": "sum", "clip_value": 5.0,
    "clip_norm": None, "val_frac": 0.0, "smoothing": 0.999, "smooth_from_guessing": True,
}  # fmt: skip

#: The presets by name, then by cell.
PRESETS: dict[str, dict[CellName, Preset]] = {
    # The assignment, with exactly the values of each cell's template.
    "assignment": {
        "lstm": Preset(
            {"embedding": 4, "hidden": 32, "layers": 1, "weight_std": 0.1, "output_std": 0.01, "forget_bias": 0.0},
            {**_ASSIGNMENT_LOOP, "seq_len": 64, "lr": 0.05},
        ),
        "rnn": Preset(
            {"embedding": 32, "hidden": 100, "layers": 1, "weight_std": 0.01, "output_std": 0.01, "forget_bias": 0.0},
            {**_ASSIGNMENT_LOOP, "seq_len": 32, "lr": 0.1},
        ),
    },
}

#: Why networks of a preset are not compared fairly.
UNFAIR = (
    "the templates of the preset differ in size, sequence length and learning rate, so their losses say little about"
    " the cells; fastlstm compare without a preset gives all cells equally many parameters"
)


def preset(name: str, cell: CellName) -> Preset:
    """The preset ``name`` for a cell.

    Raises
    ------
    ConfigError
        When no preset has this name, or it has no template for the cell.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, not {name!r}")
    if cell not in PRESETS[name]:
        cells = " or ".join(PRESETS[name])
        raise ConfigError(f"the preset {name!r} has no template for the cell {cell!r}: choose {cells}, or no preset")
    return PRESETS[name][cell]
