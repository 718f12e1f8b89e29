"""The multiply-add for processors without an instruction rounds once, as exact arithmetic and the instruction do."""

from fractions import Fraction

import numpy as np
import pytest
from numba.extending import intrinsic

from fastlstm import train
from fastlstm.backend import is_slow
from fastlstm.kernels import host, jit
from fastlstm.kernels.host import multiply_add, vector_width
from fastlstm.kernels.simd.arithmetic import fma
from fastlstm.kernels.simd.emit import emit_exact_fma
from fastlstm.kernels.simd.memory import load, store

pytestmark = pytest.mark.skipif(jit.DISABLED, reason="there is no machine code")

U = vector_width(4)
COUNT = 1 << 18


@intrinsic
def exact_fma(typingctx, a, b, c):
    return a(a, a, a), lambda context, builder, sig, args: emit_exact_fma(builder, *args)


@jit.kernel
def multiply_and_add(by_instruction, a, b, c, result):
    for i in range(0, len(a), U):
        x, y, z = load(a, i), load(b, i), load(c, i)
        if by_instruction:
            store(result, i, fma(x, y, z))
        else:
            store(result, i, exact_fma(x, y, z))


def computed(operands, by_instruction=False):
    result = np.empty(len(operands[0]), np.float32)
    multiply_and_add(by_instruction, *operands, result)
    return result


def scaled(numbers, exponents):
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(np.asarray(numbers, np.float64), exponents).astype(np.float32)


def significands(rng):
    return rng.integers(1 << 23, 1 << 24, COUNT) * rng.choice([-1, 1], COUNT)


def any_bits(rng):
    """All bit patterns: all exponents, NaN."""
    return tuple(rng.integers(0, 1 << 32, COUNT, dtype=np.uint32).view(np.float32) for _ in range(3))


def special(rng):
    """Zeros of both signs, infinities, NaN, the smallest and the largest numbers, with each other."""
    numbers = [0.0, 1.0, np.inf, 2.0**-149, 2.0**-126, 2.0**-75, 2.0**64, np.finfo(np.float32).max]
    numbers = np.float32([np.nan, *numbers, *(-number for number in numbers)])
    return tuple(rng.choice(numbers, COUNT) for _ in range(3))


def near(rng):
    """Products and addends of similar size: cancellation."""
    a, b = (scaled(significands(rng), rng.integers(-50, 0, COUNT)) for _ in range(2))
    sizes = np.frexp(a.astype(np.float64) * b)[1] - 24
    return a, b, scaled(significands(rng), sizes + rng.integers(-40, 40, COUNT))


def halfway(rng):
    """The sum lies by so little beside the middle of two float32 that a float64 would be the middle itself.

    The product is ``(1 + e) (1 - e) = 1 - e**2`` times half a unit in the last place of the addend.
    """
    e, size = np.ldexp(1.0, -rng.integers(15, 24, COUNT)), rng.integers(-60, 60, COUNT)
    addend = rng.integers(1 << 23, 1 << 24, COUNT) * rng.choice([-1, 1], COUNT)
    return scaled(1 + e, size - 1), (rng.choice([-1, 1], COUNT) * (1 - e)).astype(np.float32), scaled(addend, size)


def underflow(rng):
    """Subnormal results, also in the middle of two or close to it."""
    e, size = np.ldexp(1.0, -rng.integers(12, 24, COUNT)), rng.integers(-160, -140, COUNT)
    addend = rng.integers(0, 1 << 12, COUNT) * rng.choice([-1, 1], COUNT)
    return scaled(1 + e, size + 60), scaled(rng.choice([-1, 1], COUNT) * (1 - e), -60), scaled(addend, -149)


CASES = {case.__name__: case for case in (any_bits, special, near, halfway, underflow)}


def nearest(exact):
    """The float32 nearest to a `Fraction`, of two the even one."""
    with np.errstate(over="ignore"):
        about = np.float32(float(exact)) if abs(exact) < 2**128 else np.float32(np.copysign(np.inf, float(exact)))
        around = {about, *(np.nextafter(about, np.float32(way)) for way in (-np.inf, np.inf))}
    # Infinity is rounded to as if it were the next power of two.
    distances = {x: abs((Fraction(float(x)) if np.isfinite(x) else int(np.sign(x)) * 2**128) - exact) for x in around}
    return min(around, key=lambda x: (distances[x], int(x.view(np.uint32)) & 1))


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_the_exact_one_rounded_once(case, rng):
    operands = CASES[case](rng)
    found = computed(operands)
    for a, b, c, result in list(zip(*operands, found, strict=True))[:4000]:
        if np.isfinite([a, b, c]).all():
            exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
            assert result == nearest(exact), (a, b, c)
        else:
            with np.errstate(invalid="ignore"):
                expected = np.float64(a) * np.float64(b) + np.float64(c)
            assert np.array_equal(result, np.float32(expected), equal_nan=True), (a, b, c)


@pytest.mark.skipif(multiply_add() != "fused", reason="the processor has no fused multiply-add to compare with")
@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_the_instruction(case, rng):
    """Also the signs of zeros."""
    operands = CASES[case](rng)
    found, expected = computed(operands), computed(operands, by_instruction=True)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.isnan(found), ~numbers)
    assert np.array_equal(found[numbers].view(np.uint32), expected[numbers].view(np.uint32))


@pytest.mark.parametrize("case", ["halfway", "underflow"])
def test_two_roundings_would_differ(case, rng):
    """A negative control: in these cases the first rounding, to float64, matters."""
    a, b, c = CASES[case](rng)
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert np.mean(twice != computed((a, b, c))) > 0.001


@pytest.mark.parametrize(("how", "said"), [("exact", True), ("fused", False), ("fast", False)])
def test_train_says_what_the_bits_of_other_processors_cost(how, said, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(host, "multiply_add", lambda: how)
    (tmp_path / "text.txt").write_text("to be or not to be " * 40)
    options = ["--hidden", "4", "--steps", "2", "--sample-length", "0", "--out", str(tmp_path / "run")]
    assert train.main(["--data", str(tmp_path / "text.txt"), *options]) == 0
    assert ("FASTLSTM_FMA=fast" in capsys.readouterr().err) == said


def test_the_reference_is_never_slow_for_the_sake_of_bits(monkeypatch):
    monkeypatch.setattr(host, "multiply_add", lambda: "exact")
    assert is_slow("fast")
    assert not is_slow("reference")
