"""Functions of vectors of uint64."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastlstm.kernels.host import vector_width
from fastlstm.kernels.simd.emit import element_pointer, emit_splat, llvm_type
from fastlstm.kernels.simd.vector import Vector, as_vector, or_numpy

#: Elements of a vector of uint64.
WORDS = vector_width(8)


@or_numpy(lambda first: np.arange(WORDS, dtype=np.uint64) + np.uint64(first))
@intrinsic
def count_from(typingctx: Any, first: Any) -> Any:
    """The vector of ``first``, ``first + 1`` and so on."""
    vector = Vector(types.uint64)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        start = as_vector(context, builder, args[0], first, vector)
        return builder.add(start, ir.Constant(llvm_type(vector.dtype), list(range(WORDS))))

    return vector(first), codegen


def _numpy_store_kept(array: np.ndarray, index: int, numbers: np.ndarray, least: int, kept: float) -> None:
    array[index : index + WORDS] = np.where(numbers >= np.uint64(least), kept, 0)


@or_numpy(_numpy_store_kept)
@intrinsic
def store_kept(typingctx: Any, array: Any, index: Any, numbers: Any, least: Any, kept: Any) -> Any:
    """``array[index + i] = kept if numbers[i] >= least else 0`` for each element of the vector ``numbers``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        enough = builder.icmp_unsigned(">=", args[2], as_vector(context, builder, args[3], least, numbers))
        values = emit_splat(builder, context.cast(builder, args[4], kept, array.dtype), WORDS)
        chosen = builder.select(enough, values, ir.Constant(values.type, None))
        pointer = element_pointer(context, builder, array, *args[:2])
        builder.store(chosen, builder.bitcast(pointer, values.type.as_pointer())).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, numbers, least, kept), codegen
