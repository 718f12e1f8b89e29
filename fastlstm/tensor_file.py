"""Files of named tensors: safetensors with a checksum, written atomically.

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          kind of the file, such as ``"fastlstm"`` for a model
version         version of that kind's layout
sha256          checksum of the whole file, in hexadecimal
==============  =====================================================================

Each kind adds its own metadata, as strings. Loading a file executes no code from it.

The checksum is computed over all bytes of the file, with 64 zeros in place of its own digits. The header is written by
this module, because the safetensors library orders metadata at random: keys are sorted, without spaces, and padded to a
multiple of 8 bytes, so that the same content always gives the same bytes. Tensors are read by the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import safetensors

from fastlstm import atomic
from fastlstm.errors import FastlstmError, ModelExistsError, ModelFileError
from fastlstm.params import FloatArray

#: For each dtype: its code in safetensors, and the NumPy dtype in the file, which is little-endian.
_CODES = {"float32": ("F32", "<f4"), "float64": ("F64", "<f8")}
#: Size of the header's length, which precedes the header, in bytes.
_PREFIX = 8
#: Largest header in bytes: twice that of a vocabulary of all code points. Parsing takes at most 25 times that memory.
_LONGEST_HEADER = 22_000_000
_METADATA, _CHECKSUM = "__metadata__", "sha256"
_NO_CHECKSUM = "0" * 64

Result = TypeVar("Result")


class Kind(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    format, version : values in the metadata.
    noun : name of the content in messages.
    file_name : name of such a file in a run folder.
    advice : in the error when the file does not exist: what the user can do.
    unchecked_version : an older version without a checksum that can still be read.
    """

    format: str
    version: str
    noun: str
    file_name: str
    advice: str
    unchecked_version: str | None = None


class Stored:
    """A file in memory, after its checksum was verified.

    Attributes
    ----------
    metadata : strings by name.
    """

    def __init__(self, metadata: dict[str, str], data: bytes) -> None:
        self.metadata = metadata
        self._data = data

    def take_tensors(self) -> dict[str, Any]:
        """The tensors, for `check_tensors` and `copy_tensor`. To be called once: it frees the bytes of the file."""
        data, self._data = self._data, b""
        # The library validates the offsets of the tensors, and copies each. (It has no types.)
        return dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]


class _Header(NamedTuple):
    """A file's header: its bytes, including the length before it, and its metadata."""

    raw: bytes
    metadata: dict[str, str]


def encode(kind: Kind, metadata: Mapping[str, str], tensors: Mapping[str, FloatArray]) -> list[bytes | memoryview]:
    """The bytes of a file, in parts; those of tensors are views, which must not change until they are written.

    Parameters
    ----------
    kind : of the file.
    metadata : the metadata specific to the kind.
    tensors : float32 or float64, C-contiguous; the file has them in the same order.

    Raises
    ------
    ValueError
        When `read` would refuse the header.
    """
    codes = {name: _CODES[tensor.dtype.name] for name, tensor in tensors.items()}
    data = [
        tensor.astype(codes[name][1], copy=False).reshape(-1).view(np.uint8).data for name, tensor in tensors.items()
    ]
    described, start = {}, 0
    for (name, tensor), part in zip(tensors.items(), data, strict=True):
        place = start, start + part.nbytes
        described[name] = {"dtype": codes[name][0], "shape": tensor.shape, "data_offsets": place}
        start += part.nbytes
    own = {"format": kind.format, "version": kind.version, _CHECKSUM: _NO_CHECKSUM}
    raw = _encode_header({_METADATA: {**metadata, **own}, **described})
    _parse_header(raw)
    return [raw.replace(_field(_NO_CHECKSUM), _field(_checksum(raw, data))), *data]


def write(
    path: str | os.PathLike[str], kind: Kind, parts: Iterable[bytes | memoryview], *, overwrite: bool = True
) -> None:
    """Write the result of `encode` atomically: if it fails, even by a power failure, an existing file is unchanged.

    Parameters
    ----------
    path : the file; its folder must exist.
    kind : of the file.
    parts : the content, in order.
    overwrite : whether to replace a file at ``path``; its mode is kept.

    Raises
    ------
    ModelExistsError
        When ``path`` exists, and ``overwrite`` is false.
    ModelFileError
        When the file cannot be written. An existing file is then unchanged, and no temporary file is left.
    """
    name = os.fspath(path)
    try:
        # Overwriting follows a symbolic link; without overwriting, a link counts as an existing file.
        target = Path(os.path.realpath(path) if overwrite else path)
        atomic.write(target, parts, overwrite=overwrite)
    except (OSError, ValueError) as error:
        if isinstance(error, FileExistsError) and not overwrite:
            raise ModelExistsError(f"{name!r} already exists: choose another place for the {kind.noun}") from None
        raise ModelFileError(
            f"cannot write {name!r} ({reason(error)}): check the folder, its permissions, and the free space"
        ) from None


def read(path: str | os.PathLike[str], kind: Kind, interpret: Callable[[Stored], Result]) -> Result:
    """Read and verify a file.

    The file is read into memory once. The header is checked against the file's size, and the checksum against all of
    its bytes, before anything is used: a damaged or malicious file is refused, and takes no more memory than about
    twice its own size.

    Parameters
    ----------
    path : the file, or a run folder, which contains it under the kind's file name.
    kind : of the file.
    interpret : converts the verified file to the result; if it raises `ValueError` or `FastlstmError`, the file is
        refused.

    Raises
    ------
    ModelFileError
        When the file does not exist, or is not an undamaged file of this kind.
    """
    file = Path(path)
    try:
        if file.is_dir():
            file /= kind.file_name
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise _refusal(file, kind, "it is not a regular file")
        return interpret(_read_verified(file, kind))
    except FileNotFoundError:
        raise ModelFileError(f"there is no {kind.noun} {str(file)!r}: {kind.advice}") from None
    except MemoryError:
        raise ModelFileError(f"{str(file)!r} does not fit into memory: use a smaller model") from None
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise _refusal(file, kind, str(error)) from None
    except OSError as error:
        raise ModelFileError(
            f"cannot read {str(file)!r} ({reason(error)}): check the file and its permissions"
        ) from None
    except FastlstmError as error:
        raise error if isinstance(error, ModelFileError) else _refusal(file, kind, str(error)) from None


def format_of(path: str | os.PathLike[str]) -> str:
    """The format that a file states in its metadata, which is not verified; empty if it states none."""
    try:
        with open(path, "rb") as stored:
            raw = _read_header(stored, os.fstat(stored.fileno()).st_size)
        return _parse_header(raw).metadata.get("format", "")
    except (OSError, ValueError, RecursionError, MemoryError):
        return ""


def parse_object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """Parse an entry of the metadata as a JSON object; raises `ValueError` if it is missing or not an object."""
    if key not in metadata:
        raise ValueError(f"its metadata has no {key!r}")
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise ValueError(f"{key!r} in its metadata is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} in its metadata is not an object")
    return value


def check_tensors(stored: Mapping[str, Any], dtype: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ValueError` unless a file has exactly the tensors of ``shapes``, all of type ``dtype``."""
    if len(stored) != len(shapes):
        raise ValueError(f"{len(stored)} tensors instead of {len(shapes)}")
    for name, shape in shapes.items():
        expected = (_CODES[dtype][0], list(shape))
        tensor = stored.get(name, {})
        if (found := (tensor.get("dtype"), tensor.get("shape"))) != expected:
            raise ValueError(f"{name!r} is {found} instead of {expected}")


def copy_tensor(tensor: Mapping[str, Any], into: FloatArray) -> None:
    """Copy a file's tensor, whose shape and dtype were validated by `check_tensors`, into an array."""
    into[...] = np.frombuffer(tensor["data"], _CODES[into.dtype.name][1]).reshape(into.shape)


def one_line(why: str) -> str:
    """A text from a file in one line, shortened, because it may be long."""
    return " ".join(why[:300].split())


def reason(error: Exception) -> str:
    """Why a file could not be read or written: the system's message, if it has one."""
    return str(getattr(error, "strerror", None) or error)


def _refusal(file: Path, kind: Kind, why: str) -> ModelFileError:
    return ModelFileError(
        f"{str(file)!r} is damaged, or not a fastlstm {kind.noun} ({one_line(why)}): use another copy of it"
    )


def _encode_header(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_PREFIX, "little") + text


def _field(checksum: str) -> bytes:
    """The checksum as written in the header. Strings in the metadata cannot contain it: their quotes are escaped."""
    return f'"{_CHECKSUM}":"{checksum}"'.encode()


def _checksum(raw: bytes, data: Iterable[memoryview]) -> str:
    digest = hashlib.sha256(raw)
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _read_verified(file: Path, kind: Kind) -> Stored:
    """Read a file completely: if a memory-mapped file were truncated, accessing it would kill the process."""
    with open(file, "rb") as stored:
        size = os.fstat(stored.fileno()).st_size
        header = _parse_header(_read_header(stored, size))
        if header.metadata.get("format") != kind.format:
            raise _refusal(file, kind, "another program's safetensors file")
        stored.seek(0)
        data = stored.read(size + 1)
    if len(data) != size or not data.startswith(header.raw):
        raise ModelFileError(f"{str(file)!r} changed while it was read: try again when its writer has finished")
    _check_version(file, kind, header, memoryview(data)[len(header.raw) :])
    return Stored(header.metadata, data)


def _read_header(stored: BinaryIO, size: int) -> bytes:
    prefix = stored.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if length > size - _PREFIX:
        raise ValueError("its header would be longer than the file")
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


def _check_version(file: Path, kind: Kind, header: _Header, tensors: memoryview) -> None:
    """Verify checksum and version; the checksum first, since a damaged version must not lead to advice to update."""
    recorded, version = header.metadata.get(_CHECKSUM), header.metadata.get("version")
    if recorded is not None:
        without = header.raw.replace(_field(recorded), _field(_NO_CHECKSUM), 1)
        if _checksum(without, [tensors]) != recorded:
            raise ModelFileError(
                f"the {kind.noun} {str(file)!r} is damaged (its checksum is wrong): use another copy of it"
            )
    known = [known for known in (kind.unchecked_version, kind.version) if known is not None]
    if version not in known:
        raise ModelFileError(
            f"{str(file)!r} has version {one_line(repr(version))} of the {kind.noun} format, and this fastlstm reads"
            f" version{'s' * (len(known) > 1)} {' and '.join(known)}: update fastlstm"
        )
    if recorded is None and version != kind.unchecked_version:
        raise _refusal(file, kind, "it has no checksum")
