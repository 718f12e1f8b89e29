"""Vectors: partial loads and stores access only the given elements, and multiply-adds of float32 round once."""

import numpy as np
import pytest

from fastlstm.kernels import host, jit
from fastlstm.kernels.host import vector_width
from fastlstm.kernels.simd.arithmetic import fma
from fastlstm.kernels.simd.memory import load, load_part, store, store_part, store_transposed


@jit.kernel
def copy_part(source, at, target, to, count):
    store_part(target, to, count, load_part(source, at, count) + 1.0)


@jit.kernel
def transpose_part(source, at, row, target, to, target_row, rows, columns):
    store_transposed(source, at, row, target, to, target_row, rows, columns)


@jit.kernel
def multiply_add(a, b, c):
    store(c, 0, fma(load(a, 0), load(b, 0), load(c, 0)))


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


def test_partial_loads_and_stores_access_nothing_else(dtype, rng):
    U = vector_width(dtype.itemsize)
    for count in range(U + 1):
        # The source ends with the part: memory beyond it may not be accessible.
        source, target = rng.standard_normal(3 + count).astype(dtype), np.zeros(U + 5, dtype)
        copy_part(source, 3, target, 2, count)
        expected = np.zeros(U + 5, dtype)
        expected[2 : 2 + count] = source[3:] + 1
        assert np.array_equal(target, expected)


def test_a_part_of_a_block_is_transposed_and_padded_with_zeros(dtype, rng):
    U = vector_width(dtype.itemsize)
    for rows, columns in [(1, 1), (1, U), (U, 1), (U - 1, U), (U, U - 1), (U // 2, U // 2 + 1), (U, U)]:
        row = columns + 3
        source = rng.standard_normal(2 + rows * row).astype(dtype)
        target = np.full(1 + U * U + 1, np.nan, dtype)
        transpose_part(source, 2, row, target, 1, U, rows, columns)
        expected = np.zeros((U, U), dtype)
        expected[:columns, :rows] = source[2:].reshape(rows, row)[:, :columns].T
        assert np.array_equal(target[1:-1].reshape(U, U), expected)
        assert np.isnan(target[[0, -1]]).all()


def test_a_multiply_add_rounds_once_if_the_processor_supports_it_and_always_for_float32(dtype):
    """(1 + e)(1 - e) - 1 is -e**2, and 0 if the product is rounded."""
    e, how = np.finfo(dtype).eps, host.multiply_add()
    a, b, c = (np.full(vector_width(dtype.itemsize), x, dtype) for x in (1 + e, 1 - e, -1))
    multiply_add(a, b, c)
    once = how == "fused" or (how == "exact" and dtype == np.float32)
    assert np.all(c == (-e * e if once and not jit.DISABLED else 0))
