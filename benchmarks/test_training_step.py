"""One training step: forward, backward, clip, Adagrad."""

import pytest

from benchmarks.networks import Training
from benchmarks.reporting import report
from benchmarks.workloads import TRAINING
from fastlstm.threads import default_threads


@pytest.mark.parametrize("name", ["b1-h32", "b1-h100", "b1-h200", "b50-h128", "b50-h256", "b50-h512"])
@pytest.mark.benchmark(group="training step", max_time=1.0, min_rounds=3, warmup=True, warmup_iterations=2)
def test_fast(benchmark, name):
    threads = default_threads()
    training = Training(TRAINING[name], threads=threads)
    benchmark(training.step)
    report(benchmark, flops=TRAINING[name].step_flops, chars=TRAINING[name].chars, threads=threads, peak=True)


@pytest.mark.parametrize("name", ["b1-h32", "b1-h100", "b50-h128"])
@pytest.mark.benchmark(group="training step", max_time=1.0, min_rounds=3)
def test_reference(benchmark, name):
    training = Training(TRAINING[name], "reference")
    benchmark(training.step)
    report(benchmark, flops=TRAINING[name].step_flops, chars=TRAINING[name].chars)
