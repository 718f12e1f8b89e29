"""With a numba whose internals are not as expected, results are the same; kernels compile slower and are not cached."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Ways in which another numba may differ, detected on import or at first use.
DIFFERENCES = {
    "a class is gone": "import numba.core.codegen as m; del m.JITCodeLibrary",
    "a class is something else": "import numba.core.caching as m; m.FunctionCache = None",
    "an option is gone": "import numba.core.options as m; del m.DefaultOptions._nrt",
    "a library cannot be made": """
from numba.core.codegen import JITCodeLibrary
made = JITCodeLibrary.__init__
def make(self, *args):
    if type(self) is not JITCodeLibrary:
        raise TypeError("another\\nsignature")
    made(self, *args)
JITCodeLibrary.__init__ = make
""",
    "a C function cannot be made": """
from fastlstm.kernels import numba_internals
def make(*args, **kwargs):
    raise AttributeError("another\\ninterface")
numba_internals.CFunc = make
""",
}

SMALL = """
import ctypes
import numba
import numpy as np
from fastlstm.kernels import jit
from fastlstm.kernels.simd.arithmetic import fma
from fastlstm.kernels.simd.memory import load, store
from fastlstm.kernels.simd.vector import width

@jit.device
def double(x):
    return fma(x, 2.0, 0.0)

@jit.kernel
def doubled(a):
    for i in range(0, len(a), width(a)):
        store(a, i, double(load(a, i)))

@jit.c_function(numba.types.float64(numba.types.float64))
def half(x):
    return x / 2

a = np.arange(64, dtype=np.float32)
doubled(a)
assert np.array_equal(a, 2 * np.arange(64)), a
assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(half.address)(3.0) == 1.5
"""

STEP = """
import sys
sys.path.insert(0, {tests!r})
import numpy as np
from problems import problem
from test_equivalence import fast_run
p = problem(np.random.default_rng(0), "lstm", hidden=13, vocab=23, seq_len=5, batch=3, dtype="float32")
for name, value in sorted(fast_run(p, 1).items()):
    print(name, np.asarray(value).tobytes().hex())
"""


def run(tmp_path, difference, program):
    file = tmp_path / "program.py"
    file.write_text(difference + program)
    done = subprocess.run(
        [sys.executable, str(file)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_with_different_internals_of_numba_results_are_the_same_and_a_warning_is_given_once(difference, tmp_path):
    done = run(tmp_path, DIFFERENCES[difference], SMALL)
    warning, source = done.stderr.splitlines()  # Python shows the line that warns below the warning
    assert "RuntimeWarning: the internals of numba" in warning
    assert "warn" in source


def test_without_numbas_internals_nothing_is_cached(tmp_path):
    """Numba's own cache does not verify its files."""
    run(tmp_path, DIFFERENCES["a class is gone"], SMALL)
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow  # numba compiles every function with all it calls: half a minute
def test_without_numbas_internals_a_training_step_is_bitwise_the_same(tmp_path):
    step = STEP.format(tests=str(Path(__file__).parent))
    public, usual = (run(tmp_path, difference, step) for difference in (DIFFERENCES["a class is gone"], ""))
    assert usual.stderr == ""
    assert public.stdout == usual.stdout != ""
