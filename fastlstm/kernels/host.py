"""The vector unit of this machine, as numba generates code for it, and the size of a vector on all machines."""

from __future__ import annotations

import functools
import os
import platform
from typing import Literal, NamedTuple

import llvmlite.binding as llvm
import numba

from fastlstm.errors import ConfigError

#: Bytes of a vector on every machine: those of AVX-512's registers. Where registers are smaller, LLVM puts a vector
#: into several. So layouts and the order of sums, and with them the bits of results, do not depend on the machine.
VECTOR_BYTES = 64

#: Environment variable that says how float32 is multiplied and added where no instruction does it with one rounding:
#: with one (``exact``, the default), or with two (``fast``).
FMA_VARIABLE = "FASTLSTM_FMA"


def vector_width(itemsize: int) -> int:
    """Elements of ``itemsize`` bytes in a vector."""
    return VECTOR_BYTES // itemsize


class VectorUnit(NamedTuple):
    """Bytes of a vector register, number of registers, and whether the unit has a fused multiply-add.

    ``fma`` is False on x86 processors before 2013. LLVM would call the C library for every element there, so kernels
    have code of their own (`multiply_add`).
    """

    bytes: int
    registers: int
    fma: bool

    @property
    def per_vector(self) -> int:
        """Number of registers that a vector takes."""
        return VECTOR_BYTES // self.bytes

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


def multiply_add() -> Literal["fused", "exact", "fast"]:
    """How kernels multiply and add in float32: by the processor's instruction, or else by ``FASTLSTM_FMA``.

    Fused and exact give the same bits. float64 is as if fast where it is not fused.

    Raises
    ------
    ConfigError
        When ``FASTLSTM_FMA`` is neither ``exact`` nor ``fast``.
    """
    chosen = os.environ.get(FMA_VARIABLE, "").strip() or "exact"
    if chosen not in ("exact", "fast"):
        raise ConfigError(f"{FMA_VARIABLE} must be exact or fast, not {chosen!r}")
    if vector_unit().fma:
        return "fused"
    return "exact" if chosen == "exact" else "fast"


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


#: How kernels multiply and add, chosen when this is imported: a wrong choice is an error before any compilation, and a
#: later one changes neither the code nor the key under which it is cached.
MULTIPLY_ADD = multiply_add()
