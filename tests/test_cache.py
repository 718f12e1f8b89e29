"""The cache of compiled kernels never prevents a run, is never stale, and never gives wrong results."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import llvmlite
import numba
import pytest

from fastlstm.kernels import jit, numba_internals

# Compiles a small kernel, which is fast; the real ones take half a minute.
PROGRAM = """
import sys
import numpy as np
from fastlstm.kernels import jit

@jit.kernel
def twice(a):
    for i in range(len(a)):
        a[i] *= 2

a = np.ones(3, sys.argv[1])
twice(a)
print(a.sum(), sum(twice.stats.cache_hits.values()))
"""


def start(tmp_path, dtype="float64", **variables):
    program = tmp_path / "program.py"
    if not program.exists():  # another process may be reading it
        program.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(program), dtype],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer_of(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


def run(*args, **variables):
    return answer_of(start(*args, **variables))


def test_a_second_process_loads_what_the_first_compiled(tmp_path):
    assert run(tmp_path) == ("6.0 0\n", "")
    assert run(tmp_path) == ("6.0 1\n", "")


def test_with_an_unusable_folder_a_program_warns_and_runs(tmp_path, monkeypatch):
    for name in ("file", "__pycache__"):  # the three places numba tries, in turn
        (tmp_path / name).write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    out, err = run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert out == "6.0 0\n"
    assert "cannot be used" in err


def test_processes_that_start_at_the_same_time_compute_correctly(tmp_path):
    """With an empty cache, then with a damaged one, and for two dtypes, whose machine code must not be mixed up."""
    for _ in range(2):
        for process in [start(tmp_path, dtype) for dtype in ("float32", "float64", "float32")]:
            out, err = answer_of(process)
            assert out.startswith("6.0")
            assert err == ""
        assert [run(tmp_path, dtype) for dtype in ("float32", "float64")] == [("6.0 1\n", "")] * 2
        for path in (tmp_path / "cache").rglob("*.nb*"):
            path.write_bytes(path.read_bytes()[:1000])


def test_code_for_another_processor_is_a_separate_entry(tmp_path):
    generic = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    run(tmp_path)
    assert run(tmp_path, **generic) == ("6.0 0\n", "")
    assert run(tmp_path, **generic) == run(tmp_path) == ("6.0 1\n", "")


# After each damage, two starts with new dispatchers. It runs in a separate process, because the code that they load
# might crash it.
DAMAGED = """
import os, sys, warnings
from pathlib import Path
import numpy as np
from fastlstm.kernels import jit
warnings.simplefilter("error")

def square_sum(a):
    total = 0.0
    for i in range(len(a)):
        total += a[i] * a[i] + 0.25
    return total

def started():
    kernel = jit.kernel(square_sum)
    return kernel(np.arange(4.0)), kernel(np.arange(4, dtype=np.int64)), sum(kernel.stats.cache_hits.values())

def expect(hits, what):
    found = started()
    assert found[:2] == (15.0, 15.0) and found[2] in hits, (what, found)

def files():
    return sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file())

def damages(whole):
    size = len(whole)
    for at in [*range(0, 64, 9), *range(64, size, size // 12), size - 1]:
        yield f"byte {at} of {size} flipped", whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
    for length in (0, 1, 31, 32, 33, size // 2, size - 1):
        yield f"truncated to {length} of {size}", whole[:length]
    yield "zeroed", bytes(size)
    yield "a zeroed page", whole[: size // 2] + bytes(4096) + whole[size // 2 + 4096 :]
    yield "garbage", np.random.default_rng(0).bytes(size)
    yield "continued", whole + whole

expect((0,), "nothing cached yet")
before = files()
for path in before:
    whole = path.read_bytes()
    for what, content in damages(whole):
        path.write_bytes(content)
        expect((0, 1), (path.name, what))
        expect((2,), (path.name, what, "built again"))
a, b = before[-2:]
for swapped in ((a, b), (b, a)):
    contents = [path.read_bytes() for path in swapped]
    for path, content in zip(swapped, reversed(contents)):
        path.write_bytes(content)
    expect((0,), "two files swapped")
    expect((2,), "built again")
assert files() == before, files()
print("held")
"""


def test_a_damaged_file_is_built_again_without_a_warning(tmp_path):
    """Headers, pickled data and machine code, flipped, cut, zeroed, swapped: correct results, then a whole cache."""
    program = tmp_path / "program.py"
    program.write_text(DAMAGED)
    cache = tmp_path / "cache"
    done = subprocess.run(
        [sys.executable, str(program), str(cache)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "held\n", "")


def cache_hits():
    """Number of cache hits of a new dispatcher."""

    def successor(n):
        return n + 1

    kernel = jit.kernel(successor)
    assert kernel(1) == 2
    return sum(kernel.stats.cache_hits.values())


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (numba, "__version__", "0.68.99"),
        (llvmlite, "__version__", "0.50.99"),
        (numba_internals.llvm, "llvm_version_info", (99, 0, 0)),
        (numba.config, "OPT", 1),
        (numba.config, "BOUNDSCHECK", 1),
        (numba_internals, "source_fingerprint", lambda: "an edit of some kernel"),
        (numba_internals, "MULTIPLY_ADD", "fast"),
    ],
)
def test_the_key_covers_what_the_code_depends_on(where, name, value, tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert [cache_hits(), cache_hits()] == [0, 1]
    monkeypatch.setattr(where, name, value)
    assert [cache_hits(), cache_hits()] == [0, 1]


KERNELS = Path(numba_internals.__file__).parent


OTHERS = [KERNELS.parent / name for name in ("optimizers.py", "logarithm.py")]
SOURCES = [*OTHERS, *sorted(KERNELS.rglob("*.py"))]


@pytest.mark.parametrize("path", [path.relative_to(KERNELS.parent) for path in SOURCES], ids=str)
def test_the_key_covers_the_source_of_all_kernels(path, tmp_path, monkeypatch):
    """A copy of the sources has the same key, until any of them is edited."""
    fingerprint = numba_internals.source_fingerprint.__wrapped__
    before = fingerprint()
    shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    for other in OTHERS:
        shutil.copy(other, tmp_path)
    monkeypatch.setattr(numba_internals, "__file__", str(tmp_path / "kernels" / "numba_internals.py"))
    assert fingerprint() == before
    with open(tmp_path / path, "a") as file:
        file.write("\n")
    assert fingerprint() != before


def test_a_cache_that_cannot_be_written_warns_once(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("fastlstm.kernels.notices._given", set())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="cannot be used.*No space left") as warned:
        assert [cache_hits(), cache_hits()] == [0, 0]
    assert len(warned) == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
