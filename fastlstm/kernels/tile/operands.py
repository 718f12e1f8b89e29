"""The operands of tiles and products: a flat array, and the position and strides of a matrix in it.

They cost nothing at run time: numba passes their fields as separate arguments.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Rows(NamedTuple):
    """A row-major matrix: element (r, k) is ``array[at + r*row + k]``."""

    array: Any
    at: int
    row: int


class Elements(NamedTuple):
    """A matrix that is read element by element, or group by group: (r, k) is ``array[at + r*row + k*column]``."""

    array: Any
    at: int
    row: int
    column: int


class Vectors(NamedTuple):
    """A matrix that is read in groups: vector v of group k starts at ``array[at + v*vector + k*row]``."""

    array: Any
    at: int
    vector: int
    row: int


class Packed(NamedTuple):
    """Packed weights: vector v of group k starts at ``array[at + (v*pitch(depth, P) + k) * U*P]``, P being `terms`."""

    array: Any
    at: int
