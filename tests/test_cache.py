"""The cache of compiled kernels is never in the way, and never stale."""

import os
import subprocess
import sys

import pytest

from fastlstm.kernels import jit

# Compiles a kernel of its own: quick, where the real ones take half a minute.
PROGRAM = """
import numpy as np
from fastlstm.kernels import jit

@jit.kernel
def twice(a):
    for i in range(len(a)):
        a[i] *= 2

a = np.ones(3)
twice(a)
print(a.sum(), sum(twice.stats.cache_hits.values()))
"""


def run(tmp_path, cache):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, str(program)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    first, second = run(tmp_path, tmp_path / "cache"), run(tmp_path, tmp_path / "cache")
    assert (first.stdout, second.stdout) == ("6.0 0\n", "6.0 1\n")
    assert second.stderr == ""


def test_an_unusable_folder_warns_and_goes_on(tmp_path, monkeypatch):
    for name in ("file", "__pycache__"):  # the three places numba tries, in turn
        (tmp_path / name).write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = run(tmp_path, tmp_path / "file" / "cache")
    assert done.stdout == "6.0 0\n"
    assert "cannot be used" in done.stderr


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_file_warns_and_goes_on(tmp_path, suffix):
    run(tmp_path, tmp_path / "cache")
    (damaged,) = (tmp_path / "cache").rglob(f"*.{suffix}")
    damaged.write_bytes(damaged.read_bytes()[:40])
    done = run(tmp_path, tmp_path / "cache")
    assert done.stdout == "6.0 0\n"
    assert "cannot be used" in done.stderr


def test_the_key_covers_the_source_of_all_kernels(tmp_path, monkeypatch):
    before = jit._source_fingerprint()
    jit._source_fingerprint.cache_clear()
    (tmp_path / "tile.py").write_text("changed")
    monkeypatch.setattr(jit, "__file__", str(tmp_path / "jit.py"))
    assert jit._source_fingerprint() != before
    jit._source_fingerprint.cache_clear()
