"""Elementwise functions of vectors besides the operators, and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastlstm.kernels import jit
from fastlstm.kernels.simd.emit import I32, emit_call, emit_fma, llvm_type
from fastlstm.kernels.simd.vector import Vector, as_vector, or_numpy, result_type, vector_in, width


@or_numpy(lambda array, scalar: np.full(width(array), scalar, np.float32 if array.itemsize == 2 else array.dtype))
@intrinsic
def splat(typingctx: Any, array: Any, scalar: Any) -> Any:
    """``scalar`` in every element of a vector of ``array``'s dtype."""
    vector = vector_in(array)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return as_vector(context, builder, args[1], scalar, vector)

    return vector(array, scalar), codegen


@or_numpy(lambda a, b, c: np.asarray(a * b + c))
@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``; scalars are broadcast to all elements.

    Rounded once, but for float64 on a processor without a fused multiply-add, and where ``FASTLSTM_FMA=fast`` asks for
    two roundings (`fastlstm.kernels.host.multiply_add`).
    """
    vector = result_type((a, b, c))
    if vector is None:
        return None

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        a, b, c = (as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True))
        return emit_fma(builder, vector.dtype, a, b, c)

    return vector(a, b, c), codegen


def _unary(name: str, numpy_version: Callable[..., Any], doc: str) -> Any:
    def typed(typingctx: Any, a: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            return emit_call(builder, name, a.dtype, args[0])

        return (a(a), codegen) if isinstance(a, Vector) else None

    typed.__name__, typed.__doc__ = f"vector_{name}", doc
    return numpy_version if jit.DISABLED else intrinsic(typed)


sqrt = _unary("sqrt", np.sqrt, "Square root of each element.")
rint = _unary("rint", np.rint, "Each element rounded to the nearest integer.")
libm_exp = _unary("exp", np.exp, "The C library's exp, element by element.")
libm_tanh = _unary("tanh", np.tanh, "The C library's tanh, element by element.")


def _numpy_clamp(a: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(a, a.dtype.type(low), a.dtype.type(high))


@or_numpy(_numpy_clamp)
@intrinsic
def clamp(typingctx: Any, a: Any, low: Any, high: Any) -> Any:
    """Each element bounded to ``[low, high]`` (scalars); NaN stays NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        value, low_, high_ = (as_vector(context, builder, v, t, a) for v, t in zip(args, sig.args, strict=True))
        value = builder.select(builder.fcmp_ordered("<", value, low_), low_, value)
        return builder.select(builder.fcmp_ordered(">", value, high_), high_, value)

    return (a(a, low, high), codegen) if isinstance(a, Vector) else None


@or_numpy(np.maximum)
@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of each pair of elements; NaN in ``a`` stays NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return (a(a, a), codegen) if a == b and isinstance(a, Vector) else None


@or_numpy(lambda a, n: np.ldexp(a, n.astype(np.int64)).astype(a.dtype))
@intrinsic
def scale_by_power(typingctx: Any, a: Any, n: Any) -> Any:
    """``a * 2**n`` for float32 elements with integral ``n`` from -127 (gives 0) to 128 (gives inf)."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        # Adding 1.5 * 2**23 puts the integer into the low bits of the sum. (A conversion to integers would be undefined
        # for NaN.)
        integers = ir.VectorType(I32, a.width)
        biased = builder.fadd(args[1], ir.Constant(llvm_type(a.dtype), [1.5 * 2**23 + 127] * a.width))
        exponent = builder.shl(builder.bitcast(biased, integers), ir.Constant(integers, [23] * a.width))
        power = builder.bitcast(exponent, llvm_type(a.dtype))
        return builder.fmul(args[0], power)

    return (a(a, a), codegen) if a == Vector(types.float32) and a == n else None


def _numpy_tree(combine: Callable[..., Any]) -> Callable[[np.ndarray], Any]:
    def reduce(a: np.ndarray) -> Any:
        while len(a) > 1:
            a = combine(a[: len(a) // 2], a[len(a) // 2 :])
        return a[0]

    return reduce


def _reduction(combine: Callable[..., Any], numpy_combine: Callable[..., Any], doc: str) -> Any:
    """A reduction over the elements as a binary tree of halves: the order of rounding is part of the definition."""

    def typed(typingctx: Any, a: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            value, n = args[0], a.width
            while n > 1:
                n //= 2
                low = ir.Constant(ir.VectorType(I32, n), list(range(n)))
                high = ir.Constant(ir.VectorType(I32, n), list(range(n, 2 * n)))
                undefined = ir.Constant(value.type, ir.Undefined)
                value = combine(
                    builder,
                    builder.shuffle_vector(value, undefined, low),
                    builder.shuffle_vector(value, undefined, high),
                )
            return builder.extract_element(value, ir.Constant(I32, 0))

        return (a.dtype(a), codegen) if isinstance(a, Vector) else None

    typed.__name__, typed.__doc__ = "vector_reduction", doc
    return _numpy_tree(numpy_combine) if jit.DISABLED else intrinsic(typed)


def _emit_maximum(builder: ir.IRBuilder, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", a, b), b, a)


sum_of = _reduction(lambda builder, a, b: builder.fadd(a, b), np.add, "Sum of the elements.")
max_of = _reduction(_emit_maximum, np.maximum, "Largest element.")
