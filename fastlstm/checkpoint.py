"""Model files: safetensors, with configuration and vocabulary as JSON in the metadata.

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          ``"fastlstm"``
version         version of this layout, ``"2"``; ``"1"``, of fastlstm 0.1.0, is read too
sha256          checksum of the whole file, see `fastlstm.tensor_file` (version 1 had none)
config          `ModelConfig.to_dict`
vocab           `Vocab.to_json`
training        record of the run that trained the model (optional), free-form JSON
certificate     `Certificate.to_dict`, how its gradients were checked (optional)
==============  =====================================================================

The tensors are the parameters, by their names in `fastlstm.params`. Loading a file executes no code from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastlstm import atomic, tensor_file
from fastlstm.certificate import Certificate
from fastlstm.config import DType, ModelConfig
from fastlstm.errors import FastlstmError, ModelFileError, RunInUseError
from fastlstm.lock import Lock
from fastlstm.params import FloatArray, Parameters, table
from fastlstm.tensor_file import Kind, Stored
from fastlstm.text import Vocab

#: Name of the model file in a run folder.
FILE_NAME = "model.safetensors"

_KIND = Kind(
    format="fastlstm",
    version="2",
    noun="model",
    file_name=FILE_NAME,
    advice="check the path, or train one first",
    unchecked_version="1",
)


class Content(NamedTuple):
    """The content of a model file.

    Attributes
    ----------
    config, vocab, parameters : of the model.
    training : the record of its training; ``None`` if there is none.
    certificate : how its gradients were checked; ``None`` if they were not. One of other parameters is not written.
    """

    config: ModelConfig
    vocab: Vocab
    parameters: Parameters
    training: dict[str, Any] | None
    certificate: Certificate | None = None

    def astype(self, dtype: DType) -> Content:
        """The same model with its parameters in a dtype, see `Parameters.astype`; not copied if they have it."""
        if dtype == self.config.dtype:
            return self
        parameters = self.parameters.astype(dtype)
        return self._replace(config=parameters.config, parameters=parameters, certificate=None)


def save(path: str | os.PathLike[str], content: Content, *, overwrite: bool = True) -> None:
    """Write a model file atomically: if it fails, even by a power failure, an existing file is unchanged.

    Parameters
    ----------
    path : the file; its folder must exist.
    content : what to write.
    overwrite : whether to replace a file at ``path``; its mode is kept.

    Raises
    ------
    ModelExistsError
        When ``path`` exists, and ``overwrite`` is false.
    ModelFileError
        When the file cannot be written, when memory does not suffice for a copy of the model, or when `load` would
        refuse the file: parameters that are not finite, a configuration or training record that JSON cannot
        represent. An existing file is then unchanged, and no temporary file is left.
    """
    try:
        parts = _encode(content)
    except (TypeError, ValueError, RecursionError, FastlstmError) as error:
        raise ModelFileError(
            f"cannot save the model to {os.fspath(path)!r} ({tensor_file.one_line(str(error))}): correct the model"
            " first; nothing was written"
        ) from None
    except MemoryError:
        raise ModelFileError(
            f"cannot save the model to {os.fspath(path)!r} (no memory for a copy of it): free some memory; nothing was"
            " written"
        ) from None
    tensor_file.write(path, _KIND, parts, overwrite=overwrite)


def certify(path: str | os.PathLike[str], certificate: Certificate) -> Path:
    """Write a certificate into a model file, atomically; all else in the file, and its mode, stay as they are.

    Parameters
    ----------
    path : the file, or a run folder, which contains it as ``model.safetensors``.
    certificate : of its parameters.

    Returns
    -------
    The file.

    Raises
    ------
    RunInUseError
        When a run uses the file's folder: it would replace the file.
    ModelFileError
        When the file cannot be read or written, or has other parameters than those that were checked.
    """
    file = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
    lock = Lock(Path(os.path.realpath(file)).parent)
    try:
        lock.acquire()
    except RunInUseError:
        raise RunInUseError(
            f"a run is using the folder of {str(file)!r}, and may replace the model: wait until it has ended"
        ) from None
    except ModelFileError:
        raise ModelFileError(
            f"cannot write into the folder of {str(file)!r}: check its permissions, or certify a copy of the model"
        ) from None
    try:
        content = load(file)._replace(certificate=certificate)
        if not certificate.is_of(content.parameters):
            raise ModelFileError(f"{str(file)!r} has changed since it was checked: check it again")
        save(file, content)
    finally:
        lock.release()
    return file


def check_writable(folder: Path, size: int = 1) -> None:
    """Create a run folder if needed, and check that a model can be written into it.

    Parameters
    ----------
    folder : the run folder.
    size : bytes for which the disk must have space.

    Raises
    ------
    ModelFileError
        When it cannot. Checking before training avoids losing the result after it.
    """
    try:
        atomic.make_folder(folder)
        atomic.try_folder(folder, size)
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
    path : the file, or a run folder, which contains it as ``model.safetensors``.

    Raises
    ------
    ModelFileError
        When the file does not exist, or is not an undamaged model file.
    """
    return tensor_file.read(path, _KIND, _decode)


def _encode(content: Content) -> list[bytes | memoryview]:
    """The bytes of a model file; raises what `_decode` would raise for them."""
    config = content.config
    # A copy: another thread may continue training, and the checksum must match what is written.
    parameters = Parameters(config, np.array(content.parameters.flat, config.dtype))
    _check_finite(parameters)
    metadata = {"config": json.dumps(config.to_dict()), "vocab": content.vocab.to_json()}
    if content.training is not None:
        metadata["training"] = json.dumps(content.training)
    if content.certificate is not None and content.certificate.is_of(parameters):
        metadata["certificate"] = json.dumps(content.certificate.to_dict())
    parts = tensor_file.encode(_KIND, metadata, parameters)
    if (parse_model(metadata), content.parameters.config) != ((config, content.vocab), config):
        raise ValueError("its configuration or vocabulary would not be read back unchanged")
    _training(metadata)
    return parts


def _decode(stored: Stored) -> Content:
    config, vocab = parse_model(stored.metadata)
    tensors = stored.take_tensors()
    # Check the number first: a malicious number of layers would make a table without end.
    of_layers = config.layers * len(config.structure.tensors(1, 1))
    if len(tensors) != len(config.outer_tensors) + of_layers:
        raise ValueError(f"{len(tensors)} tensors for {config.layers} layers")
    tensor_file.check_tensors(tensors, config.dtype, {entry.name: entry.shape for entry in table(config)})
    parameters = Parameters(config)
    for name, view in parameters.items():
        tensor_file.copy_tensor(tensors.pop(name), into=view)
    _check_finite(parameters)
    return Content(config, vocab, parameters, _training(stored.metadata), _certificate(stored.metadata, parameters))


def parse_model(metadata: Mapping[str, str]) -> tuple[ModelConfig, Vocab]:
    """The configuration and the vocabulary in a file's metadata; raises `ValueError` or `FastlstmError`."""
    config = ModelConfig.from_dict(tensor_file.parse_object(metadata, "config"))
    if "vocab" not in metadata:
        raise ValueError("its metadata has no 'vocab'")
    vocab = Vocab.from_json(metadata["vocab"])
    if len(vocab) != config.vocab_size:
        raise ValueError(f"a vocabulary of {len(vocab)} symbols for a model of {config.vocab_size}")
    return config, vocab


def _training(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    return tensor_file.parse_object(metadata, "training") if "training" in metadata else None


def _certificate(metadata: Mapping[str, str], parameters: Parameters) -> Certificate | None:
    """The certificate of a file; ``None`` if it is of other parameters, or damaged, which does no harm to the model."""
    if "certificate" not in metadata:
        return None
    try:
        found = Certificate.from_dict(tensor_file.parse_object(metadata, "certificate"))
    except ValueError:
        return None
    return found if found.is_of(parameters) else None


def _check_finite(parameters: Mapping[str, FloatArray]) -> None:
    for name, view in parameters.items():
        if not np.isfinite(view).all():
            raise ValueError(f"{name!r} has values that are not finite numbers")
