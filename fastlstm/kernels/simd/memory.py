"""Moving vectors between registers and memory: loads and stores, also partial and transposed, and prefetching."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastlstm.kernels import jit
from fastlstm.kernels.simd.emit import (
    I32,
    element_pointer,
    emit_load,
    emit_load_part,
    emit_narrow,
    emit_read,
    emit_read_part,
    emit_store,
    emit_store_part,
    emit_write,
    stored_type,
)  # fmt: skip
from fastlstm.kernels.simd.vector import narrowed, or_numpy, terms, vector_in, widened, width


@or_numpy(lambda array, index: widened(array[index : index + width(array)].copy()))
@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """The vector of ``array[index : index + width]``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return emit_load(builder, element_pointer(context, builder, array, *args), array.dtype)

    return vector_in(array)(array, types.intp), codegen


def _numpy_store(array: np.ndarray, index: int, value: np.ndarray) -> None:
    array[index : index + len(value)] = narrowed(value, array.dtype)


@or_numpy(_numpy_store)
@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + width] = value``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        emit_store(builder, element_pointer(context, builder, array, *args[:2]), args[2], array.dtype)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _numpy_load_part(array: np.ndarray, index: int, count: int) -> np.ndarray:
    value = np.zeros(width(array), array.dtype)
    value[:count] = array[index : index + count]
    return widened(value)


@or_numpy(_numpy_load_part)
@intrinsic
def load_part(typingctx: Any, array: Any, index: Any, count: Any) -> Any:
    """The vector of ``array[index : index + count]`` followed by zeros; ``count`` is at most the width."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, *args[:2])
        return emit_load_part(builder, pointer, args[2], array.dtype)

    return vector_in(array)(array, types.intp, types.intp), codegen


def _numpy_store_part(array: np.ndarray, index: int, count: int, value: np.ndarray) -> None:
    array[index : index + count] = narrowed(value[:count], array.dtype)


@or_numpy(_numpy_store_part)
@intrinsic
def store_part(typingctx: Any, array: Any, index: Any, count: Any, value: Any) -> Any:
    """``array[index : index + count] = value[:count]``; ``count`` is at most the width."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, *args[:2])
        emit_store_part(builder, pointer, args[2], args[3], array.dtype)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


def _prefetch(name: str, write: int, doc: str) -> Any:
    """An intrinsic that prefetches the cache line of an element; the index may lie beyond the array."""

    def typed(typingctx: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            byte_pointer = ir.IntType(8).as_pointer()
            function_type = ir.FunctionType(ir.VoidType(), [byte_pointer, I32, I32, I32])
            prefetch = cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
            pointer = builder.bitcast(
                element_pointer(context, builder, array, args[0], args[1], inbounds=False), byte_pointer
            )
            keep, data = ir.Constant(I32, 3), ir.Constant(I32, 1)
            builder.call(prefetch, (pointer, ir.Constant(I32, write), keep, data))
            return context.get_dummy_value()

        return types.void(array, types.intp), codegen

    typed.__name__, typed.__doc__ = name, doc
    return (lambda array, index: None) if jit.DISABLED else intrinsic(typed)


prefetch = _prefetch("prefetch", 0, "Prefetch the cache line of ``array[index]`` for reading.")
prefetch_to_write = _prefetch("prefetch_to_write", 1, "Prefetch the cache line of ``array[index]`` for writing.")


def _emit_transposed(builder: ir.IRBuilder, rows: list[Any]) -> list[Any]:
    """The columns of a square block given by its rows.

    Stage s of log2(width) swaps the off-diagonal quarters of all blocks of 2s rows and columns.
    """
    U = len(rows)
    s = 1
    while s < U:
        upper = [k if k & s == 0 else U + k - s for k in range(U)]
        lower = [k + s if k & s == 0 else U + k for k in range(U)]
        for u in (u for u in range(U) if u & s == 0):
            pair = rows[u], rows[u + s]
            rows[u], rows[u + s] = (
                builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, U), order)) for order in (upper, lower)
            )
        s *= 2
    return rows


def _numpy_store_transposed(
    source: np.ndarray, at: int, row: int, target: np.ndarray, to: int, target_row: int, rows: int, columns: int
) -> None:
    U, P = width(source), source.itemsize // target.itemsize
    block = np.zeros((U, U), source.dtype)
    for u in range(rows):
        block[u, :columns] = source[at + u * row : at + u * row + columns]
    words = narrowed(block, target.dtype) if P > 1 else block
    for k, word in enumerate(words.reshape(U, U // P, P).transpose(1, 0, 2)):
        target[to + k * target_row : to + k * target_row + U * P] = word.ravel()


def _emit_rows(
    context: Any, builder: ir.IRBuilder, source: Any, source_: Any, at: Any, row: Any, rows: Any, columns: Any
) -> list[Any]:
    """Load a square block of an array, of which only ``rows x columns`` elements are read; the others are zero."""
    dtype, vector = source.dtype, stored_type(source.dtype)
    U = vector.count

    def pointer(u: int) -> Any:
        index = builder.add(at, builder.mul(row, ir.Constant(row.type, u)))
        return element_pointer(context, builder, source, source_, index, inbounds=False)

    full = ir.Constant(rows.type, U)
    whole = builder.and_(builder.icmp_signed("==", rows, full), builder.icmp_signed("==", columns, full))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            loaded = [emit_read(builder, pointer(u), dtype, vector) for u in range(U)]
            after_then = builder.block
        with otherwise:
            parts = []
            for u in range(U):
                inside = builder.icmp_signed("<", ir.Constant(rows.type, u), rows)
                count = builder.select(inside, columns, ir.Constant(columns.type, 0))
                parts.append(emit_read_part(builder, pointer(u), count, dtype))
            after_otherwise = builder.block
    read = []
    for whole_row, part in zip(loaded, parts, strict=True):
        phi = builder.phi(vector)
        phi.add_incoming(whole_row, after_then)
        phi.add_incoming(part, after_otherwise)
        read.append(phi)
    return read


def _emit_pairs(builder: ir.IRBuilder, row: Any) -> Any:
    """A vector of float32 rounded to bfloat16: as half a vector of words, pairs of numbers; the rest is undefined."""
    U = row.type.count
    words = builder.bitcast(emit_narrow(builder, row, types.uint16), ir.VectorType(I32, U // 2))
    undefined = ir.Constant(words.type, ir.Undefined)
    return builder.shuffle_vector(words, undefined, ir.Constant(ir.VectorType(I32, U), list(range(U))))


@or_numpy(_numpy_store_transposed)
@intrinsic
def store_transposed(
    typingctx: Any, source: Any, at: Any, row: Any, target: Any, to: Any, target_row: Any, rows: Any, columns: Any
) -> Any:
    """``target[to + k*target_row + u] = source[at + u*row + k]`` for u < ``rows`` and k < ``columns``, else 0.

    It writes a square block of ``width`` rows and columns, and reads only ``rows x columns`` elements. From float32 to
    bfloat16, pairs of numbers stay together: ``target[to + k//2*target_row + 2*u + k%2]``, in half as many rows.
    """
    pairs = source.dtype != target.dtype

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        source_, at, row, target_, to, target_row, rows, columns = args
        read = _emit_rows(context, builder, source, source_, at, row, rows, columns)
        stored = len(read)
        if pairs:
            read, stored = [_emit_pairs(builder, row) for row in read], stored // 2
        for k, column in enumerate(_emit_transposed(builder, read)[:stored]):
            index = builder.add(to, builder.mul(target_row, ir.Constant(to.type, k)))
            emit_write(builder, element_pointer(context, builder, target, target_, index), column, target.dtype)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, target, i, i, i, i), codegen


@jit.device
def round_vectors(source: Any, at: int, target: Any, to: int, vectors: int) -> None:
    """Round ``vectors`` contiguous vectors to those of ``target``, unless that holds the same dtype: no copy then."""
    if terms(target) > terms(source):
        for v in range(vectors):
            store(target, to + v * width(target), load(source, at + v * width(target)))


@jit.device
def copy_vectors(arena: Any, source: int, target: int, vectors: int) -> None:
    """Copy ``vectors`` contiguous vectors inside the arena."""
    U = width(arena)
    for v in range(vectors):
        store(arena, target + v * U, load(arena, source + v * U))
