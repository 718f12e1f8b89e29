"""The register tile, products and the packing of weights give the results of NumPy, for any shape and vector unit."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bits import UNITS
from hypothesis import given, settings
from hypothesis import strategies as st

from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit, vector_width
from fastlstm.kernels.pack import column, pack, pack_transposed
from fastlstm.kernels.tile.call import register, tile
from fastlstm.kernels.tile.operands import Elements, Packed, Rows, Vectors
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.tile.shape import DEPTH, ROWS, VECTORS, VECTORS_ONE_ROW, pitch

DTYPES = ["float32", "float64"]
both = pytest.mark.parametrize("dtype", DTYPES)
campaign = settings(max_examples=60, derandomize=True)


# Entry points from Python, because these kernels can only be called by kernels.
@jit.kernel
def call_tile(rows, vectors, depth, a, a_at, a_row, a_k, b, b_at, b_vector, b_k, c, c_at, c_row, accumulate):
    A, B, C = Elements(a, a_at, a_row, a_k), Vectors(b, b_at, b_vector, b_k), Rows(c, c_at, c_row)
    tile(rows, vectors, depth, A, B, C, accumulate)


@jit.kernel
def call_product(rows, first, last, depth, a, a_at, a_row, b, b_at, c, c_at, c_row, accumulate):
    product(rows, first, last, depth, Rows(a, a_at, a_row), Packed(b, b_at), Rows(c, c_at, c_row), accumulate)


@jit.kernel
def call_pack(transposed, source, at, depth, gates, columns, padded, target, to, first, last):
    if transposed:
        pack_transposed(source, at, depth, gates, columns, padded, target, to, first, last)
    else:
        pack(source, at, depth, gates, columns, target, to, first, last)


@pytest.fixture(autouse=True, scope="module")
def registered():
    for dtype in DTYPES:
        register(dtype)


def width_of(dtype):
    return vector_width(np.dtype(dtype).itemsize)


def whole(n, dtype):
    """``n`` rounded up to whole vectors."""
    return -(-n // width_of(dtype)) * width_of(dtype)


def assert_is_sum(found, exact, depth, dtype):
    """A chain of ``depth`` multiply-adds of numbers of order 1: at most that many roundings of the largest sum."""
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(found, exact, rtol=0, atol=depth * eps * max(1.0, np.abs(exact).max()))


@both
@campaign
@given(
    shape=st.one_of(
        st.tuples(st.integers(1, ROWS), st.integers(1, VECTORS)),
        st.tuples(st.just(1), st.integers(1, VECTORS_ONE_ROW)),
    ),
    depth=st.integers(0, 40),
    gaps=st.tuples(*[st.integers(0, 3)] * 4),
    transposed=st.booleans(),
    accumulate=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_tile_is_a_product(dtype, shape, depth, gaps, transposed, accumulate, seed):
    """All shapes, A by rows or by columns, any offsets and strides; memory outside of C is not changed."""
    rng, U = np.random.default_rng(seed), width_of(dtype)
    (rows, vectors), (a_at, b_at, c_at, gap) = shape, gaps
    A, B = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, vectors * U)).astype(dtype)
    a_row, a_k = (1, rows + gap) if transposed else (depth + gap, 1)
    a = np.full(a_at + (rows + gap) * (depth + gap) + 1, np.nan, dtype)
    a[a_at + a_row * np.arange(rows)[:, None] + a_k * np.arange(depth)] = A
    b = np.concatenate([np.full(b_at, np.nan, dtype), B.reshape(depth, vectors, U).swapaxes(0, 1).ravel()])
    c_row = vectors * U + gap
    c = rng.standard_normal(c_at + rows * c_row + 5).astype(dtype)
    places = c_at + c_row * np.arange(rows)[:, None] + np.arange(vectors * U)
    before = c.copy()
    call_tile(rows, vectors, depth, a, a_at, a_row, a_k, b, b_at, depth * U, U, c, c_at, c_row, int(accumulate))
    exact = A.astype(np.float64) @ B.astype(np.float64) + (before[places] if accumulate else 0)
    assert_is_sum(c[places], exact, depth + 1, dtype)
    c[places] = before[places]
    assert np.array_equal(c, before)


@both
@campaign
@given(
    rows=st.integers(1, 14),
    columns=st.integers(1, 120),
    depth=st.one_of(st.integers(1, 40), st.sampled_from([DEPTH, DEPTH + 1, 2 * DEPTH + 3])),
    part=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    accumulate=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_product_with_packed_weights_is_a_product(dtype, rows, columns, depth, part, accumulate, seed):
    """`pack` and `product` together, for any range of vectors; columns outside the range are not changed."""
    rng, U = np.random.default_rng(seed), width_of(dtype)
    A, W = rng.standard_normal((rows, depth)).astype(dtype), rng.standard_normal((depth, columns)).astype(dtype)
    padded = whole(columns, dtype)
    first, last = sorted(round(p * (padded // U)) for p in part)
    packed, C = np.full(padded * pitch(depth, 1), np.nan, dtype), rng.standard_normal((rows, padded)).astype(dtype)
    call_pack(False, W.ravel(), 0, depth, 1, columns, padded, packed, 0, 0, padded // U)
    before = C.copy()
    c = C.ravel()
    call_product(rows, first, last, depth, A.ravel(), 0, depth, packed, 0, c, 0, padded, int(accumulate))
    inside = slice(first * U, last * U)
    full = np.zeros((depth, padded))
    full[:, :columns] = W
    exact = (A.astype(np.float64) @ full + (before if accumulate else 0))[:, inside]
    if exact.size:
        assert_is_sum(C[:, inside], exact, depth + 1, dtype)
    C[:, inside] = before[:, inside]
    assert np.array_equal(C, before)


@both
def test_a_sum_does_not_depend_on_the_shape_of_its_tile(dtype, rng):
    """A row computed alone, in a full tile, or with other columns has the same bytes."""
    U, depth = width_of(dtype), 77
    columns = 8 * U
    A, packed = (
        rng.standard_normal((13, depth)).astype(dtype),
        rng.standard_normal(pitch(depth, 1) * columns).astype(dtype),
    )
    together, alone, single = (np.zeros((13, columns), dtype) for _ in range(3))
    call_product(13, 0, 8, depth, A.ravel(), 0, depth, packed, 0, together.ravel(), 0, columns, 0)
    for r in range(13):
        call_product(1, 0, 8, depth, A.ravel(), r * depth, depth, packed, 0, alone.ravel(), r * columns, columns, 0)
        for j in range(8):
            call_product(
                1, j, j + 1, depth, A.ravel(), r * depth, depth, packed, 0, single.ravel(), r * columns, columns, 0
            )
    assert together.any()
    assert np.array_equal(together, alone)
    assert np.array_equal(together, single)


def gate_order(gates, units, dtype):
    """For each packed column the column of the parameters, -1 for padding: the definition, column by column."""
    U = width_of(dtype)
    order = []
    for group in range(whole(units, dtype) // U):
        for gate in range(gates):
            order += [gate * units + u if u < units else -1 for u in range(group * U, (group + 1) * U)]
    return np.array(order)


def in_gate_order(W, gates, dtype):
    order = gate_order(gates, W.shape[1] // gates, dtype)
    return np.where(order >= 0, W[:, order], 0).astype(dtype)


matrices = {
    "depth": st.integers(1, 40),
    "gates": st.sampled_from([1, 4]),
    "units": st.integers(1, 40),
    "offset": st.integers(0, 3),
    "seed": st.integers(0, 1000),
}


@both
@campaign
@given(**matrices)
def test_packing_puts_gates_side_by_side(dtype, depth, gates, units, offset, seed):
    rng, U = np.random.default_rng(seed), width_of(dtype)
    W = rng.standard_normal((depth, gates * units)).astype(dtype)
    source = np.concatenate([np.zeros(offset, dtype), W.ravel()])
    N = gates * whole(units, dtype)
    target = np.full(offset + N * pitch(depth, 1), np.nan, dtype)
    call_pack(False, source, offset, depth, gates, units, N, target, offset, 0, N // U)
    found = target[offset:].reshape(N // U, pitch(depth, 1), U)[:, :depth].swapaxes(0, 1).reshape(depth, N)
    assert np.array_equal(found, in_gate_order(W, gates, dtype))


@both
@campaign
@given(**matrices)
def test_packing_the_transpose(dtype, depth, gates, units, offset, seed):
    """Rows become columns, padded with zeros to whole vectors; the reduction runs over the padded gate order."""
    rng, U = np.random.default_rng(seed), width_of(dtype)
    W = rng.standard_normal((depth, gates * units)).astype(dtype)
    source = np.concatenate([np.zeros(offset, dtype), W.ravel()])
    N, D = gates * whole(units, dtype), whole(depth, dtype)
    target = np.full(offset + pitch(N, 1) * D, np.nan, dtype)
    call_pack(True, source, offset, depth, gates, units, N, target, offset, 0, D // U)
    found = target[offset:].reshape(D // U, pitch(N, 1), U)[:, :N].swapaxes(0, 1).reshape(N, D)
    expected = np.zeros((N, D), dtype)
    expected[:, :depth] = in_gate_order(W, gates, dtype).T
    assert np.array_equal(found, expected)


@both
@campaign
@given(gates=st.sampled_from([1, 4]), units=st.integers(1, 70))
def test_column_gives_the_position_of_a_packed_vector(dtype, gates, units):
    U, order = width_of(dtype), gate_order(gates, units, dtype).reshape(-1, width_of(dtype))
    for j, expected in enumerate(order):
        begin, n = column.py_func(j, gates, units, U)
        assert list(expected[:n]) == list(range(begin, begin + n))
        assert np.all(expected[n:] == -1)


NARROW = """
import sys
import numpy as np
sys.path.insert(0, {tests!r})
from problems import problem
from fastlstm.cells import CELLS
from fastlstm.kernels.host import vector_unit, vector_width
from test_equivalence import assert_same, bound, fast_run, reference_run
assert vector_unit() == (16, 16, False), vector_unit()
for cell in CELLS:
    p = problem(np.random.default_rng(0), cell, layers=2, hidden=13, vocab=23, seq_len=9, batch=5, dtype="float32")
    assert_same(fast_run(p, 1), reference_run(p), bound(p))
"""


@pytest.mark.skipif(sys.platform == "darwin" or vector_unit().bytes == 16, reason="no narrower registers here")
@pytest.mark.slow  # it compiles all kernels for another machine
def test_a_machine_with_narrower_registers_computes_the_same():
    """x86-64 of 2003: registers of 16 bytes, no fused multiply-add instruction, other tiles."""
    tests = os.path.dirname(__file__)
    environment = os.environ | UNITS["sse2"]
    subprocess.run([sys.executable, "-c", NARROW.format(tests=tests)], env=environment, check=True)


@pytest.mark.slow  # it compiles kernels for another machine
@pytest.mark.skipif(vector_unit().bytes != 64, reason="this machine's registers are not wider than AVX2")
@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        ("test_tile.py", ""),
        ("test_simd.py", ""),
        ("test_functions.py", ""),
        ("test_dropout.py", "known_answers or bit_for_bit"),
        # Kernels are compiled for each cell and dtype, ten seconds each.
        ("test_sync.py", "lstm and float32"),
        ("test_sync.py", "not (lstm and float32)"),
    ],
)
def test_a_machine_with_avx2_passes_the_same_tests(file, chosen):
    """Registers of 32 bytes and tiles of three rows: what most machines have."""
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, str(tests / file)]
    done = subprocess.run(command, env=os.environ | UNITS["avx2"], cwd=tests.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
