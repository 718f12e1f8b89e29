"""A product of any size, made of tiles."""

from __future__ import annotations

from fastlstm.kernels import jit
from fastlstm.kernels.simd.vector import terms, width
from fastlstm.kernels.tile.call import tile
from fastlstm.kernels.tile.operands import Elements, Packed, Rows, Vectors
from fastlstm.kernels.tile.shape import DEPTH, ROWS, VECTORS, VECTORS_ONE_ROW, device_pitch


@jit.device
def product(rows: int, first: int, last: int, depth: int, a: Rows, b: Packed, c: Rows, accumulate: int) -> None:
    """``C[:, first:last] (+)= A B[:, first:last]`` for a packed B, columns counted in vectors.

    Parameters
    ----------
    rows, depth : A is (rows, depth); up to a whole group, its rows must go on with zeros.
    first, last : the range of vectors of B and C.
    a : A. b : B. c : C, in/out.
    accumulate : 0 overwrites C, 1 adds to it.
    """
    U, P = width(c.array), terms(b.array)
    groups, apart, group = (depth + P - 1) // P, device_pitch(depth, P), U * P
    wide = VECTORS_ONE_ROW if rows == 1 else VECTORS
    panels = (last - first + wide - 1) // wide
    tiles = (rows + ROWS - 1) // ROWS
    if panels == 0 or tiles == 0:
        return
    # The first panels and tiles are one larger than the others. (No divisions below: one costs more than a small tile.)
    breadth, broader = (last - first) // panels, (last - first) % panels
    height, taller = rows // tiles, rows % tiles
    for k in range(0, groups, DEPTH):
        stretch = min(DEPTH, groups - k)
        j = first
        for panel in range(panels):
            vectors = breadth + (1 if panel < broader else 0)
            r = 0
            for n in range(tiles):
                high = height + (1 if n < taller else 0)
                tile(
                    high, vectors, stretch,
                    Elements(a.array, a.at + r * a.row + k * P, a.row, P),
                    Vectors(b.array, b.at + (j * apart + k) * group, apart * group, group),
                    Rows(c.array, c.at + r * c.row + j * U, c.row),
                    1 if k > 0 else accumulate,
                )  # fmt: skip
                r += high
            j += vectors
