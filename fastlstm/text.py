"""Whole texts, the vocabulary (encoding and decoding), and the split into training and validation parts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self, cast, overload

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import ConfigError, VocabularyError
from fastlstm.sources import opened

IdArray = NDArray[np.unsignedinteger]

_CODE_POINTS = 0x110000
_BYTE_VALUES = 0x100
#: Symbols encoded at a time; this bounds the temporary memory for a long text.
_CHUNK = 1 << 18
#: Longest JSON of a vocabulary: every code point, with at most seven digits and a separator each.
_LONGEST_JSON = 10 * _CODE_POINTS


def read_ids(
    sources: Sequence[str], *, as_bytes: bool = False, encoding: str | None = None, vocab: Vocab | None = None
) -> tuple[Vocab, IdArray]:
    """Read sources and encode them as one text, which is read in pieces and never held as a whole.

    The text is traversed twice: for the vocabulary and the length, then for the ids. Peak memory is about that of the
    ids.

    Parameters
    ----------
    sources, encoding : as in `read_text`.
    as_bytes : whether the symbols are bytes rather than characters; ignored if ``vocab`` is given.
    vocab : vocabulary to encode with; ``None``: that of the text.

    Returns
    -------
    vocab : the given one, or that of the text.
    ids : (N,) of the smallest unsigned type that holds all ids of the vocabulary.

    Raises
    ------
    TextError, ConfigError
        As `read_text`; also when a file changes between the passes.
    VocabularyError
        When ``vocab`` lacks a symbol; the message names the first such symbol and its position in the whole text.
    """
    as_bytes = as_bytes if vocab is None else vocab.is_bytes
    with opened(sources, as_bytes=as_bytes, encoding=encoding) as source:
        symbols, length = _survey(source.pieces())
        if length == 0:
            raise source.empty()
        if vocab is None:
            vocab = Vocab(symbols, as_bytes)
        return vocab, vocab._encode_pieces(source.pieces(), length)


@overload
def read_text(sources: Sequence[str], *, as_bytes: Literal[False] = False, encoding: str | None = None) -> str: ...
@overload
def read_text(sources: Sequence[str], *, as_bytes: Literal[True], encoding: str | None = None) -> bytes: ...
@overload
def read_text(sources: Sequence[str], *, as_bytes: bool, encoding: str | None = None) -> str | bytes: ...
def read_text(sources: Sequence[str], *, as_bytes: bool = False, encoding: str | None = None) -> str | bytes:
    """Read sources and join them into one text.

    Parameters
    ----------
    sources : file paths, patterns, ``-`` for standard input, or names of corpora, see `fastlstm.sources.opened`. An
        empty sequence means the default text.
    as_bytes : return the bytes as they are, but those of compressed files decompressed. Otherwise they are decoded: a
        byte order mark at the start of a source is removed, line ends are unchanged.
    encoding : of all sources, as Python names it; ``None``: UTF-8. Not for bytes.

    Raises
    ------
    TextError
        When a source is missing, a folder, unreadable, damaged or not of the encoding, or when the whole text is empty.
    ConfigError
        When there is no such encoding, or when one is given for bytes.
    """
    with opened(sources, as_bytes=as_bytes, encoding=encoding) as source:
        pieces = list(source.pieces())
        if not pieces:
            raise source.empty()
    return b"".join(cast(list[bytes], pieces)) if as_bytes else "".join(cast(list[str], pieces))


@dataclass(frozen=True, eq=False)
class Vocab:
    """The distinct symbols of a text; the id of a symbol is its index in ``symbols``.

    Parameters
    ----------
    symbols : (V,) uint32, strictly increasing: code points (0 to 0x10FFFF, including lone surrogates)
        or byte values (0 to 255). Copied; the copy is read-only.
    is_bytes : whether the symbols are bytes rather than characters.

    Raises
    ------
    VocabularyError
        When ``symbols`` is not such an array.
    """

    symbols: NDArray[np.uint32]
    is_bytes: bool = False

    def __post_init__(self) -> None:
        symbols = np.array(self.symbols)
        if symbols.dtype != np.uint32 or symbols.ndim != 1:
            raise VocabularyError(
                f"a vocabulary is a one-dimensional array of uint32, not {symbols.dtype} of shape {symbols.shape}"
            )
        if np.any(symbols[1:] <= symbols[:-1]):
            raise VocabularyError(
                "the symbols of a vocabulary must be strictly increasing: build it with Vocab.from_text"
            )
        limit = _BYTE_VALUES if self.is_bytes else _CODE_POINTS
        if symbols.size and symbols[-1] >= limit:
            kind = "byte value" if self.is_bytes else "code point"
            raise VocabularyError(f"{symbols[-1]} in a vocabulary is not a {kind}: the largest is {limit - 1}")
        symbols.flags.writeable = False
        object.__setattr__(self, "symbols", symbols)

    @classmethod
    def from_text(cls, text: str | bytes) -> Self:
        """The vocabulary of a text: characters of a ``str``, byte values of ``bytes``."""
        return cls(_survey(_slices(text))[0], isinstance(text, bytes))

    def __len__(self) -> int:
        """V: the number of symbols."""
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocab):
            return NotImplemented
        return self.is_bytes == other.is_bytes and np.array_equal(self.symbols, other.symbols)

    def __hash__(self) -> int:
        return hash((self.is_bytes, self.symbols.tobytes()))

    def encode(self, text: str | bytes) -> IdArray:
        """The ids of a text's symbols.

        Parameters
        ----------
        text : ``str`` for a vocabulary of characters; ``bytes`` or ``str`` for one of bytes. A ``str`` is then
            encoded as UTF-8; surrogates that escape single bytes, as in command-line arguments, become those bytes
            again.

        Returns
        -------
        (number of symbols,), in the smallest unsigned type that holds all ids of the vocabulary.

        Raises
        ------
        VocabularyError
            When the vocabulary lacks a symbol; the message names the first such symbol and its position.
        TypeError
            When ``text`` is ``bytes`` and the vocabulary is of characters.
        """
        if self.is_bytes and isinstance(text, str):
            text = _utf8(text)
        if not self.is_bytes and not isinstance(text, str):
            raise TypeError(f"a vocabulary of characters encodes str, not {type(text).__name__}")
        return self._encode_pieces(_slices(text), len(text))

    def _encode_pieces(self, pieces: Iterable[str | bytes], length: int) -> IdArray:
        """The ids of a text of ``length`` symbols, given in pieces."""
        table, start = self._table(), 0
        ids = np.empty(length, np.min_scalar_type(max(len(self) - 1, 0)))
        for piece in pieces:
            codes = _codes(piece)
            found = table.take(codes, mode="clip")
            if found.min() < 0:
                first = int(np.argmax(found < 0))
                raise self._unknown(int(codes[first]), start + first)
            ids[start : start + len(found)] = found
            start += len(found)
        return ids

    def _table(self) -> NDArray[np.int32]:
        """Id of each code up to the largest symbol, -1 if it has none; one more entry, -1, for all larger codes."""
        table = np.full(int(self.symbols[-1]) + 2 if len(self) else 1, -1, np.int32)
        table[self.symbols] = np.arange(len(self))
        return table

    def _unknown(self, code: int, position: int) -> VocabularyError:
        symbol = f"byte 0x{code:02X}" if self.is_bytes else f"character {chr(code)!r} (U+{code:04X})"
        return VocabularyError(
            f"{symbol} at position {position} is not among the vocabulary's {len(self)} symbols:"
            " remove it, or train on a text that contains it"
        )

    def decode(self, ids: IdArray | Sequence[int]) -> str | bytes:
        """The text of ids: ``str`` or, for a vocabulary of bytes, ``bytes``.

        Parameters
        ----------
        ids : one-dimensional, integers from 0 to V-1.

        Raises
        ------
        VocabularyError
            When an id is out of range.
        TypeError
            When ``ids`` is not a one-dimensional array of integers.
        """
        places = np.asarray(ids)
        if places.ndim != 1:
            raise TypeError(f"ids must be a one-dimensional array, not one of shape {places.shape}")
        if places.size == 0:
            return b"" if self.is_bytes else ""
        if not np.issubdtype(places.dtype, np.integer):
            raise TypeError(f"ids must be integers, not {places.dtype}")
        for id_ in (int(places.min()), int(places.max())):
            if not 0 <= id_ < len(self):
                raise VocabularyError(f"id {id_} is outside this vocabulary of {len(self)} symbols: use its own ids")
        codes: bytes = self.symbols.astype(np.uint8 if self.is_bytes else "<u4")[places].tobytes()
        return codes if self.is_bytes else codes.decode("utf-32-le", "surrogatepass")

    def to_json(self) -> str:
        """The vocabulary as a JSON object: ``{"bytes": false, "symbols": [10, 32, ...]}``."""
        return json.dumps({"bytes": self.is_bytes, "symbols": self.symbols.tolist()}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Inverse of `to_json`, safe for untrusted text.

        Raises
        ------
        VocabularyError
            When ``text`` is not a valid vocabulary.
        """
        # Require one object with one list, of bounded length: parsing then neither nests deeply nor takes much memory.
        if len(text) > _LONGEST_JSON or text.count("{") != 1 or text.count("[") != 1:
            raise _not_a_vocabulary("not an object with one list of symbols")
        try:
            content = json.loads(text)
        except ValueError:
            raise _not_a_vocabulary("not JSON") from None
        if not isinstance(content, dict) or content.keys() != {"bytes", "symbols"}:
            raise _not_a_vocabulary("it must have the keys 'bytes' and 'symbols' and no others")
        is_bytes, symbols = content["bytes"], content["symbols"]
        if not isinstance(is_bytes, bool) or not isinstance(symbols, list):
            raise _not_a_vocabulary("'bytes' must be true or false, and 'symbols' a list")
        if not all(type(symbol) is int and 0 <= symbol < _CODE_POINTS for symbol in symbols):
            raise _not_a_vocabulary(f"a symbol is not a whole number from 0 to {_CODE_POINTS - 1}")
        return cls(np.array(symbols, np.uint32), is_bytes)


def _not_a_vocabulary(why: str) -> VocabularyError:
    return VocabularyError(f"the stored vocabulary is damaged ({why}): use another copy of the model")


def _slices(text: str | bytes) -> Iterator[str | bytes]:
    for start in range(0, len(text), _CHUNK):
        yield text[start : start + _CHUNK]


def _survey(pieces: Iterable[str | bytes]) -> tuple[NDArray[np.uint32], int]:
    """The distinct symbols of a text given in pieces, in increasing order, and its length."""
    seen, length = np.zeros(_CODE_POINTS, np.bool_), 0
    for piece in pieces:
        seen[_codes(piece)] = True
        length += len(piece)
    return np.flatnonzero(seen).astype(np.uint32), length


def _codes(text: str | bytes) -> NDArray[np.unsignedinteger]:
    """Code points of a ``str`` (uint32, or uint8 where they are ASCII), values of ``bytes`` (uint8)."""
    if isinstance(text, bytes) or text.isascii():
        return np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that do not escape a byte: encode them as they are
        return text.encode("utf-8", "surrogatepass")


def fingerprint(vocab: Vocab, ids: IdArray) -> str:
    """Identifies a text: SHA-256, in hexadecimal, of the vocabulary's JSON and of the ids (N,), little-endian."""
    digest = hashlib.sha256(vocab.to_json().encode())
    digest.update(np.ascontiguousarray(ids, ids.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def split(ids: IdArray, val_frac: float) -> tuple[IdArray, IdArray]:
    """Split a text into its first part, for training, and its last part, for validation.

    Parameters
    ----------
    ids : (N,) the whole text.
    val_frac : fraction for validation, at least 0 and below 1; rounded up to whole symbols.

    Returns
    -------
    train, val : views of ``ids``. With ``val_frac`` 0, ``val`` is empty.

    Raises
    ------
    ConfigError
        When ``val_frac`` is out of range.
    """
    if not 0.0 <= val_frac < 1.0:
        raise ConfigError(f"val_frac must be at least 0 and below 1, not {val_frac!r}")
    cut = len(ids) - math.ceil(len(ids) * val_frac)
    return ids[:cut], ids[cut:]
