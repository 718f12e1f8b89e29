"""Masks of dropout in NumPy: equation (D1) of ``docs/derivation.md``; see `fastlstm.dropout` for their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastlstm.dropout import CALLS, INCREMENTS, LEVELS, MULTIPLIERS, NUMBERS, PLACE, ROUNDS, WORD, Dropout
from fastlstm.params import FloatArray

Words = NDArray[np.uint64]


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """Philox4x32-10: random words (..., 4) for counters (..., 4) and a key, words of 32 bits in uint64."""
    low, high = np.uint64(WORD - 1), np.uint64(32)
    c0, c1, c2, c3 = np.moveaxis(counter, -1, 0)
    for n in range(ROUNDS):
        k0, k1 = (np.uint64((word + n * more) % WORD) for word, more in zip(key, INCREMENTS, strict=True))
        product0, product1 = np.uint64(MULTIPLIERS[0]) * c0, np.uint64(MULTIPLIERS[1]) * c2
        c0, c1, c2, c3 = product1 >> high ^ c1 ^ k0, product1 & low, product0 >> high ^ c3 ^ k1, product0 & low
    return np.stack([c0, c1, c2, c3], axis=-1)


def numbers(dropout: Dropout, place: int, step: int, shape: tuple[int, int, int]) -> Words:
    """The 16-bit numbers of all units (T, B, units) of a place in a step."""
    T, B, units = shape
    groups = -(-units // (CALLS * NUMBERS))
    counter = np.empty((T, B, groups * CALLS, 4), np.uint64)
    counter[..., 0] = place * PLACE + np.arange(groups * CALLS)
    counter[..., 1] = np.arange(B)[:, None]
    counter[..., 2] = 0 if dropout.held else np.arange(T)[:, None, None]
    counter[..., 3] = step % WORD
    words = philox(counter, dropout.key)
    halves = np.stack([words % np.uint64(LEVELS), words // np.uint64(LEVELS)], axis=-1)
    of_calls = halves.reshape(T, B, groups, CALLS, NUMBERS)
    return of_calls.swapaxes(-1, -2).reshape(T, B, -1)[..., :units]


def factors(
    dropout: Dropout, place: int, layers: int, step: int, shape: tuple[int, int, int], dtype: DTypeLike
) -> FloatArray:
    """What the units (T, B, units) of a place in a network of ``layers`` layers are multiplied by in a step."""
    threshold = dropout.thresholds(layers)[place]
    number: Any = np.dtype(dtype).type
    kept = number(LEVELS) / number(LEVELS - threshold)  # (D1)
    multiplied: FloatArray = np.where(numbers(dropout, place, step, shape) < threshold, number(0), kept)  # (D1)
    return multiplied
