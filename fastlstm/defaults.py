"""Settings chosen from the size of the text and the time for a run, by measurement (`benchmarks.sweep`).

A choice depends on these two numbers alone, never on the text or the machine, so a command chooses the same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastlstm.presets import Preset

#: Minutes, on two cores of the machine of the measurements, for which a run without a length is planned.
_USUAL_MINUTES = 0.35

#: Largest number of symbols of the validation part, which the last validation reads one after another.
_MOST_VALIDATED = 120_000

#: Settings that belong to the optimizer: they are not chosen when the user has chosen another optimizer.
_OF_THE_OPTIMIZER = ("lr", "beta2", "weight_decay")


class _Size(NamedTuple):
    """A model for runs of at least so many minutes, and the symbols a minute that it is trained on.

    ``speed`` was measured on two cores of the machine of the measurements.
    """

    minutes: float
    hidden: int
    layers: int
    speed: float
    model: Mapping[str, Any]
    train: Mapping[str, Any]


_SIZES = (
    _Size(0.0, 128, 1, 19e6, {}, {"lr": 0.01}),
    _Size(0.3, 256, 1, 6.3e6, {}, {"lr": 0.008}),
    _Size(6.0, 512, 1, 2.2e6, {}, {"lr": 0.004}),
)

#: The dropout before the output by the number of passes over the text: it replaces what the text lacks.
_DROPOUT = ((0.0, 0.0), (8.0, 0.2), (16.0, 0.4), (32.0, 0.5))


def chosen(symbols: int, model: Mapping[str, Any], train: Mapping[str, Any]) -> Preset:
    """Choose what is not given.

    Parameters
    ----------
    symbols : of the text, at least 1.
    model, train : given fields of `fastlstm.config.ModelConfig` and `fastlstm.config.TrainConfig`.

    Returns
    -------
    Preset
        The chosen values of fields that are not given.
    """
    minutes = train.get("minutes") or _USUAL_MINUTES
    size = next(one for one in reversed(_SIZES) if one.minutes <= minutes)
    val_frac = round(min(0.1, _MOST_VALIDATED / symbols), 4)
    epochs = size.speed * minutes / ((1 - val_frac) * symbols)
    values: dict[str, Any] = {
        "optimizer": "adamw", "beta2": 0.99, "weight_decay": 0.1, "clip_norm": 1.0, "warmup": 100, **size.train,
        "dropout_output": next(p for least, p in reversed(_DROPOUT) if least <= epochs), "val_frac": val_frac,
    }  # fmt: skip
    if not any(train.get(name) is not None for name in ("steps", "epochs", "minutes")):
        values["epochs"] = math.ceil(epochs)
    if train.get("optimizer", "adamw") != "adamw":
        values = {name: value for name, value in values.items() if name not in _OF_THE_OPTIMIZER}
    if "clip_value" in train:
        del values["clip_norm"]
    shape = {"hidden": size.hidden, "layers": size.layers, **size.model}
    return Preset(_not_in(shape, model), _not_in(values, train))


def _not_in(values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if given.get(name) is None}
