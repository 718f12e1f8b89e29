"""The kernels alone: products and phases compared with the measured peak, and the functions of the cell."""

from typing import Any

import numpy as np
import pytest

from benchmarks.networks import Training
from benchmarks.phases import NAMES, bit, costs, run_phases
from benchmarks.reporting import median_of, report
from benchmarks.timing import warm_up
from benchmarks.workloads import TRAINING
from fastlstm.kernels import functions, jit
from fastlstm.kernels.host import vector_width
from fastlstm.kernels.simd.memory import load, store
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.tile.call import register
from fastlstm.kernels.tile.operands import Packed, Rows
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.workspace import aligned_zeros
from fastlstm.threads import default_threads

#: Elements to which an elementwise function is applied: they stay in the L1 cache.
ELEMENTS = 2048
EXP, TANH, SIGMOID = 0, 1, 2


@jit.kernel
def multiply(rows: int, vectors: int, depth: int, a: Any, b: Any, c: Any, calls: int) -> None:
    """``C = A B`` for a packed B, ``calls`` times."""
    for _ in range(calls):
        product(rows, 0, vectors, depth, Rows(a, 0, depth), Packed(b, 0), Rows(c, 0, vectors * width(c)), 0)


@jit.kernel
def apply(function: int, values: Any, results: Any, calls: int) -> None:
    """A function of the cell, element by element, ``calls`` times."""
    for _ in range(calls):
        for i in range(0, len(values), width(values)):
            x = load(values, i)
            if function == EXP:
                y = functions.exp(x)
            elif function == TANH:
                y = functions.tanh(x)
            else:
                y = functions.sigmoid(x)
            store(results, i, y)


def random_floats(count, dtype):
    values = aligned_zeros(count, dtype)
    values[:] = np.random.default_rng(0).standard_normal(count)
    return values


SHAPES = {
    "one lane, h256": (1, 1024, 256),
    "50 lanes, h128": (50, 512, 128),
    "50 lanes, h256": (50, 1024, 256),
    "50 lanes, h512": (50, 2048, 512),
    "64 lanes, h1024": (64, 4096, 1024),
    "2500 rows to 65 symbols": (2500, 80, 256),
}


@pytest.mark.parametrize(("dtype", "shape"), [*(("float32", shape) for shape in SHAPES), ("float64", "50 lanes, h256")])
@pytest.mark.benchmark(group="product, one core", max_time=0.3, min_rounds=3, warmup=True, warmup_iterations=1)
def test_product(benchmark, dtype, shape):
    rows, columns, depth = SHAPES[shape]
    register(dtype)
    a, b, c = (random_floats(n, dtype) for n in (rows * depth, depth * columns, rows * columns))
    vectors = columns // vector_width(c.itemsize)
    flops = 2 * rows * columns * depth
    calls = max(1, 20_000_000 // flops)
    benchmark(multiply, rows, vectors, depth, a, b, c, calls)
    report(benchmark, flops=flops, calls=calls, peak=dtype == "float32")


@pytest.mark.parametrize("phase", ["INPUTS", "LAYERS", "OUTPUT", "LAYERS_BACK", "INPUTS_BACK", "WEIGHTS"])
@pytest.mark.parametrize("name", ["b50-h128", "b50-h256", "b50-h512"])
@pytest.mark.benchmark(group="phases of a step")
def test_phase(benchmark, name, phase):
    if TRAINING[name].L == 1 and phase.startswith("INPUTS"):
        pytest.skip("there is no layer above the first")
    training = Training(TRAINING[name], threads=default_threads())
    warm_up(training.step)
    before = sum(bit(earlier) for earlier in NAMES[: NAMES.index(phase)])
    benchmark.pedantic(run_phases, args=(training, bit(phase)), setup=lambda: run_phases(training, before), rounds=5)
    flops = costs(training.network, len(training.parameters.flat), training.rule.slots)[phase].flops
    report(benchmark, flops=flops, threads=training.network.workers.count, peak=True)


@pytest.mark.parametrize("function", [EXP, TANH, SIGMOID], ids=["exp", "tanh", "sigmoid"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.benchmark(group="functions", max_time=0.2, min_rounds=3, warmup=True, warmup_iterations=1)
def test_function(benchmark, function, dtype):
    calls = 20
    values = random_floats(ELEMENTS, dtype)
    benchmark(apply, function, values, np.empty_like(values), calls)
    if (seconds := median_of(benchmark)) is not None:
        benchmark.extra_info["ns_per_element"] = round(1e9 * seconds / (calls * ELEMENTS), 3)
