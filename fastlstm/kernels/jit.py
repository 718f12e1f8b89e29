"""The decorators that compile kernels."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from fastlstm.kernels.notices import warn_of_numba

F = TypeVar("F", bound=Callable[..., Any])

#: True when ``NUMBA_DISABLE_JIT`` makes kernels run as plain Python (slowly, for coverage).
DISABLED = bool(numba.config.DISABLE_JIT)

#: Exceptions raised when numba's internals are not as expected. Others are errors in kernels.
_UNEXPECTED = (ImportError, AttributeError, TypeError)


def _import_internals() -> Any:
    if DISABLED:
        return None
    try:
        from fastlstm.kernels import numba_internals
    except _UNEXPECTED as error:
        warn_of_numba(error)
        return None
    return numba_internals


#: `fastlstm.kernels.numba_internals`; None without compilation, and when numba is not as that module expects. Then
#: numba's public decorators are used and nothing is cached, because numba's own cache does not verify its files.
_internals = _import_internals()

# error_model="numpy": a division by zero gives inf, as in NumPy, without a check that would prevent vectorisation.
# No fastmath: the order of operations is fixed by the vector code, and NaN must propagate.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_KERNEL_OPTIONS = _OPTIONS | (_internals.KERNEL_OPTIONS if _internals else {})
_DEVICE_OPTIONS = _OPTIONS | (_internals.DEVICE_OPTIONS if _internals else {})


def device(function: F) -> F:
    """Compile a function that only kernels call; its code is cached as part of its callers."""
    return numba.njit(**_DEVICE_OPTIONS)(function)


def inlined(function: F) -> F:
    """As `device`, and always copied into its callers.

    For functions whose arguments are functions: a call would pass those at run time, by their addresses in this
    process, and code with such addresses cannot be cached. And for functions with all buffers as arguments that are
    called for every symbol sampled: a call passes a hundred words, and counts references to every array.
    """
    return numba.njit(**_DEVICE_OPTIONS, forceinline=True)(function)


def kernel(function: F) -> F:
    """Compile an entry point, called from Python, and cache the machine code on disk."""
    compiled = numba.njit(**_KERNEL_OPTIONS)(function)
    if _internals is not None:
        _internals.keep(compiled, function)
    return compiled


def compiled_for(entry: Any, *args: Any) -> Callable[..., Any]:
    """The compiled form of an entry point for arguments like ``args``.

    Calling it skips numba's dispatch on argument types, which takes longer than a small network's time step. Every
    later call must pass the same types, which is not checked; arrays may be writable or read-only.
    """
    if DISABLED:
        return entry
    # Numba has another type for read-only arrays: it would compile the same code again.
    argument_types = tuple(_writable(numba.typeof(arg)) for arg in args)
    if argument_types not in entry.overloads:  # else numba's compiler lock is not needed
        with _internals.compiling() if _internals else contextlib.nullcontext():
            entry.compile(argument_types)
    return entry.overloads[argument_types].entry_point


def _writable(argument_type: Any) -> Any:
    return argument_type.copy(readonly=False) if isinstance(argument_type, numba.types.Array) else argument_type


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a C function of fixed types immediately, and cache the machine code on disk."""

    def compile_now(function: Callable[..., Any]) -> Any:
        if _internals is not None:
            try:
                return _internals.c_function(signature, function)
            except _UNEXPECTED as error:
                warn_of_numba(error)
        return numba.cfunc(signature)(function)

    return compile_now
