"""Saves of the files that a run must not lose: models and checkpoints, in their versions."""

import functools
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import Outcome, require
from subjects import KINDS, fresh_model
from system import Counting

from fastlstm import Model, TrainConfig, run_checkpoint
from fastlstm.errors import ModelFileError
from fastlstm.run_checkpoint import Checkpoint, TextIdentity
from fastlstm.run_state import RunState


class Format(NamedTuple):
    """A kind of file: its name in a run folder, how to make content of a version, and how it is written and read."""

    file_name: str
    make: Callable[[int, int, int], Any]
    write: Callable[..., None]
    read: Callable[[Path], Any]


def _model(kind, hidden, version):
    model = fresh_model(kind, hidden)
    model.parameters.flat[...] += version
    model.training = {"steps": version}
    return model


def _write_model(path, model, *, overwrite):
    model.save(path, overwrite=overwrite)


def _checkpoint(kind, hidden, version):
    rng, model = np.random.default_rng(version), fresh_model(kind, hidden)
    state = RunState.start(model.parameters, batch=2, slots=1)
    for array in state.arrays().values():
        array[...] += rng.random(array.shape)
    state.step, state.loss = version, 1.5
    good, best, text = state.copy(), state.copy().parameters, TextIdentity("0" * 64, 100)
    good.parameters.flat[...] += 1
    return Checkpoint(state, good, best, model.vocab, TrainConfig(batch=2), text, {"metrics.jsonl": version})


FORMATS = {
    "model": Format("model.safetensors", _model, _write_model, Model.load),
    "checkpoint": Format("last.safetensors", _checkpoint, run_checkpoint.write, run_checkpoint.read),
}


class Save:
    """One save: new content to be written to a file, which there may be already.

    Parameters
    ----------
    name : of the format.
    kind : number of the model's kind in `KINDS`.
    hidden : its size.
    overwrites : whether the file is there already, with older content, and is to be overwritten.
    """

    def __init__(self, name, kind=0, hidden=4, *, overwrites=True):
        self.format, self.overwrites = FORMATS[name], overwrites
        self.old = _bytes_of(name, kind, hidden, 1) if overwrites else None
        self.new = _bytes_of(name, kind, hidden, 2)
        self._content = self.format.make(kind, hidden, 2)

    def prepare(self, folder):
        """Make the folder as it is before the save; returns the path of the file."""
        path = folder / self.format.file_name
        path.unlink(missing_ok=True)
        if self.overwrites:
            path.write_bytes(self.old)
        return path

    def write(self, path, *, overwrite=None):
        self.format.write(path, self._content, overwrite=self.overwrites if overwrite is None else overwrite)

    def calls(self, folder):
        """The names of the system calls of the undisturbed save."""
        path = self.prepare(folder)
        with Counting() as counting:
            self.write(path)
        return counting.names

    def refusal(self, path):
        """Save; returns whether it was refused, which must be by one line that names the file."""
        try:
            self.write(path)
        except ModelFileError as error:
            require("\n" not in str(error) and path.name in str(error), Outcome.WRONG, f"unclear: {error}")
            return True
        return False

    def require_whole(self, path, what, *, saved=False):
        """The file must be the old one, or none if there was none, or the new one; if ``saved``, the new one."""
        found = path.read_bytes() if path.exists() else None
        allowed = (self.new,) if saved else (self.old, self.new)
        require(found in allowed, Outcome.LOST, f"neither the old file nor the new one: {what}")

    def require_tidied(self, path):
        """The next save must succeed, and leave nothing but the file."""
        self.write(path, overwrite=True)
        self.require_whole(path, "after another save", saved=True)
        require_only(path)


def require_only(path, what="after a save"):
    """A file must be the only one in its folder."""
    left = sorted(found.name for found in path.parent.iterdir())
    require(left == [path.name], Outcome.WRONG, f"in the folder {what}: {left}")


#: The saves of a part's trials in turn: both formats, over an old file and into an empty folder, for a file that is
#: written at once and for one that takes many writes.
_TURNS = list(itertools.product(FORMATS, (True, False), (4, 40)))
TURNS = len(_TURNS) * len(KINDS)


def save_of(number):
    """The save of the trial of that number; all are different for `TURNS` numbers."""
    name, overwrites, hidden = _TURNS[number % len(_TURNS)]
    return Save(name, number // len(_TURNS) % len(KINDS), hidden, overwrites=overwrites)


@functools.cache
def _bytes_of(name, kind, hidden, version):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FORMATS[name].file_name)
        FORMATS[name].write(path, FORMATS[name].make(kind, hidden, version), overwrite=False)
        return path.read_bytes()
