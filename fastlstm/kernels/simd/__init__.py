"""Vectors as values: a numba type that is one vector register.

`load` takes a register full of neighbouring elements from a flat array, arithmetic works on whole registers, `store`
puts one back. A kernel written with them says what the processor does, and reads like scalar code::

    c = f * load(arena, at) + i * g
    store(arena, at, c)

A vector holds as many float32 or float64 as the machine's registers do. That number is `width`; kernels call it U, and
all layouts are in units of it. What stands in a vector are its *elements*; a *lane* is always a lane of text.

Operators round as IEEE says and are never fused; `fma` is fused where the processor can. Comparisons are ordered, so
NaN passes through `clamp` and `maximum`.

`vector` has the type and its operators, `memory` what moves vectors to and from arrays, `arithmetic` the other
functions, `emit` the LLVM code that all are made of.

With ``NUMBA_DISABLE_JIT`` a vector is a small NumPy array, and the same kernels run as plain Python.
"""
