"""Whole texts, the vocabulary (encoding and decoding), and the split into training and validation parts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast, get_args, overload

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import Unknown
from fastlstm.errors import ConfigError, VocabularyError
from fastlstm.logarithm import log
from fastlstm.sources import opened

IdArray = NDArray[np.unsignedinteger]

_CODE_POINTS = 0x110000
#: The code of the escape of a vocabulary: above every code point.
ESCAPE = _CODE_POINTS
#: What the escape is decoded to.
_REPLACEMENT = 0xFFFD
#: Symbols without an entry that a report names.
_NAMED = 8
_BYTE_VALUES = 0x100
#: Symbols encoded at a time; this bounds the temporary memory for a long text.
_CHUNK = 1 << 18
#: Longest JSON of a vocabulary: every code point, with at most seven digits and a separator each.
_LONGEST_JSON = 10 * _CODE_POINTS


def read_ids(
    sources: Sequence[str],
    *,
    as_bytes: bool = False,
    encoding: str | None = None,
    escape: bool = False,
    encoder: Encoder | None = None,
) -> tuple[Vocab, IdArray]:
    """Read sources and encode them as one text, which is read in pieces and never held as a whole.

    The text is traversed twice: for the vocabulary and the length, then for the ids. Peak memory is about that of the
    ids.

    Parameters
    ----------
    sources, encoding : as in `read_text`.
    as_bytes : whether the symbols are bytes rather than characters; ignored if ``encoder`` is given.
    escape : whether a vocabulary of characters gets an escape; ignored if ``encoder`` is given.
    encoder : with the vocabulary to encode with; ``None``: that of the text.

    Returns
    -------
    vocab : that of the encoder, or that of the text.
    ids : (N,) of type `Vocab.id_type`.

    Raises
    ------
    TextError, ConfigError
        As `read_text`; also when a file changes between the passes.
    VocabularyError
        When a symbol has no entry in the encoder's vocabulary, and the encoder makes that an error; the message names
        the first such symbol and its position in the whole text.
    """
    as_bytes = as_bytes if encoder is None else encoder.vocab.is_bytes
    with opened(sources, as_bytes=as_bytes, encoding=encoding) as source:
        symbols, length = _survey(source.pieces())
        if length == 0:
            raise source.empty()
        if encoder is None:
            encoder = Encoder(Vocab.of_bytes() if as_bytes else Vocab(symbols, escape=escape))
        return encoder.vocab, encoder.encode_pieces(source.pieces(), length)


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
    """The symbols that a model tells apart; the id of a symbol is its index in ``symbols``.

    With an *escape*, one more entry, the last one, stands for every other code point. A symbol without an entry then
    takes the bits of the escape and those of naming it among all code points without one, each as probable as another.

    Parameters
    ----------
    symbols : (V,), or (V-1,) with an escape: uint32, strictly increasing, code points (0 to 0x10FFFF, including lone
        surrogates) or byte values (0 to 255). Copied; the copy is read-only.
    is_bytes : whether the symbols are bytes rather than characters.
    escape : whether there is an escape; only for characters.

    Raises
    ------
    VocabularyError
        When ``symbols`` is not such an array, or bytes have an escape.
    """

    symbols: NDArray[np.uint32]
    is_bytes: bool = False
    escape: bool = False

    def __post_init__(self) -> None:
        if self.is_bytes and self.escape:
            raise VocabularyError("a vocabulary of bytes has no escape: give it all 256 values")
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
    def from_text(cls, text: str | bytes, *, escape: bool = False) -> Self:
        """The vocabulary of a text: the distinct characters of a ``str``; for ``bytes`` all 256 values."""
        if isinstance(text, bytes):
            return cls.of_bytes()
        return cls(_survey(_slices(text))[0], escape=escape)

    @classmethod
    def of_bytes(cls) -> Self:
        """The vocabulary of all 256 bytes."""
        return cls(np.arange(_BYTE_VALUES, dtype=np.uint32), True)

    def __len__(self) -> int:
        """V: the number of symbols, and of the escape if there is one."""
        return len(self.symbols) + self.escape

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocab):
            return NotImplemented
        same_kind = (self.is_bytes, self.escape) == (other.is_bytes, other.escape)
        return same_kind and np.array_equal(self.symbols, other.symbols)

    def __hash__(self) -> int:
        return hash((self.is_bytes, self.escape, self.symbols.tobytes()))

    @property
    def codes(self) -> NDArray[np.uint32]:
        """(V,), strictly increasing: the symbols, then `ESCAPE` if there is an escape."""
        return np.append(self.symbols, np.uint32(ESCAPE)) if self.escape else self.symbols

    @property
    def escape_id(self) -> int | None:
        """The id of the escape, V-1; ``None``: there is none."""
        return len(self.symbols) if self.escape else None

    @property
    def others(self) -> int:
        """The number of code points, or of byte values, that are not among the symbols."""
        return (_BYTE_VALUES if self.is_bytes else _CODE_POINTS) - len(self.symbols)

    @property
    def naming_nats(self) -> float:
        """Nats that name a symbol for which the escape stands; 0 without an escape."""
        return log(float(self.others)) if self.escape and self.others else 0.0

    @property
    def id_type(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds all ids."""
        return np.min_scalar_type(max(len(self) - 1, 0))

    def encode(self, text: str | bytes, unknown: Unknown | None = None) -> IdArray:
        """The ids of a text's symbols.

        Parameters
        ----------
        text : ``str`` for a vocabulary of characters; ``bytes`` or ``str`` for one of bytes. A ``str`` is then
            encoded as UTF-8; surrogates that escape single bytes, as in command-line arguments, become those bytes
            again.
        unknown : what becomes of symbols without an entry, see `Encoder`.

        Returns
        -------
        (number of symbols,), or fewer if some are skipped, of type `id_type`.

        Raises
        ------
        VocabularyError
            When a symbol has no entry and ``unknown`` makes that an error; the message names it and its position.
        ConfigError
            When ``unknown`` is ``"escape"`` and there is no escape.
        TypeError
            When ``text`` is ``bytes`` and the vocabulary is of characters.
        """
        return Encoder(self, unknown).encode(text)

    def decode(self, ids: IdArray | Sequence[int]) -> str | bytes:
        """The text of ids: ``str`` or, for a vocabulary of bytes, ``bytes``. The escape becomes U+FFFD.

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
        shown = np.append(self.symbols, np.uint32(_REPLACEMENT)) if self.escape else self.symbols
        codes: bytes = shown.astype(np.uint8 if self.is_bytes else "<u4")[places].tobytes()
        return codes if self.is_bytes else codes.decode("utf-32-le", "surrogatepass")

    def to_json(self) -> str:
        """The vocabulary as a JSON object: ``{"bytes": false, "symbols": [10, 32, ...]}``, with an escape also
        ``"escape": true``.
        """
        content = {"bytes": self.is_bytes, "symbols": self.symbols.tolist()}
        return json.dumps(content | ({"escape": True} if self.escape else {}), separators=(",", ":"))

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
        if not isinstance(content, dict) or content.keys() - {"escape"} != {"bytes", "symbols"}:
            raise _not_a_vocabulary("it must have the keys 'bytes' and 'symbols', and no others but 'escape'")
        is_bytes, symbols, escape = content["bytes"], content["symbols"], content.get("escape", False)
        if not isinstance(is_bytes, bool) or not isinstance(escape, bool) or not isinstance(symbols, list):
            raise _not_a_vocabulary("'bytes' and 'escape' must be true or false, and 'symbols' a list")
        if not all(type(symbol) is int and 0 <= symbol < _CODE_POINTS for symbol in symbols):
            raise _not_a_vocabulary(f"a symbol is not a whole number from 0 to {_CODE_POINTS - 1}")
        return cls(np.array(symbols, np.uint32), is_bytes, escape)


class Encoder:
    """Encodes a text that is given in pieces, and counts its symbols without an entry in the vocabulary.

    Parameters
    ----------
    vocab : the vocabulary.
    unknown : what becomes of a symbol without an entry: it is an ``"error"``, or it is left out (``"skip"``), or it
        gets the id of the ``"escape"``; ``None``: the escape, or an error if there is none.

    Attributes
    ----------
    vocab, unknown : as given, or chosen.
    lacking : how often each code without an entry occurred so far.

    Raises
    ------
    ConfigError
        When ``unknown`` is ``"escape"`` and the vocabulary has no escape, or when it is none of these.
    """

    def __init__(self, vocab: Vocab, unknown: Unknown | None = None) -> None:
        self.vocab = vocab
        self.unknown: Unknown = ("escape" if vocab.escape else "error") if unknown is None else unknown
        if self.unknown not in get_args(Unknown):
            raise ConfigError(f"unknown symbols are one of {', '.join(get_args(Unknown))}, not {unknown!r}")
        if self.unknown == "escape" and not vocab.escape:
            raise ConfigError(
                "the model has no entry that stands for unknown symbols: skip them (--unknown skip), or train it again"
            )
        self.lacking: dict[int, int] = {}
        # Id of each code up to the largest symbol, -1 if it has none; one more entry, -1, for all larger codes.
        self._table = np.full(int(vocab.symbols[-1]) + 2 if len(vocab.symbols) else 1, -1, np.int32)
        self._table[vocab.symbols] = np.arange(len(vocab.symbols))
        self._position = 0

    def encode(self, text: str | bytes) -> IdArray:
        """The ids of a whole text, see `Vocab.encode`."""
        if self.vocab.is_bytes and isinstance(text, str):
            text = utf8(text)
        if not self.vocab.is_bytes and not isinstance(text, str):
            raise TypeError(f"a vocabulary of characters encodes str, not {type(text).__name__}")
        return self.encode_pieces(_slices(text), len(text))

    def encode_pieces(self, pieces: Iterable[str | bytes], length: int) -> IdArray:
        """The ids of a whole text of ``length`` symbols, given in pieces; positions in an error are those in it."""
        self._position = 0
        ids, stop = np.empty(length, self.vocab.id_type), 0
        for piece in pieces:
            found = self.encode_piece(piece)
            ids[stop : stop + len(found)] = found
            stop += len(found)
        return ids[:stop]

    def encode_piece(self, piece: str | bytes) -> IdArray:
        """The ids of the next piece of a text; raises `VocabularyError` as `Vocab.encode`."""
        codes = codes_of(piece)
        ids = self._table.take(codes, mode="clip")
        lacking = ids < 0
        if lacking.any():
            ids = self._replaced(ids, lacking, codes)
        self._position += len(codes)
        return ids.astype(self.vocab.id_type)

    def _replaced(
        self, ids: NDArray[np.int32], lacking: NDArray[np.bool_], codes: NDArray[np.unsignedinteger]
    ) -> NDArray[np.int32]:
        """Ids of a piece in which those that are ``lacking`` are left out, or are the escape; counts them."""
        if self.unknown == "error":
            first = int(np.argmax(lacking))
            raise self._error(int(codes[first]), self._position + first)
        for code, count in zip(*np.unique(codes[lacking], return_counts=True), strict=True):
            self.lacking[int(code)] = self.lacking.get(int(code), 0) + int(count)
        if self.unknown == "skip":
            return ids[~lacking]
        ids[lacking] = len(self.vocab.symbols)
        return ids

    def _error(self, code: int, position: int) -> VocabularyError:
        return VocabularyError(
            f"{self._kind()} {self._shown(code)} at position {position} is not among the vocabulary's"
            f" {len(self.vocab.symbols)} symbols: leave such symbols out (--unknown skip), or train on a text that"
            " contains it"
        )

    def report(self) -> str:
        """The symbols without an entry that occurred, the most frequent ones by name; empty if there were none."""
        if not self.lacking:
            return ""
        total, kinds = sum(self.lacking.values()), len(self.lacking)
        frequent = sorted(self.lacking, key=lambda code: (-self.lacking[code], code))[:_NAMED]
        named = [
            self._shown(code) + (f" {self.lacking[code]:,} times" if self.lacking[code] > 1 else "")
            for code in frequent
        ]
        more = f" and {kinds - len(frequent):,} others" if kinds > len(frequent) else ""
        noun = self._kind() if total == 1 else f"{self._kind()}s"
        what = "left out" if self.unknown == "skip" else "read as unknown"
        return f"{total:,} {noun} that the model does not know ({what}): {', '.join(named)}{more}"

    def _kind(self) -> str:
        return "byte" if self.vocab.is_bytes else "character"

    def _shown(self, code: int) -> str:
        return f"0x{code:02X}" if self.vocab.is_bytes else f"{chr(code)!r} (U+{code:04X})"


def _times(count: int) -> str:
    return f" {count:,} times" if count > 1 else ""


def _not_a_vocabulary(why: str) -> VocabularyError:
    return VocabularyError(f"the stored vocabulary is damaged ({why}): use another copy of the model")


def _slices(text: str | bytes) -> Iterator[str | bytes]:
    for start in range(0, len(text), _CHUNK):
        yield text[start : start + _CHUNK]


def _survey(pieces: Iterable[str | bytes]) -> tuple[NDArray[np.uint32], int]:
    """The distinct symbols of a text given in pieces, in increasing order, and its length."""
    seen, length = np.zeros(_CODE_POINTS, np.bool_), 0
    for piece in pieces:
        seen[codes_of(piece)] = True
        length += len(piece)
    return np.flatnonzero(seen).astype(np.uint32), length


def codes_of(text: str | bytes) -> NDArray[np.unsignedinteger]:
    """Code points of a ``str`` (uint32, or uint8 where they are ASCII), values of ``bytes`` (uint8)."""
    if isinstance(text, bytes) or text.isascii():
        return np.frombuffer(text if isinstance(text, bytes) else text.encode("ascii"), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def utf8(text: str) -> bytes:
    """The bytes of a text; surrogates that escape single bytes, as in command-line arguments, become those again."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that do not escape a byte: encode them as they are
        return text.encode("utf-8", "surrogatepass")


def fingerprint(vocab: Vocab, ids: IdArray) -> str:
    """Identifies a text: SHA-256, in hexadecimal, of the vocabulary's JSON and of the ids (N,), little-endian."""
    digest = hashlib.sha256(vocab.to_json().encode())
    digest.update(np.ascontiguousarray(ids, ids.dtype.newbyteorder("<")).data)
    return digest.hexdigest()


def occurrences(ids: IdArray, size: int) -> NDArray[np.int64]:
    """How often each of ``size`` symbols occurs among ids (N,): (size,)."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(ids), _CHUNK):
        counts += np.bincount(ids[start : start + _CHUNK], minlength=size)
    return counts


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
