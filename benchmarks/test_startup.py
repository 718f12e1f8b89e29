"""Start-up time: of help, and of a first training step with and without compiled kernels in the cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HELP = ["-m", "fastlstm", "--help"]
IMPORT_NUMBA = ["-c", "import numba"]


def python(*arguments, **variables):
    """Run Python with ``arguments`` in a new process, without output."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def one_step(folder):
    return ["-m", "fastlstm.train", "--steps", "1", "--out", str(folder)]


@pytest.mark.parametrize("arguments", [HELP, IMPORT_NUMBA], ids=["help", "import numba alone"])
@pytest.mark.benchmark(group="start-up")
def test_start(benchmark, arguments):
    benchmark.pedantic(python, args=arguments, rounds=5, warmup_rounds=1)


@pytest.mark.benchmark(group="start-up")
def test_train_one_step_warm(benchmark, tmp_path):
    benchmark.pedantic(python, args=one_step(tmp_path), rounds=3, warmup_rounds=1)


@pytest.mark.slow
@pytest.mark.benchmark(group="start-up")
def test_train_one_step_cold(benchmark, tmp_path):
    def fresh_cache():
        fresh_cache.count += 1
        return one_step(tmp_path), {"NUMBA_CACHE_DIR": str(tmp_path / f"cache{fresh_cache.count}")}

    fresh_cache.count = 0
    benchmark.pedantic(python, setup=fresh_cache, rounds=3)
