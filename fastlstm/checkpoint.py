"""Model files: safetensors, with configuration and vocabulary as JSON in the metadata.

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          ``"fastlstm"``
version         version of this layout, ``"2"``; ``"1"``, of fastlstm 0.1.0, is read too
sha256          checksum of the whole file, in hexadecimal (version 1 had none)
config          `ModelConfig.to_dict`
vocab           `Vocab.to_json`
training        how the model came about (optional), free-form JSON
==============  =====================================================================

The tensors are the parameters, by their names in `fastlstm.params`. Loading a file executes nothing that is in it.

The checksum is computed over all bytes of the file, with 64 zeros in the place of its own digits. The header is written
here, for the safetensors library orders metadata at random: with sorted keys, without spaces, and padded to a multiple
of 8 bytes, so that one model is the same bytes at every save. Reading is the library's.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors

from fastlstm import atomic
from fastlstm.config import ModelConfig
from fastlstm.errors import FastlstmError, ModelExistsError, ModelFileError
from fastlstm.params import FloatArray, Parameters, table
from fastlstm.text import Vocab

#: Name of a model's file in the folder of its run.
FILE_NAME = "model.safetensors"

_FORMAT, _VERSION, _VERSION_WITHOUT_CHECKSUM = "fastlstm", "2", "1"
#: Of each dtype: its code in safetensors, and NumPy's name for it as it lies in the file, little-endian.
_CODES = {"float32": ("F32", "<f4"), "float64": ("F64", "<f8")}
#: Tensors of a model beside the two of each layer: the embedding, the output's weights and biases.
_TENSORS_WITHOUT_LAYERS = 3
#: Bytes of the header's length, before the header.
_PREFIX = 8
#: Longest header: twice the vocabulary of all code points. Parsing it takes some 25 times its size at most.
_LONGEST_HEADER = 22_000_000
_METADATA, _CHECKSUM = "__metadata__", "sha256"
_NO_CHECKSUM = "0" * 64


class Content(NamedTuple):
    """What a model file holds; ``training`` is ``None`` where nothing is known of it."""

    config: ModelConfig
    vocab: Vocab
    parameters: Parameters
    training: dict[str, Any] | None


class _Header(NamedTuple):
    """A file's header: its bytes, with those of its length before them, and its metadata."""

    raw: bytes
    metadata: dict[str, str]


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
    name = os.fspath(path)
    try:
        header, tensors = _encode(content)
    except (TypeError, ValueError, RecursionError, FastlstmError) as error:
        raise ModelFileError(
            f"cannot save the model to {name!r} ({_one_line(str(error))}): mend it first; nothing was written"
        ) from None
    except MemoryError:
        raise ModelFileError(
            f"cannot save the model to {name!r} (no memory for a copy of it): free some; nothing was written"
        ) from None
    try:
        # A link is followed by who replaces its target, but is something in the way of who must not replace.
        target = Path(os.path.realpath(path) if overwrite else path)
        atomic.write(target, (header, tensors), overwrite=overwrite)
    except (OSError, ValueError) as error:
        if isinstance(error, FileExistsError) and not overwrite:
            raise ModelExistsError(f"{name!r} exists already: choose another place for the model") from None
        raise ModelFileError(
            f"cannot write {name!r} ({_reason(error)}): check the folder, its rights, and the space left"
        ) from None


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
            f"cannot write into the folder {str(folder)!r} ({_reason(error)}): choose another with --out"
        ) from None
    if (folder / FILE_NAME).is_dir():
        raise ModelFileError(f"{str(folder / FILE_NAME)!r} is a folder: choose another output folder with --out")


def load(path: str | os.PathLike[str]) -> Content:
    """Read a model file.

    The file is read into memory once. What its header says is compared with the file's size and its checksum with all
    of its bytes before anything is used, so that a damaged or hostile file is refused, and costs no more memory than
    some twice its own size.

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
            raise _not_a_model(file, "it is not a regular file")
        return _read(file)
    except FileNotFoundError:
        raise ModelFileError(f"there is no model {str(file)!r}: check the path, or train one first") from None
    except MemoryError:
        raise ModelFileError(f"{str(file)!r} does not fit into memory: use a smaller model") from None
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise _not_a_model(file, str(error)) from None
    except OSError as error:
        raise ModelFileError(
            f"cannot read {str(file)!r} ({_reason(error)}): check the file and the right to read it"
        ) from None
    except FastlstmError as error:
        raise error if isinstance(error, ModelFileError) else _not_a_model(file, str(error)) from None


def _not_a_model(file: Path, why: str) -> ModelFileError:
    return ModelFileError(
        f"{str(file)!r} is damaged, or not a fastlstm model ({_one_line(why)}): use another copy of it"
    )


def _one_line(why: str) -> str:
    """What a file says of itself may be long."""
    return " ".join(why[:300].split())


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _encode(content: Content) -> tuple[bytes, memoryview]:
    """A model as header and tensors; raises what the reader of the header would raise."""
    config = content.config
    # A copy: another thread may go on training, and the checksum must be of what is written.
    parameters = Parameters(config, np.array(content.parameters.flat, config.dtype))
    _check_finite(parameters)
    tensors = parameters.flat.astype(_CODES[config.dtype][1], copy=False).view(np.uint8).data
    raw = _encode_header(content)
    header = _parse_header(raw)
    if (_model(header), content.parameters.config) != ((config, content.vocab), config):
        raise ValueError("its configuration or vocabulary would not come back the same")
    _training(header)
    return raw.replace(_field(_NO_CHECKSUM), _field(_checksum(raw, tensors))), tensors


def _encode_header(content: Content) -> bytes:
    """The header with zeros for its checksum."""
    code, dtype = _CODES[content.config.dtype]
    size = np.dtype(dtype).itemsize
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        _CHECKSUM: _NO_CHECKSUM,
        "config": json.dumps(content.config.to_dict()),
        "vocab": content.vocab.to_json(),
    }
    if content.training is not None:
        metadata["training"] = json.dumps(content.training)
    tensors = {
        entry.name: {"dtype": code, "shape": entry.shape, "data_offsets": (entry.start * size, entry.stop * size)}
        for entry in table(content.config)
    }
    text = json.dumps({_METADATA: metadata} | tensors, sort_keys=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_PREFIX, "little") + text


def _field(checksum: str) -> bytes:
    """The checksum as it stands in the header; in a metadata's text, where quotes are escaped, this cannot occur."""
    return f'"{_CHECKSUM}":"{checksum}"'.encode()


def _checksum(raw: bytes, tensors: memoryview) -> str:
    digest = hashlib.sha256(raw)
    digest.update(tensors)
    return digest.hexdigest()


def _read(file: Path) -> Content:
    header, data = _read_verified(file)
    config, vocab = _model(header)
    # The library sees to it that each tensor has its place in the file, and gives a copy of each. (It has no types.)
    tensors = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
    del data
    _check_tensors(config, tensors)
    parameters = Parameters(config)
    for name, view in parameters.items():
        view[...] = np.frombuffer(tensors.pop(name)["data"], _CODES[config.dtype][1]).reshape(view.shape)
    _check_finite(parameters)
    return Content(config, vocab, parameters, _training(header))


def _read_verified(file: Path) -> tuple[_Header, bytes]:
    """A file's header, and the whole file in memory: one that is mapped and then truncated would kill the process."""
    with open(file, "rb") as stored:
        size = os.fstat(stored.fileno()).st_size
        header = _parse_header(_read_header(stored, size))
        if header.metadata.get("format") != _FORMAT:
            raise _not_a_model(file, "another program's safetensors file")
        stored.seek(0)
        data = stored.read(size + 1)
    if len(data) != size or not data.startswith(header.raw):
        raise ModelFileError(f"{str(file)!r} changed while it was read: try again when its writer has finished")
    _check_version(file, header, memoryview(data)[len(header.raw) :])
    return header, data


def _read_header(stored: BinaryIO, size: int) -> bytes:
    prefix = stored.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if length > size - _PREFIX:
        raise ValueError("it does not begin with the header of a model")
    return prefix + stored.read(length)


def _parse_header(raw: bytes) -> _Header:
    if len(raw) - _PREFIX > _LONGEST_HEADER:
        raise ValueError(f"its header takes {len(raw):,} bytes, more than {_LONGEST_HEADER:,}")
    try:
        content = json.loads(str(memoryview(raw)[_PREFIX:], "utf-8"))
    except ValueError:
        raise ValueError("its header is not JSON") from None
    metadata = content.get(_METADATA) if isinstance(content, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its header has no metadata")
    return _Header(raw, metadata)


def _check_version(file: Path, header: _Header, tensors: memoryview) -> None:
    """The checksum first: a version that is damaged is no reason to update."""
    recorded, version = header.metadata.get(_CHECKSUM), header.metadata.get("version")
    if recorded is not None:
        without = header.raw.replace(_field(recorded), _field(_NO_CHECKSUM), 1)
        if _checksum(without, tensors) != recorded:
            raise ModelFileError(f"the model {str(file)!r} is damaged (its checksum is wrong): use another copy of it")
    if version not in (_VERSION, _VERSION_WITHOUT_CHECKSUM):
        raise ModelFileError(
            f"{str(file)!r} has version {_one_line(repr(version))} of the model format, and this fastlstm reads"
            f" versions {_VERSION_WITHOUT_CHECKSUM} and {_VERSION}: update fastlstm"
        )
    if recorded is None and version != _VERSION_WITHOUT_CHECKSUM:
        raise _not_a_model(file, "it lacks its checksum")


def _model(header: _Header) -> tuple[ModelConfig, Vocab]:
    for key in ("config", "vocab"):
        if key not in header.metadata:
            raise ValueError(f"its metadata lack {key!r}")
    config = ModelConfig.from_dict(_object(header.metadata, "config"))
    vocab = Vocab.from_json(header.metadata["vocab"])
    if len(vocab) != config.vocab_size:
        raise ValueError(f"a vocabulary of {len(vocab)} symbols for a model of {config.vocab_size}")
    return config, vocab


def _training(header: _Header) -> dict[str, Any] | None:
    return _object(header.metadata, "training") if "training" in header.metadata else None


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise ValueError(f"{key!r} in its metadata is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} in its metadata is not an object")
    return value


def _check_tensors(config: ModelConfig, stored: Mapping[str, Any]) -> None:
    """Raise `ValueError` unless these are the tensors of a configuration, as `safetensors` describes them."""
    # The number first: the table of a hostile number of layers would not end.
    if len(stored) != _TENSORS_WITHOUT_LAYERS + 2 * config.layers:
        raise ValueError(f"{len(stored)} tensors for {config.layers} layers")
    for entry in table(config):
        expected = (_CODES[config.dtype][0], list(entry.shape))
        tensor = stored.get(entry.name, {})
        if (found := (tensor.get("dtype"), tensor.get("shape"))) != expected:
            raise ValueError(f"{entry.name!r} is {found} instead of {expected}")


def _check_finite(parameters: Mapping[str, FloatArray]) -> None:
    for name, view in parameters.items():
        if not np.isfinite(view).all():
            raise ValueError(f"{name!r} has values that are not finite numbers")
