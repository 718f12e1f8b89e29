r"""The format of compressed files (`fastlstm.archive`): what stands where, and its verification.

=======  =====================================================================================================
mode     the content
=======  =====================================================================================================
0        `Stored`: the bytes of the file
1        `NewModel`: code under a new model of the file's own bytes, which learns as it reads
2        `GivenModel`: code under a given model
3        `LearningModel`: code under a given model that goes on learning as it reads
=======  =====================================================================================================

=====  =======  ======================================================================
bytes  modes    meaning
=====  =======  ======================================================================
8      all      ``b"\x89FLSTM\r\n"``
1      all      version of this layout, 1
1      all      mode
16     all      checksum: the first bytes of the SHA-256 of all other bytes
8      all      length of the file in bytes
32     all      SHA-256 of the file
32     1        bytes that occur in the file: bit 7 of the first byte is byte 0
28     1        shape of the model: the settings `SHAPE` of `ModelConfig`
32     2, 3     SHA-256 of the model (`fastlstm.archive.identity`)
8      2, 3     number of symbols
4      2        lanes
68     1, 3     the settings of `Learning`
...    all      the file's bytes, or the code, in words of 4 bytes
=====  =======  ======================================================================

Numbers are little-endian. A setting that is a whole number takes 4 bytes, one that is any number 8 (float64), and a
name 8 (ASCII, padded with NUL).

The checksum is verified before anything else is used. What an archive that was made with malice can demand is bounded:
the number of symbols by the length of the code (`fastlstm.range_coder.most_symbols`), models and steps by
`check_sizes`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.errors import ArchiveError, ConfigError
from fastlstm.learning import MOST_LANES, Learning
from fastlstm.range_coder import WORD, most_symbols
from fastlstm.settings import Settings, settings_of

#: The settings of a new model's shape; others have their defaults.
SHAPE = ("cell", "layers", "hidden", "embedding", "forget_bias")

_MAGIC, _VERSION = b"\x89FLSTM\r\n", 1
_START, _CHECKSUM = struct.Struct("<8sBB"), 16

#: Bounds of a new model's parameters, and of the gates and probabilities of a step, which take 4 bytes each.
_MOST_PARAMETERS, _MOST_ACTIVATIONS = 1 << 25, 1 << 27

#: How a setting is stored, by its type.
_CODES: dict[type, str] = {int: "I", float: "d", str: "8s"}


class Stored(NamedTuple):
    """A file that is stored as it is."""


class NewModel(NamedTuple):
    """A file coded under a new model.

    Attributes
    ----------
    alphabet : uint32, strictly increasing, the bytes that occur in the file.
    shape : values of the settings `SHAPE`.
    learning : how the model learns.
    """

    alphabet: NDArray[np.uint32]
    shape: dict[str, Any]
    learning: Learning

    @property
    def config(self) -> ModelConfig:
        """The configuration of the model."""
        return ModelConfig(len(self.alphabet), **self.shape)


class GivenModel(NamedTuple):
    """A file coded under a given model; ``model`` is its SHA-256, ``symbols`` and ``lanes`` are numbers."""

    model: bytes
    symbols: int
    lanes: int


class LearningModel(NamedTuple):
    """A file coded under a given model that learns; ``model`` and ``symbols`` as in `GivenModel`."""

    model: bytes
    symbols: int
    learning: Learning


Coding = Stored | NewModel | GivenModel | LearningModel


class Archive(NamedTuple):
    """The content of a compressed file.

    Attributes
    ----------
    length, sha256 : of the file, in bytes, and its digest.
    coding : how it is coded.
    code : its code, or its bytes if it is stored.
    """

    length: int
    sha256: bytes
    coding: Coding
    code: bytes


class _Field(NamedTuple):
    """A field of the format: its size in bytes, and its conversion to bytes and back."""

    size: int
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]


def _number(code: str) -> _Field:
    form = struct.Struct(f"<{code}")
    return _Field(form.size, form.pack, lambda raw: form.unpack(raw)[0])


def _settings(
    cls: type[Settings], names: Iterable[str], pack: Callable[[Any], Any], unpack: Callable[..., Any]
) -> _Field:
    """The field of some settings; ``pack`` gives their values by name, and ``unpack`` takes them."""
    declared = {name: settings_of(cls)[name].type for name in names}
    form = struct.Struct("<" + "".join(_CODES[kind] for kind in declared.values()))

    def to_bytes(value: Any) -> bytes:
        found = pack(value)
        values = [found[name] for name in declared]
        return form.pack(*(value.encode("ascii") if isinstance(value, str) else value for value in values))

    def from_bytes(raw: bytes) -> Any:
        values = [
            value.rstrip(b"\0").decode("ascii") if isinstance(value, bytes) else value for value in form.unpack(raw)
        ]
        return unpack(**dict(zip(declared, values, strict=True)))

    return _Field(form.size, to_bytes, from_bytes)


def _alphabet_to_bytes(alphabet: NDArray[np.uint32]) -> bytes:
    occurs = np.zeros(256, bool)
    occurs[alphabet] = True
    return np.packbits(occurs).tobytes()


def _alphabet_from_bytes(raw: bytes) -> NDArray[np.uint32]:
    return np.flatnonzero(np.unpackbits(np.frombuffer(raw, np.uint8))).astype(np.uint32)


_LENGTH, _LANES, _DIGEST = _number("Q"), _number("I"), _number("32s")
_ALPHABET = _Field(32, _alphabet_to_bytes, _alphabet_from_bytes)
_MODEL_SHAPE = _settings(ModelConfig, SHAPE, dict, dict)
_LEARNING = _settings(Learning, settings_of(Learning), Learning.to_dict, Learning)

#: The codings, each at the index of its mode, with its name and the fields of its attributes.
_MODES: tuple[tuple[type[Coding], str, tuple[_Field, ...]], ...] = (
    (Stored, "stored", ()),
    (NewModel, "new model", (_ALPHABET, _MODEL_SHAPE, _LEARNING)),
    (GivenModel, "given model", (_DIGEST, _LENGTH, _LANES)),
    (LearningModel, "learning model", (_DIGEST, _LENGTH, _LEARNING)),
)


def encode(archive: Archive) -> bytes:
    """The bytes of an archive."""
    mode = _mode(archive.coding)
    own = [field.pack(value) for field, value in zip(_MODES[mode][2], archive.coding, strict=True)]
    start = _START.pack(_MAGIC, _VERSION, mode)
    rest = b"".join([_LENGTH.pack(archive.length), _DIGEST.pack(archive.sha256), *own, archive.code])
    return b"".join([start, _checksum(start, rest), rest])


def decode(raw: bytes) -> Archive:
    """The content of an archive.

    Raises
    ------
    ArchiveError
        When it is not one, is damaged, or has been written by a later version.
    """
    if not raw.startswith(_MAGIC):
        raise ArchiveError("it is no archive, or its beginning is damaged: give a file that compress has written")
    begin = _START.size + _CHECKSUM
    start, rest = raw[: _START.size], raw[begin:]
    if len(raw) < begin or raw[_START.size : begin] != _checksum(start, rest):
        raise damaged("its checksum is wrong")
    _, version, mode = _START.unpack(start)
    if version != _VERSION:
        raise ArchiveError(
            f"it has version {version} of the format, and this fastlstm reads {_VERSION}: update fastlstm"
        )
    try:
        found = _parse(mode, rest)
        _check(found)
    except (ValueError, IndexError, struct.error, ConfigError) as error:
        raise damaged(str(error)) from None
    return found


def damaged(why: str) -> ArchiveError:
    """The error for an archive that is not as it was written."""
    return ArchiveError(f"the archive is damaged ({' '.join(why.split())[:200]}): use another copy of it")


def name_of(coding: Coding) -> str:
    """A coding in one or two words."""
    return _MODES[_mode(coding)][1]


def check_sizes(config: ModelConfig, rows: int, *, is_new: bool = True) -> None:
    """Raise `ConfigError` when a new model is too large, or a step of ``rows`` symbols takes too much memory."""
    if is_new and config.parameter_count > _MOST_PARAMETERS:
        raise ConfigError(
            f"a new model of {config.parameter_count:,} parameters is larger than {_MOST_PARAMETERS:,}: choose fewer"
            " hidden units or layers"
        )
    units = config.layers * config.gates * config.hidden + config.vocab_size
    if rows * units > _MOST_ACTIVATIONS:
        raise ConfigError(
            f"steps of {rows:,} symbols take too much memory with this model: choose fewer lanes, or a smaller seq_len"
        )


def _mode(coding: Coding) -> int:
    return [kind for kind, _, _ in _MODES].index(type(coding))


def _parse(mode: int, rest: bytes) -> Archive:
    coding, _, fields = _MODES[mode]
    values, at = [], 0
    for field in (_LENGTH, _DIGEST, *fields):
        values.append(field.unpack(rest[at : at + field.size]))
        at += field.size
    return Archive(values[0], values[1], coding(*values[2:]), rest[at:])


def _check(archive: Archive) -> None:
    """Raise `ValueError` or `ConfigError` unless sizes are those that an encoder writes."""
    coding, code = archive.coding, archive.code
    if isinstance(coding, Stored):
        if len(code) != archive.length:
            raise ValueError("it does not have the length that it states")
        return
    if len(code) % WORD:
        raise ValueError("its code is not in whole words")
    symbols = archive.length if isinstance(coding, NewModel) else coding.symbols
    if not 0 < symbols <= min(archive.length, most_symbols(len(code))):
        raise ValueError(f"its code cannot be that of {symbols:,} symbols")
    if isinstance(coding, NewModel):
        check_sizes(coding.config, coding.learning.symbols)
    elif isinstance(coding, GivenModel) and not 0 < coding.lanes <= min(symbols, MOST_LANES):
        raise ValueError(f"it has {coding.lanes:,} lanes")


def _checksum(start: bytes, rest: bytes) -> bytes:
    digest = hashlib.sha256(start)
    digest.update(rest)
    return digest.digest()[:_CHECKSUM]
