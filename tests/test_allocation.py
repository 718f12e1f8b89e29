"""A training step of the fast backend allocates no array and calls no BLAS."""

import itertools
import re
import tracemalloc

import numpy as np
import pytest
from problems import problem

from fastlstm.cells import CELLS
from fastlstm.dropout import Dropout
from fastlstm.kernels import step as kernels
from fastlstm.kernels.network import FastNetwork
from fastlstm.optimizers import OPTIMIZERS
from fastlstm.params import Parameters
from fastlstm.reference.network import ReferenceNetwork

DTYPES = ["float32", "float64"]

#: Bytes. A step makes a few dozen small Python objects (numbers, tuples, views, a closure) of 50 to 100 bytes each.
CHURN = 8 * 1024


def training(rng, backend, dtype, cell="lstm", step=None, optimizer="adagrad"):
    """A function that runs one training step of a network whose smallest array is twice `CHURN`."""
    p = problem(rng, cell, hidden=64, embedding=64, vocab=64, seq_len=64, batch=64, dtype=dtype)
    assert min(p.x.nbytes, p.state.nbytes, p.parameters["embedding"].nbytes) >= 2 * CHURN
    net = backend(p.config, p.seq_len, p.batch, 1, dropout=Dropout(0.1, 0.1, 0.5))
    rules = (OPTIMIZERS[optimizer].rule(1e-3, n, clip_norm=1.0) for n in itertools.count())
    gradients, slots = Parameters(p.config), p.slots(next(rules))
    return lambda: net.train_step(p.parameters, gradients, slots, p.x, p.y, p.state, 1.0, next(rules), step)


def most_allocated(train):
    """Peak of additionally allocated bytes over three steps, after a first one."""
    train()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            train()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("step", [None, 3])  # without dropout, and with it
def test_a_step_allocates_no_array(step, cell, dtype, rng):
    """NumPy reports its arrays to tracemalloc, and every array of this step is larger than the bound."""
    assert most_allocated(training(rng, FastNetwork, dtype, cell, step)) < CHURN


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_optimizer_allocates_an_array(optimizer, dtype, rng):
    """From the numbers of its rule to the updated parameters."""
    assert most_allocated(training(rng, FastNetwork, dtype, optimizer=optimizer)) < CHURN


def test_allocations_of_the_reference_are_detected(rng):
    """Negative control: the reference does allocate, and the measurement detects every temporary."""
    assert most_allocated(training(rng, ReferenceNetwork, "float32")) > 1000 * CHURN


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_machine_code_calls_neither_an_allocator_nor_blas(dtype, rng):
    """tracemalloc does not see allocations in kernels, so the names of all functions that their code calls are read."""
    p = problem(rng, "lstm", dtype=dtype)
    FastNetwork(p.config, p.seq_len, p.batch, 1).forward(p.parameters, p.x, p.y, p.state)
    for made in kernels.step.overloads.values():
        functions = made.library._get_module_for_linking().functions
        called = {function.name for function in functions if function.is_declaration}
        assert any(name.startswith("fastlstm_tile_") for name in called)  # the code does contain names
        assert not [name for name in called if re.search("NRT_|alloc|gemm|gemv|dot|blas", name)]


def test_workspaces_are_laid_out_once(rng):
    """The arena and the other buffers of a network are the same memory after many steps."""
    p = problem(rng, "lstm")
    net = FastNetwork(p.config, p.seq_len, p.batch, 1)

    def places():
        return [buffer.ctypes.data for buffer in net.buffers if isinstance(buffer, np.ndarray)]

    before = places()
    assert len(before) == len(net.buffers) - 1  # all but the value that identifies the cell
    for _ in range(3):
        net.forward(p.parameters, p.x, p.y, p.state)
    assert places() == before
