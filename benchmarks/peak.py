"""The machine's limits, measured: multiply-adds per second, and bytes read per second for any size of working set.

``python -m benchmarks.peak`` prints them. The multiply-adds are independent chains in registers, as many as the
registers can hold: enough to hide the latency, without any access to memory. Those of bfloat16 are dot products of
pairs, added to float32 sums: two multiply-adds for each element of a register.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from rich.console import Console
from rich.table import Table

from benchmarks.arguments import positive
from benchmarks.timing import seconds_of
from fastlstm.kernels import jit
from fastlstm.kernels.host import VECTOR_BYTES, has_bf16, vector_unit, vector_width
from fastlstm.kernels.simd.arithmetic import splat, sum_of
from fastlstm.kernels.simd.emit import element_pointer, emit_dot_pairs, emit_fma, emit_load, emit_store
from fastlstm.kernels.simd.memory import load
from fastlstm.kernels.simd.vector import Vector, width
from fastlstm.kernels.workspace import aligned_zeros
from fastlstm.threads import default_threads

#: Accumulators of `multiply_add`: all registers except those of the two operands, and two spare ones.
CHAINS = (vector_unit().registers - 4) // vector_unit().per_vector

#: Minimum seconds of a measured run. The best of a few runs counts, because disturbances only slow a run down.
SHORTEST = 0.02
RUNS = 5


#: The dtype of `multiply_add_rate` for dot products of pairs.
BFLOAT16 = "bfloat16"

#: Emits the next sum from a sum and the vectors a and b.
Emit = Callable[[ir.IRBuilder, types.Float, Any, Any, Any], Any]


def _emit_dot_pairs(builder: ir.IRBuilder, dtype: types.Float, total: Any, a: Any, b: Any) -> Any:
    return emit_dot_pairs(builder, a, b, total)


def _chains(emit: Emit) -> Any:
    """An intrinsic: ``turns`` times the next sum in each chain, with a and b the first two vectors of ``values``."""

    def chains(typingctx: Any, values: Any, turns: Any) -> Any:
        dtype = values.dtype
        i64 = ir.IntType(64)

        def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
            U = Vector(dtype).width
            numbers = [ir.Constant(i64, n * U) for n in range(CHAINS)]
            pointers = [element_pointer(context, builder, values, args[0], number) for number in numbers]
            a, b = (emit_load(builder, pointer, dtype) for pointer in pointers[:2])
            start = [emit_load(builder, pointer, dtype) for pointer in pointers]
            entry, loop, done = builder.block, builder.append_basic_block("turn"), builder.append_basic_block("done")
            builder.branch(loop)
            builder.position_at_end(loop)
            turn = builder.phi(i64)
            sums = [builder.phi(value.type) for value in start]
            added = [emit(builder, dtype, total, a, b) for total in sums]
            following = builder.add(turn, ir.Constant(i64, 1))
            for phi, first, after in zip(
                [turn, *sums], [ir.Constant(i64, 0), *start], [following, *added], strict=True
            ):
                phi.add_incoming(first, entry)
                phi.add_incoming(after, loop)
            builder.cbranch(builder.icmp_signed("<", following, args[1]), loop, done)
            builder.position_at_end(done)
            for pointer, total in zip(pointers, added, strict=True):
                emit_store(builder, pointer, total, dtype)
            return context.get_dummy_value()

        return types.void(values, types.intp), codegen

    return intrinsic(chains)


_multiply_add_chains = _chains(emit_fma)
_dot_pairs_chains = _chains(_emit_dot_pairs)


@jit.kernel
def multiply_add(values: Any, turns: int) -> None:
    """Chains ``s = s * a + b`` in registers; ``values`` has ``CHAINS`` vectors, in/out."""
    _multiply_add_chains(values, turns)


@jit.kernel
def dot_pairs(values: Any, turns: int) -> None:
    """Chains ``s = s + a * b``, with two products for each element, of the pairs of bfloat16 that are its bits."""
    _dot_pairs_chains(values, turns)


@jit.kernel
def read_all(values: Any, turns: int) -> float:
    """Read all of ``values``, whose length is a multiple of four vectors, ``turns`` times."""
    U = width(values)
    s0 = s1 = s2 = s3 = splat(values, 0.0)
    for _ in range(turns):
        for i in range(0, len(values), 4 * U):
            s0, s1 = s0 + load(values, i), s1 + load(values, i + U)
            s2, s3 = s2 + load(values, i + 2 * U), s3 + load(values, i + 3 * U)
    return float(sum_of((s0 + s1) + (s2 + s3)))


def multiply_add_rate(threads: int = 1, dtype: str = "float32") -> float:
    """GFLOP/s of ``threads`` cores that compute only multiply-adds.

    ``dtype`` is ``"float32"``, ``"float64"`` or `BFLOAT16`, which requires `fastlstm.kernels.host.has_bf16`.
    """
    pairs = dtype == BFLOAT16
    stored, run = ("float32", dot_pairs) if pairs else (dtype, multiply_add)
    U = vector_width(np.dtype(stored).itemsize)
    operands = [_halves(CHAINS * U, stored) for _ in range(threads)]
    turns_a_second = _best_rate(threads, lambda worker, turns: run(operands[worker], turns))
    return 1e-9 * (4 if pairs else 2) * CHAINS * U * threads * turns_a_second


def read_rate(bytes_in_all: int, threads: int = 1) -> float:
    """GB/s of ``threads`` cores that repeatedly read their equal parts of ``bytes_in_all`` bytes."""
    unit = 4 * VECTOR_BYTES
    part = max(unit, bytes_in_all // threads // unit * unit)
    operands = [_halves(part // 4, "float32") for _ in range(threads)]
    turns_a_second = _best_rate(threads, lambda worker, turns: read_all(operands[worker], turns))
    return 1e-9 * part * threads * turns_a_second


def _halves(count: int, dtype: str) -> np.ndarray:
    """Numbers for which ``s * a + b`` stays near 1, far from infinities and subnormal numbers.

    The bits of 0.5 in float32 are the pair (0, 0.5) in bfloat16, for which ``s + a * b`` grows slowly until it rounds
    to ``s``.
    """
    values = aligned_zeros(count, dtype)
    values[:] = 0.5
    return values


def _best_rate(threads: int, run: Callable[[int, int], object]) -> float:
    """Turns per second of ``run(worker, turns)`` on all workers at once, in the best of a few runs."""
    _together(threads, run, 1)  # compile first
    turns = 1
    while (seconds := _together(threads, run, turns)) < SHORTEST:
        turns *= 2 if seconds > SHORTEST / 8 else 8
    return turns / min(seconds, *(_together(threads, run, turns) for _ in range(RUNS - 1)))


def _together(threads: int, run: Callable[[int, int], object], turns: int) -> float:
    """Wall time in seconds from the start of the first worker to the end of the last."""
    if threads == 1:
        return seconds_of(lambda: run(0, turns))
    return seconds_of(lambda: list(_pool(threads).map(lambda worker: run(worker, turns), range(threads))))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "peak")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peak", description="Measure the machine's limits.")
    parser.add_argument("--threads", type=positive, default=default_threads(), metavar="N", help="cores (all)")
    threads = parser.parse_args(argv).threads
    table = Table("limit", "one core", f"{threads} cores")
    for dtype in ("float32", "float64", *([BFLOAT16] if has_bf16() else [])):
        rates = [multiply_add_rate(count, dtype) for count in (1, threads)]
        table.add_row(f"multiply-adds, {dtype}", *(f"{rate:.1f} GFLOP/s" for rate in rates))
    for kib in (16, 256, 4096, 131072):
        rates = [read_rate(count * kib * 1024, count) for count in (1, threads)]
        table.add_row(f"reading {kib:,} KiB per core", *(f"{rate:.1f} GB/s" for rate in rates))
    Console().print(table)


if __name__ == "__main__":
    main()
