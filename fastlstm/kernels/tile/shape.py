"""The shape of a tile on this machine, and the distance between packed vectors."""

from __future__ import annotations

from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit

#: Most rows of a tile on this machine, and vectors of a tile with several rows and with one.
ROWS = vector_unit().tile_rows
VECTORS = 4
VECTORS_ONE_ROW = 8

#: Longest stretch of a reduction done at a time: four vectors of B stay in the second-level cache.
DEPTH = 512


def pitch(depth: int) -> int:
    """Distance from packed vector to packed vector, counted in vectors, for a reduction over ``depth``.

    It is odd: at a power of two apart, the vectors that a tile reads side by side would fall into the same set of the
    first-level cache, and evict each other.
    """
    return depth | 1


device_pitch = jit.device(pitch)
