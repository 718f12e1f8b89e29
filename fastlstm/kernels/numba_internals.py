"""All uses of numba's internals, whose interface may change with any version.

They make compilation two to three times faster and the cache safe, but no result depends on them: if numba is not as
expected, `fastlstm.kernels.jit` uses numba's public decorators instead. Only `jit` imports this module.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numba
from numba.core import serialize, sigutils
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_lock import global_compiler_lock
from numba.core.options import DefaultOptions

from fastlstm.kernels.code_cache import Key, VerifiedFiles
from fastlstm.kernels.host import MULTIPLY_ADD
from fastlstm.kernels.notices import warn_of_cache, warn_of_numba

# --- compiling ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Release numba's compiler lock if an exception left it held.

    A signal can arrive after numba has taken the lock and before it enters the block that releases it. All other
    threads that compile would then wait forever.
    """
    held = global_compiler_lock.is_locked()
    try:
        yield
    except BaseException:
        while not held and global_compiler_lock.is_locked():
            global_compiler_lock.release()
        raise


class _LinkedLibrary(JITCodeLibrary):
    """Code that is only linked into other code.

    Numba optimises every function together with all functions it calls, generates machine code for it, and repeats
    that for each of its callers. For functions that Python never calls, this takes more than half of the time for
    compilation and has no use.
    """

    def _optimize_final_module(self) -> None:
        """Do nothing: the entry point that this is linked into is optimised as a whole."""

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0  # for numba, a function that does not exist

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Do nothing: there is no machine code that could hold an environment."""


class _LinkingCompiler(Compiler):
    """Numba's compiler, with a `_LinkedLibrary` for the code."""

    def __init__(self, typingctx: Any, targetctx: Any, library: Any, *args: Any) -> None:
        library = _LinkedLibrary(targetctx.codegen(), "device function")
        super().__init__(typingctx, targetctx, library, *args)


@functools.cache
def _linking_works() -> bool:
    """Whether a small function compiles with `_LinkingCompiler`; if not, numba has changed."""

    @numba.njit(**DEVICE_OPTIONS | {"pipeline_class": _LinkingCompiler})
    def successor(n):
        return n + 1

    @numba.njit(**KERNEL_OPTIONS)
    def twice_successor(n):
        return 2 * successor(n)

    try:
        if twice_successor(1) != 4:
            raise RuntimeError("a linked function returns a wrong result")
    except Exception as error:  # a changed numba may raise anything
        warn_of_numba(error)
        return False
    return True


def _device_compiler(*args: Any) -> Compiler:
    return (_LinkingCompiler if _linking_works() else Compiler)(*args)


def _options(**options: Any) -> dict[str, Any]:
    """Check options of `numba.njit` that are not documented; numba rejects unknown ones only when it compiles."""
    for name in options:
        getattr(DefaultOptions, name)
    return options


# No reference counts: the caller keeps the arrays alive while a kernel runs.
KERNEL_OPTIONS = _options(_nrt=False, no_cfunc_wrapper=True)
DEVICE_OPTIONS = _options(_nrt=False, no_cfunc_wrapper=True, no_cpython_wrapper=True) | {
    "pipeline_class": _device_compiler
}


# --- the cache ----------------------------------------------------------------------------------------

#: Numba's settings that change the machine code.
_SETTINGS = (
    "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "USING_SVML", "BOUNDSCHECK", "DEBUGINFO_DEFAULT",
    "EXTEND_VARIABLE_LIFETIMES",
)  # fmt: skip


@functools.cache
def source_fingerprint() -> str:
    """Digest of all source that kernels are compiled from: their package, and modules that it takes functions from."""
    digest, kernels = hashlib.sha256(), Path(__file__).parent
    others = (kernels.parent / name for name in ("optimizers.py", "logarithm.py"))
    for path in (*sorted(kernels.rglob("*.py")), *others):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _KernelCache(FunctionCache):
    """Numba's cache of machine code, with verified files, a key of all that the code depends on, and no exceptions.

    Numba's own key covers only the source file of the entry point, so that changes in other files go unnoticed.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = VerifiedFiles(Path(self._cache_path), self._impl.filename_base, serialize.dumps)

    def _index_key(self, sig: Any, codegen: Any) -> Key:
        _, processor, bytecode = super()._index_key(sig, codegen)
        settings = [MULTIPLY_ADD, *(str(getattr(numba.config, name, None)) for name in _SETTINGS)]
        versions = (numba.__version__, llvmlite.__version__, llvm.llvm_version_info)
        source = (source_fingerprint(), self._impl.locator.get_source_stamp(), bytecode)
        return Key(variant=str((str(sig), processor, settings)), origin=str((versions, source)))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # numba has changed without a change of version
            warn_of_cache(error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except Exception as error:  # the disk is full, or the folder was removed
            warn_of_cache(error)


def keep(compiled: Any, function: Callable[..., Any]) -> None:
    """Cache the machine code of ``compiled``, numba's form of ``function``, on disk."""
    try:
        compiled._cache = _KernelCache(function)
    except Exception as error:  # numba finds no folder it can write to, or has changed
        warn_of_cache(error)


def c_function(signature: Any, function: Callable[..., Any]) -> Any:
    """`numba.cfunc`, with the machine code cached on disk."""
    compiled = CFunc(function, sigutils.normalize_signature(signature), locals={}, options={})
    keep(compiled, function)
    compiled.compile()
    return compiled
