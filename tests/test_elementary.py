"""The logarithm, cosine and power by plain arithmetic are accurate, and the same in kernels."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from fastlstm.elementary import cos, power
from fastlstm.kernels import functions, jit
from fastlstm.logarithm import log


def positive_numbers(rng):
    """Numbers around 1, sums of a softmax, all exponents, subnormal numbers, and both sides of where a case changes."""
    around = 1 + np.ldexp(rng.uniform(-1, 1, 2000), rng.integers(-52, -1, 2000))
    sums = np.exp(rng.uniform(0, 9, 4000))
    spread = rng.integers(1, 0x7FF0 << 48, 2000, dtype=np.uint64).view(np.float64)
    tiny = rng.integers(1, 1 << 52, 500, dtype=np.uint64).view(np.float64)
    edges = np.array([math.sqrt(0.5), math.sqrt(2.0), 1.0, 2.0, np.finfo(float).max, np.finfo(float).tiny, 5e-324])
    edges = np.concatenate([np.nextafter(edges, 0.0), edges, np.nextafter(edges, 2.0)])
    return np.concatenate([around, sums, spread, tiny, edges[edges > 0]])


def test_the_logarithm_is_exact_to_one_ulp(rng):
    worst = 0.0
    with localcontext() as context:
        context.prec = 40
        for x in positive_numbers(rng).tolist():
            exact = Decimal(x).ln()
            worst = max(worst, float(abs(Decimal(log(x)) - exact) / Decimal(math.ulp(float(exact)))))
    print(f"log: {worst:.2f} ulp")
    assert worst <= 1.0


def test_the_logarithm_of_special_values():
    assert log(1.0) == 0.0
    assert [log(x) for x in (0.0, -0.0, math.inf)] == [-math.inf, -math.inf, math.inf]
    assert all(math.isnan(log(x)) for x in (math.nan, -1.0, -math.inf, -5e-324))


@jit.kernel
def logs(source, target):
    for i in range(len(source)):
        target[i] = functions.log(source[i])


def test_the_logarithm_of_kernels_has_the_same_bits(rng):
    x = np.concatenate([positive_numbers(rng), [0.0, -1.0, math.inf, math.nan]])
    found = np.empty_like(x)
    logs(x, found)
    assert np.array_equal(found, [log(number) for number in x.tolist()], equal_nan=True)


def test_the_cosine_is_exact_to_three_in_ten_to_the_sixteenth(rng):
    x = np.concatenate([rng.uniform(0, math.pi / 2, 20_000), [math.pi / 2, 1e-9]])
    found = np.array([cos(number) for number in x.tolist()])
    # Those of the C library are off by half a unit in the last place, which is at most 1.2e-16.
    np.testing.assert_allclose(found, np.cos(x), rtol=0, atol=3e-16 + 1.2e-16)
    assert cos(0.0) == 1.0
    assert found.max() <= 1.0


@pytest.mark.parametrize("base", [0.0, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_a_power_is_exact_to_as_many_ulp_as_its_exponent(base):
    for exponent in (0, 1, 2, 3, 10, 97, 1000):
        exact = Fraction(base) ** exponent
        assert abs(Fraction(power(base, exponent)) - exact) <= exponent * Fraction(2) ** -52 * exact
    assert power(base, 10**12) == (1.0 if base == 1.0 else 0.0)
