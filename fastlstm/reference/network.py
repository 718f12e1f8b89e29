"""The whole network in NumPy: embedding, layers, softmax output, loss, and back again.

`forward` and `backward` are the equations; `ReferenceNetwork` puts them under the contract of
`fastlstm.backend.Network`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.contract import bad_ids, no_distribution
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference.cells import LSTMTape, RNNTape, lstm_backward, lstm_forward, rnn_backward, rnn_forward
from fastlstm.reference.optimizers import update

Ids = NDArray[np.integer]


@dataclass
class Tape:
    """What a forward pass leaves for the backward pass.

    Attributes
    ----------
    x, y : (T, B) symbol ids read and to be predicted.
    layers : a tape for each layer.
    probabilities : (T, B, V), softmax of the logits.
    nats : (T, B), ``-log`` probability of each target.
    """

    x: Ids
    y: Ids
    layers: list[LSTMTape | RNNTape]
    probabilities: FloatArray
    nats: FloatArray


def log_softmax(logits: FloatArray) -> FloatArray:
    """Logarithms of probabilities along the last axis; the shift is real, so that complex arguments stay analytic."""
    shifted: FloatArray = logits - logits.real.max(axis=-1, keepdims=True)
    total: FloatArray = np.exp(shifted).sum(axis=-1, keepdims=True)
    return shifted - np.log(total)


def forward(parameters: Parameters, x: Ids, y: Ids, state: FloatArray) -> Tape:
    """Predict ``y`` from ``x``.

    Parameters
    ----------
    parameters : of any dtype, complex included.
    x, y : (T, B) symbol ids.
    state : (S, L, B, H), carried in; not changed.

    Returns
    -------
    Tape
        All activations; the loss is ``tape.nats.sum()`` and the state carried out `final_state`.
    """
    config = parameters.config
    lstm = config.cell == "lstm"
    a = parameters["embedding"][x]
    layers: list[LSTMTape | RNNTape] = []
    for layer in range(config.layers):
        W, b = parameters[f"layers.{layer}.W"], parameters[f"layers.{layer}.b"]
        tape = lstm_forward(W, b, a, state[:, layer]) if lstm else rnn_forward(W, b, a, state[:, layer])
        layers.append(tape)
        a = tape.h[1:]
    log_p = log_softmax(a @ parameters["output.W"] + parameters["output.b"])
    p = np.exp(log_p)
    nats = -np.take_along_axis(log_p, y[..., None].astype(np.intp), axis=-1)[..., 0]
    return Tape(x, y, layers, p, nats)


def final_state(tape: Tape) -> FloatArray:
    """State carried out of a forward pass, ``(S, L, B, H)``."""
    parts = [np.stack([layer.h[-1] for layer in tape.layers])]
    if isinstance(tape.layers[0], LSTMTape):
        parts.append(np.stack([layer.c[-1] for layer in tape.layers if isinstance(layer, LSTMTape)]))
    return np.stack(parts)


def backward(parameters: Parameters, tape: Tape, scale: float, gradients: Parameters) -> None:
    """Accumulate the gradient of ``scale * nats.sum()`` into ``gradients``.

    It is truncated: none reaches the carried-in state.
    """
    config = parameters.config
    V, H = config.vocab_size, config.hidden
    dlogits: FloatArray = tape.probabilities.copy()
    T, B = tape.y.shape
    dlogits[np.arange(T)[:, None], np.arange(B), tape.y] -= 1
    dlogits *= scale
    top = tape.layers[-1].h[1:]
    gradients["output.W"] += top.reshape(-1, H).T @ dlogits.reshape(-1, V)
    gradients["output.b"] += dlogits.reshape(-1, V).sum(axis=0)
    dy: FloatArray = dlogits @ parameters["output.W"].T
    for layer in reversed(range(config.layers)):
        W, dW, db = (
            parameters[f"layers.{layer}.W"],
            gradients[f"layers.{layer}.W"],
            gradients[f"layers.{layer}.b"],
        )
        layer_tape = tape.layers[layer]
        if isinstance(layer_tape, LSTMTape):
            dy, _ = lstm_backward(W, layer_tape, dy, dW, db)
        else:
            dy, _ = rnn_backward(W, layer_tape, dy, dW, db)
    np.add.at(gradients["embedding"], tape.x, dy)


class ReferenceNetwork:
    """The reference under the contract of `fastlstm.backend.Network`."""

    def __init__(
        self, config: ModelConfig, seq_len: int, batch: int, threads: int | None = None, *, training: bool = True
    ) -> None:
        self.config = config
        self.tape: Tape | None = None

    def forward(self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray) -> float:
        _check_ids(self.config, x, y)
        self.tape = forward(parameters, x, y, state)
        state[...] = final_state(self.tape)
        return float(self.tape.nats.sum())

    def backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None:
        if self.tape is None:
            raise RuntimeError("backward needs a forward pass before it")
        backward(parameters, self.tape, scale, gradients)

    def train_step(
        self, parameters: Parameters, gradients: Parameters, slots: Parameters,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule,
    ) -> float:  # fmt: skip
        nats = self.forward(parameters, x, y, state)
        gradients.flat[...] = 0
        self.backward(parameters, scale, gradients)
        update(parameters.flat, gradients.flat, slots.flat, rule)
        return nats

    def generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: FloatArray, temperature: float
    ) -> Ids:
        _check_ids(self.config, first)
        ids = np.empty(uniforms.shape, np.int32)
        current = first
        for n, u in enumerate(uniforms):
            tape = forward(parameters, current[None], current[None], state)
            state[...] = final_state(tape)
            if not np.isfinite(tape.probabilities).all():
                raise no_distribution()
            current = ids[n] = draw(tape.probabilities[0], u, temperature)
        return ids


def _check_ids(config: ModelConfig, *arrays: Ids) -> None:
    for ids in arrays:
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size:
            raise bad_ids(config)


def draw(p: FloatArray, u: FloatArray, temperature: float) -> Ids:
    """Draw one symbol a lane from ``p`` (B, V) sharpened to ``p ** (1/temperature)``.

    The distribution is inverted at ``u`` (B,). Temperature 0 takes the most probable symbol.
    """
    if temperature == 0:
        best: Ids = np.argmax(p, axis=-1).astype(np.int32)
        return best
    with np.errstate(divide="ignore"):
        q = np.exp(log_softmax(np.log(p.astype(np.float64)) / temperature))
    cumulative = np.cumsum(q, axis=-1)
    below: Ids = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=-1, dtype=np.int32)
    drawn: Ids = np.minimum(below, p.shape[-1] - 1)
    return drawn
