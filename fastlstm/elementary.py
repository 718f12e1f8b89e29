"""Logarithm, cosine and power by plain arithmetic: the same bits on every machine.

Those of C libraries, and of NumPy, differ in the last digit between libraries, versions and processors. So whatever
reaches parameters, losses or decisions of a run uses these, in which every operation is one of IEEE 754's.
"""

from __future__ import annotations

import math

#: log 2 in two parts: the first has 32 bits, so that its product with any exponent is exact.
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10

#: The series ``2 atanh(s) = 2 s + s (C1 z + C2 z^2 + ...)`` in ``z = s^2``, highest power first. For s <= 0.172 its
#: remainder is below 2**-59 of the result.
_ATANH = tuple(2.0 / (2 * n + 1) for n in range(11, 0, -1))

#: The series ``cos x = 1 + C1 z + C2 z^2 + ...`` in ``z = x^2``, highest power first. Its remainder is below 1e-20.
_COS = tuple((-1.0) ** n / math.factorial(2 * n) for n in range(12, 0, -1))


def log(x: float) -> float:
    """The natural logarithm, to 1 ulp; NaN for NaN and negative numbers. Kernels compile it too."""
    if not 0.0 < x < math.inf:
        if x == 0.0:
            return -math.inf
        return math.inf if x > 0.0 else math.nan
    fraction, exponent = math.frexp(x)
    if fraction < 0.7071067811865476:
        fraction, exponent = 2.0 * fraction, exponent - 1
    # With x = (1 + f) 2^exponent and s = f / (2 + f), log(1 + f) is 2 atanh(s), and 2 s is f - s f: so the largest
    # term, f, is exact.
    f = fraction - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = 0.0
    for coefficient in _ATANH:
        series = (series + coefficient) * z
    return exponent * _LN2_HIGH + (f + (exponent * _LN2_LOW - s * (f - series)))


def cos(x: float) -> float:
    """The cosine of ``x`` from 0 to pi/2, with an absolute error of at most 3e-16."""
    z, series = x * x, 0.0
    for coefficient in _COS:
        series = (series + coefficient) * z
    return 1.0 + series


def power(base: float, exponent: int) -> float:
    """``base ** exponent`` for an exponent of at least 0, by squaring; its relative error is below ``exponent`` ulp."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
