"""exp, tanh and sigmoid of the kernels are accurate to a few units in the last place, also for NaN and infinities.

The bounds are those in the docstrings of `fastlstm.kernels.functions`. ``pytest -rP`` prints the measured maxima, which
are also given there.
"""

import numpy as np
import pytest

from fastlstm.kernels import functions, jit
from fastlstm.kernels.host import multiply_add
from fastlstm.kernels.simd.memory import load, store
from fastlstm.kernels.simd.vector import width

TINY32 = float(np.finfo(np.float32).tiny)


@jit.kernel
def evaluate(name, source, target):
    """``target = f(source)``, one vector at a time; their length is a multiple of every width."""
    U = width(source)
    for j in range(0, len(source), U):
        x = load(source, j)
        if name == 0:
            store(target, j, functions.exp(x))
        elif name == 1:
            store(target, j, functions.tanh(x))
        else:
            store(target, j, functions.sigmoid(x))


def apply(name, x):
    padded = np.zeros(-(-len(x) // 16) * 16, x.dtype)
    padded[: len(x)] = x
    result = np.empty_like(padded)
    evaluate(["exp", "tanh", "sigmoid"].index(name), padded, result)
    return result[: len(x)]


def exactly(name, x):
    """The function in the precision of ``x``, which is higher than the precision under test."""
    with np.errstate(over="ignore"):
        return {"exp": np.exp, "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}[name](x)


def ulps(found, exact):
    """Errors in units in the last place of the exact result, in the precision of ``found``."""
    return np.abs(found.astype(exact.dtype) - exact) / np.spacing(np.abs(exact).astype(found.dtype)).astype(exact.dtype)


@pytest.fixture(scope="module")
def floats32():
    """Four million float32, spread over all 2**32 bit patterns, and more around each point where a case changes."""
    spread = np.arange(0, 2**32, 997, dtype=np.uint32)
    places = np.float32([0, 0.5 * np.log(2), 1, functions.TANH_LIMIT, 86.99, 87.33, 87.68, 88, 88.37, 88.72, 89])
    around = (places.view(np.uint32)[:, None] + np.arange(-1000, 1000)).astype(np.uint32)  # below 0: NaN
    x = np.concatenate([spread, around.ravel(), around.ravel() ^ np.uint32(1 << 31)]).view(np.float32)
    return x[np.isfinite(x)]


#: Where float32 results keep their relative accuracy, as (lower, upper) bounds of x, and the bound in ulp there.
#: exp and sigmoid: the result is a normal number, and exp does not overflow early. tanh: no intermediate is subnormal;
#: if products are rounded before they are added, its bound is larger.
RANGES32 = {
    "exp": (-87.33, 88.37, 1.5),
    "tanh": (-np.inf, np.inf, 6 if multiply_add() == "fast" else 5),
    "sigmoid": (-87.33, np.inf, 4),
}


@pytest.mark.parametrize("name", RANGES32)
def test_float32_is_accurate_to_a_few_ulp(name, floats32):
    lower, upper, bound = RANGES32[name]
    x = floats32[(floats32 >= lower) & (floats32 <= upper)]
    if name == "tanh":
        x = x[np.abs(x) > 2.5e-36]
    error = ulps(apply(name, x), exactly(name, x.astype(np.float64)))
    worst = error.argmax()
    print(f"float32 {name}: {error[worst]:.2f} ulp at {x[worst]!r}")
    assert error[worst] <= bound


@pytest.mark.parametrize("name", RANGES32)
def test_float32_errors_of_underflow_are_tiny(name, floats32):
    """When results or intermediates are subnormal, the error is smaller than the smallest normal number."""
    limit = -2.5e-36 if name == "tanh" else -87.33
    x = floats32[(floats32 < limit) if name != "tanh" else (np.abs(floats32) <= -limit)]
    error = np.abs(apply(name, x) - exactly(name, x.astype(np.float64)))
    assert error.max() < TINY32


def test_float32_exp_overflows_to_infinity_only_near_the_largest_number(floats32):
    found = apply("exp", floats32)
    assert np.all(np.isinf(found[floats32 > 88.73]))
    assert np.all(np.isfinite(found[floats32 < 88.37]))


@pytest.mark.parametrize("name", RANGES32)
def test_float64_is_the_c_librarys(name, rng):
    if np.finfo(np.longdouble).eps >= np.finfo(np.float64).eps:
        pytest.skip("long double has the precision of double here, so there is nothing to compare with")
    wide, near = 40 * rng.standard_normal(100_000), rng.standard_normal(100_000)
    small = rng.choice([-1, 1], 100_000) * 10.0 ** rng.uniform(-300, 0, 100_000)
    x = np.concatenate([wide, near, small, rng.uniform(-700, 700, 100_000)])
    error = ulps(apply(name, x), exactly(name, x.astype(np.longdouble)))
    print(f"float64 {name}: {float(error.max()):.2f} ulp at {x[error.argmax()]!r}")
    assert error.max() <= 3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values(dtype):
    x = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30], dtype)
    nan = np.nan
    assert np.array_equal(apply("exp", x), np.array([nan, nan, np.inf, 0, 1, 1, np.inf, 0], dtype), equal_nan=True)
    found = apply("sigmoid", x)
    assert np.array_equal(found, np.array([nan, nan, 1, 0, 0.5, 0.5, 1, 0], dtype), equal_nan=True)
    # The float32 fit ends at its limit, where it equals 1 within the bound.
    ulp = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(apply("tanh", x), [nan, nan, 1, -1, 0, 0, 1, -1], rtol=0, atol=3 * ulp)


@pytest.mark.parametrize("name", RANGES32)
def test_results_stay_inside_their_range(name, floats32):
    """Probabilities and gates are never negative or above 1, and tanh does not exceed 1 by more than its error."""
    found = apply(name, floats32)
    if name == "tanh":
        assert np.abs(found).max() <= 1 + 2.5 * np.finfo(np.float32).eps
        assert np.array_equal(apply(name, -floats32), -found)
    else:
        assert found.min() == 0
    if name == "sigmoid":
        assert found.max() == 1
