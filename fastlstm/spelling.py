"""Any bytes as symbols of any vocabulary, and back without loss.

A vocabulary of characters spells bytes as UTF-8, and each byte that is not UTF-8 as a lone surrogate. A symbol without
an entry is spelled as the escape or, where the vocabulary has none, as one more symbol, with its number among all those
without an entry.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.text import IdArray, Vocab

#: Symbols of any integer type.
Ids = NDArray[np.integer]


class Spelled(NamedTuple):
    """Spelled bytes.

    Attributes
    ----------
    symbols : (N,) of type `Spelling.dtype`.
    numbers : (M,) int64, those of the symbols without an entry, in their order, each below ``vocab.others``.
    """

    symbols: IdArray
    numbers: NDArray[np.int64]


class Spelling:
    """The spelling of bytes with a vocabulary.

    Attributes
    ----------
    choices : the number of symbols, at least 2: those of the vocabulary, and one more if there is no escape for the
        others.
    dtype : the smallest unsigned type that holds them.
    """

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._unknown = len(vocab) if vocab.escape_id is None else vocab.escape_id
        self.choices = max(2, len(vocab) + (vocab.escape_id is None and vocab.others > 0))
        self.dtype = np.min_scalar_type(self.choices - 1)

    def spell(self, data: bytes) -> Spelled:
        """The symbols of bytes."""
        codes = _codes(data, self._vocab.is_bytes)
        below = np.searchsorted(self._vocab.symbols, codes)
        known = np.append(self._vocab.symbols, np.iinfo(np.uint32).max)[below] == codes
        symbols = np.where(known, below, self._unknown).astype(self.dtype)
        return Spelled(symbols, codes[~known].astype(np.int64) - below[~known])

    def count_unknown(self, symbols: IdArray) -> int:
        """How many symbols have no entry in the vocabulary."""
        return int(np.count_nonzero(symbols == self._unknown))

    def read_as(self, symbols: Ids) -> NDArray[np.int32]:
        """The ids that a model reads for symbols: their own, and 0 for what is no entry of the vocabulary."""
        return np.where(symbols < len(self._vocab), symbols, 0).astype(np.int32)

    def unspell(self, spelled: Spelled) -> bytes:
        """The bytes of symbols; raises `ValueError` when they are not those of any bytes."""
        symbols, numbers = spelled
        entries = self._vocab.symbols.astype(np.int64)
        unknown = symbols == self._unknown
        if numbers.size and numbers.max() >= self._vocab.others:
            raise ValueError("it has a symbol that does not exist")
        codes = np.append(entries, 0).take(symbols, mode="clip")
        # Of the codes without an entry, as many lie below an entry as its code exceeds its index.
        codes[unknown] = numbers + np.searchsorted(entries - np.arange(len(entries)), numbers, side="right")
        if self._vocab.is_bytes:
            return codes.astype(np.uint8).tobytes()
        return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass").encode("utf-8", "surrogateescape")


def _codes(data: bytes, is_bytes: bool) -> NDArray[np.unsignedinteger]:
    if is_bytes:
        return np.frombuffer(data, np.uint8)
    text = data.decode("utf-8", "surrogateescape")
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
