"""Building blocks of LLVM code for vectors: for the functions of this package, and for the tile."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastlstm.kernels.host import vector_unit

I32 = ir.IntType(32)


def llvm_type(dtype: types.Float | types.Integer) -> ir.VectorType:
    """LLVM's type of a vector of ``dtype``."""
    number = {types.float32: ir.FloatType(), types.float64: ir.DoubleType(), types.uint64: ir.IntType(64)}[dtype]
    return ir.VectorType(number, vector_unit().width(dtype.bitwidth // 8))


def element_pointer(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: Any, index: Any, inbounds: bool = True
) -> Any:
    """Pointer to element ``index`` of a flat array; ``inbounds`` promises LLVM that the element exists."""
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    return builder.gep(data, [index], inbounds=inbounds)


def emit_load(builder: ir.IRBuilder, pointer: Any, dtype: types.Float) -> Any:
    """Load a vector from an element pointer, which need not be aligned to the vector."""
    value = builder.load(builder.bitcast(pointer, llvm_type(dtype).as_pointer()))
    value.align = dtype.bitwidth // 8
    return value


def emit_store(builder: ir.IRBuilder, pointer: Any, value: Any, dtype: types.Float) -> None:
    """Store a vector at an element pointer, which need not be aligned to the vector."""
    instruction = builder.store(value, builder.bitcast(pointer, llvm_type(dtype).as_pointer()))
    instruction.align = dtype.bitwidth // 8


def emit_load_part(builder: ir.IRBuilder, pointer: Any, count: Any, dtype: types.Float) -> Any:
    """Load the first ``count`` elements of a vector; the others are set to zero, and their memory is not read."""
    vector = llvm_type(dtype)
    mask = _emit_mask(builder, count, vector.count)
    function_type = ir.FunctionType(vector, [vector.as_pointer(), I32, mask.type, vector])
    name = f"llvm.masked.load.v{vector.count}f{dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pointer = builder.bitcast(pointer, vector.as_pointer())
    return builder.call(function, (pointer, ir.Constant(I32, dtype.bitwidth // 8), mask, ir.Constant(vector, None)))


def emit_store_part(builder: ir.IRBuilder, pointer: Any, count: Any, value: Any, dtype: types.Float) -> None:
    """Store the first ``count`` elements of a vector; the memory of the others is not written."""
    vector = llvm_type(dtype)
    mask = _emit_mask(builder, count, vector.count)
    function_type = ir.FunctionType(ir.VoidType(), [vector, vector.as_pointer(), I32, mask.type])
    name = f"llvm.masked.store.v{vector.count}f{dtype.bitwidth}.p0"
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    pointer = builder.bitcast(pointer, vector.as_pointer())
    builder.call(function, (value, pointer, ir.Constant(I32, dtype.bitwidth // 8), mask))


def _emit_mask(builder: ir.IRBuilder, count: Any, U: int) -> Any:
    """A mask vector that is true in the first ``count`` elements."""
    numbers = ir.Constant(ir.VectorType(I32, U), list(range(U)))
    return builder.icmp_signed("<", numbers, emit_splat(builder, builder.trunc(count, I32), U))


def emit_splat(builder: ir.IRBuilder, scalar: Any, U: int) -> Any:
    """A vector with ``scalar`` in every element."""
    undefined = ir.Constant(ir.VectorType(scalar.type, U), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, U), [0] * U))


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
