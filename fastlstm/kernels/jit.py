"""How every kernel is compiled."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core import sigutils
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

F = TypeVar("F", bound=Callable[..., Any])

#: True when ``NUMBA_DISABLE_JIT`` makes kernels run as plain Python (slowly, for coverage).
DISABLED = bool(numba.config.DISABLE_JIT)

# error_model="numpy": a division by zero gives inf, as in NumPy, and needs no check that stops vectorisation.
# No fastmath: what may be reordered is said by hand in vector code, and NaN must stay visible.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}


class _LinkedLibrary(JITCodeLibrary):
    """Code that is only ever linked into other code.

    Numba optimises every function with all it calls, and makes machine code of it, for each of its callers'
    callers again. For functions that Python never calls, that is four fifths of the work of compiling, for nothing.
    """

    def _optimize_final_module(self) -> None:
        """Left to the entry point that this is linked into."""

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0  # numba's word for a function that is not there

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, env: Any) -> None:
        """There is no machine code yet that could hold an environment."""


class _DeviceCompiler(Compiler):
    """Numba's compiler, with `_LinkedLibrary` to put the code in."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *args: Any) -> None:
        library = _LinkedLibrary(targetctx.codegen(), "device function")
        super().__init__(typingctx, targetctx, library, *args)


def device(function: F) -> F:
    """Compile a function that only kernels call; it is stored inside its callers."""
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "pipeline_class": _DeviceCompiler}
    return numba.njit(**options, **_OPTIONS)(function)


class _KernelCache(FunctionCache):
    """Numba's cache of machine code, but keyed by the whole of the kernels' source, and never in the way.

    Numba itself looks at the file of the entry point alone: a change in what that calls would go unnoticed.
    """

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), _source_fingerprint())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever a damaged or foreign file makes of unpickling it
            _warn_of_cache(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # a full disk, a folder gone, a damaged index
            _warn_of_cache(error)


#: What made the cache unusable, once something has.
_warned: list[Exception] = []


@functools.cache
def _source_fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _warn_of_cache(error: Exception) -> None:
    """Say it once in a process: what keeps one kernel from the cache keeps them all."""
    if _warned:
        return
    _warned.append(error)
    warnings.warn(
        f"the cache of compiled kernels cannot be used, so they are compiled again at every start: {error}",
        RuntimeWarning,
        stacklevel=2,
    )


def _keep(compiled: Any, function: Callable[..., Any]) -> None:
    try:
        compiled._cache = _KernelCache(function)
    except RuntimeError as error:  # numba finds no folder it can write to
        _warn_of_cache(error)


def kernel(function: F) -> F:
    """Compile an entry point, called from Python, and keep the machine code between processes."""
    compiled = numba.njit(no_cfunc_wrapper=True, **_OPTIONS)(function)
    if not DISABLED:
        _keep(compiled, function)
    return compiled


def compiled_for(entry: Any, *args: Any) -> Callable[..., Any]:
    """The compiled form of an entry point for arguments like ``args``.

    Calling it skips numba's look-up of argument types, which takes longer than a small network's time step;
    every later call must bring the same types, whether or not its arrays are read-only (which nobody checks).
    """
    if DISABLED:
        return entry
    # A read-only array has a type of its own: one more compilation, for code that does not differ.
    argument_types = tuple(_writable(numba.typeof(arg)) for arg in args)
    entry.compile(argument_types)
    return entry.overloads[argument_types].entry_point


def _writable(argument_type: Any) -> Any:
    return argument_type.copy(readonly=False) if isinstance(argument_type, numba.types.Array) else argument_type


def c_function(signature: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile a C function of fixed types, now, and keep the machine code between processes."""

    def compile_now(function: Callable[..., Any]) -> Any:
        compiled = CFunc(function, sigutils.normalize_signature(signature), locals={}, options={})
        _keep(compiled, function)
        compiled.compile()
        return compiled

    return compile_now
