"""How workers wait for each other inside a kernel: atomics and a barrier.

A barrier between two time steps must cost less than a microsecond, so workers spin. When a
worker has spun for a while (its partner has lost its core to somebody else), it offers its own
core to the system at every turn, so more workers than cores are slow but never stuck.

The counters lie in one int64 array, 16 apart, so that no two share a cache line: the tasks' counter, whether the
call is cancelled, then for the barriers at the start, of all workers, and of each team the number that have arrived
and the number of rounds done.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastlstm.kernels import jit
from fastlstm.kernels.simd import element_pointer

TASKS = 0
CANCELLED = 16
START = 32
ALL_WORKERS = 48

#: Turns before a waiting worker offers its core: some microseconds.
SPINS = 2000

#: Turns in which a worker without a call offers its core, before it goes to sleep: some tenths of a millisecond.
OFFERS = 500

_ROUNDS = 8  # distance from a barrier's arrivals to its rounds


def _numpy_add(array: Any, index: int, value: int) -> int:
    old = int(array[index])
    array[index] += value
    return old


def _numpy_load(array: Any, index: int) -> int:
    return int(array[index])


def _numpy_store(array: Any, index: int, value: int) -> None:
    array[index] = value


@intrinsic
def _atomic_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "acq_rel")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def _atomic_load(typingctx: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return builder.load_atomic(element_pointer(context, builder, array, *args), "acquire", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def _atomic_store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, args[0], args[1])
        builder.store_atomic(args[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


if jit.DISABLED:
    atomic_add, atomic_load, atomic_store = _numpy_add, _numpy_load, _numpy_store
else:
    atomic_add, atomic_load, atomic_store = _atomic_add, _atomic_load, _atomic_store

if sys.platform == "win32" or jit.DISABLED:

    @jit.device
    def offer_core() -> int:
        """Windows has no sched_yield: go on spinning."""
        return 0

else:
    offer_core = types.ExternalFunction("sched_yield", types.int32())


@jit.device
def barrier(sync: Any, at: int, members: int) -> None:
    """Wait until all ``members`` workers have called this for the barrier at ``at``."""
    if members == 1:
        return
    rounds = atomic_load(sync, at + _ROUNDS)
    if atomic_add(sync, at, 1) == members - 1:
        atomic_store(sync, at, 0)
        atomic_add(sync, at + _ROUNDS, 1)
        return
    spins = 0
    while atomic_load(sync, at + _ROUNDS) == rounds:
        spins += 1
        if spins > SPINS:
            offer_core()


@jit.device
def start_together(sync: Any, workers: int) -> bool:
    """Wait until all workers are here; False when the caller has cancelled the call instead (`Workers.run`)."""
    if workers == 1:
        return True
    rounds = atomic_load(sync, START + _ROUNDS)
    if atomic_add(sync, START, 1) == workers - 1:
        atomic_store(sync, START, 0)
        atomic_add(sync, START + _ROUNDS, 1)
        return True
    spins = 0
    while atomic_load(sync, START + _ROUNDS) == rounds:
        if atomic_load(sync, CANCELLED) != 0:
            return False
        spins += 1
        if spins > SPINS:
            offer_core()
    return True


@jit.kernel
def linger(sync: Any) -> None:
    """Wait a moment for some worker to come to the start of the next call.

    A thread that sleeps is slow to wake, and the system likes to wake it on the core of the thread that woke
    it, where the two take turns while another core idles.
    """
    turns = 0
    while atomic_load(sync, START) == 0 and turns < SPINS + OFFERS:
        turns += 1
        if turns > SPINS:
            offer_core()


@jit.device
def next_task(sync: Any) -> int:
    """Number of the next task nobody has taken."""
    return atomic_add(sync, TASKS, 1)


@jit.device
def forget_tasks(sync: Any) -> None:
    """Start counting tasks from 0."""
    atomic_store(sync, TASKS, 0)
