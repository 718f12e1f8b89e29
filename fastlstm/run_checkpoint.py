"""The checkpoint of a run: everything that is needed to go on with it, in one file.

In the file (`fastlstm.tensor_file`) the arrays of the state are tensors. Those of the copy to go back to have the
prefix ``good.``, and are left out if they are equal to those of the state; ``best`` are the parameters of the best
check, left out before the first. The metadata are:

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          ``"fastlstm-run"``
version         version of this layout, ``"1"``
sha256          checksum of the whole file
config          `ModelConfig.to_dict`
vocab           `Vocab.to_json`
train           `TrainConfig.to_dict`
text            `fastlstm.text.fingerprint` and number of symbols of the text
state, good     `RunState.scalars`
positions       lengths of the run's other files at this step, in bytes, by name
==============  =====================================================================
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing
from collections.abc import Mapping
from typing import Any

from fastlstm import checkpoint, tensor_file
from fastlstm.checkpoint import Content, parse_model
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.errors import ModelFileError
from fastlstm.params import Parameters
from fastlstm.run_state import RunState
from fastlstm.tensor_file import Kind, Stored
from fastlstm.text import Vocab
from fastlstm.version import __version__

#: Name of the file in a run folder.
FILE_NAME = "last.safetensors"

_KIND = Kind(
    format="fastlstm-run",
    version="1",
    noun="checkpoint of a run",
    file_name=FILE_NAME,
    advice="check the path",
)
_GOOD = "good."


class TextIdentity(typing.NamedTuple):
    """Identifies a text: its fingerprint (`fastlstm.text.fingerprint`), and its number of symbols."""

    sha256: str
    symbols: int


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Everything that is needed to go on with a run, but its text.

    Attributes
    ----------
    state : of the run, between two steps.
    good : the copy to go back to after a divergence; it may be ``state`` itself.
    best : parameters of the best check; ``None`` before the first.
    vocab : of the model.
    config : settings of the run; those of a run of so many minutes contain the number of steps instead.
    text : identity of the text.
    positions : lengths of the run's other files at this step, in bytes, by name.
    """

    state: RunState
    good: RunState
    best: Parameters | None
    vocab: Vocab
    config: TrainConfig
    text: TextIdentity
    positions: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def content(self) -> Content:
        """The content of a model file: the best model so far, else that of the state. No array is copied."""
        state = self.state
        if self.best is None:
            return self.last
        record = training_record(state, self.config, self.text, model_step=state.best_step, val_nats=state.best_nats)
        return Content(self.best.config, self.vocab, self.best, record)

    @property
    def last(self) -> Content:
        """The content of a model file with the model of the state. No array is copied."""
        state = self.state
        record = training_record(state, self.config, self.text, model_step=state.step, val_nats=state.val_nats)
        return Content(state.parameters.config, self.vocab, state.parameters, record)


def training_record(
    state: RunState,
    config: TrainConfig,
    text: TextIdentity,
    *,
    model_step: int | None,
    val_nats: float | None,
    finished: bool = False,
) -> dict[str, Any]:
    """The record of a run in a model file.

    Parameters
    ----------
    state : of the run.
    config : its settings.
    text : the identity of its text.
    model_step : step of the model in the file, which may be an earlier one.
    val_nats : its validation loss, nats per symbol; ``None`` without a validation.
    finished : whether the run has ended by itself.
    """
    return {
        "steps": state.step,
        "finished": finished,
        "model_step": model_step,
        "seed": config.seed,
        "train_nats": state.smoothed_loss,
        "val_nats": val_nats,
        "config": config.to_dict(),
        "text": text._asdict(),
        "fastlstm": __version__,
    }


def write(path: str | os.PathLike[str], content: Checkpoint, *, overwrite: bool = True) -> None:
    """Write a checkpoint to a file, atomically; its arrays must not change meanwhile.

    Parameters
    ----------
    path : the file; its folder must exist.
    overwrite : whether to replace a file at ``path``; its mode is kept.

    Raises
    ------
    ModelExistsError
        When ``path`` exists, and ``overwrite`` is false.
    ModelFileError
        When the file cannot be written.
    """
    state, good, best = content.state, content.good, content.best
    arrays = dict(state.arrays())
    if not good.has_arrays_of(state):
        arrays |= {_GOOD + name: array for name, array in good.arrays().items()}
    if best is not None:
        arrays["best"] = best.flat
    metadata = {
        "config": state.parameters.config.to_dict(),
        "train": content.config.to_dict(),
        "text": content.text._asdict(),
        "state": state.scalars(),
        "good": good.scalars(),
        "positions": dict(content.positions),
    }
    encoded = {name: json.dumps(values) for name, values in metadata.items()} | {"vocab": content.vocab.to_json()}
    tensor_file.write(path, _KIND, tensor_file.encode(_KIND, encoded, arrays), overwrite=overwrite)


def load_model(path: str | os.PathLike[str]) -> Content:
    """Read a model from a model file, from a run folder, or, that of the last step, from the checkpoint of a run.

    Raises
    ------
    ModelFileError
        When the file does not exist, or is not an undamaged file of either kind.
    """
    try:
        return checkpoint.load(path)
    except ModelFileError:
        if not is_checkpoint(path):
            raise
    return read(path).last


def is_checkpoint(path: str | os.PathLike[str]) -> bool:
    """Whether a file states that it is the checkpoint of a run; it may be damaged all the same."""
    return tensor_file.format_of(path) == _KIND.format


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint that was written by `write`; its states are equal to the original ones, bit for bit.

    Parameters
    ----------
    path : the file, or a run folder, which contains it as ``last.safetensors``.

    Raises
    ------
    ModelFileError
        When the file does not exist, or is not an undamaged checkpoint of a run.
    """
    return tensor_file.read(path, _KIND, _decode)


def _decode(stored: Stored) -> Checkpoint:
    model, vocab = parse_model(stored.metadata)
    # Before there was a precision, that of a run was the dtype of its parameters.
    train = TrainConfig.from_dict({"precision": model.dtype} | tensor_file.parse_object(stored.metadata, "train"))
    text = TextIdentity(**_checked(stored, "text", typing.get_type_hints(TextIdentity)))
    positions = tensor_file.parse_object(stored.metadata, "positions")
    if not all(isinstance(position, int) and position >= 0 for position in positions.values()):
        raise ValueError("'positions' in its metadata are not lengths of files")
    scalars = {name: _checked(stored, name, _SCALARS) for name in ("state", "good")}
    tensors = stored.take_tensors()
    slots = train.rule(0.0).slots
    _check_tensors(tensors, model, slots, train.batch)
    state = _state(RunState.start(Parameters(model), train.batch, slots), scalars["state"], tensors)
    good = dataclasses.replace(state, **scalars["good"])
    if _GOOD + "parameters" in tensors:
        good = _state(RunState.start(Parameters(model), train.batch, slots), scalars["good"], tensors, _GOOD)
    best = None
    if "best" in tensors:
        best = Parameters(model)
        tensor_file.copy_tensor(tensors.pop("best"), into=best.flat)
    return Checkpoint(state, good, best, vocab, train, text, positions)


def _check_tensors(tensors: Mapping[str, Any], model: ModelConfig, slots: int, batch: int) -> None:
    count = model.parameter_count
    of_state = {"parameters": (count,), "slots": (slots, count), "carried": model.state_shape(batch)}
    shapes: dict[str, tuple[int, ...]] = dict(of_state)
    if _GOOD + "parameters" in tensors:
        shapes |= {_GOOD + name: shape for name, shape in of_state.items()}
    if "best" in tensors:
        shapes["best"] = (count,)
    tensor_file.check_tensors(tensors, model.dtype, shapes)


def _state(new: RunState, scalars: Mapping[str, Any], tensors: dict[str, Any], prefix: str = "") -> RunState:
    """Fill a new state; its tensors are removed from ``tensors``, so that their bytes are freed."""
    for name, array in new.arrays().items():
        tensor_file.copy_tensor(tensors.pop(prefix + name), into=array)
    return dataclasses.replace(new, **scalars)


def _checked(stored: Stored, key: str, types: Mapping[str, Any]) -> dict[str, Any]:
    """An object of the metadata, whose fields must have these types, and whole numbers be at least 0."""
    values = tensor_file.parse_object(stored.metadata, key)
    if set(values) != set(types):
        raise ValueError(f"its {key} has the fields {sorted(values)} instead of {sorted(types)}")
    for name, value in values.items():
        if not isinstance(value, types[name]) or (isinstance(value, int) and value < 0):
            raise ValueError(f"{name!r} in its {key} is {value!r}")
    return values


_HINTS = typing.get_type_hints(RunState)
_SCALARS = {name: _HINTS[name] for name in RunState.scalar_names()}
