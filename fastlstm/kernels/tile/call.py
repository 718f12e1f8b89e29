"""The function that computes a tile, for kernels.

The tiles of all shapes make up most of the machine code. So they are compiled once for each dtype of operands, as a C
function that kernels call by its name, instead of being copied into every function that multiplies.
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
from fastlstm.kernels.simd.emit import element_pointer
from fastlstm.kernels.simd.vector import terms, widened, width
from fastlstm.kernels.tile.emit import all_shapes
from fastlstm.kernels.tile.operands import Elements, Rows, Vectors

#: The dtype of the sums for each dtype of the operands.
_SUMS = {types.float32: types.float32, types.float64: types.float64, types.uint16: types.float32}


def _c_name(dtype: types.Float | types.Integer) -> str:
    return f"fastlstm_tile_{dtype}"


def _c_signature(dtype: types.Float | types.Integer) -> Any:
    i, p, sums = types.intp, types.CPointer(dtype), types.CPointer(_SUMS[dtype])
    return types.void(i, i, i, p, i, i, p, i, i, sums, i, i)


@functools.cache
def register(dtype: str) -> Any:
    """Compile the tiles of a dtype of operands, or load them from the cache. Call it before kernels of it run."""
    if jit.DISABLED:
        return None
    number = getattr(types, dtype)

    @jit.c_function(_c_signature(number))
    def all_tiles(rows, vectors, depth, a, a_row, a_k, b, b_vector, b_k, c, c_row, accumulate):
        all_shapes(rows, vectors, depth, a, a_row, a_k, b, b_vector, b_k, c, c_row, accumulate)

    llvm.add_symbol(_c_name(number), all_tiles.address)
    return all_tiles


@intrinsic
def _call_tile(typingctx: Any, rows: Any, vectors: Any, depth: Any, a: Any, b: Any, c: Any, accumulate: Any) -> Any:
    """Call the C function with pointers to the first elements."""
    i = types.intp

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        rows, vectors, depth, *operands, accumulate = args
        arguments = [rows, vectors, depth]
        for operand, operand_type in zip(operands, (a, b, c), strict=True):
            array, at, *strides = cgutils.unpack_tuple(builder, operand)
            arguments += [element_pointer(context, builder, operand_type.types[0], array, at), *strides]
        arguments.append(accumulate)
        function_type = ir.FunctionType(ir.VoidType(), [value.type for value in arguments])
        name = _c_name(a.types[0].dtype)
        builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), arguments)
        return context.get_dummy_value()

    return types.void(i, i, i, a, b, c, i), codegen


def _numpy_tile(rows: int, vectors: int, depth: int, a: Elements, b: Vectors, c: Rows, accumulate: int) -> None:
    U, P, item, of_sums = width(c.array), terms(a.array), a.array.itemsize, c.array.itemsize
    strided = np.lib.stride_tricks.as_strided
    A = strided(a.array[a.at :], (rows, depth, P), (a.row * item, a.column * item, item))
    B = strided(b.array[b.at :], (depth, vectors, U, P), (b.row * item, b.vector * item, P * item, item))
    C = strided(c.array[c.at :], (rows, vectors, U), (c.row * of_sums, U * of_sums, of_sums))
    product = np.einsum("rkp,kvlp->rvl", widened(A), widened(B))
    C[...] = C + product if accumulate else product


_any_tile = _numpy_tile if jit.DISABLED else _call_tile


@jit.device
def tile(rows: int, vectors: int, depth: int, a: Elements, b: Vectors, c: Rows, accumulate: int) -> None:
    """``C (+)= A B`` for one tile.

    Parameters
    ----------
    rows, vectors : shape of the tile, up to ``ROWS x VECTORS`` or ``1 x VECTORS_ONE_ROW``.
    depth : length of the reduction, in groups (`fastlstm.kernels.simd.groups`).
    a : A, (rows, depth), whose ``column`` is the distance between groups. b : B, (depth, vectors).
    c : C, (rows, vectors), in/out.
    accumulate : 0 starts from zero, 1 from what C holds.
    """
    _any_tile(rows, vectors, depth, a, b, c, accumulate)
