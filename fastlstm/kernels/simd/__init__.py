"""Vectors as values: a numba type that is one vector register.

`load` reads a register of contiguous elements from a flat array, arithmetic works on whole registers, `store` writes
one back. A kernel written with them corresponds to the machine code, and reads like scalar code::

    c = f * load(arena, at) + i * g
    store(arena, at, c)

A vector holds as many float32 or float64 values as a register of the machine. That number is `width`; kernels call it
U, and all layouts are in units of it. The values in a vector are its *elements*; a *lane* is always a lane of text.

Operators round as in IEEE 754 and are never fused; `fma` is fused if the processor supports it. Comparisons are
ordered, so NaN passes through `clamp` and `maximum`.

Random numbers are computed in vectors of uint64, which have the operators ``* & ^ >>``.

`vector` has the type and its operators, `memory` moves vectors to and from arrays, `arithmetic` has the other
functions, `words` those of uint64, `emit` the LLVM code that all of them are made of.

With ``NUMBA_DISABLE_JIT`` a vector is a small NumPy array, and the same kernels run as plain Python.
"""
