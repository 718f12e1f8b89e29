"""The history of a run, read from its folder: settings, loss curves, and the best loss.

``config.toml`` contains the settings, and a table ``[run]``, the record of how the run was started. ``metrics.jsonl``
contains a JSON object per line, with its ``step`` and ``seconds``, the time spent in training steps until then. Numbers
that are not finite are null, and losses are in nats per symbol.

===========  =======================================================================================
line         further keys
===========  =======================================================================================
training     ``train_nats`` (smoothed loss), ``loss`` (of the step), ``epoch`` (passes over the text),
             ``rate`` (learning rate), ``norm`` (of the gradient), ``chars_per_s``
validation   ``val_nats``, ``val_error`` (null: exact), ``best_nats`` and ``best_step`` (of the checks so far)
recovery     ``recovered``, the reason: training went back to this step
end          ``finished``, ``val_nats`` and ``model_step`` of the model that the run leaves
===========  =======================================================================================

Unknown keys are ignored.
"""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import config_file
from fastlstm.errors import FastlstmError

#: Name of the file of the metrics in a run folder.
METRICS_NAME = "metrics.jsonl"

#: Largest step that is believed: a float64 counts exactly up to here.
_MOST_STEPS = 2**53

_Line = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TrainingCurve:
    """Training losses of a run, in the order of their steps; what is unknown is NaN.

    Attributes
    ----------
    step : (N,) number of steps done, int64.
    seconds : (N,) time spent in steps until then.
    epoch : (N,) passes over the training text until then.
    train_nats : (N,) smoothed training loss, nats per symbol.
    rate : (N,) learning rate.
    norm : (N,) norm of the gradient, before clipping.
    """

    step: NDArray[np.int64]
    seconds: NDArray[np.float64]
    epoch: NDArray[np.float64]
    train_nats: NDArray[np.float64]
    rate: NDArray[np.float64]
    norm: NDArray[np.float64]

    @property
    def epochs_per_step(self) -> float:
        """Passes over the training text in a step; NaN if the curve does not tell."""
        known = self.epoch > 0
        return float(self.epoch[known][-1] / self.step[known][-1]) if known.any() else math.nan


@dataclass(frozen=True, eq=False)
class ValidationCurve:
    """Validation losses of a run, in the order of their steps; what is unknown is NaN.

    Attributes
    ----------
    step : (N,) number of steps done, int64.
    seconds : (N,) time spent in steps until then.
    val_nats : (N,) validation loss, nats per symbol.
    val_error : (N,) its standard error, nats per symbol; 0: the loss is exact.
    """

    step: NDArray[np.int64]
    seconds: NDArray[np.float64]
    val_nats: NDArray[np.float64]
    val_error: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class History:
    """The history of a run.

    Attributes
    ----------
    path : the run folder.
    settings : of ``config.toml``, by name; those that are not set are missing.
    record : its table ``[run]``.
    training, validation : the loss curves, without what was superseded: see `read`.
    step : number of steps done, as far as it was recorded.
    seconds : time spent in these steps.
    total : number of steps of the whole run; ``None``: unknown.
    best_nats, best_step : validation loss, nats per symbol, and step of the best model: of the one that a finished run
        left, else of the best check; ``None`` without a validation.
    finished : whether the run ended by itself. If not, it was stopped, or goes on.
    """

    path: Path
    settings: dict[str, Any]
    record: dict[str, Any]
    training: TrainingCurve
    validation: ValidationCurve
    step: int
    seconds: float
    total: int | None
    best_nats: float | None
    best_step: int | None
    finished: bool

    @property
    def name(self) -> str:
        """The path of the run folder as it was given; of the current folder its name."""
        return str(self.path) if self.path.name else self.path.resolve().name

    def seconds_at(self, step: int) -> float:
        """Time spent in the first ``step`` steps, interpolated."""
        steps = np.concatenate([[0], self.training.step, self.validation.step])
        seconds = np.concatenate([[0.0], self.training.seconds, self.validation.seconds])
        order = np.argsort(steps, kind="stable")
        return float(np.interp(step, steps[order], seconds[order]))


def read(folder: str | os.PathLike[str]) -> History:
    """Read the history of a run.

    A run that goes back, to recover from a divergence or because it is resumed, records some steps again; what it had
    recorded of them before is superseded. Damaged lines are skipped, such as the last one of a killed run.

    Parameters
    ----------
    folder : the run folder. Without ``metrics.jsonl`` the run has not begun, and its curves are empty.

    Raises
    ------
    FastlstmError
        When ``config.toml`` is missing or not valid TOML, or a file cannot be read.
    """
    path = Path(folder)
    settings = _settings(path)
    record = settings.pop("run", {})
    lines = _standing(_lines(path / METRICS_NAME))
    last: _Line = lines[-1] if lines else {"step": 0, "seconds": 0.0}
    training = _training(lines)
    best_nats, best_step = _best(lines)
    return History(
        path=path,
        settings=settings,
        record=record if isinstance(record, dict) else {},
        training=training,
        validation=_validation(lines),
        step=last["step"],
        seconds=_number(last, "seconds"),
        total=_total(settings, training),
        best_nats=best_nats,
        best_step=best_step,
        finished=_kind(last) == "finished" and last["finished"] is True,
    )


def find(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the run folder itself, if it is one, else all run folders below it, sorted by path."""
    for parent, folders, files in os.walk(folder):
        if config_file.FILE_NAME in files:
            yield Path(parent)
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def differing(runs: Sequence[History]) -> list[str]:
    """Names of the settings in which the runs differ, in the order of their files."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if any(_differ(runs[0], run, name) for run in runs[1:])]


def shown(value: object) -> str:
    """The value of a setting as text: ``0.002``, ``false``, the texts of a list with spaces between."""
    if isinstance(value, list):
        return " ".join(map(shown, value))
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _differ(run: History, other: History, name: str) -> bool:
    return run.settings.get(name) != other.settings.get(name)


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / config_file.FILE_NAME
    if not path.exists():
        what = f"it has no {config_file.FILE_NAME}" if folder.is_dir() else "there is no such folder"
        raise FastlstmError(f"no run in {str(folder)!r} ({what}): check the path")
    values = config_file.load(path)
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """A value of a TOML file as one that JSON has, too."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime.date | datetime.time) else value


def _lines(path: Path) -> Iterator[_Line]:
    """The lines of ``metrics.jsonl`` that are valid."""
    try:
        with open(path, "rb") as file:
            for text in file:
                if (line := _parsed(text)) is not None:
                    yield line
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from None


def _parsed(text: bytes) -> _Line | None:
    """A line with a valid step, else ``None``."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    valid = isinstance(line, dict) and _kind(line) and _is_step(line.get("step"))
    return line if valid else None


def _is_step(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_STEPS


def _kind(line: _Line) -> str:
    """The key by which a kind of line is recognised; empty: none."""
    return next((key for key in ("finished", "recovered", "val_nats", "train_nats") if key in line), "")


def _standing(lines: Iterable[_Line]) -> list[_Line]:
    """The lines that are not superseded by later ones; their steps never fall."""
    standing: list[_Line] = []
    for line in lines:
        _supersede(standing, line)
        standing.append(line)
    return standing


def _supersede(standing: list[_Line], line: _Line) -> None:
    """Remove lines of later steps than that of ``line``, and its predecessor at the same step."""
    for n in reversed(range(len(standing))):
        if standing[n]["step"] < line["step"]:
            return
        if standing[n]["step"] > line["step"] or _kind(standing[n]) == _kind(line):
            del standing[n]


def _number(line: _Line, key: str) -> float:
    """A number of a line; NaN if it is missing, null or not finite."""
    value = line.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _training(lines: Sequence[_Line]) -> TrainingCurve:
    lines = [line for line in lines if _kind(line) == "train_nats"]
    columns = ("seconds", "epoch", "train_nats", "rate", "norm")
    return TrainingCurve(_steps(lines), *(_column(lines, key) for key in columns))


def _validation(lines: Sequence[_Line]) -> ValidationCurve:
    lines = [line for line in lines if _kind(line) == "val_nats"]
    errors = np.nan_to_num(_column(lines, "val_error"))
    return ValidationCurve(_steps(lines), _column(lines, "seconds"), _column(lines, "val_nats"), errors)


def _steps(lines: Sequence[_Line]) -> NDArray[np.int64]:
    return np.array([line["step"] for line in lines], np.int64)


def _column(lines: Sequence[_Line], key: str) -> NDArray[np.float64]:
    return np.array([_number(line, key) for line in lines], np.float64)


def _best(lines: Sequence[_Line]) -> tuple[float | None, int | None]:
    """Loss and step of the best model."""
    if lines and lines[-1].get("finished") is True:
        found = _loss_and_step(lines[-1], "val_nats", "model_step")
        if found is not None:
            return found
    checks = (_loss_and_step(line, "best_nats", "best_step") for line in reversed(lines) if _kind(line) == "val_nats")
    return next((found for found in checks if found is not None), (None, None))


def _loss_and_step(line: _Line, loss: str, step: str) -> tuple[float, int] | None:
    nats = _number(line, loss)
    return (nats, line[step]) if math.isfinite(nats) and _is_step(line.get(step)) else None


def _total(settings: dict[str, Any], training: TrainingCurve) -> int | None:
    """The steps of the whole run, as `fastlstm.config.TrainConfig.total_steps` computes them."""
    steps, epochs = settings.get("steps"), settings.get("epochs")
    if isinstance(steps, int) and _is_step(steps):
        return steps
    share = training.epochs_per_step
    if isinstance(epochs, int | float) and 0 < epochs <= _MOST_STEPS and 1 / _MOST_STEPS <= share <= 1:
        return math.ceil(epochs * round(1 / share))
    return None


def _unreadable(path: Path, error: OSError) -> FastlstmError:
    return FastlstmError(f"cannot read {str(path)!r} ({error.strerror or error}): check its permissions")
