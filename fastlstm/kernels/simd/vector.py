"""The numba type of a vector, and its operators."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_width
from fastlstm.kernels.simd.emit import emit_splat, llvm_type


class Vector(types.Type):
    """Numba type of a vector of ``dtype`` elements: float32, float64 or uint64."""

    def __init__(self, dtype: types.Float | types.Integer) -> None:
        self.dtype = dtype
        self.width = vector_width(dtype.bitwidth // 8)
        super().__init__(name=f"Vector({dtype} x {self.width})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, llvm_type(fe_type.dtype))


def vector_in(array: Any) -> Vector:
    """The type of a vector that is loaded from an array: of float32 for an array of bfloat16 numbers (uint16)."""
    return Vector(types.float32 if array.dtype == types.uint16 else array.dtype)


def as_vector(context: Any, builder: ir.IRBuilder, value: Any, value_type: Any, vector: Vector) -> Any:
    """Emit the conversion of an operand, a vector or a number, to ``vector``."""
    if isinstance(value_type, Vector):
        return value
    scalar = context.cast(builder, value, value_type, vector.dtype)
    return emit_splat(builder, scalar, vector.width)


def result_type(operands: tuple[Any, ...]) -> Vector | None:
    """Result type of an operation on vectors of one dtype and numbers; None for any other operands."""
    vectors = [t for t in operands if isinstance(t, Vector)]
    fits = all(t in vectors[:1] or isinstance(t, types.Number) for t in operands)
    return vectors[0] if vectors and fits else None


def _binary_operator(op: Callable[..., Any], instructions: dict[type, str]) -> None:
    """Define an operator of vectors by LLVM's instructions for the kinds of dtype that have it."""

    @type_callable(op)
    def _typing(context: Any) -> Any:
        def typed(a: Any, b: Any) -> Vector | None:
            vector = result_type((a, b))
            return vector if vector and isinstance(vector.dtype, tuple(instructions)) else None

        return typed

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        vector = sig.return_type
        a, b = (as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True))
        return getattr(builder, instructions[type(vector.dtype)])(a, b)

    for operands in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *operands)(lower)


if not jit.DISABLED:
    _binary_operator(operator.add, {types.Float: "fadd"})
    _binary_operator(operator.sub, {types.Float: "fsub"})
    _binary_operator(operator.mul, {types.Float: "fmul", types.Integer: "mul"})
    _binary_operator(operator.truediv, {types.Float: "fdiv"})
    _binary_operator(operator.and_, {types.Integer: "and_"})
    _binary_operator(operator.xor, {types.Integer: "xor"})
    _binary_operator(operator.rshift, {types.Integer: "lshr"})


# Compilation off: bfloat16 numbers are the upper halves of float32 numbers.


def widened(stored: np.ndarray) -> np.ndarray:
    """What is computed with, of what an array holds: float32 for bfloat16."""
    return (stored.astype(np.uint32) << 16).view(np.float32) if stored.dtype == np.uint16 else stored


def narrowed(values: np.ndarray, dtype: Any) -> np.ndarray:
    """Inverse of `widened`: for bfloat16 (uint16) rounded to nearest even; NaN and infinities stay what they are.

    Subnormal numbers become 0, as in the processor's instruction.
    """
    if dtype != np.uint16:
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = np.where(np.isnan(values), bits | 0x400000, bits + 0x7FFF + (bits >> 16 & 1))
    rounded = np.where(np.abs(values) < np.finfo(np.float32).tiny, bits & 0x80000000, rounded)
    return (rounded >> 16).astype(np.uint16)


def pairs_of(a: np.ndarray) -> np.ndarray:
    """The pairs (width, 2) of bfloat16 numbers that are the bits of a vector of float32, as float32."""
    return widened(a.view(np.uint16).reshape(-1, 2))


def or_numpy(numpy_version: Callable[..., Any]) -> Callable[[Any], Any]:
    """Use ``numpy_version`` in place of an intrinsic when compilation is off."""
    return (lambda _: numpy_version) if jit.DISABLED else (lambda typed: typed)


@or_numpy(lambda array: vector_width(max(array.itemsize, 4)))
@intrinsic
def width(typingctx: Any, array: Any) -> Any:
    """Elements of ``array`` that are computed with as a vector: a constant of the compiled kernel."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, vector_in(array).width)

    return types.intp(array), codegen


@or_numpy(lambda array: 2 if array.itemsize == 2 else 1)
@intrinsic
def terms(typingctx: Any, array: Any) -> Any:
    """Products that one multiply-add of ``array``'s elements sums up: 2 for bfloat16, else 1; also a constant."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, 2 if array.dtype == types.uint16 else 1)

    return types.intp(array), codegen
