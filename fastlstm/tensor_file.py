"""Files of named tensors: safetensors with a checksum, written whole or not at all.

==============  =====================================================================
metadata        meaning
==============  =====================================================================
format          kind of the file, such as ``"fastlstm"`` for a model
version         version of that kind's layout
sha256          checksum of the whole file, in hexadecimal
==============  =====================================================================

Each kind adds its own metadata, as strings. Loading a file executes nothing that is in it.

The checksum is computed over all bytes of the file, with 64 zeros in the place of its own digits. The header is written
here, for the safetensors library orders metadata at random: with sorted keys, without spaces, and padded to a multiple
of 8 bytes, so that the same content is the same bytes at every save. Reading is the library's.
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

#: Of each dtype: its code in safetensors, and NumPy's name for it as it lies in the file, little-endian.
_CODES = {"float32": ("F32", "<f4"), "float64": ("F64", "<f8")}
#: Bytes of the header's length, before the header.
_PREFIX = 8
#: Longest header: twice the vocabulary of all code points. Parsing it takes some 25 times its size at most.
_LONGEST_HEADER = 22_000_000
_METADATA, _CHECKSUM = "__metadata__", "sha256"
_NO_CHECKSUM = "0" * 64

Result = TypeVar("Result")


class Kind(NamedTuple):
    """A kind of file.

    Attributes
    ----------
    format, version : in its metadata.
    noun : what messages call it.
    file_name : of such a file in the folder of a run.
    advice : what to do when there is none.
    unchecked_version : an older version that is read too and had no checksum.
    """

    format: str
    version: str
    noun: str
    file_name: str
    advice: str
    unchecked_version: str | None = None


class Stored:
    """A file in memory, its checksum verified.

    Attributes
    ----------
    metadata : strings by name.
    """

    def __init__(self, metadata: dict[str, str], data: bytes) -> None:
        self.metadata = metadata
        self._data = data

    def take_tensors(self) -> dict[str, Any]:
        """The tensors, as `check_tensors` and `copy_tensor` know them; once, for they replace the file in memory."""
        data, self._data = self._data, b""
        # The library sees to it that each tensor has its place in the file, and copies each. (It has no types.)
        return dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]


class _Header(NamedTuple):
    """A file's header: its bytes, with those of its length before them, and its metadata."""

    raw: bytes
    metadata: dict[str, str]


def encode(kind: Kind, metadata: Mapping[str, str], tensors: Mapping[str, FloatArray]) -> list[bytes | memoryview]:
    """The bytes of a file, in parts; the tensors' are views, which must not change until they are written.

    Parameters
    ----------
    metadata : what the kind adds.
    tensors : float32 or float64, C-contiguous; they lie in the file in their order here.

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
    """Write what `encode` gave: power may fail at any time, and the file that was there stays good.

    Parameters
    ----------
    path : the file; its folder must exist.
    overwrite : whether to replace what is at ``path``; a file's mode is kept.

    Raises
    ------
    ModelExistsError
        When something is at ``path``, be it since a moment ago, and ``overwrite`` is false.
    ModelFileError
        When the file cannot be written. Nothing has been changed then, and no stray file stays.
    """
    name = os.fspath(path)
    try:
        # A link is followed by who replaces its target, but is something in the way of who must not replace.
        target = Path(os.path.realpath(path) if overwrite else path)
        atomic.write(target, parts, overwrite=overwrite)
    except (OSError, ValueError) as error:
        if isinstance(error, FileExistsError) and not overwrite:
            raise ModelExistsError(f"{name!r} exists already: choose another place for the {kind.noun}") from None
        raise ModelFileError(
            f"cannot write {name!r} ({reason(error)}): check the folder, its rights, and the space left"
        ) from None


def read(path: str | os.PathLike[str], kind: Kind, interpret: Callable[[Stored], Result]) -> Result:
    """Read a file.

    The file is read into memory once. What its header says is compared with the file's size and its checksum with all
    of its bytes before anything is used, so that a damaged or hostile file is refused, and costs no more memory than
    some twice its own size.

    Parameters
    ----------
    path : the file, or the folder of a run, which holds it under the kind's name.
    interpret : makes of the file what is returned; a `ValueError` or `FastlstmError` of it refuses the file.

    Raises
    ------
    ModelFileError
        When there is no such file, or it is anything but an undamaged one of this kind.
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
            f"cannot read {str(file)!r} ({reason(error)}): check the file and the right to read it"
        ) from None
    except FastlstmError as error:
        raise error if isinstance(error, ModelFileError) else _refusal(file, kind, str(error)) from None


def parse_object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object in a string of the metadata; raises `ValueError` when there is none."""
    if key not in metadata:
        raise ValueError(f"its metadata lack {key!r}")
    try:
        value = json.loads(metadata[key])
    except (ValueError, RecursionError):
        raise ValueError(f"{key!r} in its metadata is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError(f"{key!r} in its metadata is not an object")
    return value


def check_tensors(stored: Mapping[str, Any], dtype: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `ValueError` unless a file's tensors are those of ``shapes``, all of one dtype."""
    if len(stored) != len(shapes):
        raise ValueError(f"{len(stored)} tensors instead of {len(shapes)}")
    for name, shape in shapes.items():
        expected = (_CODES[dtype][0], list(shape))
        tensor = stored.get(name, {})
        if (found := (tensor.get("dtype"), tensor.get("shape"))) != expected:
            raise ValueError(f"{name!r} is {found} instead of {expected}")


def copy_tensor(tensor: Mapping[str, Any], into: FloatArray) -> None:
    """Copy a file's tensor, which `check_tensors` has found to be of its shape and dtype, into an array."""
    into[...] = np.frombuffer(tensor["data"], _CODES[into.dtype.name][1]).reshape(into.shape)


def one_line(why: str) -> str:
    """What a file says of itself, shortened: it may be long."""
    return " ".join(why[:300].split())


def reason(error: Exception) -> str:
    """Why a file could not be read or written, in the system's words."""
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
    """The checksum as it stands in the header; in a metadata's text, where quotes are escaped, this cannot occur."""
    return f'"{_CHECKSUM}":"{checksum}"'.encode()


def _checksum(raw: bytes, data: Iterable[memoryview]) -> str:
    digest = hashlib.sha256(raw)
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _read_verified(file: Path, kind: Kind) -> Stored:
    """A file in memory, whole: one that is mapped and then truncated would kill the process."""
    with open(file, "rb") as stored:
        size = os.fstat(stored.fileno()).st_size
        header = _parse_header(_read_header(stored, size, kind))
        if header.metadata.get("format") != kind.format:
            raise _refusal(file, kind, "another program's safetensors file")
        stored.seek(0)
        data = stored.read(size + 1)
    if len(data) != size or not data.startswith(header.raw):
        raise ModelFileError(f"{str(file)!r} changed while it was read: try again when its writer has finished")
    _check_version(file, kind, header, memoryview(data)[len(header.raw) :])
    return Stored(header.metadata, data)


def _read_header(stored: BinaryIO, size: int, kind: Kind) -> bytes:
    prefix = stored.read(_PREFIX)
    length = int.from_bytes(prefix, "little")
    if length > size - _PREFIX:
        raise ValueError(f"it does not begin with the header of a {kind.noun}")
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
    """The checksum first: a version that is damaged is no reason to update."""
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
        raise _refusal(file, kind, "it lacks its checksum")
