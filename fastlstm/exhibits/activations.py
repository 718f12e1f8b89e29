"""The activations of single cells over a text, symbol by symbol (Karpathy, Johnson and Fei-Fei 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.exhibits.reading import tapes
from fastlstm.inference import check_length
from fastlstm.model import Model, Text
from fastlstm.params import FloatArray
from fastlstm.reference.network import Tape
from fastlstm.text import IdArray


@dataclass(frozen=True, eq=False)
class Activations:
    """Every state and gate of a model while it reads a text.

    Attributes
    ----------
    text : that was read, N symbols.
    ids : (N,) their ids.
    nats : (N,) float64, loss of each symbol, in nats, given those before it; NaN for the first.
    values : (L, N, H) float32 by name: the parts of the state after each symbol was read, and the gates with which it
        was read, with the names of `fastlstm.cells.Cell`. A cell that saves no gates has only its state.
    """

    text: str | bytes
    ids: IdArray
    nats: NDArray[np.float64]
    values: dict[str, NDArray[np.float32]]


def activations(model: Model, text: Text) -> Activations:
    """Read a text from the zero state, in one lane, and keep all activations: 4 L H bytes a symbol for each name.

    Parameters
    ----------
    model : trained or not.
    text : at least two symbols.

    Raises
    ------
    TextError
        When the text has fewer than two symbols.
    VocabularyError
        When it has a symbol that is not in the vocabulary, and there is no escape.
    """
    ids = model.encode(text)
    check_length(ids)
    config, structure, N = model.config, model.config.structure, len(ids)
    names = (*structure.state, *(structure.gates if structure.keeps_gates else ()))
    values = {name: np.empty((config.layers, N, config.hidden), np.float32) for name in names}
    nats = np.full(N + 1, np.nan)
    # The last symbol is read too, so something must be predicted after it: the first one, which is not used.
    symbols, start = np.append(ids, ids[:1]).astype(np.int32)[:, None], 0
    for tape in tapes(model.parameters, symbols):
        stop = start + len(tape.x)
        nats[start + 1 : stop + 1] = tape.nats[:, 0]
        for name, found in _by_name(tape, names).items():
            values[name][:, start:stop] = found
        start = stop
    return Activations(model.vocab.decode(ids), ids, nats[:N], values)


def _by_name(tape: Tape, names: tuple[str, ...]) -> dict[str, FloatArray]:
    """The activations (L, T, H) of a tape of one lane, by name: parts of the state, then gates."""
    found = [[*layer.state[:, 1:, 0], *layer.gates[:, :, 0]] for layer in tape.layers]
    # The tape may end with what is no gate: the separate recurrent parts.
    return {name: np.stack([layer[n] for layer in found]) for n, name in enumerate(names)}
