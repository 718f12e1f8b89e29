"""The shape of a tile on this machine, and the distance between packed vectors."""

from __future__ import annotations

from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit

#: Maximum number of rows of a tile on this machine, and of vectors of a tile with several rows and with one.
ROWS = vector_unit().tile_rows
VECTORS = 4
VECTORS_ONE_ROW = 8

#: How many of these are summed at a time: those whose sums stay in this machine's registers.
SUMMED, SUMMED_ONE_ROW = (n // vector_unit().per_vector for n in (VECTORS, VECTORS_ONE_ROW))

#: Maximum groups of a reduction done at a time: their four vectors of B stay in the second-level cache.
DEPTH = 512


def pitch(depth: int, terms: int) -> int:
    """Distance between packed vectors, in groups of ``terms`` rows, for a reduction over ``depth`` rows.

    It is odd: at a distance of a power of two, the vectors that a tile reads together would map to the same set of the
    first-level cache, and evict each other.
    """
    return (depth + terms - 1) // terms | 1


device_pitch = jit.device(pitch)
