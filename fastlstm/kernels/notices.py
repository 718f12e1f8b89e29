"""Warnings about compilation, each given at most once in a process."""

from __future__ import annotations

import warnings

import numba

_given: set[str] = set()


def _warn_once(what: str, error: Exception) -> None:
    if what in _given:
        return
    _given.add(what)
    cause = " ".join(str(error).split())  # one line
    warnings.warn(f"{what}: {cause}", RuntimeWarning, stacklevel=3)


def warn_of_cache(error: Exception) -> None:
    """Warn that machine code cannot be cached. The cause affects all kernels alike."""
    _warn_once("the cache of compiled kernels cannot be used, so they are compiled again at every start", error)


def warn_of_numba(error: Exception) -> None:
    """Warn that numba's internals are not as `fastlstm.kernels.numba_internals` expects."""
    _warn_once(
        f"the internals of numba {numba.__version__} are not as expected, so kernels compile more slowly and may be "
        "compiled again at every start",
        error,
    )
