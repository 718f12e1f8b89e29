"""How the operands of products are rounded: not at all, or to bfloat16, which is float32 with 8 significant bits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastlstm.params import FloatArray

Rounding = Callable[[FloatArray], FloatArray]

#: A bfloat16 has so many significant bits, and its last one is at least 2**-133.
_BITS, _LOWEST = 8, -133


def exact(x: FloatArray) -> FloatArray:
    """The numbers as they are."""
    return x


def to_bf16(x: FloatArray) -> FloatArray:
    """The nearest bfloat16 numbers, of two the even one, in the dtype of ``x``; NaN and infinities stay.

    Numbers from half a unit above the largest bfloat16 on become infinity.
    """
    _, exponent = np.frexp(x)  # 2**(exponent - 1) <= |x| < 2**exponent
    last = np.maximum(exponent - _BITS, _LOWEST)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large, and signalling NaN
        rounded = np.ldexp(np.rint(np.ldexp(x, -last)), last)
        found: FloatArray = rounded.astype(np.float32).astype(x.dtype)
    return found
