"""Settings chosen from the size of the text and the time for a run, by measurement (`benchmarks.sweep`).

A choice depends on these two numbers and on what is given, never on the text or the machine, so a command chooses the
same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from fastlstm.presets import Preset

#: Minutes, on the machine of the measurements, for which a run without a length is planned.
_USUAL_MINUTES = 0.33

#: Largest number of symbols of the validation part, which the last validation reads one after another.
_MOST_VALIDATED = 120_000

#: Most passes over the text in a run without a length: more are of no use.
_MOST_EPOCHS = 60.0

#: Settings that belong to the optimizer: they are not chosen when another optimizer is given.
_OF_THE_OPTIMIZER = ("lr", "beta2", "weight_decay")


class _Size(NamedTuple):
    """The hidden units and lanes for runs of at least so many minutes.

    ``speed`` is the number of symbols that such a model is trained on in a minute, on two cores of the machine of the
    measurements.
    """

    minutes: float
    hidden: int
    batch: int
    speed: float


_SIZES = (
    _Size(0.0, 128, 10, 20e6),
    _Size(0.2, 320, 10, 4.0e6),
    _Size(1.5, 384, 20, 2.9e6),
    _Size(2.5, 512, 20, 1.75e6),
    _Size(6.0, 640, 20, 1.15e6),
    _Size(20.0, 896, 20, 0.58e6),
)

#: The dropout before the output for runs of at least so many passes over the text: it makes up for a lack of text.
_DROPOUT = ((0.0, 0.0), (5.0, 0.1), (7.0, 0.2), (10.0, 0.3), (15.0, 0.4), (24.0, 0.5), (40.0, 0.6))

#: For 20 lanes, the highest rate, and the product of rate and hidden units that larger models have. The rate is
#: proportional to the root of the number of lanes.
_HIGHEST_RATE, _RATE_TIMES_HIDDEN, _LANES = 0.015, 5.0, 20


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
    size = next(one for one in reversed(_SIZES) if one.minutes <= (train.get("minutes") or _USUAL_MINUTES))
    hidden = model.get("hidden") or size.hidden
    values: dict[str, Any] = {
        "batch": size.batch, "seq_len": 64, "optimizer": "adamw", "beta2": 0.99, "weight_decay": 0.1,
        "lr": _rate(hidden, train.get("batch") or size.batch), "clip_norm": 1.0, "warmup": 100,
        "schedule": "cosine", "val_frac": round(min(0.1, _MOST_VALIDATED / symbols), 4),
    }  # fmt: skip
    if all(train.get(name) is None for name in ("steps", "epochs", "minutes")):
        values["epochs"] = _rounded(min(_epochs(symbols, size, {**values, **train}), _MOST_EPOCHS), 3)
    values = {**values, **train}
    epochs = _epochs(symbols, size, values)
    values["dropout_output"] = dropout_output(epochs)
    if values["optimizer"] != "adamw":
        values = {name: value for name, value in values.items() if name not in _OF_THE_OPTIMIZER}
    if train.get("clip_value") is not None:
        del values["clip_norm"]
    shape = {"hidden": hidden, "layers": 1, "embedding": 64}
    return Preset(_not_in(model, shape), _not_in(train, values))


def dropout_output(epochs: float) -> float:
    """The dropout before the output layer for a run of so many passes over the text."""
    return next(dropped for least, dropped in reversed(_DROPOUT) if least <= epochs)


def _rate(hidden: int, batch: int) -> float:
    """The learning rate of AdamW for so many hidden units and lanes."""
    return _rounded(math.sqrt(min(batch, _LANES) / _LANES) * min(_HIGHEST_RATE, _RATE_TIMES_HIDDEN / hidden), 2)


def _epochs(symbols: int, size: _Size, train: Mapping[str, Any]) -> float:
    """About how often a run reads its training text."""
    if train.get("epochs") is not None:
        return float(train["epochs"])
    trained: float = max(1.0, (1.0 - train["val_frac"]) * symbols)
    if train.get("steps") is not None:
        return float(train["steps"] * train["seq_len"] * train["batch"] / trained)
    return size.speed * float(train.get("minutes") or _USUAL_MINUTES) / trained


def _rounded(number: float, digits: int) -> float:
    return float(f"{number:.{digits}g}")


def _not_in(given: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in given}


def choosable() -> frozenset[str]:
    """Names of the fields that may be chosen."""
    choice = chosen(1, {}, {})
    return frozenset({*choice.model, *choice.train})
