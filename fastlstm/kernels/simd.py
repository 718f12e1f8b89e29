"""Vectors as values: a numba type that is one vector register.

`load` takes a register full of neighbouring elements from a flat array, arithmetic works on whole
registers, `store` puts one back. A kernel written with them says what the processor does, and reads
like scalar code::

    c = f * load(arena, at) + i * g
    store(arena, at, c)

A vector holds as many float32 or float64 as the machine's registers do (`width`), so all layouts are in units of
that. Operators round as IEEE says and are never fused; `fma` is fused where the processor can. Comparisons are
ordered, so NaN passes through `clamp` and `maximum`.

With ``NUMBA_DISABLE_JIT`` a vector is a small NumPy array, and the same kernels run as plain Python.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit

I32 = ir.IntType(32)


class Vector(types.Type):
    """Numba type of a register of ``dtype`` elements."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = vector_unit().lanes(dtype.bitwidth // 8)
        super().__init__(name=f"Vector({dtype} x {self.lanes})")


def llvm_type(dtype: types.Float) -> ir.VectorType:
    """LLVM's type of a vector of ``dtype``."""
    return ir.VectorType(ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType(), Vector(dtype).lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, llvm_type(fe_type.dtype))


# --- building blocks for code generation, also used by `tile` ---------------------------------------


def element_pointer(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, index: Any, inbounds: bool = True
) -> Any:
    """Pointer to element ``index`` of a flat array; ``inbounds`` promises that there is such an element."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index], inbounds=inbounds)


def emit_load(builder: ir.IRBuilder, pointer: Any, dtype: types.Float) -> Any:
    """Load a vector from an element pointer of any alignment."""
    value = builder.load(builder.bitcast(pointer, llvm_type(dtype).as_pointer()))
    value.align = dtype.bitwidth // 8
    return value


def emit_store(builder: ir.IRBuilder, pointer: Any, value: Any, dtype: types.Float) -> None:
    """Store a vector at an element pointer of any alignment."""
    instruction = builder.store(value, builder.bitcast(pointer, llvm_type(dtype).as_pointer()))
    instruction.align = dtype.bitwidth // 8


def emit_load_part(builder: ir.IRBuilder, pointer: Any, count: Any, dtype: types.Float) -> Any:
    """Load the first ``count`` lanes of a vector from an element pointer; the others are zero and not touched."""
    vector = llvm_type(dtype)
    mask = _emit_mask(builder, count, vector.count)
    function_type = ir.FunctionType(vector, [vector.as_pointer(), I32, mask.type, vector])
    name = f"llvm.masked.load.v{vector.count}f{dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pointer = builder.bitcast(pointer, vector.as_pointer())
    return builder.call(function, (pointer, ir.Constant(I32, dtype.bitwidth // 8), mask, ir.Constant(vector, None)))


def emit_store_part(builder: ir.IRBuilder, pointer: Any, count: Any, value: Any, dtype: types.Float) -> None:
    """Store the first ``count`` lanes of a vector at an element pointer."""
    vector = llvm_type(dtype)
    mask = _emit_mask(builder, count, vector.count)
    function_type = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, mask.type])
    name = f"llvm.masked.store.v{vector.count}f{dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pointer = builder.bitcast(pointer, vector.as_pointer())
    builder.call(function, (value, pointer, ir.Constant(I32, dtype.bitwidth // 8), mask))


def _emit_mask(builder: ir.IRBuilder, count: Any, lanes: int) -> Any:
    """True in the first ``count`` lanes."""
    numbers = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, emit_splat(builder, builder.trunc(count, I32), lanes))


def emit_splat(builder: ir.IRBuilder, scalar: Any, lanes: int) -> Any:
    """A vector with ``scalar`` in every lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def emit_call(builder: ir.IRBuilder, name: str, dtype: types.Float, *args: Any) -> Any:
    """Call LLVM's intrinsic ``name`` on vectors of ``dtype``."""
    vector = llvm_type(dtype)
    function_type = ir.FunctionType(vector, [vector] * len(args))
    full_name = f"llvm.{name}.v{vector.count}f{dtype.bitwidth}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, full_name), args)


def emit_fma(builder: ir.IRBuilder, dtype: types.Float, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of vectors: rounded once with a fused multiply-add, twice on a processor that has none."""
    if vector_unit().fma:
        return emit_call(builder, "fma", dtype, a, b, c)
    return builder.fadd(builder.fmul(a, b), c)


def _as_vector(context: Any, builder: ir.IRBuilder, value: Any, value_type: Any, vector: Vector) -> Any:
    if isinstance(value_type, Vector):
        return value
    scalar = context.cast(builder, value, value_type, vector.dtype)
    return emit_splat(builder, scalar, vector.lanes)


def _result_type(operands: tuple[Any, ...]) -> Vector | None:
    vectors = [t for t in operands if isinstance(t, Vector)]
    fits = all(t in vectors[:1] or isinstance(t, types.Number) for t in operands)
    return vectors[0] if vectors and fits else None


# --- operators ---------------------------------------------------------------------------------------


def _binary_operator(op: Callable[..., Any], instruction: str) -> None:
    @type_callable(op)
    def _typing(context: Any) -> Any:
        return lambda a, b: _result_type((a, b))

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        a, b = (_as_vector(context, builder, v, t, sig.return_type) for v, t in zip(args, sig.args, strict=True))
        return getattr(builder, instruction)(a, b)

    for operands in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, *operands)(lower)


if not jit.DISABLED:
    _binary_operator(operator.add, "fadd")
    _binary_operator(operator.sub, "fsub")
    _binary_operator(operator.mul, "fmul")
    _binary_operator(operator.truediv, "fdiv")


# --- functions: an intrinsic for compiled kernels, NumPy when compilation is off ----------------------


def _or_numpy(numpy_version: Callable[..., Any]) -> Callable[[Any], Any]:
    """Use ``numpy_version`` in place of an intrinsic when compilation is off."""
    return (lambda _: numpy_version) if jit.DISABLED else (lambda typed: typed)


def _lanes_of(a: np.ndarray) -> int:
    return vector_unit().lanes(a.itemsize)


@_or_numpy(_lanes_of)
@intrinsic
def width(typingctx: Any, array: Any) -> Any:
    """Elements of ``array``'s dtype in a vector: a constant of the compiled kernel."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, Vector(array.dtype).lanes)

    return types.intp(array), codegen


@_or_numpy(lambda array, index: array[index : index + _lanes_of(array)].copy())
@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """The vector of ``array[index : index + width]``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return emit_load(builder, element_pointer(context, builder, array, *args), array.dtype)

    return Vector(array.dtype)(array, types.intp), codegen


def _numpy_store(array: np.ndarray, index: int, value: np.ndarray) -> None:
    array[index : index + len(value)] = value


@_or_numpy(_numpy_store)
@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """``array[index : index + width] = value``."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        emit_store(builder, element_pointer(context, builder, array, *args[:2]), args[2], array.dtype)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


def _numpy_load_part(array: np.ndarray, index: int, count: int) -> np.ndarray:
    value = np.zeros(_lanes_of(array), array.dtype)
    value[:count] = array[index : index + count]
    return value


@_or_numpy(_numpy_load_part)
@intrinsic
def load_part(typingctx: Any, array: Any, index: Any, count: Any) -> Any:
    """The vector of ``array[index : index + count]``, and zeros after that; ``count`` is at most the width."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, *args[:2])
        return emit_load_part(builder, pointer, args[2], array.dtype)

    return Vector(array.dtype)(array, types.intp, types.intp), codegen


def _numpy_store_part(array: np.ndarray, index: int, count: int, value: np.ndarray) -> None:
    array[index : index + count] = value[:count]


@_or_numpy(_numpy_store_part)
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
    lanes = len(rows)
    s = 1
    while s < lanes:
        upper = [k if k & s == 0 else lanes + k - s for k in range(lanes)]
        lower = [k + s if k & s == 0 else lanes + k for k in range(lanes)]
        for u in (u for u in range(lanes) if u & s == 0):
            pair = rows[u], rows[u + s]
            rows[u], rows[u + s] = (
                builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, lanes), order)) for order in (upper, lower)
            )
        s *= 2
    return rows


def _numpy_store_transposed(
    source: np.ndarray, at: int, row: int, target: np.ndarray, to: int, rows: int, columns: int
) -> None:
    lanes = _lanes_of(source)
    block = np.zeros((lanes, lanes), source.dtype)
    for u in range(rows):
        block[u, :columns] = source[at + u * row : at + u * row + columns]
    target[to : to + lanes * lanes] = block.T.ravel()


@_or_numpy(_numpy_store_transposed)
@intrinsic
def store_transposed(
    typingctx: Any, source: Any, at: Any, row: Any, target: Any, to: Any, rows: Any, columns: Any
) -> Any:
    """``target[to + k*width + u] = source[at + u*row + k]`` for u < ``rows`` and k < ``columns``, else 0.

    A square block of ``width`` rows and columns is written, of which ``rows x columns`` are read.
    """
    dtype = source.dtype
    lanes = Vector(dtype).lanes

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        source_, at, row, target_, to, rows, columns = args

        def pointer(u: int) -> Any:
            index = builder.add(at, builder.mul(row, ir.Constant(row.type, u)))
            return element_pointer(context, builder, source, source_, index, inbounds=False)

        all_lanes = ir.Constant(rows.type, lanes)
        whole = builder.and_(builder.icmp_signed("==", rows, all_lanes), builder.icmp_signed("==", columns, all_lanes))
        with builder.if_else(whole) as (then, otherwise):
            with then:
                loaded = [emit_load(builder, pointer(u), dtype) for u in range(lanes)]
                after_then = builder.block
            with otherwise:
                parts = []
                for u in range(lanes):
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
            index = builder.add(to, ir.Constant(to.type, k * lanes))
            emit_store(builder, element_pointer(context, builder, target, target_, index), column, dtype)
        return context.get_dummy_value()

    i = types.intp
    return types.void(source, i, i, target, i, i, i), codegen


@_or_numpy(lambda array, scalar: np.full(_lanes_of(array), scalar, array.dtype))
@intrinsic
def splat(typingctx: Any, array: Any, scalar: Any) -> Any:
    """``scalar`` in every lane of a vector of ``array``'s dtype."""
    vector = Vector(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return _as_vector(context, builder, args[1], scalar, vector)

    return vector(array, scalar), codegen


@_or_numpy(lambda a, b, c: np.asarray(a * b + c))
@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c``; scalars are spread over the lanes.

    Rounded once, except on a processor without a fused multiply-add (`fastlstm.kernels.host.VectorUnit`): there the
    product is rounded too, and the last bits of results differ.
    """
    vector = _result_type((a, b, c))
    if vector is None:
        return None

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        a, b, c = (_as_vector(context, builder, v, t, vector) for v, t in zip(args, sig.args, strict=True))
        return emit_fma(builder, vector.dtype, a, b, c)

    return vector(a, b, c), codegen


def _unary(name: str, numpy_version: Callable[..., Any], doc: str) -> Any:
    def typed(typingctx: Any, a: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            return emit_call(builder, name, a.dtype, args[0])

        return (a(a), codegen) if isinstance(a, Vector) else None

    typed.__name__, typed.__doc__ = f"vector_{name}", doc
    return numpy_version if jit.DISABLED else intrinsic(typed)


sqrt = _unary("sqrt", np.sqrt, "Square root of each lane.")
rint = _unary("rint", np.rint, "Each lane rounded to the nearest integer.")
libm_exp = _unary("exp", np.exp, "The C library's exp, lane by lane.")
libm_tanh = _unary("tanh", np.tanh, "The C library's tanh, lane by lane.")


def _numpy_clamp(a: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(a, a.dtype.type(low), a.dtype.type(high))


@_or_numpy(_numpy_clamp)
@intrinsic
def clamp(typingctx: Any, a: Any, low: Any, high: Any) -> Any:
    """Each lane bounded to ``[low, high]`` (scalars); NaN stays NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        value, low_, high_ = (_as_vector(context, builder, v, t, a) for v, t in zip(args, sig.args, strict=True))
        value = builder.select(builder.fcmp_ordered("<", value, low_), low_, value)
        return builder.select(builder.fcmp_ordered(">", value, high_), high_, value)

    return (a(a, low, high), codegen) if isinstance(a, Vector) else None


@_or_numpy(np.maximum)
@intrinsic
def maximum(typingctx: Any, a: Any, b: Any) -> Any:
    """The larger of each pair of lanes; NaN in ``a`` stays NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return (a(a, a), codegen) if a == b and isinstance(a, Vector) else None


@_or_numpy(lambda a, n: np.ldexp(a, n.astype(np.int64)).astype(a.dtype))
@intrinsic
def scale_by_power(typingctx: Any, a: Any, n: Any) -> Any:
    """``a * 2**n`` for float32 lanes with whole ``n`` from -127 (gives 0) to 128 (gives inf)."""

    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        # Adding 1.5 * 2**23 leaves a whole number in the low bits of the sum. (A conversion to integers would leave
        # the result open for NaN.)
        integers = ir.VectorType(I32, a.lanes)
        biased = builder.fadd(args[1], ir.Constant(llvm_type(a.dtype), [1.5 * 2**23 + 127] * a.lanes))
        exponent = builder.shl(builder.bitcast(biased, integers), ir.Constant(integers, [23] * a.lanes))
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
    """A reduction over the lanes as a tree of halves: the order of rounding is part of the definition."""

    def typed(typingctx: Any, a: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            value, lanes = args[0], a.lanes
            while lanes > 1:
                lanes //= 2
                low = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
                high = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes, 2 * lanes)))
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


lanes_sum = _reduction(lambda builder, a, b: builder.fadd(a, b), np.add, "Sum over the lanes.")
lanes_max = _reduction(_emit_maximum, np.maximum, "Largest lane.")
