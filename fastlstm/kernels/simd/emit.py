"""Building blocks of LLVM code for vectors: for the functions of this package, and for the tile."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastlstm.kernels.host import MULTIPLY_ADD, vector_unit, vector_width

I16, I32 = ir.IntType(16), ir.IntType(32)


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite does not have."""

    def _to_string(self) -> str:
        return "bfloat"


BFLOAT = _BFloat()


def llvm_type(dtype: types.Float | types.Integer, parts: int = 1) -> ir.VectorType:
    """LLVM's type of a vector of ``dtype``, or of one of so many equal ``parts`` of it."""
    number = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.uint64: ir.IntType(64)}[dtype]
    return ir.VectorType(number, vector_width(dtype.bitwidth // 8) // parts)


def element_pointer(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, index: Any, inbounds: bool = True
) -> Any:
    """Pointer to element ``index`` of a flat array; ``inbounds`` promises LLVM that the element exists."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index], inbounds=inbounds)


def stored_type(dtype: types.Float | types.Integer, parts: int = 1) -> ir.VectorType:
    """`llvm_type` in an array of ``dtype``: for bfloat16 (``uint16``) the integers that hold its numbers."""
    if dtype == types.uint16:
        return ir.VectorType(I16, llvm_type(types.float32, parts).count)
    return llvm_type(dtype, parts)


def emit_widen(builder: ir.IRBuilder, value: Any, dtype: types.Float | types.Integer) -> Any:
    """What is computed with, of what an array of ``dtype`` holds: float32 for bfloat16."""
    if dtype != types.uint16:
        return value
    bits = builder.zext(value, ir.VectorType(I32, value.type.count))
    upper = builder.shl(bits, ir.Constant(bits.type, [16] * value.type.count))
    return builder.bitcast(upper, llvm_type(types.float32))


def emit_narrow(builder: ir.IRBuilder, value: Any, dtype: types.Float | types.Integer) -> Any:
    """Inverse of `emit_widen`: for bfloat16 rounded to nearest even; NaN and infinities stay what they are."""
    if dtype != types.uint16:
        return value
    rounded = builder.fptrunc(value, ir.VectorType(BFLOAT, value.type.count))
    return builder.bitcast(rounded, stored_type(dtype))


def emit_read(builder: ir.IRBuilder, pointer: Any, dtype: types.Float | types.Integer, vector: ir.VectorType) -> Any:
    """Load a vector of any type from an element pointer, which need not be aligned to the vector."""
    value = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    value.align = dtype.bitwidth // 8
    return value


def emit_write(builder: ir.IRBuilder, pointer: Any, value: Any, dtype: types.Float | types.Integer) -> None:
    """Store a vector of any type at an element pointer, which need not be aligned to the vector."""
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = dtype.bitwidth // 8


def emit_load(builder: ir.IRBuilder, pointer: Any, dtype: types.Float | types.Integer, parts: int = 1) -> Any:
    """Load a vector, or a part of one, from an element pointer, which need not be aligned to the vector."""
    return emit_widen(builder, emit_read(builder, pointer, dtype, stored_type(dtype, parts)), dtype)


def emit_store(builder: ir.IRBuilder, pointer: Any, value: Any, dtype: types.Float | types.Integer) -> None:
    """Store a vector, or a part of one, at an element pointer, which need not be aligned to the vector."""
    emit_write(builder, pointer, emit_narrow(builder, value, dtype), dtype)


def emit_read_part(builder: ir.IRBuilder, pointer: Any, count: Any, dtype: types.Float | types.Integer) -> Any:
    """`emit_load_part`, without `emit_widen`."""
    vector = stored_type(dtype)
    mask = _emit_mask(builder, count, vector.count)
    function_type = ir.FunctionType(vector, [vector.as_pointer(), I32, mask.type, vector])
    name = f"llvm.masked.load.{_suffix(dtype, vector)}.p0"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pointer = builder.bitcast(pointer, vector.as_pointer())
    return builder.call(function, (pointer, ir.Constant(I32, dtype.bitwidth // 8), mask, ir.Constant(vector, None)))


def emit_load_part(builder: ir.IRBuilder, pointer: Any, count: Any, dtype: types.Float | types.Integer) -> Any:
    """Load the first ``count`` elements of a vector; the others are set to zero, and their memory is not read."""
    return emit_widen(builder, emit_read_part(builder, pointer, count, dtype), dtype)


def emit_store_part(
    builder: ir.IRBuilder, pointer: Any, count: Any, value: Any, dtype: types.Float | types.Integer
) -> None:
    """Store the first ``count`` elements of a vector; the memory of the others is not written."""
    vector, value = stored_type(dtype), emit_narrow(builder, value, dtype)
    mask = _emit_mask(builder, count, vector.count)
    function_type = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, mask.type])
    name = f"llvm.masked.store.{_suffix(dtype, vector)}.p0"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pointer = builder.bitcast(pointer, vector.as_pointer())
    builder.call(function, (value, pointer, ir.Constant(I32, dtype.bitwidth // 8), mask))


def _suffix(dtype: types.Float | types.Integer, vector: ir.VectorType) -> str:
    """The name of a vector's type in the names of LLVM's intrinsics."""
    return f"v{vector.count}{'f' if isinstance(dtype, types.Float) else 'i'}{dtype.bitwidth}"


def _emit_mask(builder: ir.IRBuilder, count: Any, U: int) -> Any:
    """A mask vector that is true in the first ``count`` elements."""
    numbers = ir.Constant(ir.VectorType(I32, U), list(range(U)))
    return builder.icmp_signed("<", numbers, emit_splat(builder, builder.trunc(count, I32), U))


def emit_splat(builder: ir.IRBuilder, scalar: Any, U: int) -> Any:
    """A vector with ``scalar`` in every element."""
    undefined = ir.Constant(ir.VectorType(scalar.type, U), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, U), [0] * U))


def emit_dot_pairs(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    """``c`` plus, in each float32 element, the two products of the bfloat16 numbers in the bits of ``a`` and ``b``.

    AVX-512 BF16's instruction: it rounds each of the two additions, and takes subnormal numbers for 0.
    """
    pairs = ir.VectorType(BFLOAT, 2 * c.type.count)
    function_type = ir.FunctionType(c.type, [c.type, pairs, pairs])
    name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * c.type.count}"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, (c, builder.bitcast(a, pairs), builder.bitcast(b, pairs)))


def emit_call(builder: ir.IRBuilder, name: str, dtype: types.Float, *args: Any) -> Any:
    """Call LLVM's intrinsic ``name`` on vectors of ``dtype``, or on parts of vectors."""
    vector = args[0].type
    function_type = ir.FunctionType(vector, [vector] * len(args))
    full_name = f"llvm.{name}.v{vector.count}f{dtype.bitwidth}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, full_name), args)


def emit_fma(builder: ir.IRBuilder, dtype: types.Float, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of vectors, see `fastlstm.kernels.host.multiply_add`."""
    if MULTIPLY_ADD == "fused":
        return emit_call(builder, "fma", dtype, a, b, c)
    if MULTIPLY_ADD == "exact" and dtype == types.float32:
        return emit_exact_fma(builder, a, b, c)
    return builder.fadd(builder.fmul(a, b), c)


def emit_exact_fma(builder: ir.IRBuilder, *operands: Any) -> Any:
    """``a * b + c`` of vectors of float32 or parts of them, rounded once, without an instruction for it.

    One register after another: all at once, they would need too many.
    """
    registers = max(1, operands[0].type.count * 4 // vector_unit().bytes)
    parts = []
    for n in range(registers):
        parts.append(_emit_rounded_once(builder, *(_emit_part(builder, vector, n, registers) for vector in operands)))
    while len(parts) > 1:
        parts = [_emit_joined(builder, *parts[n : n + 2]) for n in range(0, len(parts), 2)]
    return parts[0]


def _emit_part(builder: ir.IRBuilder, vector: Any, n: int, parts: int) -> Any:
    """Part ``n`` of a vector that is cut into equal ``parts``."""
    size = vector.type.count // parts
    elements = ir.Constant(ir.VectorType(I32, size), list(range(n * size, (n + 1) * size)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), elements)


def _emit_joined(builder: ir.IRBuilder, low: Any, high: Any) -> Any:
    """The vector of two halves."""
    size = 2 * low.type.count
    return builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(I32, size), list(range(size))))


def _emit_rounded_once(builder: ir.IRBuilder, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` of registers of float32, rounded once.

    The product is exact in float64. Their sum is not, and rounding it to float64 and then to float32 could differ from
    rounding it once. But if the first rounding is *to odd* (towards zero, then the last bit is set if anything was
    lost), the second one gives what a single one would (Boldo and Melquiond 2008). What the sum has lost, also exact,
    is found by TwoSum (Knuth). It is NaN if the sum is not finite, which then stays as it is.
    """
    count = a.type.count
    doubles, words = ir.VectorType(ir.DoubleType(), count), ir.VectorType(ir.IntType(64), count)
    a, b, c = (builder.fpext(value, doubles) for value in (a, b, c))
    product = builder.fmul(a, b)
    total = builder.fadd(product, c)
    of_c = builder.fsub(total, product)
    lost = builder.fadd(builder.fsub(product, builder.fsub(total, of_c)), builder.fsub(c, of_c))
    bits = builder.bitcast(total, words)
    inexact = builder.zext(builder.fcmp_ordered("!=", lost, ir.Constant(doubles, None)), words)
    away = builder.xor(bits, builder.bitcast(lost, words))  # negative: the sum was rounded away from zero
    too_large = builder.and_(builder.lshr(away, ir.Constant(words, [63] * count)), inexact)
    odd = builder.or_(builder.sub(bits, too_large), inexact)
    return builder.fptrunc(builder.bitcast(odd, doubles), ir.VectorType(ir.FloatType(), count))
