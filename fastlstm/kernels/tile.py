"""The register tile: the one product that everything else is made of.

A tile is a small block of a matrix product ``C += A B`` whose sums live in vector registers for the whole
reduction::

              vector 0   vector 1   vector 2   vector 3        B: one load a vector and k
    row 0  [  sum 00  |  sum 01  |  sum 02  |  sum 03  ]
    row 1  [  sum 10  |  sum 11  |  sum 12  |  sum 13  ]       A: one element a row and k, spread
    row 2  [  sum 20  |  sum 21  |  sum 22  |  sum 23  ]          over the lanes of a register

Each k costs ``rows + vectors`` loads and ``rows * vectors`` fused multiply-adds, so a larger tile feeds the
multipliers better, until the registers are used up. With ``rows * 4`` sums, ``rows`` spread elements and
one vector of B: 3 rows fill the 16 registers of AVX2 (12 + 3 + 1), 5 rows use 26 of the 32 of AVX-512 and NEON.
(6 rows would need 31, but LLVM loads vectors of B ahead and spills sums: 68 GFLOP/s, where 5 rows reach 115 of 117.)
Without fused multiply-adds the product needs a register before it is added: 2 rows, for 3 would spill sums.
Four vectors are also the four gates of one group of LSTM units.

Every sum is one chain of multiply-adds in the order of k, whatever the tile's shape. So a result does not
depend on how rows and vectors are split into tiles, nor on which worker computes them. A single row (a batch
of one) would leave the multipliers waiting for four such chains; it takes eight vectors at a time.

B is packed (`fastlstm.kernels.pack`): vector j holds ``[k][lane]`` contiguously, vectors follow each other at an odd
distance (`pitch`).
"""

from __future__ import annotations

import functools
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit
from fastlstm.kernels.simd import element_pointer, emit_fma, emit_load, emit_splat, emit_store, llvm_type, width

#: Most rows of a tile on this machine, and vectors of a tile with several rows and with one.
ROWS = vector_unit().tile_rows
VECTORS = 4
VECTORS_ONE_ROW = 8

#: Longest stretch of a reduction done at a time: four vectors of B stay in the second-level cache.
DEPTH = 512

_I64 = ir.IntType(64)


def _numpy_tile(
    rows: int, vectors: int, depth: int, a: Any, a_at: int, a_row: int, a_k: int, b: Any, b_at: int, b_vector: int,
    b_k: int, c: Any, c_at: int, c_row: int, accumulate: int,
) -> None:  # fmt: skip
    lanes, item = width(a), a.itemsize
    strided = np.lib.stride_tricks.as_strided
    A = strided(a[a_at:], (rows, depth), (a_row * item, a_k * item))
    B = strided(b[b_at:], (depth, vectors, lanes), (b_k * item, b_vector * item, item))
    C = strided(c[c_at:], (rows, vectors, lanes), (c_row * item, lanes * item, item))
    product = np.einsum("rk,kvl->rvl", A, B)
    C[...] = C + product if accumulate else product


def _emit_tile(
    builder: ir.IRBuilder, dtype: types.Float, rows: int, vectors: int, depth: Any, a: Any, a_row: Any, a_k: Any,
    b: Any, b_vector: Any, b_k: Any, c: Any, c_row: Any, accumulate: Any,
) -> None:  # fmt: skip
    """Emit one tile of fixed shape: load the sums, loop over k, store the sums."""
    vector = llvm_type(dtype)
    zero = ir.Constant(_I64, 0)

    def offset(pointer: Any, stride: Any, n: int) -> Any:
        return builder.gep(pointer, [builder.mul(stride, ir.Constant(_I64, n))], inbounds=True)

    a_rows = [offset(a, a_row, r) for r in range(rows)]
    b_vectors = [offset(b, b_vector, v) for v in range(vectors)]
    lanes = ir.Constant(_I64, vector.count)
    c_tiles = [[offset(offset(c, c_row, r), lanes, v) for v in range(vectors)] for r in range(rows)]

    entry = builder.block
    read, loop, done = (builder.append_basic_block(name) for name in ("read_sums", "over_k", "write_sums"))
    ready = builder.append_basic_block("ready")
    builder.cbranch(accumulate, read, ready)

    builder.position_at_end(read)
    stored = [[emit_load(builder, c_tiles[r][v], dtype) for v in range(vectors)] for r in range(rows)]
    builder.branch(ready)

    builder.position_at_end(ready)
    nothing = ir.Constant(vector, None)
    start = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
    for r in range(rows):
        for v in range(vectors):
            start[r][v].add_incoming(stored[r][v], read)
            start[r][v].add_incoming(nothing, entry)
    builder.cbranch(builder.icmp_signed(">", depth, zero), loop, done)

    builder.position_at_end(loop)
    k, a_at, b_at = (builder.phi(_I64) for _ in range(3))
    sums = [[builder.phi(vector) for _ in range(vectors)] for _ in range(rows)]
    spread = [
        emit_splat(builder, builder.load(builder.gep(a_rows[r], [a_at], inbounds=True)), vector.count)
        for r in range(rows)
    ]
    added: list[list[Any]] = [[None] * vectors for _ in range(rows)]
    for v in range(vectors):
        # One vector of B at a time: all four at once would not leave registers for the sums.
        b_value = emit_load(builder, builder.gep(b_vectors[v], [b_at], inbounds=True), dtype)
        for r in range(rows):
            added[r][v] = emit_fma(builder, dtype, spread[r], b_value, sums[r][v])
    k_next = builder.add(k, ir.Constant(_I64, 1))
    for phi, first, following in (
        (k, zero, k_next),
        (a_at, zero, builder.add(a_at, a_k)),
        (b_at, zero, builder.add(b_at, b_k)),
    ):
        phi.add_incoming(first, ready)
        phi.add_incoming(following, loop)
    for r in range(rows):
        for v in range(vectors):
            sums[r][v].add_incoming(start[r][v], ready)
            sums[r][v].add_incoming(added[r][v], loop)
    builder.cbranch(builder.icmp_signed("<", k_next, depth), loop, done)

    builder.position_at_end(done)
    for r in range(rows):
        for v in range(vectors):
            final = builder.phi(vector)
            final.add_incoming(added[r][v], loop)
            final.add_incoming(start[r][v], ready)
            c_tiles[r][v] = (final, c_tiles[r][v])
    for row in c_tiles:
        for final, pointer in row:
            emit_store(builder, pointer, final, dtype)


@intrinsic
def _all_shapes(
    typingctx: Any, rows: Any, vectors: Any, depth: Any, a: Any, a_row: Any, a_k: Any,
    b: Any, b_vector: Any, b_k: Any, c: Any, c_row: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """A switch over all shapes of tile, each with its own loop; a, b and c point at the first elements."""
    i = types.intp

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        rows, vectors, depth, pa, a_row, a_k, pb, b_vector, b_k, pc, c_row, accumulate = args
        add = builder.icmp_signed("!=", accumulate, ir.Constant(_I64, 0))
        shape = builder.add(builder.mul(rows, ir.Constant(_I64, 16)), vectors)
        end = builder.append_basic_block("tile_end")
        switch = builder.switch(shape, end)
        for n_rows in range(1, ROWS + 1):
            for n_vectors in range(1, (VECTORS if n_rows > 1 else VECTORS_ONE_ROW) + 1):
                block = builder.append_basic_block(f"tile_{n_rows}x{n_vectors}")
                switch.add_case(ir.Constant(_I64, 16 * n_rows + n_vectors), block)
                builder.position_at_end(block)
                _emit_tile(
                    builder, a.dtype, n_rows, n_vectors, depth, pa, a_row, a_k, pb, b_vector, b_k, pc, c_row, add
                )
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(i, i, i, a, i, i, b, i, i, c, i, i), codegen


# All shapes together are most of the machine code there is. So they are compiled once for each dtype, as a C function
# that kernels call by its name, instead of being copied into every function that multiplies.


def _c_name(dtype: types.Float) -> str:
    return f"fastlstm_tile_{dtype}"


def _c_signature(dtype: types.Float) -> Any:
    i, p = types.intp, types.CPointer(dtype)
    return types.void(i, i, i, p, i, i, p, i, i, p, i, i)


@functools.cache
def register(dtype: str) -> Any:
    """Compile the tiles of a dtype, or load them from the cache; kernels of that dtype need it before they run."""
    if jit.DISABLED:
        return None
    number = types.float32 if dtype == "float32" else types.float64

    @jit.c_function(_c_signature(number))
    def all_shapes(rows, vectors, depth, a, a_row, a_k, b, b_vector, b_k, c, c_row, accumulate):
        _all_shapes(rows, vectors, depth, a, a_row, a_k, b, b_vector, b_k, c, c_row, accumulate)

    llvm.add_symbol(_c_name(number), all_shapes.address)
    return all_shapes


@intrinsic
def _call_tile(
    typingctx: Any, rows: Any, vectors: Any, depth: Any, a: Any, a_at: Any, a_row: Any, a_k: Any, b: Any, b_at: Any,
    b_vector: Any, b_k: Any, c: Any, c_at: Any, c_row: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """Call the C function with pointers to the first elements."""
    i = types.intp

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        rows, vectors, depth, a_, a_at, a_row, a_k, b_, b_at, b_vector, b_k, c_, c_at, c_row, accumulate = args
        pa = element_pointer(context, builder, a, a_, a_at)
        pb = element_pointer(context, builder, b, b_, b_at)
        pc = element_pointer(context, builder, c, c_, c_at)
        arguments = (rows, vectors, depth, pa, a_row, a_k, pb, b_vector, b_k, pc, c_row, accumulate)
        function_type = ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, _c_name(a.dtype)), arguments)
        return context.get_dummy_value()

    return types.void(i, i, i, a, i, i, i, b, i, i, i, c, i, i, i), codegen


_any_tile = _numpy_tile if jit.DISABLED else _call_tile


@jit.device
def tile(
    rows: int, vectors: int, depth: int, a: Any, a_at: int, a_row: int, a_k: int, b: Any, b_at: int, b_vector: int,
    b_k: int, c: Any, c_at: int, c_row: int, accumulate: int,
) -> None:  # fmt: skip
    """``C (+)= A B`` for one tile.

    Parameters
    ----------
    rows, vectors : shape of the tile, up to ``ROWS x VECTORS`` or ``1 x VECTORS_ONE_ROW``.
    depth : length of the reduction.
    a, a_at, a_row, a_k : element (r, k) of A is ``a[a_at + r*a_row + k*a_k]``.
    b, b_at, b_vector, b_k : vector (k, v) of B starts at ``b[b_at + v*b_vector + k*b_k]``.
    c, c_at, c_row : vector (r, v) of C starts at ``c[c_at + r*c_row + v*width]``; in/out.
    accumulate : 0 starts from zero, 1 from what C holds.
    """
    _any_tile(rows, vectors, depth, a, a_at, a_row, a_k, b, b_at, b_vector, b_k, c, c_at, c_row, accumulate)


@jit.device
def split(n: int, part: int, parts: int) -> tuple[int, int]:
    """Bounds of ``part`` when ``n`` items are split into ``parts`` as evenly as possible."""
    return n * part // parts, n * (part + 1) // parts


def pitch(depth: int) -> int:
    """Distance from packed vector to packed vector, counted in vectors, for a reduction over ``depth``.

    It is odd: at a power of two apart, the vectors that a tile reads side by side would fall into the same set of the
    first-level cache, and evict each other.
    """
    return depth | 1


device_pitch = jit.device(pitch)


@jit.device
def product(
    rows: int, first: int, last: int, depth: int, a: Any, a_at: int, a_row: int, b: Any, b_at: int,
    c: Any, c_at: int, c_row: int, accumulate: int,
) -> None:  # fmt: skip
    """``C[:, first:last] (+)= A B[:, first:last]`` for a row-major A and a packed B, columns counted in vectors.

    Parameters
    ----------
    rows, depth : A is (rows, depth), element (r, k) at ``a[a_at + r*a_row + k]``.
    first, last : the range of vectors of B and C.
    b, b_at : packed B, vector j of k at ``b[b_at + (j*pitch(depth) + k) * width]``.
    c, c_at, c_row : C, vector (r, j) at ``c[c_at + r*c_row + j*width]``; in/out.
    accumulate : 0 overwrites C, 1 adds to it.
    """
    lanes, apart = width(c), device_pitch(depth)
    wide = VECTORS_ONE_ROW if rows == 1 else VECTORS
    panels = (last - first + wide - 1) // wide
    tiles = (rows + ROWS - 1) // ROWS
    if panels == 0 or tiles == 0:
        return
    # The first panels and tiles are one larger than the others. (Divisions cost more than a small tile: none below.)
    breadth, broader = (last - first) // panels, (last - first) % panels
    height, taller = rows // tiles, rows % tiles
    for k in range(0, depth, DEPTH):
        stretch = min(DEPTH, depth - k)
        j = first
        for panel in range(panels):
            vectors = breadth + (1 if panel < broader else 0)
            r = 0
            for n in range(tiles):
                high = height + (1 if n < taller else 0)
                tile(
                    high, vectors, stretch, a, a_at + r * a_row + k, a_row, 1,
                    b, b_at + (j * apart + k) * lanes, apart * lanes, lanes,
                    c, c_at + r * c_row + j * lanes, c_row, 1 if k > 0 else accumulate,
                )  # fmt: skip
                r += high
            j += vectors
