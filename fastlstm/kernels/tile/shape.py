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

#: Maximum length of the part of a reduction done at a time: its four vectors of B stay in the second-level cache.
DEPTH = 512


def pitch(depth: int) -> int:
    """Distance between packed vectors, in units of vectors, for a reduction over ``depth``.

    It is odd: at a distance of a power of two, the vectors that a tile reads together would map to the same set of the
    first-level cache, and evict each other.
    """
    return depth | 1


device_pitch = jit.device(pitch)
