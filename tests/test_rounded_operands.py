"""Operands rounded to bfloat16: rounding, groups of two rows, and products whose operands are bfloat16 numbers."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlstm.kernels import jit
from fastlstm.kernels.host import has_bf16, vector_width
from fastlstm.kernels.pack import pack, pack_transposed
from fastlstm.kernels.simd.groups import add_group, copy_group
from fastlstm.kernels.simd.memory import load, load_part, store, store_part, store_transposed
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.tile.call import register
from fastlstm.kernels.tile.operands import Packed, Rows
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.tile.shape import DEPTH, pitch

pytestmark = pytest.mark.skipif(not has_bf16(), reason="this processor has no dot products of bfloat16 numbers")
campaign = settings(max_examples=60, derandomize=True)
U = vector_width(4)
BFLOAT16 = np.uint16
SMALLEST_NORMAL = 2.0**-126


@pytest.fixture(autouse=True, scope="module")
def registered():
    register("uint16")


@jit.kernel
def round_all(source, target):
    for i in range(0, len(source), width(source)):
        store(target, i, load(source, i))


@jit.kernel
def widen_all(source, target):
    for i in range(0, len(target), width(target)):
        store(target, i, load(source, i))


@jit.kernel
def copy_part(source, at, target, to, count):
    store_part(target, to, count, load_part(source, at, count))


@jit.kernel
def call_copy_group(array, index, row, rows, to):
    copy_group(array, index, row, rows, to)


@jit.kernel
def sum_group(array, index, sums):
    store(sums, 0, add_group(array, index, load(sums, 0)))


@jit.kernel
def transpose(source, at, row, target, to, target_row, rows, columns):
    store_transposed(source, at, row, target, to, target_row, rows, columns)


@jit.kernel
def call_product(rows, first, last, depth, a, a_row, b, c, c_row, accumulate):
    product(rows, first, last, depth, Rows(a, 0, a_row), Packed(b, 0), Rows(c, 0, c_row), accumulate)


@jit.kernel
def call_pack(transposed, source, depth, gates, columns, padded, target, first, last):
    if transposed:
        pack_transposed(source, 0, depth, gates, columns, padded, target, 0, first, last)
    else:
        pack(source, 0, depth, gates, columns, target, 0, first, last)


def numbers(stored):
    """The numbers that are stored as bfloat16, by the definition: the upper half of a float32."""
    return (stored.astype(np.uint32) << 16).view(np.float32)


def rounded(x):
    """One finite float32 rounded to bfloat16, by comparing the distances to both neighbours exactly."""
    bits = struct.unpack("<I", struct.pack("<f", x))[0]
    low = bits >> 16
    (below,), (above,) = (numbers(np.array([n], BFLOAT16)).astype(np.float64) for n in (low, low + 1))
    above = math.copysign(2.0**128, x) if np.isinf(above) else above
    to_below, to_above = abs(float(x) - below), abs(above - float(x))
    return low if to_below < to_above or (to_below == to_above and low % 2 == 0) else low + 1


def test_every_bfloat16_number_is_what_it_is_rounded_to():
    """Subnormal numbers become 0, as the dot product takes them for 0."""
    stored = np.arange(2**16, dtype=BFLOAT16)
    wide, again = np.zeros(2**16, np.float32), np.zeros(2**16, BFLOAT16)
    widen_all(stored, wide)
    assert np.array_equal(wide.view(np.uint32), stored.astype(np.uint32) << 16)
    round_all(wide, again)
    usual = ~np.isnan(wide) & ((np.abs(wide) >= SMALLEST_NORMAL) | (wide == 0))
    assert np.array_equal(again[usual], stored[usual])
    assert np.isnan(numbers(again)[np.isnan(wide)]).all()
    subnormal = ~usual & ~np.isnan(wide)
    assert not (again[subnormal] & 0x7FFF).any()


def test_rounding_is_to_nearest_and_ties_to_even(rng):
    low = rng.integers(0, 2**16, size=4096)
    ends = rng.choice([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, *rng.integers(0, 2**16, 8)], size=4096)
    x = (low << 16 | ends).astype(np.uint32).view(np.float32)
    x = np.where(np.isnan(x) | (np.abs(x) < SMALLEST_NORMAL), np.float32(1.5), x)
    found = np.zeros(len(x), BFLOAT16)
    round_all(x, found)
    finite = np.isfinite(x)
    assert found[finite].tolist() == [rounded(value) for value in x[finite]]


def test_nan_and_infinities_stay_visible():
    x = np.resize(np.array([np.nan, np.inf, -np.inf, np.finfo(np.float32).max], np.float32), U)
    x[4:8] = np.array([0x7F800001, 0xFFC00000, 0x7FFFFFFF, 0xFF800001], np.uint32).view(np.float32)  # all kinds of NaN
    found = np.zeros(U, BFLOAT16)
    round_all(x, found)
    assert np.isnan(numbers(found)[[0, 4, 5, 6, 7]]).all()
    assert numbers(found)[1:4].tolist() == [np.inf, -np.inf, np.inf]


def test_partial_loads_and_stores_access_nothing_else(rng):
    for count in range(U + 1):
        source = rng.integers(0x3F80, 0x4080, size=3 + count).astype(BFLOAT16)
        target = np.zeros(U + 5, BFLOAT16)
        copy_part(source, 3, target, 2, count)
        expected = np.zeros(U + 5, BFLOAT16)
        expected[2 : 2 + count] = source[3:]
        assert np.array_equal(target, expected)


def test_a_group_has_the_elements_of_two_rows_side_by_side(rng):
    array = np.concatenate([rng.integers(0x3F80, 0x4080, 2 * U + 3), np.zeros(2 * U)]).astype(BFLOAT16)
    before, to = array.copy(), 2 * U + 3
    call_copy_group(array, 0, U + 3, 2, to)
    assert np.array_equal(array[to:].reshape(U, 2).T, [before[:U], before[U + 3 : to]])
    sums = np.ones(U, np.float32)
    sum_group(array, to, sums)
    exact = 1 + numbers(before[:U]).astype(np.float64) + numbers(before[U + 3 : to])
    np.testing.assert_allclose(sums, exact, rtol=2 * np.finfo(np.float32).eps)  # two additions
    call_copy_group(array, 0, 10**9, 1, to)  # the second row is missing, and not read
    assert np.array_equal(array[to:].reshape(U, 2).T, [before[:U], np.zeros(U)])


def test_a_block_of_bfloat16_numbers_is_transposed(rng):
    for rows, columns in [(1, 1), (U, U - 1), (U // 2, U // 2 + 1), (U, U)]:
        source = rng.integers(1, 2**16, (rows, columns)).astype(BFLOAT16)
        target = np.full(U * (U + 3), 7, BFLOAT16)
        transpose(source.ravel(), 0, columns, target, 0, U + 3, rows, columns)
        expected = np.full((U, U + 3), 7)
        expected[:, :U] = 0
        expected[:columns, :rows] = source.T
        assert np.array_equal(target.reshape(U, U + 3), expected)


# Products of small whole numbers are sums of whole numbers below 2**24: exact in any order, so bits can be compared.


@campaign
@given(
    rows=st.integers(1, 14),
    columns=st.integers(1, 120),
    depth=st.one_of(st.integers(1, 40), st.sampled_from([2 * DEPTH, 2 * DEPTH + 1, 4 * DEPTH + 3])),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    accumulate=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_product_is_exact_on_whole_numbers(rows, columns, depth, part, accumulate, seed):
    """Any shape, odd depths included; columns outside the range are not changed."""
    rng, padded, even = np.random.default_rng(seed), -(-columns // U) * U, depth + depth % 2
    A, W = rng.integers(-16, 17, (rows, depth)), rng.integers(-16, 17, (depth, columns)).astype(np.float32)
    a = np.zeros((rows, even + 2), BFLOAT16)
    a[:, :depth] = A.astype(np.float32).view(np.uint32) >> 16
    first, last = sorted(round(p * (padded // U)) for p in part)
    packed = np.full(padded * 2 * pitch(depth, 2), 0x7FC0, BFLOAT16)  # NaN
    call_pack(False, W.ravel(), depth, 1, columns, padded, packed, 0, padded // U)
    C = rng.integers(-1000, 1000, (rows, padded)).astype(np.float32)
    before, full = C.copy(), np.zeros((depth, padded))
    full[:, :columns] = W
    call_product(rows, first, last, depth, a.ravel(), even + 2, packed, C.ravel(), padded, int(accumulate))
    expected = before.copy()
    inside = slice(first * U, last * U)
    expected[:, inside] = (A @ full + (before if accumulate else 0))[:, inside]
    assert np.array_equal(C, expected)


@campaign
@given(
    depth=st.integers(1, 40), gates=st.sampled_from([1, 3, 4]), units=st.integers(1, 40), seed=st.integers(0, 1000),
    rows=st.integers(1, 7),
)  # fmt: skip
def test_packing_the_transpose_gives_the_transposed_product(depth, gates, units, seed, rows):
    """``A @ W.T`` over the padded order of the gates, against the order in which weights are packed."""
    rng, Hp = np.random.default_rng(seed), -(-units // U) * U
    N, D = gates * Hp, -(-depth // U) * U
    W = rng.integers(-16, 17, (depth, gates * units)).astype(np.float32)
    gate_order = np.full((Hp // U, gates, U), -1)
    for unit in range(units):
        gate_order[unit // U, :, unit % U] = unit + units * np.arange(gates)
    places = gate_order.ravel()
    A = rng.integers(-16, 17, (rows, N))
    target = np.full(D * 2 * pitch(N, 2), 0x7FC0, BFLOAT16)
    call_pack(True, W.ravel(), depth, gates, units, N, target, 0, D // U)
    C = np.zeros((rows, D), np.float32)
    a = (A.astype(np.float32).view(np.uint32) >> 16).astype(BFLOAT16)
    call_product(rows, 0, D // U, N, a.ravel(), N, target, C.ravel(), D, 0)
    expected = np.zeros((rows, D))
    expected[:, :depth] = A @ np.where(places >= 0, W[:, places], 0).T
    assert np.array_equal(C, expected)
