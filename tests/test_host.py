"""The vector unit that kernels are laid out for is the one numba generates code for."""

import os
import platform
import subprocess
import sys

import numba
import pytest

from fastlstm.errors import ConfigError
from fastlstm.kernels import host
from fastlstm.kernels.host import vector_unit

x86_only = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="other machines always have fused multiply-adds"
)


def test_the_vector_unit_follows_from_the_features(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for features, expected in [
        ("+avx512f,+avx2,+avx", (64, 32, True)), ("+avx,-avx512f,-fma", (32, 16, False)),
        ("+avx2,+fma", (32, 16, True)), ("+fma", (32, 16, True)), ("", (16, 16, False)),
    ]:  # fmt: skip
        monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
        assert vector_unit.__wrapped__() == expected


@pytest.mark.parametrize(
    ("features", "chosen", "how"),
    [("+avx2,+fma", "fast", "fused"), ("+avx", "fast", "fast"), ("+avx", "exact", "exact"), ("", " ", "exact")],
)
def test_multiply_adds_round_once_unless_told_otherwise(features, chosen, how, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(numba.config, "CPU_FEATURES", features)
    monkeypatch.setattr(host, "vector_unit", vector_unit.__wrapped__)
    monkeypatch.setenv(host.FMA_VARIABLE, chosen)
    assert host.multiply_add() == how


def test_another_choice_is_refused_on_every_machine(monkeypatch):
    monkeypatch.setenv(host.FMA_VARIABLE, "quick")
    with pytest.raises(ConfigError, match=r"^FASTLSTM_FMA must be exact or fast, not 'quick'$"):
        host.multiply_add()


# The code that numba generates uses registers of the unit, fused multiply-adds if the unit has them, and
# no calls of the C library. Most multiply-adds are in the tile, most others in functions.
GENERATED = """
import re
import numpy as np
from fastlstm.kernels import functions, jit
from fastlstm.kernels.host import vector_unit, vector_width
from fastlstm.kernels.simd.memory import load, store
from fastlstm.kernels.tile.call import register

@jit.kernel
def tanh(a):
    store(a, 0, functions.tanh(load(a, 0)))

unit = vector_unit()
a = np.full(32, 0.5, np.float32)
tanh(a)
U = vector_width(4)
assert np.allclose(a[:U], np.tanh(0.5), rtol=1e-6) and np.all(a[U:] == 0.5), a
assemblies = [tanh.inspect_asm(tanh.signatures[0])]
if not unit.fma:
    assemblies.append(register("float32")._library.get_asm_str())
for assembly in assemblies:
    names = {64: "zmm", 32: "ymm", 16: "xmm"}
    assert max(re.findall("[xyz]mm", assembly)) == names[unit.bytes], unit
    assert ("vfmadd" in assembly or "vfnmadd" in assembly) == unit.fma, unit
    assert "fmaf" not in assembly, unit
print(*unit)
"""

FEATURES_2011 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx"


@x86_only
@pytest.mark.parametrize(
    ("variables", "unit"),
    [
        ({}, None),
        ({"NUMBA_ENABLE_AVX": "0"}, None),
        ({"NUMBA_CPU_NAME": "generic"}, "16 16 False"),
        ({"NUMBA_CPU_NAME": "sandybridge", "NUMBA_CPU_FEATURES": FEATURES_2011}, "32 16 False"),
    ],
)
def test_numba_generates_code_for_the_vector_unit(variables, unit, tmp_path):
    if "NUMBA_CPU_FEATURES" in variables and vector_unit().bytes < 32:
        pytest.skip("this machine has no AVX")
    environment = {**os.environ, **variables, "NUMBA_CACHE_DIR": str(tmp_path)}  # cached code cannot be inspected
    program = tmp_path / "program.py"
    program.write_text(GENERATED)
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert unit in (None, done.stdout.strip())
