"""Model files: safetensors, with configuration and vocabulary as JSON in the metadata.

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          ``"fastlstm"``
version         version of this layout, ``"1"``
config          `ModelConfig.to_dict`
vocab           `Vocab.to_json`
training        how the model came about (optional), free-form JSON
==============  =====================================================================

The tensors are the parameters, by their names in `fastlstm.params`. Loading a file executes nothing that is in it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from fastlstm.config import ModelConfig
from fastlstm.errors import FastlstmError, ModelFileError
from fastlstm.params import Parameters, table
from fastlstm.text import Vocab

#: Name of a model's file in the folder of its run.
FILE_NAME = "model.safetensors"

_FORMAT, _VERSION = "fastlstm", "1"
_DTYPE_CODES = {"float32": "F32", "float64": "F64"}
#: Tensors of a model beside the two of each layer: the embedding, the output's weights and biases.
_TENSORS_WITHOUT_LAYERS = 3


class Content(NamedTuple):
    """What a model file holds; ``training`` is ``None`` where nothing is known of it."""

    config: ModelConfig
    vocab: Vocab
    parameters: Parameters
    training: dict[str, Any] | None


def save(path: str | os.PathLike[str], content: Content) -> None:
    """Write a model file, whole or not at all: power may fail at any time, and the file that was there stays good.

    Parameters
    ----------
    path : the file; its folder must exist.
    content : what to write.

    Raises
    ------
    ModelFileError
        When the file cannot be written; no stray file stays.
    """
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "config": json.dumps(content.config.to_dict()),
        "vocab": content.vocab.to_json(),
    }
    if content.training is not None:
        metadata["training"] = json.dumps(content.training)
    tensors = {name: np.ascontiguousarray(view) for name, view in content.parameters.items()}
    try:
        _write(Path(os.path.realpath(path)), safetensors.numpy.save(tensors, metadata))
    except OSError as error:
        raise ModelFileError(
            f"cannot write {os.fspath(path)!r} ({error.strerror or error}):"
            " check the folder, its rights, and the space left"
        ) from None


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a loss of power; where folders cannot be opened, the system sees to it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Make the folder of a run and see that a model can be written into it.

    Raises
    ------
    ModelFileError
        When it cannot: better known before training than after it.
    """
    probe = folder / f".{FILE_NAME}.{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise ModelFileError(
            f"cannot write into the folder {str(folder)!r} ({error.strerror or error}): choose another with --out"
        ) from None
    if (folder / FILE_NAME).is_dir():
        raise ModelFileError(f"{str(folder / FILE_NAME)!r} is a folder: choose another output folder with --out")


def load(path: str | os.PathLike[str]) -> Content:
    """Read a model file.

    Everything it claims is compared with the tensors it holds before memory is taken, so that a damaged or
    hostile file costs no more than its own size.

    Parameters
    ----------
    path : the file, or the folder of a run, which holds it as ``model.safetensors``.

    Raises
    ------
    ModelFileError
        When there is no such file, or it is anything but an undamaged model.
    """
    file = Path(path)
    try:
        if file.is_dir():
            file /= FILE_NAME
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise _not_a_model(file, "it is no regular file")
    except FileNotFoundError:
        raise ModelFileError(f"there is no model {str(file)!r}: check the path, or train one first") from None
    except (OSError, ValueError) as error:
        raise _unreadable(file, error) from None
    try:
        return _read(file)
    except (SafetensorError, ValueError, RecursionError) as error:
        raise _not_a_model(file, str(error)) from None
    except OSError as error:
        raise _unreadable(file, error) from None
    except FastlstmError as error:
        raise error if isinstance(error, ModelFileError) else _not_a_model(file, str(error)) from None


def _unreadable(file: Path, error: Exception) -> ModelFileError:
    why = getattr(error, "strerror", None) or error
    return ModelFileError(f"cannot read {str(file)!r} ({why}): check the file and the right to read it")


def _not_a_model(file: Path, why: str) -> ModelFileError:
    why = " ".join(why.split())
    return ModelFileError(f"{str(file)!r} is not an undamaged fastlstm model ({why}): use another copy of it")


def _read(file: Path) -> Content:
    with safe_open(file, framework="numpy") as stored:
        metadata = stored.metadata() or {}
        _check_format(file, metadata)
        config = ModelConfig.from_dict(_object(metadata, "config"))
        vocab = Vocab.from_json(metadata["vocab"])
        if len(vocab) != config.vocab_size:
            raise _not_a_model(file, f"a vocabulary of {len(vocab)} symbols for a model of {config.vocab_size}")
        _check_tensors(file, config, stored)
        parameters = Parameters(config)
        for name in parameters:
            parameters[name] = stored.get_tensor(name)
            if not np.isfinite(parameters[name]).all():
                raise _not_a_model(file, f"{name!r} has values that are no finite numbers")
    training = _object(metadata, "training") if "training" in metadata else None
    return Content(config, vocab, parameters, training)


def _check_format(file: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != _FORMAT:
        raise _not_a_model(file, "another program's safetensors file")
    if metadata.get("version") != _VERSION:
        raise ModelFileError(
            f"{str(file)!r} has version {metadata.get('version')!r} of the model format, and this fastlstm reads"
            f" version {_VERSION}: update fastlstm"
        )
    for key in ("config", "vocab"):
        if key not in metadata:
            raise _not_a_model(file, f"its metadata lack {key!r}")


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise ValueError(f"{key!r} in its metadata is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} in its metadata is not an object")
    return value


def _check_tensors(file: Path, config: ModelConfig, stored: Any) -> None:
    names = set(stored.keys())
    # The number first: the table of a hostile number of layers would not end.
    if len(names) != _TENSORS_WITHOUT_LAYERS + 2 * config.layers:
        raise _not_a_model(file, f"{len(names)} tensors for {config.layers} layers")
    for entry in table(config):
        if entry.name not in names:
            raise _not_a_model(file, f"it lacks the tensor {entry.name!r}")
        tensor = stored.get_slice(entry.name)
        if tuple(tensor.get_shape()) != entry.shape or tensor.get_dtype() != _DTYPE_CODES[config.dtype]:
            raise _not_a_model(
                file,
                f"{entry.name!r} is of type {tensor.get_dtype()} and shape {tuple(tensor.get_shape())}"
                f" instead of {_DTYPE_CODES[config.dtype]} and {entry.shape}",
            )
