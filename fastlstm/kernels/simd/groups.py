"""Groups: what one multiply-add takes of a vector of columns, the elements of `terms` rows side by side.

With float32 and float64 a group is a vector of one row. With bfloat16 it has pairs of elements, from two rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastlstm.kernels.simd.emit import (
    I32,
    element_pointer,
    emit_dot_pairs,
    emit_load,
    emit_narrow,
    emit_read,
    emit_write,
    stored_type,
)  # fmt: skip
from fastlstm.kernels.simd.vector import narrowed, or_numpy, pairs_of, width


def _numpy_store_group(array: np.ndarray, index: int, first: np.ndarray, second: np.ndarray) -> None:
    rows = (first, second) if array.itemsize == 2 else (first,)
    group = narrowed(np.stack(rows, axis=1), array.dtype)
    array[index : index + group.size] = group.ravel()


@or_numpy(_numpy_store_group)
@intrinsic
def store_group(typingctx: Any, array: Any, index: Any, first: Any, second: Any) -> Any:
    """Store the group of the vectors of two rows; if a group is one row, ``second`` is ignored."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        array_, index, first_, second_ = args
        group = emit_narrow(builder, first_, array.dtype)
        if array.dtype == types.uint16:
            group = _emit_interleaved(builder, group, emit_narrow(builder, second_, array.dtype))
        emit_write(builder, element_pointer(context, builder, array, array_, index), group, array.dtype)
        return context.get_dummy_value()

    return types.void(array, types.intp, first, first), codegen


def _emit_interleaved(builder: ir.IRBuilder, first: Any, second: Any) -> Any:
    """The elements of two vectors by turns."""
    U = first.type.count
    order = [n for u in range(U) for n in (u, U + u)]
    return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, 2 * U), order))


def _numpy_copy_group(array: np.ndarray, index: int, row: int, rows: int, to: int) -> None:
    U = width(array)
    if array.itemsize == 2:
        second = array[index + row : index + row + U] if rows > 1 else np.zeros(U, array.dtype)
        array[to : to + 2 * U] = np.stack([array[index : index + U], second], axis=1).ravel()
    else:
        array[to : to + U] = array[index : index + U]


@or_numpy(_numpy_copy_group)
@intrinsic
def copy_group(typingctx: Any, array: Any, index: Any, row: Any, rows: Any, to: Any) -> Any:
    """Copy the vectors at ``index`` and, if ``rows`` is above 1, ``row`` further on as the group at ``to``.

    A row that is missing in a group of two is zero; if a group is one row, ``row`` and ``rows`` are ignored.
    """
    dtype = array.dtype

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        array_, index, row, rows, to = args
        vector = stored_type(dtype)
        pointer = element_pointer(context, builder, array, array_, index)
        group = emit_read(builder, pointer, dtype, vector)
        if dtype == types.uint16:
            both = builder.icmp_signed(">", rows, ir.Constant(rows.type, 1))
            second = emit_read(
                builder, builder.gep(pointer, [builder.select(both, row, ir.Constant(row.type, 0))]), dtype, vector
            )
            group = _emit_interleaved(builder, group, builder.select(both, second, ir.Constant(vector, None)))
        emit_write(builder, element_pointer(context, builder, array, array_, to), group, dtype)
        return context.get_dummy_value()

    i = types.intp
    return types.void(array, i, i, i, i), codegen


def _numpy_add_group(array: np.ndarray, index: int, total: np.ndarray) -> np.ndarray:
    if array.itemsize != 2:
        return total + array[index : index + width(array)]
    group = array[index : index + 2 * width(array)].view(np.float32)
    return np.asarray(total + pairs_of(group).sum(axis=1, dtype=np.float32))


@or_numpy(_numpy_add_group)
@intrinsic
def add_group(typingctx: Any, array: Any, index: Any, total: Any) -> Any:
    """``total`` plus the rows of the group at ``index``."""
    dtype = array.dtype

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        array_, index, total_ = args
        pointer = element_pointer(context, builder, array, array_, index)
        if dtype != types.uint16:
            return builder.fadd(total_, emit_load(builder, pointer, dtype))
        pairs = ir.VectorType(stored_type(dtype).element, 2 * total_.type.count)
        ones = ir.Constant(pairs, [0x3F80] * pairs.count)  # 1.0
        return emit_dot_pairs(builder, emit_read(builder, pointer, dtype, pairs), ones, total_)

    return total(array, types.intp, total), codegen
