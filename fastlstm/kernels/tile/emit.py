"""The LLVM code of a tile, and of the switch over all its shapes."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastlstm.kernels.host import vector_unit
from fastlstm.kernels.simd.emit import (
    I32,
    emit_dot_pairs,
    emit_fma,
    emit_load,
    emit_read,
    emit_splat,
    emit_store,
    llvm_type,
)  # fmt: skip
from fastlstm.kernels.tile.shape import ROWS, SUMMED, SUMMED_ONE_ROW, VECTORS, VECTORS_ONE_ROW

_I64 = ir.IntType(64)


class _Floats:
    """The arithmetic of a tile whose operands are of the dtype of its sums, for one register of a vector.

    Parameters
    ----------
    dtype : of the sums.
    """

    def __init__(self, dtype: types.Float) -> None:
        self._dtype, self._parts = dtype, vector_unit().per_vector
        self._vector = llvm_type(dtype, self._parts)

    def read_a(self, builder: ir.IRBuilder, pointer: Any) -> Any:
        """The element of A at a pointer, in every element of a register."""
        return emit_splat(builder, builder.load(pointer), self._vector.count)

    def read_b(self, builder: ir.IRBuilder, pointer: Any) -> Any:
        """The register of B at a pointer."""
        return emit_load(builder, pointer, self._dtype, self._parts)

    def multiply_add(self, builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
        """``a * b + c``."""
        return emit_fma(builder, self._dtype, a, b, c)


class _Pairs(_Floats):
    """The same for operands of bfloat16, of which A has two elements for each k, and B a pair for each column."""

    def __init__(self) -> None:
        super().__init__(types.float32)
        self._words = ir.VectorType(I32, self._vector.count)

    def read_a(self, builder: ir.IRBuilder, pointer: Any) -> Any:
        word = builder.load(builder.bitcast(pointer, I32.as_pointer()))
        word.align = types.uint16.bitwidth // 8
        return emit_splat(builder, word, self._vector.count)

    def read_b(self, builder: ir.IRBuilder, pointer: Any) -> Any:
        return emit_read(builder, pointer, types.uint16, self._words)

    def multiply_add(self, builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
        return emit_dot_pairs(builder, a, b, c)


def _offset(builder: ir.IRBuilder, pointer: Any, stride: Any, n: int) -> Any:
    """``pointer`` moved by ``n`` strides, which are counted in elements."""
    return builder.gep(pointer, [builder.mul(stride, ir.Constant(_I64, n))], inbounds=True)


def _emit_tile(
    builder: ir.IRBuilder, arithmetic: _Floats, dtype: types.Float, rows: int, vectors: int, depth: Any,
    a: Any, a_row: Any, a_k: Any, b: Any, b_vector: Any, b_k: Any, c: Any, c_row: Any, accumulate: Any,
) -> None:  # fmt: skip
    """Emit one tile of fixed shape: load the sums, loop over k, store the sums.

    A vector is computed register by register: here ``v`` counts registers.
    """
    parts = vector_unit().per_vector
    vector = llvm_type(dtype, parts)
    vectors *= parts
    zero = ir.Constant(_I64, 0)

    a_rows = [_offset(builder, a, a_row, r) for r in range(rows)]
    register = ir.Constant(_I64, vector.count)
    b_vectors = [
        _offset(builder, _offset(builder, b, b_vector, v // parts), register, v % parts) for v in range(vectors)
    ]
    c_rows = [_offset(builder, c, c_row, r) for r in range(rows)]
    c_tiles = [[_offset(builder, c_rows[r], register, v) for v in range(vectors)] for r in range(rows)]

    entry = builder.block
    read, loop, done = (builder.append_basic_block(name) for name in ("read_sums", "over_k", "write_sums"))
    ready = builder.append_basic_block("ready")
    builder.cbranch(accumulate, read, ready)

    builder.position_at_end(read)
    stored = [[emit_load(builder, c_tiles[r][v], dtype, parts) for v in range(vectors)] for r in range(rows)]
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
    spread = [arithmetic.read_a(builder, builder.gep(a_rows[r], [a_at], inbounds=True)) for r in range(rows)]
    added: list[list[Any]] = [[None] * vectors for _ in range(rows)]
    for v in range(vectors):
        # One vector of B at a time: all four at once would not leave registers for the sums.
        b_value = arithmetic.read_b(builder, builder.gep(b_vectors[v], [b_at], inbounds=True))
        for r in range(rows):
            added[r][v] = arithmetic.multiply_add(builder, spread[r], b_value, sums[r][v])
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
def all_shapes(
    typingctx: Any, rows: Any, vectors: Any, depth: Any, a: Any, a_row: Any, a_k: Any,
    b: Any, b_vector: Any, b_k: Any, c: Any, c_row: Any, accumulate: Any,
) -> Any:  # fmt: skip
    """A switch over all shapes of a tile, each with a separate loop; a, b and c point to the first elements."""
    i = types.intp

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        rows, vectors, depth, pa, a_row, a_k, pb, b_vector, b_k, pc, c_row, accumulate = args
        add = builder.icmp_signed("!=", accumulate, ir.Constant(_I64, 0))
        arithmetic = _Pairs() if a.dtype == types.uint16 else _Floats(c.dtype)
        shape = builder.add(builder.mul(rows, ir.Constant(_I64, 16)), vectors)
        end = builder.append_basic_block("tile_end")
        switch = builder.switch(shape, end)
        for n_rows in range(1, ROWS + 1):
            for n_vectors in range(1, (VECTORS if n_rows > 1 else VECTORS_ONE_ROW) + 1):
                block = builder.append_basic_block(f"tile_{n_rows}x{n_vectors}")
                switch.add_case(ir.Constant(_I64, 16 * n_rows + n_vectors), block)
                builder.position_at_end(block)
                summed = SUMMED if n_rows > 1 else SUMMED_ONE_ROW
                for v in range(0, n_vectors, summed):
                    b_at = _offset(builder, pb, b_vector, v)
                    c_at = _offset(builder, pc, ir.Constant(_I64, llvm_type(c.dtype).count), v)
                    _emit_tile(
                        builder, arithmetic, c.dtype, n_rows, min(summed, n_vectors - v), depth,
                        pa, a_row, a_k, b_at, b_vector, b_k, c_at, c_row, add,
                    )  # fmt: skip
                builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(i, i, i, a, i, i, b, i, i, c, i, i), codegen
