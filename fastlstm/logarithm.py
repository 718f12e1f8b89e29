"""The logarithm by plain arithmetic, with the same bits on every machine; kernels compile it, too."""

from __future__ import annotations

import math

import numpy as np

#: log 2 in two parts: the first has 32 bits, so that its product with any exponent is exact.
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10

#: The series ``2 atanh(s) = 2 s + s (C1 z + C2 z^2 + ...)`` in ``z = s^2``, highest power first: the odd powers and the
#: even ones, which are summed at the same time. For s <= 0.172 the remainder is below 2**-59 of the result.
_ATANH_ODD, _ATANH_EVEN = (tuple(2.0 / (2 * n + 1) for n in range(highest, 0, -2)) for highest in (11, 10))

_TINY = 2.0**-1022

#: The bits of the root of 1/2.
_ROOT_HALF = 0x3FE6A09E667F3BCD


def log(x: float) -> float:
    """The natural logarithm, to 1 ulp; NaN for NaN and negative numbers."""
    if not 0.0 < x < math.inf:
        if x == 0.0:
            return -math.inf
        return math.inf if x > 0.0 else math.nan
    exponent = 0
    if x < _TINY:
        x, exponent = x * 2.0**54, -54
    # x = (1 + f) 2^n, with 1 + f between the roots of 1/2 and 2.
    bits = np.float64(x).view(np.int64)
    n = (bits - _ROOT_HALF) >> 52
    f = float(np.int64(bits - (n << 52)).view(np.float64)) - 1.0
    exponent += int(n)
    # With s = f / (2 + f), log(1 + f) is 2 atanh(s), and 2 s is f - s f: so the largest term, f, is exact.
    s = f / (2.0 + f)
    z = s * s
    square, odd, even = z * z, 0.0, 0.0
    for coefficient in _ATANH_ODD:
        odd = odd * square + coefficient
    for coefficient in _ATANH_EVEN:
        even = even * square + coefficient
    series = z * (odd + z * even)
    return exponent * _LN2_HIGH + (f + (exponent * _LN2_LOW - s * (f - series)))
