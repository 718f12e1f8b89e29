"""Character-level LSTM language models on an ordinary CPU: fast, checked, and with the maths in the open."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # `python -m` is locating its module: if it is ours, handle signals from here on
    from fastlstm import signals

    signals.install_for_module()

import importlib
from typing import TYPE_CHECKING, Any

from fastlstm.version import __version__

if TYPE_CHECKING:
    from fastlstm.checking.centred import GradientReport, check_gradients
    from fastlstm.config import ModelConfig, TrainConfig
    from fastlstm.errors import FastlstmError
    from fastlstm.evaluation import Assessment
    from fastlstm.inference import Evaluation
    from fastlstm.model import Model
    from fastlstm.observers import Observer, Progress
    from fastlstm.text import Vocab
    from fastlstm.trainer import Trainer, TrainResult

__all__ = [
    "Assessment",
    "Evaluation",
    "FastlstmError",
    "GradientReport",
    "Model",
    "ModelConfig",
    "Observer",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "Vocab",
    "__version__",
    "check_gradients",
]

#: Module of each public name. It is imported when the name is first used, which keeps ``--help`` fast.
_HOMES = {
    "Assessment": "evaluation",
    "Evaluation": "inference",
    "FastlstmError": "errors",
    "GradientReport": "checking.centred",
    "Model": "model",
    "ModelConfig": "config",
    "Observer": "observers",
    "Progress": "observers",
    "TrainConfig": "config",
    "TrainResult": "trainer",
    "Trainer": "trainer",
    "Vocab": "text",
    "check_gradients": "checking.centred",
}

#: Modules that are reachable after ``import fastlstm`` alone. They are not in ``__all__``: ``import *`` should not bind
#: names as common as these.
_MODULES = (
    "batches", "certificate", "charts", "checking", "checkpoint", "comparison", "comparison_plan", "config", "corpora",
    "errors", "event_files", "history", "model", "params", "precision", "progress", "recorder", "run_checkpoint",
    "run_folder", "text",
    "trainer",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
