"""How far back the gradient reaches: its norm by lag, on which learning of long dependencies depends.

The gradient of a symbol's loss with respect to the state k steps before it is a product of k Jacobians. In the RNN it
vanishes or explodes exponentially with k (Hochreiter 1991; Bengio, Simard and Frasconi 1994; Pascanu, Mikolov and
Bengio 2013); the carry of the LSTM and of the GRU was made to prevent that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.exhibits.reading import WARM_UP, check_at_least, drawn_windows, state_after
from fastlstm.model import Model, Text
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference import layer as recurrent
from fastlstm.reference.network import Tape, forward


@dataclass(frozen=True, eq=False)
class GradientByLag:
    """The gradient of a symbol's loss with respect to earlier hidden states.

    Attributes
    ----------
    lags : (K+1,) int64, the lags k from 0 to K, in time steps.
    norms : (L, K+1) float64: ``norms[l, k]`` is the mean over the lanes of the L2 norm of the gradient of the loss of
        the last symbol, in nats, with respect to h of layer l at k time steps before the state that predicts it. All
        paths from this h count; c, where the cell has one, is held constant.
    """

    lags: NDArray[np.int64]
    norms: NDArray[np.float64]


def gradient_by_lag(model: Model, text: Text, *, lags: int = 100, lanes: int = 64, seed: int = 0) -> GradientByLag:
    """Measure the norm of the gradient by lag, in float64.

    Parameters
    ----------
    model : trained or not.
    text : windows at random places of it are read, each after a warm-up from the zero state.
    lags : K, the largest lag in time steps.
    lanes : number of windows.
    seed : of their places.

    Raises
    ------
    ConfigError
        When ``lags`` is below 0 or ``lanes`` below 1.
    TextError
        When the text is too short for a window.
    VocabularyError
        When the text has a symbol that is not in the vocabulary, and there is no escape.
    """
    check_at_least("lags", lags, 0)
    # In float32 a vanishing gradient would underflow.
    parameters = model.parameters.astype("float64", copy=False)
    rng = np.random.default_rng(seed)
    symbols = drawn_windows(model.encode(text), WARM_UP + lags + 1, lanes, rng)
    state = state_after(parameters, symbols[:WARM_UP])
    tape = forward(parameters, symbols[WARM_UP:-1], symbols[WARM_UP + 1 :], state)
    gradients = _of_last_loss(parameters, tape)
    norms = [np.linalg.norm(dh[::-1], axis=-1).mean(axis=-1) for dh in gradients]
    return GradientByLag(np.arange(lags + 1), np.array(norms))


def _of_last_loss(parameters: Parameters, tape: Tape) -> list[FloatArray]:
    """Gradients (T, B, H), for each layer, of the loss of every lane's last symbol with respect to ``h[1:]``."""
    config = parameters.config
    T, B = tape.y.shape
    dlogits = tape.probabilities[-1].copy()
    dlogits[np.arange(B), tape.y[-1]] -= 1
    dy: FloatArray = np.zeros((T, B, config.hidden))
    dy[-1] = dlogits @ parameters["output.W"].T
    gradients: list[FloatArray] = []
    unused = Parameters(config)
    for layer in reversed(range(config.layers)):
        dh, carries, _ = recurrent.through_time(parameters, layer, tape.layers[layer], dy)
        # A carry of the GRU is of h itself, its only state; that of the LSTM is of c, and that of the RNN is 0.
        gradients.insert(0, dh + carries if config.state_parts == 1 else dh)
        if layer > 0:
            dy = recurrent.backward(parameters, layer, tape.layers[layer], dy, unused)
    return gradients
