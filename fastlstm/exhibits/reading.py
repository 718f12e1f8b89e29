"""A text as the exhibits read it: windows of it in parallel lanes, computed by the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastlstm.batches import fit_lanes
from fastlstm.contract import Ids
from fastlstm.errors import ConfigError, TextError
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference.network import Tape, final_state, forward
from fastlstm.text import IdArray

#: Symbols that are read before a window, from the zero state, so that the state in the window is a typical one.
WARM_UP = 64

#: Time steps of one forward pass over a longer window, which bounds the memory for its activations.
_CHUNK = 128


def drawn_windows(ids: IdArray, steps: int, lanes: int, rng: np.random.Generator) -> Ids:
    """Windows at random places of a text, which may overlap.

    Parameters
    ----------
    ids : (N,) the text.
    steps, lanes : symbols that are read in each window, and their number.
    rng : draws the places.

    Returns
    -------
    symbols : (steps + 1, lanes) int32: the symbols of each window, and the one after it.

    Raises
    ------
    ConfigError
        When ``lanes`` is below 1.
    TextError
        When the text is shorter than a window.
    """
    check_at_least("lanes", lanes, 1)
    if len(ids) <= steps:
        raise TextError(f"{steps + 1} characters are needed, but the text has {len(ids)}: give more text")
    return _windows(ids, rng.integers(len(ids) - steps, size=lanes), steps)


def spread_windows(ids: IdArray, chars: int, lanes: int) -> Ids:
    """Windows evenly spaced over a text, with about ``chars`` symbols in all; fewer or shorter ones of a short text.

    Parameters
    ----------
    ids : (N,) the text.
    chars : symbols that are read in all windows together.
    lanes : number of windows.

    Returns
    -------
    symbols : (T + 1, B) int32: the symbols of each window, and the one after it.

    Raises
    ------
    ConfigError
        When ``lanes`` is below 1 or ``chars`` below ``lanes``, or when the text has fewer than two symbols.
    """
    check_at_least("lanes", lanes, 1)
    check_at_least("chars", chars, lanes)
    T, B = fit_lanes(len(ids), chars // lanes, lanes)
    return _windows(ids, np.arange(B) * ((len(ids) - 1) // B), T)


def _windows(ids: IdArray, starts: Ids, steps: int) -> Ids:
    windows: Ids = ids[starts + np.arange(steps + 1)[:, None]].astype(np.int32)
    return windows


def zero_state(parameters: Parameters, lanes: int) -> FloatArray:
    """The state (S, L, B, H) at the start of a text."""
    return np.zeros(parameters.config.state_shape(lanes), parameters.flat.dtype)


def tapes(parameters: Parameters, symbols: Ids) -> Iterator[Tape]:
    """Read windows ``symbols`` (T + 1, B) from the zero state; gives the tape of each chunk of the T time steps."""
    state = zero_state(parameters, symbols.shape[1])
    x, y = symbols[:-1], symbols[1:]
    for start in range(0, len(x), _CHUNK):
        tape = forward(parameters, x[start : start + _CHUNK], y[start : start + _CHUNK], state)
        state = final_state(tape)
        yield tape


def state_after(parameters: Parameters, x: Ids) -> FloatArray:
    """The state (S, L, B, H) after reading ``x`` (T, B) from the zero state."""
    return final_state(forward(parameters, x, x, zero_state(parameters, x.shape[1])))


def check_at_least(name: str, value: int, least: int) -> None:
    """Raise `ConfigError` unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, not {value!r}")
