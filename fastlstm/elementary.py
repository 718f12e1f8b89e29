"""Cosine and power by plain arithmetic: the same bits on every machine.

Those of C libraries, and of NumPy, differ in the last digit between libraries, versions and processors. So whatever
reaches parameters, losses or decisions of a run uses these and `fastlstm.logarithm`, in which every operation is one of
IEEE 754's.
"""

from __future__ import annotations

import math

#: The series ``cos x = 1 + C1 z + C2 z^2 + ...`` in ``z = x^2``, highest power first. Its remainder is below 1e-20.
_COS = tuple((-1.0) ** n / math.factorial(2 * n) for n in range(12, 0, -1))


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
