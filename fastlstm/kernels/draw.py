"""Drawing a symbol from logits: temperature, then top-k, top-p and min-p, see `fastlstm.drawing.Drawing`.

Each of the three keeps the symbols that are at least as probable as some symbol, which is found without sorting.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.output import softmax_row

#: A positive number below all positive values of float32, for a geometric mean with 0.
SMALLEST = 1e-300

#: Bounds of the exponent ``1 / temperature``, which in float32 must be neither 0 nor infinite: both make NaN.
LEAST_EXPONENT, LARGEST_EXPONENT = 1e-30, 1e30


@jit.device
def number_from(arena: Any, at: int, symbols: int, floor: float) -> int:
    """How many of the values ``arena[at : at + symbols]`` are at least ``floor``."""
    number = 0
    for v in range(symbols):
        number += 1 if np.float64(arena[at + v]) >= floor else 0
    return number


@jit.device
def sum_from(arena: Any, at: int, symbols: int, floor: float) -> float:
    """The sum of those values, in float64."""
    total = 0.0
    for v in range(symbols):
        value = np.float64(arena[at + v])
        total += value if value >= floor else 0.0
    return total


@jit.device
def smallest_from(arena: Any, at: int, symbols: int, floor: float) -> float:
    """The smallest of those values; 1 if there are none."""
    smallest = 1.0
    for v in range(symbols):
        value = np.float64(arena[at + v])
        smallest = value if (value >= floor) & (value < smallest) else smallest
    return smallest


@jit.device
def largest_below(arena: Any, at: int, symbols: int, bound: float) -> float:
    """The largest of the values ``arena[at : at + symbols]`` below ``bound``; 0 if there are none."""
    largest = 0.0
    for v in range(symbols):
        value = np.float64(arena[at + v])
        largest = value if (value < bound) & (value > largest) else largest
    return largest


@jit.device
def least_of(arena: Any, at: int, symbols: int, floor: float, enough: float, counted: bool) -> float:
    """The largest of the values ``arena[at : at + symbols]`` such that those of at least it are ``enough``.

    The number of these values is compared with ``enough`` if they are ``counted``, else their sum. Values below
    ``floor`` are ignored; those of at least ``floor`` must be enough. All are from 0 to 1, and 1 is among them.

    The interval that has the result is bisected at its geometric mean, since the values are exponentials; its ends are
    always values of the row, so that it shrinks to one after about ``log2(symbols)`` steps.
    """
    low, high = smallest_from(arena, at, symbols, floor), 1.0
    while low < high:
        middle = math.sqrt(max(low, SMALLEST)) * math.sqrt(high)
        if not low < middle <= high:
            middle = high
        amount = float(number_from(arena, at, symbols, middle)) if counted else sum_from(arena, at, symbols, middle)
        if amount >= enough:
            low = smallest_from(arena, at, symbols, middle)
        else:
            high = largest_below(arena, at, symbols, middle)
    return low


@jit.device
def draw_filtered(arena: Any, at: int, symbols: int, u: float, drawing: Any) -> int:
    """Draw one of the symbols that top-k, top-p and min-p keep, given ``exp(scale * (logit - max))`` of each."""
    floor = 0.0
    if drawing.top_k < symbols:
        floor = least_of(arena, at, symbols, floor, np.float64(drawing.top_k), True)
    if drawing.top_p < 1.0:
        floor = least_of(arena, at, symbols, floor, drawing.top_p * sum_from(arena, at, symbols, floor), False)
    floor = max(floor, drawing.min_p)  # the largest value is 1
    left, last = u * sum_from(arena, at, symbols, floor), 0
    for v in range(symbols):
        value = np.float64(arena[at + v])
        if value >= floor:
            last = v
            left -= value
            if left < 0.0:
                return v
    return last


@jit.device
def draw(arena: Any, at: int, vocab_size: int, padded: int, u: float, drawing: Any) -> int:
    """Draw a symbol from the logits at ``arena[at]`` by inverting the cumulative distribution at ``u``.

    ``drawing`` is a `fastlstm.drawing.Drawing`. Returns -1 if the logits are not finite.
    """
    symbols = vocab_size - drawing.withheld
    for v in range(symbols, vocab_size):
        arena[at + v] -= np.inf  # NaN stays NaN, so that it is noticed
    if drawing.temperature == 0.0:
        best = 0
        for v in range(vocab_size):
            if np.isnan(arena[at + v]):
                return -1
            if arena[at + v] > arena[at + best]:
                best = v
        return best if np.isfinite(arena[at + best]) else -1
    exponent = min(max(1.0 / drawing.temperature, LEAST_EXPONENT), LARGEST_EXPONENT)
    _, total = softmax_row(arena, at, padded, exponent)
    if not np.isfinite(total):
        return -1
    if drawing.top_k < symbols or drawing.top_p < 1.0 or drawing.min_p > 0.0:
        return draw_filtered(arena, at, symbols, u, drawing)
    left = u * np.float64(total)
    for v in range(symbols):
        left -= np.float64(arena[at + v])
        if left < 0.0:
            return v
    return symbols - 1
