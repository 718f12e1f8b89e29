"""Character-level LSTM language models on an ordinary CPU: fast, checked, and with the maths in the open."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # Python is looking for the module to run: if it is ours, a signal is one line from here on
    from fastlstm import signals

    signals.install_for_module()

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlstm.config import ModelConfig, TrainConfig
    from fastlstm.errors import FastlstmError
    from fastlstm.gradcheck import GradientReport
    from fastlstm.model import Evaluation, Model
    from fastlstm.text import Vocab
    from fastlstm.trainer import Observer, TrainResult

__version__ = "0.1.0"

__all__ = [
    "Evaluation",
    "FastlstmError",
    "GradientReport",
    "Model",
    "ModelConfig",
    "Observer",
    "TrainConfig",
    "TrainResult",
    "Vocab",
    "__version__",
]

#: Where each public name lives. They are imported when they are asked for, so that ``--help`` need not wait.
_HOMES = {
    "Evaluation": "model",
    "FastlstmError": "errors",
    "GradientReport": "gradcheck",
    "Model": "model",
    "ModelConfig": "config",
    "Observer": "trainer",
    "TrainConfig": "config",
    "TrainResult": "trainer",
    "Vocab": "text",
}

#: Modules that are there after ``import fastlstm`` alone; not in ``__all__``, for ``import *`` takes no common names.
_MODULES = (
    "batches", "checkpoint", "config", "corpora", "errors", "gradcheck", "model", "params", "text", "trainer",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
