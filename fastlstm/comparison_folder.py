"""The folder of a comparison: what it is of, and every network and measurement that is done.

========================  ==============================================================================
file                      content
========================  ==============================================================================
plan.json                 settings, text and steps of the comparison: with it, it can be resumed
models/NAME.safetensors   a trained model, see `fastlstm.checkpoint`
models/NAME.json          the settings, the curve and the samples of its training
recall-CELL.json          a measurement of the recall task
comparison.json           all results, as arrays
index.html, NAME.png      the page, and its figures
========================  ==============================================================================

Each file is written once it is complete, and a training's model before its curve: what has a curve is done.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from fastlstm import atomic
from fastlstm.errors import ConfigError, ModelFileError
from fastlstm.model import Model

PLAN, RESULTS, PAGE = "plan.json", "comparison.json", "index.html"
_MODELS = "models"


class ComparisonFolder:
    """The folder of a comparison; it is created when the first file is written.

    Parameters
    ----------
    path : the folder.

    Methods that read return ``None`` for what is not there. They raise `ModelFileError` for what cannot be read, those
    that write for what cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @classmethod
    def new(cls, path: Path) -> Self:
        """A folder for a new comparison; raises `ConfigError` if there is something at the path."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise ConfigError(
                    f"{str(path)!r} is not empty: go on with the comparison in it (--resume), or choose another folder"
                    " with --out"
                )
        except OSError as error:
            raise _unusable(path, error) from None
        return cls(path)

    @classmethod
    def next_free(cls, path: Path) -> Self:
        """A folder for a new comparison of this name, or NAME-2, NAME-3, ... if there is one already."""
        for number in itertools.count(1):
            folder = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
                folder.mkdir()
            except FileExistsError:
                continue
            except OSError as error:
                raise _unusable(folder, error) from None
            break
        return cls(folder)

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing has been written into it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def read(self, name: str) -> dict[str, Any] | None:
        """The content of a JSON file."""
        path = self.path / name
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise ModelFileError(f"cannot read {str(path)!r} ({error}): remove it, and it is computed again") from None
        if not isinstance(content, dict):
            raise ModelFileError(f"{str(path)!r} contains no JSON object: remove it, and it is computed again")
        return content

    def write(self, name: str, content: str | bytes | Mapping[str, Any]) -> Path:
        """Write a file, a mapping as JSON, in place of an earlier one; returns its path."""
        path = self.path / name
        if isinstance(content, Mapping):
            content = json.dumps(content, allow_nan=False) + "\n"
        data = content.encode("utf-8", "replace") if isinstance(content, str) else content
        try:
            atomic.make_folder(path.parent)
            atomic.write(path, [data], overwrite=True)
        except OSError as error:
            raise ModelFileError(
                f"cannot write {str(path)!r} ({error.strerror}): solve this and go on with --resume, or choose another"
                " folder with --out"
            ) from None
        return path

    def training(self, name: str, settings: Mapping[str, Any]) -> tuple[Model, dict[str, Any]] | None:
        """A finished training: its model, and the rest as it was given to `keep`.

        Raises
        ------
        ConfigError
            When it had other ``settings``.
        """
        found = self.read(f"{_MODELS}/{name}.json")
        if found is None:
            return None
        if found.get("settings") != settings:
            raise ConfigError(
                f"the training {name} in {str(self.path)!r} had other settings: choose another folder with --out"
            )
        return Model.load(self.path / _MODELS / f"{name}.safetensors"), found

    def keep(self, name: str, model: Model, more: Mapping[str, Any]) -> None:
        """Write a finished training; ``more`` has its ``settings``, and whatever else is to be kept."""
        try:
            atomic.make_folder(self.path / _MODELS)
        except OSError as error:
            raise _unusable(self.path / _MODELS, error) from None
        model.save(self.path / _MODELS / f"{name}.safetensors")
        self.write(f"{_MODELS}/{name}.json", more)


def _unusable(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(f"cannot use the folder {str(path)!r} ({error.strerror}): choose another with --out")
