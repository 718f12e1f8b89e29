"""Arithmetic coding under given probabilities, with the range coder of the library constriction.

The probabilities of a network are mixed with a little of the uniform distribution over all choices: every choice can be
coded, also one that the network does not have, and no choice is free, which bounds the number of symbols that code of a
given length can stand for (`most_symbols`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm import extras
from fastlstm.params import FloatArray

#: The share of the uniform distribution; a power of 2, so that its complement is exact in float32.
_UNIFORM = 2.0**-12

#: Least bits of a symbol, rounded down: at least half of the uniform share goes to other choices than the likeliest.
_LEAST_BITS = 2.0**-13

#: Bits by which code may be shorter than the bits of its symbols.
_SPARE_BITS = 64

#: Bytes of a word of code; words are little-endian.
WORD = 4


def most_symbols(code_bytes: int) -> int:
    """The largest number of symbols that code of so many bytes can stand for."""
    return int((8 * code_bytes + _SPARE_BITS) / _LEAST_BITS)


class RangeEncoder:
    """Encodes symbols, one after another.

    Parameters
    ----------
    choices : the number of choices C of each symbol, at least 2 and at least that of the network.

    Raises
    ------
    FastlstmError
        When the library is not installed.
    """

    def __init__(self, choices: int) -> None:
        self._stream = _library().stream
        self._coder = self._stream.queue.RangeEncoder()
        self._family = self._stream.model.Categorical(perfect=False)
        self._choices = choices

    def encode(self, symbols: NDArray[np.integer], probabilities: FloatArray) -> None:
        """Encode symbols (n,) under their probabilities (n, V), float32; raises `ValueError` unless they are finite."""
        self._coder.encode(symbols.astype(np.int32), self._family, _mixed(probabilities, self._choices))

    def encode_uniform(self, numbers: NDArray[np.integer], size: int) -> None:
        """Encode numbers (n,) from 0 to ``size - 1``, each as probable as another."""
        if len(numbers):
            self._coder.encode(numbers.astype(np.int32), self._stream.model.Uniform(max(2, size)))

    def code(self) -> bytes:
        """The code of all symbols."""
        words: bytes = self._coder.get_compressed().astype(f"<u{WORD}").tobytes()
        return words


class RangeDecoder:
    """Decodes what a `RangeEncoder` has encoded.

    Parameters
    ----------
    code : the code, in whole words. choices : as for the encoder.
    """

    def __init__(self, code: bytes, choices: int) -> None:
        self._stream = _library().stream
        self._coder = self._stream.queue.RangeDecoder(np.frombuffer(code, f"<u{WORD}").astype(np.uint32))
        self._family = self._stream.model.Categorical(perfect=False)
        self._choices = choices

    def decode(self, probabilities: FloatArray) -> NDArray[np.int32]:
        """Decode symbols (n,) under their probabilities (n, V); raises `ValueError` when the code is impossible."""
        return self._decoded(self._family, _mixed(probabilities, self._choices))

    def decode_uniform(self, count: int, size: int) -> NDArray[np.int32]:
        """Decode numbers (count,) that `RangeEncoder.encode_uniform` has encoded."""
        if not count:
            return np.zeros(0, np.int32)
        return self._decoded(self._stream.model.Uniform(max(2, size)), count)

    def _decoded(self, *arguments: Any) -> NDArray[np.int32]:
        try:
            symbols: NDArray[np.int32] = self._coder.decode(*arguments)
        except AssertionError as error:  # the library's error for code that no encoder writes
            raise ValueError(str(error)) from None
        return symbols


def _mixed(probabilities: FloatArray, choices: int) -> NDArray[np.float32]:
    """Probabilities (n, V) mixed with the uniform distribution over C choices, (n, C). Each operation rounds once."""
    rows, symbols = probabilities.shape
    mixed = np.zeros((rows, choices), np.float32)
    np.multiply(probabilities, np.float32(1.0 - _UNIFORM), out=mixed[:, :symbols])
    mixed += np.float32(_UNIFORM / choices)
    return mixed


def _library() -> Any:
    return extras.load("constriction", extra="compress", purpose="compressing files")
