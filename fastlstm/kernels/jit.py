"""How every kernel is compiled."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import numba

from fastlstm.kernels.notices import warn_of_numba

F = TypeVar("F", bound=Callable[..., Any])

#: True when ``NUMBA_DISABLE_JIT`` makes kernels run as plain Python (slowly, for coverage).
DISABLED = bool(numba.config.DISABLE_JIT)

#: What is raised where numba's internals are not as expected. Other exceptions are errors of kernels.
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


#: `fastlstm.kernels.numba_internals`; None without compilation, and where numba is not as that module expects. Then
#: numba's public decorators are used and nothing is cached, because numba's own cache is not verified.
_internals = _import_internals()

# error_model="numpy": a division by zero gives inf, as in NumPy, and needs no check that stops vectorisation.
# No fastmath: vector code states its order of operations, and NaN must propagate.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
_KERNEL_OPTIONS = _OPTIONS | (_internals.KERNEL_OPTIONS if _internals else {})
_DEVICE_OPTIONS = _OPTIONS | (_internals.DEVICE_OPTIONS if _internals else {})


def device(function: F) -> F:
    """Compile a function that only kernels call; it is stored inside its callers."""
    return numba.njit(**_DEVICE_OPTIONS)(function)


def kernel(function: F) -> F:
    """Compile an entry point, called from Python, and keep the machine code between processes."""
    compiled = numba.njit(**_KERNEL_OPTIONS)(function)
    if _internals is not None:
        _internals.keep(compiled, function)
    return compiled


def compiled_for(entry: Any, *args: Any) -> Callable[..., Any]:
    """The compiled form of an entry point for arguments like ``args``.

    Calling it skips numba's look-up of argument types, which takes longer than a small network's time step;
    every later call must pass the same types, which is not checked. Arrays may be read-only or not.
    """
    if DISABLED:
        return entry
    # A read-only array has a type of its own: one more compilation, for code that does not differ.
    argument_types = tuple(_writable(numba.typeof(arg)) for arg in args)
    if argument_types not in entry.overloads:  # else there is no need of Numba's lock
        with _internals.compiling() if _internals else contextlib.nullcontext():
            entry.compile(argument_types)
    return entry.overloads[argument_types].entry_point


def _writable(argument_type: Any) -> Any:
    return argument_type.copy(readonly=False) if isinstance(argument_type, numba.types.Array) else argument_type


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a C function of fixed types, now, and keep the machine code between processes."""

    def compile_now(function: Callable[..., Any]) -> Any:
        if _internals is not None:
            try:
                return _internals.c_function(signature, function)
            except _UNEXPECTED as error:
                warn_of_numba(error)
        return numba.cfunc(signature)(function)

    return compile_now
