"""Vectors as values: a numba type of 64 bytes, a vector register or several.

`load` reads a vector of contiguous elements from a flat array, arithmetic works on whole vectors, `store` writes one
back. A kernel written with them corresponds to the machine code, and reads like scalar code::

    c = f * load(arena, at) + i * g
    store(arena, at, c)

A vector holds 16 values of float32 or 8 of float64 on every machine: a register of AVX-512, two of AVX2, four of SSE or
NEON. That number is `width`; kernels call it U, and all layouts are in units of it. So the order of all sums, and with
it the last bit of a result, does not depend on the machine. The values in a vector are its *elements*; a *lane* is
always a lane of text.

Operators round as in IEEE 754 and are never fused; `fma` rounds once (`fastlstm.kernels.host.multiply_add`).
Comparisons are ordered, so NaN passes through `clamp` and `maximum`.

Random numbers are computed in vectors of uint64, which have the operators ``* & ^ >>``.

`vector` has the type and its operators, `memory` moves vectors to and from arrays, `arithmetic` has the other
functions, `words` those of uint64, `emit` the LLVM code that all of them are made of.

With ``NUMBA_DISABLE_JIT`` a vector is a small NumPy array, and the same kernels run as plain Python.
"""
