"""Model files: safetensors, with configuration and vocabulary as JSON in the metadata.

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          ``"fastlstm"``
version         version of this layout, ``"2"``; ``"1"``, of fastlstm 0.1.0, is read too
sha256          checksum of the whole file, see `fastlstm.tensor_file` (version 1 had none)
config          `ModelConfig.to_dict`
vocab           `Vocab.to_json`
training        how the model came about (optional), free-form JSON
==============  =====================================================================

The tensors are the parameters, by their names in `fastlstm.params`. Loading a file executes nothing that is in it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm import atomic, tensor_file
from fastlstm.config import ModelConfig
from fastlstm.errors import FastlstmError, ModelFileError
from fastlstm.params import FloatArray, Parameters, table
from fastlstm.tensor_file import Kind, Stored
from fastlstm.text import Vocab

#: Name of a model's file in the folder of its run.
FILE_NAME = "model.safetensors"

_KIND = Kind(
    format="fastlstm",
    version="2",
    noun="model",
    file_name=FILE_NAME,
    advice="check the path, or train one first",
    unchecked_version="1",
)
#: Tensors of a model beside those of its layers: the embedding, the output's weights and biases.
_TENSORS_WITHOUT_LAYERS = 3


class Content(NamedTuple):
    """What a model file holds; ``training`` is ``None`` where nothing is known of it."""

    config: ModelConfig
    vocab: Vocab
    parameters: Parameters
    training: dict[str, Any] | None


def save(path: str | os.PathLike[str], content: Content, *, overwrite: bool = True) -> None:
    """Write a model file, whole or not at all: power may fail at any time, and the file that was there stays good.

    Parameters
    ----------
    path : the file; its folder must exist.
    content : what to write.
    overwrite : whether to replace what is at ``path``; a file's mode is kept.

    Raises
    ------
    ModelExistsError
        When something is at ``path``, be it since a moment ago, and ``overwrite`` is false.
    ModelFileError
        When the file cannot be written, or the memory for a copy of the model is lacking, or `load` would refuse it:
        parameters that are not finite, a configuration or a history that JSON cannot hold. Nothing has been changed
        then, and no stray file stays.
    """
    try:
        parts = _encode(content)
    except (TypeError, ValueError, RecursionError, FastlstmError) as error:
        raise ModelFileError(
            f"cannot save the model to {os.fspath(path)!r} ({tensor_file.one_line(str(error))}): mend it first;"
            " nothing was written"
        ) from None
    except MemoryError:
        raise ModelFileError(
            f"cannot save the model to {os.fspath(path)!r} (no memory for a copy of it): free some; nothing was written"
        ) from None
    tensor_file.write(path, _KIND, parts, overwrite=overwrite)


def check_writable(folder: Path) -> None:
    """Make the folder of a run and see that a model can be written into it.

    Raises
    ------
    ModelFileError
        When it cannot: better known before training than after it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.try_folder(folder)
    except OSError as error:
        raise ModelFileError(
            f"cannot write into the folder {str(folder)!r} ({tensor_file.reason(error)}): choose another with --out"
        ) from None
    if (folder / FILE_NAME).is_dir():
        raise ModelFileError(f"{str(folder / FILE_NAME)!r} is a folder: choose another output folder with --out")


def load(path: str | os.PathLike[str]) -> Content:
    """Read a model file, see `fastlstm.tensor_file.read`.

    Parameters
    ----------
    path : the file, or the folder of a run, which holds it as ``model.safetensors``.

    Raises
    ------
    ModelFileError
        When there is no such file, or it is anything but an undamaged model.
    """
    return tensor_file.read(path, _KIND, _decode)


def _encode(content: Content) -> list[bytes | memoryview]:
    """A model as the bytes of its file; raises what `_decode` would raise."""
    config = content.config
    # A copy: another thread may go on training, and the checksum must be of what is written.
    parameters = Parameters(config, np.array(content.parameters.flat, config.dtype))
    _check_finite(parameters)
    metadata = {"config": json.dumps(config.to_dict()), "vocab": content.vocab.to_json()}
    if content.training is not None:
        metadata["training"] = json.dumps(content.training)
    parts = tensor_file.encode(_KIND, metadata, parameters)
    if (_model(metadata), content.parameters.config) != ((config, content.vocab), config):
        raise ValueError("its configuration or vocabulary would not come back the same")
    _training(metadata)
    return parts


def _decode(stored: Stored) -> Content:
    config, vocab = _model(stored.metadata)
    tensors = stored.take_tensors()
    # The number first: the table of a hostile number of layers would not end.
    of_layers = config.layers * len(config.structure.tensors(1, 1))
    if len(tensors) != _TENSORS_WITHOUT_LAYERS + of_layers:
        raise ValueError(f"{len(tensors)} tensors for {config.layers} layers")
    tensor_file.check_tensors(tensors, config.dtype, {entry.name: entry.shape for entry in table(config)})
    parameters = Parameters(config)
    for name, view in parameters.items():
        tensor_file.copy_tensor(tensors.pop(name), into=view)
    _check_finite(parameters)
    return Content(config, vocab, parameters, _training(stored.metadata))


def _model(metadata: Mapping[str, str]) -> tuple[ModelConfig, Vocab]:
    config = ModelConfig.from_dict(tensor_file.parse_object(metadata, "config"))
    if "vocab" not in metadata:
        raise ValueError("its metadata lack 'vocab'")
    vocab = Vocab.from_json(metadata["vocab"])
    if len(vocab) != config.vocab_size:
        raise ValueError(f"a vocabulary of {len(vocab)} symbols for a model of {config.vocab_size}")
    return config, vocab


def _training(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    return tensor_file.parse_object(metadata, "training") if "training" in metadata else None


def _check_finite(parameters: Mapping[str, FloatArray]) -> None:
    for name, view in parameters.items():
        if not np.isfinite(view).all():
            raise ValueError(f"{name!r} has values that are not finite numbers")
