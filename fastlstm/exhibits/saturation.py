"""How often gates are saturated: open, closed, or where a tanh no longer passes a gradient (Karpathy et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.exhibits.reading import spread_windows, tapes
from fastlstm.model import Model, Text
from fastlstm.params import FloatArray
from fastlstm.reference.layer import LayerTape

#: What counts as saturated: a sigmoid below 0.1 or above 0.9, a tanh below -0.9 or above 0.9.
_SIGMOID_BOUNDS, _TANH_BOUNDS = (0.1, 0.9), (-0.9, 0.9)

#: Bins of the distributions: 0.05 wide, so that all bounds are edges.
_BINS = 40


@dataclass(frozen=True, eq=False)
class GateSaturation:
    """The distribution of a model's gates over a text.

    Attributes
    ----------
    names : of the N gates, in the order of `fastlstm.cells.Cell.gates`; only ``h`` for a cell that saves no gates.
    low, high : (L, N) float64, share of the values, over units and symbols, that are saturated at the lower end (below
        0.1, or below -0.9 where the values are of a tanh) and at the upper end (above 0.9).
    edges : (bins+1,) float64, edges of the bins, from -1 to 1.
    density : (L, N, bins) float64, probability density: its sum times the width of a bin is 1. Values of sigmoids are
        in the upper half of the bins.
    """

    names: tuple[str, ...]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    edges: NDArray[np.float64]
    density: NDArray[np.float64]


def gate_saturation(model: Model, text: Text, *, chars: int = 10_000, lanes: int = 20) -> GateSaturation:
    """Measure the distribution of the gates over windows of a text, evenly spaced, each read from the zero state.

    Parameters
    ----------
    model : trained or not.
    text : is read.
    chars : number of symbols that are read, all windows together.
    lanes : number of windows.

    Raises
    ------
    ConfigError
        When ``lanes`` is below 1 or ``chars`` below ``lanes``, or when the text has fewer than two symbols.
    VocabularyError
        When the text has a symbol that is not in the vocabulary, and there is no escape.
    """
    structure = model.config.structure
    names = structure.gates if structure.keeps_gates else ("h",)
    is_tanh = [name == "h" or name in structure.tanh_gates for name in names]
    low, high = np.zeros((2, model.config.layers, len(names)))
    edges = np.linspace(-1.0, 1.0, _BINS + 1)
    counts = np.zeros((model.config.layers, len(names), _BINS))
    for tape in tapes(model.parameters, spread_windows(model.encode(text), chars, lanes)):
        for layer, layer_tape in enumerate(tape.layers):
            for n, values in enumerate(_gates(layer_tape, names)):
                below, above = _TANH_BOUNDS if is_tanh[n] else _SIGMOID_BOUNDS
                low[layer, n] += np.count_nonzero(values < below)
                high[layer, n] += np.count_nonzero(values > above)
                counts[layer, n] += np.histogram(values, edges)[0]
    total = counts.sum(axis=-1)
    return GateSaturation(names, low / total, high / total, edges, counts / total[..., None] / np.diff(edges))


def _gates(tape: LayerTape, names: tuple[str, ...]) -> FloatArray:
    """The values (N, T, B, H) of the gates ``names``, which are saved first; those of h where none are saved."""
    return tape.gates[: len(names)] if len(tape.gates) else tape.state[:1, 1:]
