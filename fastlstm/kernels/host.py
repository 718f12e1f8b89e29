"""The vector unit of this machine, as the code generator will use it."""

from __future__ import annotations

import functools
import platform
from typing import NamedTuple

import llvmlite.binding as llvm
import numba


class VectorUnit(NamedTuple):
    """Width of a vector register in bytes, and how many there are."""

    bytes: int
    registers: int

    def lanes(self, itemsize: int) -> int:
        """Elements of ``itemsize`` bytes in a vector."""
        return self.bytes // itemsize

    @property
    def tile_rows(self) -> int:
        """Rows of the largest register tile, see `fastlstm.kernels.tile`."""
        return 5 if self.registers >= 32 else 3


@functools.cache
def vector_unit() -> VectorUnit:
    """The vector unit numba generates code for.

    Follows ``NUMBA_CPU_FEATURES`` where that is set (it replaces the whole list of features),
    so a narrower unit can be tested on a wider machine.
    """
    chosen = numba.config.CPU_FEATURES
    features = llvm.get_host_cpu_features().flatten() if chosen is None else chosen
    enabled = set(features.split(","))
    if "+avx512f" in enabled:
        return VectorUnit(64, 32)
    if enabled & {"+avx", "+avx2"}:
        return VectorUnit(32, 16)
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return VectorUnit(16, 32 if arm else 16)
