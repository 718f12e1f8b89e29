"""Synchronisation of workers inside a kernel: atomics, the start of a call, and a barrier.

A barrier between two time steps must cost less than a microsecond, so a waiting worker spins at first. When it has spun
for longer than waking a sleeping thread takes, the other worker has probably lost its core to another program. The
waiting worker then sleeps in the operating system until it is woken (a futex), so that the other can use its core.

The counters are in one int64 array, 16 apart, so that no two share a cache line: the task counter, the call in
progress, two time spans, then the barrier of all workers and those of the teams. The first word of a barrier counts
arrivals; the word that waiting workers read is eight words later, in another cache line.

**The start of a call.** The word `CALL` holds the call's number, whether it is closed, and how many helpers have
arrived. The caller opens a call by writing its number. Helpers add themselves with a compare-and-swap, as long as that
call is open. The caller closes it when all helpers have arrived or its patience has run out; those that have arrived by
then take part. So a helper that is late, asleep, dead or from an earlier call costs time, but never causes a wrong
result or a hang. Calls have even numbers, each larger than the last. A caller abandons a call by writing the next odd
number, which is closed.
"""

from __future__ import annotations

import platform
import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fastlstm.kernels import jit
from fastlstm.kernels.simd.emit import element_pointer

TASKS = 0
CALL = 16
TIMES = 32
ALL_WORKERS = 48

#: Words of the counters before those of the teams; each team needs 16 more.
FIRST_TEAM = ALL_WORKERS + 16

#: In `CALL`: the bits that count arrived helpers, the bit for a closed call, and the lowest bit of the call's number.
_ARRIVED, _CLOSED, _NUMBER = (1 << 15) - 1, 1 << 15, 16

#: In `TIMES`, in the layout of C's ``timespec`` (seconds, nanoseconds): the longest sleep before a waiting worker
#: checks its condition again; and how long the caller waits for a helper to arrive.
_LONGEST_SLEEP, _PATIENCE = TIMES, TIMES + 2

#: Iterations before a waiting worker goes to sleep: some 30 microseconds, about what waking it costs.
SPINS = 100_000

#: Iterations for which a helper waits for the next call before it goes to sleep: first spinning (some microseconds),
#: then yielding its core in each (some tenths of a millisecond).
LINGER_SPINS, LINGER_OFFERS = 2000, 500

#: Offsets from a barrier's count of arrivals to its count of rounds, and to its count of sleeping workers, which is not
#: in the cache line of the rounds: waiting workers would fetch that line back before the count is read. The third is
#: the offset from `CALL` to its count of sleeping workers.
_ROUNDS, _SLEEPERS, _CALL_SLEEPERS = 8, 1, 8

_NANOSECONDS = 1_000_000_000

#: The number of the system call "futex" on Linux, 0 on unknown processors.
_FUTEX = {"x86_64": 202, "amd64": 202, "aarch64": 98, "arm64": 98}.get(platform.machine().lower(), 0)
_WAIT_PRIVATE, _WAKE_PRIVATE, _EVERYBODY = 128, 129, 2**31 - 1

#: Microseconds of a sleep on systems without futex.
_NAP = 50


def _numpy_add(array: Any, index: int, value: int) -> int:
    old = int(array[index])
    array[index] += value
    return old


def _numpy_load(array: Any, index: int) -> int:
    return int(array[index])


def _numpy_store(array: Any, index: int, value: int) -> None:
    array[index] = value


def _numpy_swap_if(array: Any, index: int, expected: int, value: int) -> bool:
    if array[index] != expected:
        return False
    array[index] = value
    return True


@intrinsic
def _atomic_add(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def _atomic_load(typingctx: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return builder.load_atomic(element_pointer(context, builder, array, *args), "seq_cst", 8)

    return types.int64(array, types.intp), codegen


@intrinsic
def _atomic_store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, args[0], args[1])
        builder.store_atomic(args[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def _atomic_swap_if(typingctx: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        pointer = element_pointer(context, builder, array, args[0], args[1])
        found = builder.cmpxchg(pointer, args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(array, types.intp, types.int64, types.int64), codegen


@intrinsic
def _address_of(typingctx: Any, array: Any, index: Any) -> Any:
    def codegen(context: Any, builder: ir.IRBuilder, sig: Any, args: Any) -> Any:
        return builder.ptrtoint(element_pointer(context, builder, array, *args), ir.IntType(64))

    return types.int64(array, types.intp), codegen


if jit.DISABLED:
    atomic_add, atomic_load, atomic_store, atomic_swap_if = _numpy_add, _numpy_load, _numpy_store, _numpy_swap_if
else:
    atomic_add, atomic_load, atomic_store, atomic_swap_if = _atomic_add, _atomic_load, _atomic_store, _atomic_swap_if

if sys.platform == "win32" or jit.DISABLED:

    @jit.device
    def offer_core() -> int:
        """Do nothing: Windows has no sched_yield, so the caller keeps spinning."""
        return 0

else:
    offer_core = types.ExternalFunction("sched_yield", types.int32())

if jit.DISABLED or sys.platform == "win32":

    @jit.device
    def sleep_while(sync: Any, at: int, value: int, timeout: int) -> None:
        """Do nothing: the caller keeps spinning."""

    @jit.device
    def wake(sync: Any, at: int) -> None:
        """Do nothing: no worker sleeps."""

elif sys.platform == "linux" and _FUTEX:
    _i64 = types.int64
    # "syscall" is variadic in C, but its calling convention is that of a function of seven integers.
    _system_call = types.ExternalFunction("syscall", _i64(_i64, _i64, _i64, _i64, _i64, _i64, _i64))

    @jit.device
    def sleep_while(sync: Any, at: int, value: int, timeout: int) -> None:
        """Sleep while the low half of ``sync[at]`` is that of ``value``, at most for the time at ``sync[timeout]``."""
        low = value & 0xFFFFFFFF
        _system_call(_FUTEX, _address_of(sync, at), _WAIT_PRIVATE, low, _address_of(sync, timeout), 0, 0)

    @jit.device
    def wake(sync: Any, at: int) -> None:
        """Wake all workers that sleep on ``sync[at]``."""
        _system_call(_FUTEX, _address_of(sync, at), _WAKE_PRIVATE, _EVERYBODY, 0, 0, 0)

else:
    _nap = types.ExternalFunction("usleep", types.int32(types.uint32))

    @jit.device
    def sleep_while(sync: Any, at: int, value: int, timeout: int) -> None:
        """Sleep for a moment."""
        _nap(_NAP)

    @jit.device
    def wake(sync: Any, at: int) -> None:
        """Do nothing: sleeping workers wake by themselves."""


@jit.device
def wait_while(sync: Any, at: int, value: int, sleepers: int) -> None:
    """Wait until ``sync[at]`` is no longer ``value``: spin, then sleep; ``sync[sleepers]`` counts sleeping workers."""
    turns = 0
    while atomic_load(sync, at) == value:
        turns += 1
        if turns > SPINS:
            atomic_add(sync, sleepers, 1)
            sleep_while(sync, at, value, _LONGEST_SLEEP)
            atomic_add(sync, sleepers, -1)


@jit.device
def barrier(sync: Any, at: int, members: int) -> None:
    """Wait until all ``members`` workers have reached the barrier at ``sync[at]``."""
    if members == 1:
        return
    rounds = atomic_load(sync, at + _ROUNDS)
    if atomic_add(sync, at, 1) == members - 1:
        atomic_store(sync, at, 0)
        atomic_add(sync, at + _ROUNDS, 1)
        if atomic_load(sync, at + _SLEEPERS) > 0:
            wake(sync, at + _ROUNDS)
        return
    wait_while(sync, at + _ROUNDS, rounds, at + _SLEEPERS)


@jit.device
def meet(sync: Any, call: int, seat: int, wanted: int, patience: int) -> tuple[int, int]:
    """Begin a call, and number the workers that take part.

    Parameters
    ----------
    call : number of the call. seat : 0 for the caller, which becomes worker 0; helpers are numbered as they arrive.
    wanted : number of workers that should take part, including the caller.
    patience : nanoseconds for which the caller waits for the next helper before it proceeds without.

    Returns
    -------
    worker, workers : this worker's number and the number of workers; -1 and 0 for a helper that arrives too late and
        takes no part in the call.
    """
    if seat > 0:
        return _join(sync, call)
    if wanted == 1:
        return 0, 1
    return 0, _gather(sync, call, wanted, patience)


@jit.device
def _join(sync: Any, call: int) -> tuple[int, int]:
    state = atomic_load(sync, CALL)
    while state >> _NUMBER < call:  # not open yet
        wait_while(sync, CALL, state, CALL + _CALL_SLEEPERS)
        state = atomic_load(sync, CALL)
    while state >> _NUMBER == call and state & _CLOSED == 0:
        if atomic_swap_if(sync, CALL, state, state + 1):
            worker = (state & _ARRIVED) + 1
            if atomic_load(sync, CALL + _CALL_SLEEPERS) > 0:
                wake(sync, CALL)
            return _wait_for_close(sync, call, worker)
        state = atomic_load(sync, CALL)
    return -1, 0


@jit.device
def _wait_for_close(sync: Any, call: int, worker: int) -> tuple[int, int]:
    state = atomic_load(sync, CALL)
    while state >> _NUMBER == call and state & _CLOSED == 0:
        wait_while(sync, CALL, state, CALL + _CALL_SLEEPERS)
        state = atomic_load(sync, CALL)
    if state >> _NUMBER != call:
        return -1, 0
    return worker, (state & _ARRIVED) + 1


@jit.device
def _gather(sync: Any, call: int, wanted: int, patience: int) -> int:
    """The caller's part of `meet`: open the call, wait for helpers, close it; returns the number of workers."""
    atomic_store(sync, _PATIENCE, patience // _NANOSECONDS)
    atomic_store(sync, _PATIENCE + 1, patience % _NANOSECONDS)
    # The call is opened here, where the GIL is released, so that a helper that returns from `linger` can take the GIL.
    state = call << _NUMBER
    atomic_swap_if(sync, CALL, atomic_load(sync, CALL), state)  # no other worker changes a closed call
    if atomic_load(sync, CALL + _CALL_SLEEPERS) > 0:
        wake(sync, CALL)
    turns = 0
    while state & _ARRIVED < wanted - 1:
        turns += 1
        if turns > SPINS:
            atomic_add(sync, CALL + _CALL_SLEEPERS, 1)
            sleep_while(sync, CALL, state, _PATIENCE)
            atomic_add(sync, CALL + _CALL_SLEEPERS, -1)
            if atomic_load(sync, CALL) == state:
                break
        state = atomic_load(sync, CALL)
    while not atomic_swap_if(sync, CALL, state, state | _CLOSED):
        state = atomic_load(sync, CALL)
    if atomic_load(sync, CALL + _CALL_SLEEPERS) > 0:
        wake(sync, CALL)
    return (state & _ARRIVED) + 1


def abandon(sync: Any, call: int) -> None:
    """Cancel ``call``, which has not begun: helpers that have joined it leave, and later ones do not join."""
    sync[CALL] = (call + 1) << _NUMBER | _CLOSED


def prepare_sync(sync: Any) -> None:
    """Set all counters to their initial values."""
    sync[:] = 0
    sync[CALL] = _CLOSED
    sync[_LONGEST_SLEEP + 1] = _NANOSECONDS // 20


@jit.kernel
def linger(sync: Any, call: int) -> None:
    """Spin for a moment until the call after ``call`` is opened.

    A sleeping thread is slow to wake, and the system often wakes it on the core of the thread that woke it, where the
    two take turns while another core is idle.
    """
    turns = 0
    while atomic_load(sync, CALL) >> _NUMBER == call and turns < LINGER_SPINS + LINGER_OFFERS:
        turns += 1
        if turns > LINGER_SPINS:
            offer_core()


@jit.device
def next_task(sync: Any) -> int:
    """Claim the next task: returns its number."""
    return atomic_add(sync, TASKS, 1)


@jit.device
def forget_tasks(sync: Any) -> None:
    """Reset the task counter to 0."""
    atomic_store(sync, TASKS, 0)
