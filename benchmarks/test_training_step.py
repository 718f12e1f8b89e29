"""One training step: forward, backward, clip, Adagrad."""

import pytest

from benchmarks.networks import Training
from benchmarks.peak import BFLOAT16
from benchmarks.reporting import report
from benchmarks.workloads import TRAINING
from fastlstm.kernels.host import has_bf16
from fastlstm.threads import default_threads


@pytest.mark.parametrize("name", ["b1-h32", "b1-h100", "b1-h200", "b50-h128", "b50-h256", "b50-h512"])
@pytest.mark.benchmark(group="training step", max_time=1.0, min_rounds=3, warmup=True, warmup_iterations=2)
def test_fast(benchmark, name):
    threads = default_threads()
    training = Training(TRAINING[name], threads=threads)
    benchmark(training.step)
    report(benchmark, flops=TRAINING[name].step_flops, chars=TRAINING[name].chars, threads=threads, peak=True)


@pytest.mark.skipif(not has_bf16(), reason="needs a processor with AVX-512 BF16")
@pytest.mark.parametrize("name", ["b1-h200", "b50-h128", "b50-h256", "b50-h512"])
@pytest.mark.benchmark(group="training step, bf16", max_time=1.0, min_rounds=3, warmup=True, warmup_iterations=2)
def test_bf16(benchmark, name):
    workload, threads = TRAINING[name], default_threads()
    training = Training(workload, threads=threads, bf16=True)
    benchmark(training.step)
    report(
        benchmark, flops=workload.step_flops, chars=workload.chars, threads=threads, peak=True, dtype=BFLOAT16
    )  # fmt: skip


@pytest.mark.parametrize("name", ["b1-h32", "b1-h100", "b50-h128"])
@pytest.mark.benchmark(group="training step", max_time=1.0, min_rounds=3)
def test_reference(benchmark, name):
    training = Training(TRAINING[name], "reference")
    benchmark(training.step)
    report(benchmark, flops=TRAINING[name].step_flops, chars=TRAINING[name].chars)
