"""Sampling: one character at a time in one lane, and many continuations at once."""

import numpy as np
import pytest

from benchmarks.networks import config_of, model_of
from benchmarks.reporting import report
from benchmarks.workloads import SAMPLED, SAMPLING
from fastlstm.backend import build
from fastlstm.drawing import Drawing
from fastlstm.kernels.host import has_bf16
from fastlstm.params import initialise

#: Characters of one call on the slow reference.
FEW = 20

#: What leaves symbols out, alone and together.
LIMITS = {
    "none": Drawing(),
    "top-k": Drawing(top_k=40),
    "top-p": Drawing(top_p=0.9),
    "min-p": Drawing(min_p=0.05),
    "all": Drawing(0.8, 40, 0.9, 0.05),
    "escape": Drawing(withheld=1),
}


def generator(workload, backend, lanes, characters, drawing=LIMITS["none"], *, bf16=False):
    """A call that draws ``characters`` characters in each of ``lanes`` lanes."""
    config, rng = config_of(workload), np.random.default_rng(0)
    network, parameters = build(backend, config, 1, lanes, 1, training=False, bf16=bf16), initialise(config, rng)
    first, state = np.zeros(lanes, np.int32), np.zeros(config.state_shape(lanes), config.dtype)
    uniforms = rng.random((characters, lanes))
    return lambda: network.generate(parameters, first, state, uniforms, drawing)


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.benchmark(group=f"sampling, fast, {SAMPLED} characters", max_time=0.5, min_rounds=3)
def test_fast(benchmark, name):
    benchmark(generator(SAMPLING[name], "fast", 1, SAMPLED))
    report(benchmark, flops=SAMPLING[name].forward_flops, chars=1, calls=SAMPLED)


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.benchmark(group=f"sampling with limits, fast, {SAMPLED} characters", max_time=0.5, min_rounds=3)
def test_limits(benchmark, name, limits):
    benchmark(generator(SAMPLING[name], "fast", 1, SAMPLED, LIMITS[limits]))
    report(benchmark, flops=SAMPLING[name].forward_flops, chars=1, calls=SAMPLED)


@pytest.mark.skipif(not has_bf16(), reason="needs a processor with AVX-512 BF16")
@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.benchmark(group=f"sampling, bf16, {SAMPLED} characters", max_time=0.5, min_rounds=3)
def test_bf16(benchmark, name):
    benchmark(generator(SAMPLING[name], "fast", 1, SAMPLED, bf16=True))
    report(benchmark, flops=SAMPLING[name].forward_flops, chars=1, calls=SAMPLED)


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.benchmark(group=f"sampling, reference, {FEW} characters", max_time=0.5, min_rounds=3)
def test_reference(benchmark, name):
    benchmark(generator(SAMPLING[name], "reference", 1, FEW))
    report(benchmark, flops=SAMPLING[name].forward_flops, chars=1, calls=FEW)


@pytest.mark.parametrize("name", SAMPLING)
@pytest.mark.benchmark(group="sampling through Model.sample", max_time=0.5, min_rounds=3)
def test_model(benchmark, name):
    model = model_of(SAMPLING[name])
    benchmark(model.sample, length=SAMPLED)
    report(benchmark, flops=SAMPLING[name].forward_flops, chars=1, calls=SAMPLED)


@pytest.mark.parametrize("lanes", [1, 4, 16, 64])
@pytest.mark.benchmark(group="sampling in lanes, h256", max_time=0.5, min_rounds=3)
def test_lanes(benchmark, lanes):
    benchmark(generator(SAMPLING["h256"], "fast", lanes, SAMPLED))
    report(benchmark, flops=SAMPLING["h256"].forward_flops, chars=1, calls=SAMPLED * lanes)
