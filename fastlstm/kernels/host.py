"""The vector unit of this machine, as numba generates code for it."""

from __future__ import annotations

import functools
import platform
from typing import NamedTuple

import llvmlite.binding as llvm
import numba


class VectorUnit(NamedTuple):
    """Bytes of a vector register, number of registers, and whether the unit has a fused multiply-add.

    ``fma`` is False on x86 processors before 2013. LLVM would call the C library for every element there, so kernels
    multiply and add instead (`fastlstm.kernels.simd.emit.emit_fma`). Both operations round, so results differ in the
    last bits from those of a processor with FMA.
    """

    bytes: int
    registers: int
    fma: bool

    def width(self, itemsize: int) -> int:
        """Elements of ``itemsize`` bytes in a vector."""
        return self.bytes // itemsize

    @property
    def tile_rows(self) -> int:
        """Rows of the largest register tile, see `fastlstm.kernels.tile`."""
        if self.registers >= 32:
            return 5
        return 3 if self.fma else 2


@functools.cache
def vector_unit() -> VectorUnit:
    """The vector unit numba generates code for.

    It follows ``NUMBA_CPU_FEATURES``, which replaces the whole list of features; with ``NUMBA_CPU_NAME=generic`` the
    list is empty by default. So a narrower unit can be tested on a wider machine.
    """
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return VectorUnit(16, 32, fma=True)
    if machine not in ("x86_64", "amd64"):
        return VectorUnit(16, 16, fma=True)
    features = _enabled_features()
    # As in LLVM, a feature implies those that it extends.
    if "avx512f" in features:
        return VectorUnit(64, 32, fma=True)
    fma = "fma" in features
    return VectorUnit(32 if fma or features & {"avx", "avx2"} else 16, 16, fma)


@functools.cache
def has_bf16() -> bool:
    """Whether numba generates code for a processor with AVX-512's dot products of bfloat16 pairs."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return x86 and {"avx512f", "avx512bf16"} <= _enabled_features()


def _enabled_features() -> set[str]:
    """Features of the processor that numba enables, selected as in `numba.core.codegen`."""
    chosen = numba.config.CPU_FEATURES
    if chosen is not None:
        return {feature[1:] for feature in chosen.split(",") if feature.startswith("+")}
    host = llvm.get_host_cpu_features()
    avx = bool(numba.config.ENABLE_AVX)
    return {name for name, present in host.items() if present and (avx or not name.startswith("avx"))}
