"""exp, tanh and sigmoid of vectors.

float32 has its own implementations; float64 calls the C library, whose accuracy the gradient check needs. NaN gives
NaN.

Largest errors in units in the last place (ulp), measured and bounded by ``pytest -rP tests/test_functions.py`` (the
bound is in parentheses):

========  ==============  ==============  =====================================================================
function  float32         float64         float32 loses accuracy where
========  ==============  ==============  =====================================================================
exp       0.82 (<= 1.5)   0.50 (<= 3)     the result is below 1.2e-38: it is 0 for x < -87.7
tanh      4.14 (<= 5)     2.07 (<= 3)     abs(x) < 2.5e-36: it is off by less than 1.2e-38
sigmoid   2.13 (<= 4)     2.14 (<= 3)     the result is below 1.2e-38: it is 0 for x < -88.4
========  ==============  ==============  =====================================================================

float32 has the same bits on every machine. Only with two roundings in a multiply-add (``FASTLSTM_FMA=fast``, see
`fastlstm.kernels.host.multiply_add`) the error of exp reaches 1.10 ulp, that of tanh 5.43 (<= 6).
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import overload

from fastlstm import logarithm
from fastlstm.kernels import jit
from fastlstm.kernels.simd.arithmetic import clamp, fma, libm_exp, libm_tanh, rint, scale_by_power
from fastlstm.kernels.simd.vector import Vector

# exp: Cody and Waite's two-part ln 2 (the first part has few bits, so that n * LN2_HIGH is exact).
LOG2_E = 1.4426950408889634
LN2_HIGH = 0.693359375
LN2_LOW = -2.12194440054690583e-4
# exp(r) = 1 + r + r^2 (C2 + C3 r + C4 r^2 + C5 r^3 + C6 r^4) on |r| <= ln(2)/2: a minimax fit made for fastlstm.
# Its relative error of 3.1e-9 is a twentieth of half a unit in the last place.
C2, C3, C4, C5, C6 = 0.49999993, 0.16666521, 0.04166839, 0.00836872, 0.00138146

# tanh(x) = x P(x^2) / Q(x^2), a rational minimax fit on [-8, 8]
# (coefficients from Eigen's generic tanh, Core/MathFunctionsImpl.h, MPL-2.0: only the numbers, no code).
TANH_LIMIT = 7.99881172180175781
P1, P3, P5, P7 = 4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08
P9, P11, P13 = -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16
Q0, Q2, Q4, Q6 = 4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06


#: The logarithm of a float64 number, see `fastlstm.logarithm.log`.
log = jit.device(logarithm.log)


@jit.device
def _exp32(x: Any) -> Any:
    x = clamp(x, -88.0, 89.0)
    n = rint(x * LOG2_E)
    r = fma(n, -LN2_HIGH, x)
    r = fma(n, -LN2_LOW, r)
    p = fma(r, C6, C5)
    p = fma(p, r, C4)
    p = fma(p, r, C3)
    p = fma(p, r, C2)
    p = fma(p, r, 1.0)
    p = fma(p, r, 1.0)
    return scale_by_power(p, n)


@jit.device
def _tanh32(x: Any) -> Any:
    x = clamp(x, -TANH_LIMIT, TANH_LIMIT)
    s = x * x
    p = fma(s, P13, P11)
    p = fma(p, s, P9)
    p = fma(p, s, P7)
    p = fma(p, s, P5)
    p = fma(p, s, P3)
    p = fma(p, s, P1)
    q = fma(s, Q6, Q4)
    q = fma(q, s, Q2)
    q = fma(q, s, Q0)
    return x * p / q


def exp(x: Any) -> Any:
    """Exponential, to 1.5 ulp. float32: 0 below -87.7, inf above 88.4."""
    return libm_exp(x)


def tanh(x: Any) -> Any:
    """Hyperbolic tangent, to 5 ulp (6 if multiply-adds round twice)."""
    return libm_tanh(x)


@overload(exp)
def _exp(x):
    return (lambda x: _exp32(x)) if x == Vector(types.float32) else (lambda x: libm_exp(x))


@overload(tanh)
def _tanh(x):
    return (lambda x: _tanh32(x)) if x == Vector(types.float32) else (lambda x: libm_tanh(x))


@jit.device
def sigmoid(x: Any) -> Any:
    """The logistic function, ``1 / (1 + exp(-x))``, to 4 ulp: small values keep their relative accuracy."""
    return 1.0 / (1.0 + exp(0.0 - x))
