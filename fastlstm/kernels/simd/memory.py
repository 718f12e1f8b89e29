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
    emit_store,
    emit_store_part,
    llvm_type,
)  # fmt: skip
from fastlstm.kernels.simd.vector import Vector, or_numpy, width


@or_numpy(lambda array, index: array[index : index + width(array)].copy())
@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """The vector of ``array[index : index + width]``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return emit_load(builder, element_pointer(context, builder, array, *args), array.dtype)

    return Vector(array.dtype)(array, types.intp), codegen


def _numpy_store(array: np.ndarray, index: int, value: np.ndarray) -> None:
    array[index : index + len(value)] = value


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
    return value


@or_numpy(_numpy_load_part)
@intrinsic
def load_part(typingctx: Any, array: Any, index: Any, count: Any) -> Any:
    """The vector of ``array[index : index + count]`` followed by zeros; ``count`` is at most the width."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, *args[:2])
        return emit_load_part(builder, pointer, args[2], array.dtype)

    return Vector(array.dtype)(array, types.intp, types.intp), codegen


def _numpy_store_part(array: np.ndarray, index: int, count: int, value: np.ndarray) -> None:
    array[index : index + count] = value[:count]


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
    source: np.ndarray, at: int, row: int, target: np.ndarray, to: int, rows: int, columns: int
) -> None:
    U = width(source)
    block = np.zeros((U, U), source.dtype)
    for u in range(rows):
        block[u, :columns] = source[at + u * row : at + u * row + columns]
    target[to : to + U * U] = block.T.ravel()


@or_numpy(_numpy_store_transposed)
@intrinsic
def store_transposed(
    typingctx: Any, source: Any, at: Any, row: Any, target: Any, to: Any, rows: Any, columns: Any
) -> Any:
    """``target[to + k*width + u] = source[at + u*row + k]`` for u < ``rows`` and k < ``columns``, else 0.

    It writes a square block of ``width`` rows and columns, and reads only ``rows x columns`` elements.
    """
    dtype = source.dtype
    U = Vector(dtype).width

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        source_, at, row, target_, to, rows, columns = args

        def pointer(u: int) -> Any:
            index = builder.add(at, builder.mul(row, ir.Constant(row.type, u)))
            return element_pointer(context, builder, source, source_, index, inbounds=False)

        full = ir.Constant(rows.type, U)
        whole = builder.and_(builder.icmp_signed("==", rows, full), builder.icmp_signed("==", columns, full))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                loaded = [emit_load(builder, pointer(u), dtype) for u in range(U)]
                after_then = builder.block
            with otherwise:
                parts = []
                for u in range(U):
                    inside = builder.icmp_signed("<", ir.Constant(rows.type, u), rows)
                    count = builder.select(inside, columns, ir.Constant(columns.type, 0))
                    parts.append(emit_load_part(builder, pointer(u), count, dtype))
                after_otherwise = builder.block
        read = []
        for whole_row, part in zip(loaded, parts, strict=True):
            phi = builder.phi(llvm_type(dtype))
            phi.add_incoming(whole_row, after_then)
            phi.add_incoming(part, after_otherwise)
            read.append(phi)
        for k, column in enumerate(_emit_transposed(builder, read)):
            index = builder.add(to, ir.Constant(to.type, k * U))
            emit_store(builder, element_pointer(context, builder, target, target_, index), column, dtype)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, target, i, i, i), codegen


@jit.device
def copy_vectors(arena: Any, source: int, target: int, vectors: int) -> None:
    """Copy ``vectors`` contiguous vectors inside the arena."""
    U = width(arena)
    for v in range(vectors):
        store(arena, target + v * U, load(arena, source + v * U))
