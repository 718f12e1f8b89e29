"""What the units of a network follow in a text: how much of each unit's variance a property of the text explains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

_QUOTES = '"\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}'


def features(symbols: list[str]) -> dict[str, NDArray[np.float64]]:
    """Properties of a text at each of its symbols.

    Parameters
    ----------
    symbols : the N characters of the text.

    Returns
    -------
    (N,) by a description, such as "the position in the line"; without those that are the same at every symbol.
    """
    found = {
        "the position in the line": _since(symbols, lambda symbol: symbol == "\n"),
        "the position in the word": _since(symbols, lambda symbol: not symbol.isalpha()),
        "whether it is a letter": _flags(symbols, str.isalpha),
        "whether it is a capital letter": _flags(symbols, str.isupper),
        "whether it ends a line": _flags(symbols, lambda symbol: symbol == "\n"),
        "whether it is a punctuation mark": _flags(
            symbols, lambda symbol: not symbol.isalnum() and not symbol.isspace()
        ),
        "whether it is in quotation marks": np.cumsum(_flags(symbols, lambda symbol: symbol in _QUOTES)) % 2,
    }
    return {name: values for name, values in found.items() if np.ptp(values) > 0}


def explained(values: NDArray[np.float32], properties: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Share of each unit's variance that a linear function of one property explains: the squared correlation.

    The best of many units explains a part of any property by chance: over 500 symbols, a few hundredths.

    Parameters
    ----------
    values : (L, N, H) activations over a text.
    properties : F properties of its symbols, (N,) each and not constant, as of `features`.

    Returns
    -------
    (F, L, H), from 0 to 1; 0 for a unit that is constant.
    """
    given = np.array([_standardised(one) for one in properties.values()]).reshape(-1, values.shape[1])
    correlations = np.einsum("fn,lnh->flh", given, _standardised(values.astype(np.float64), axis=1)) / values.shape[1]
    shares: NDArray[np.float64] = np.square(correlations)
    return shares


def _standardised(values: NDArray[np.float64], axis: int = 0) -> NDArray[np.float64]:
    """With mean 0 and variance 1; what is constant becomes 0."""
    centred = values - values.mean(axis=axis, keepdims=True)
    deviation = centred.std(axis=axis, keepdims=True)
    standardised: NDArray[np.float64] = np.zeros_like(centred)
    np.divide(centred, deviation, out=standardised, where=deviation > 1e-9)
    return standardised


def _flags(symbols: list[str], condition: Callable[[str], bool]) -> NDArray[np.float64]:
    return np.array([condition(symbol) for symbol in symbols], np.float64)


def _since(symbols: list[str], condition: Callable[[str], bool]) -> NDArray[np.float64]:
    """Number of symbols since the last one that meets a condition; 0 where one does."""
    positions = np.arange(len(symbols))
    last = np.maximum.accumulate(np.where(_flags(symbols, condition) > 0, positions, -1))
    return (positions - last).astype(np.float64)
