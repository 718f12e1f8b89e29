"""The whole network in NumPy: embedding, layers, softmax output, loss, and the backward pass.

`forward` and `backward` are the equations, with the numbers of ``docs/derivation.md``. `ReferenceNetwork` implements
the contract of `fastlstm.contract.Network` with them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.contract import Ids, Network, Restarts, bad_ids, no_distribution
from fastlstm.drawing import Drawing
from fastlstm.dropout import Dropout
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference import layer as recurrent
from fastlstm.reference.dropout import factors
from fastlstm.reference.layer import LayerTape
from fastlstm.reference.optimizers import norm, update
from fastlstm.reference.rounding import Rounding, exact, to_bf16

#: The factors (T, B, units) of dropout at each place (see `fastlstm.dropout`); ``None``: no dropout there.
Masks = Sequence[FloatArray | None]


@dataclass
class Tape:
    """What a forward pass saves for the backward pass.

    Attributes
    ----------
    x, y : (T, B) symbol ids read and to be predicted.
    masks : the factors of dropout at each place, see `forward`.
    layers : a tape for each layer.
    top : (T, B, H), what the output layer read, rounded.
    logits : (T, B, V).
    probabilities : (T, B, V), softmax of the logits.
    nats : (T, B), ``-log`` probability of each target.
    rounded : the rounding of operands.
    """

    x: Ids
    y: Ids
    masks: Masks
    layers: list[LayerTape]
    top: FloatArray
    logits: FloatArray
    probabilities: FloatArray
    nats: FloatArray
    rounded: Rounding


def log_softmax(logits: FloatArray) -> FloatArray:
    """Logarithm of the softmax along the last axis: (N4) to (N6).

    The shift by the maximum is real, so that the function stays analytic for complex arguments.
    """
    shifted: FloatArray = logits - logits.real.max(axis=-1, keepdims=True)  # (N4)
    total: FloatArray = np.exp(shifted).sum(axis=-1, keepdims=True)  # (N5)
    return shifted - np.log(total)  # (N6)


def masked(values: FloatArray, factors: FloatArray | None) -> FloatArray:
    """Values (T, B, units), or their gradients, multiplied by the factors of dropout, if there are any."""
    return values if factors is None else values * factors  # (D2), (D3)


def forward(
    parameters: Parameters,
    x: Ids,
    y: Ids,
    state: FloatArray,
    masks: Masks | None = None,
    rounded: Rounding = exact,
    restarts: Restarts | None = None,
) -> Tape:
    """Predict ``y`` from ``x``: (N1) to (N8).

    Parameters
    ----------
    parameters : of any dtype, complex included.
    x, y : (T, B) symbol ids.
    state : (S, L, B, H), carried in; not changed.
    masks : the factors of dropout at each of the L+1 places; ``None``: no dropout.
    rounded : the rounding of all operands of products, here and in `backward`.
    restarts : where the state is replaced; ``None``: nowhere. There is no backward pass for it.

    Returns
    -------
    Tape
        All activations; the loss is ``tape.nats.sum()``, and `final_state` gives the state carried out.
    """
    config = parameters.config
    masks = [None] * (config.layers + 1) if masks is None else masks
    a = masked(parameters["embedding"][x], masks[0])  # (N1)
    layers: list[LayerTape] = []
    for layer in range(config.layers):
        tape = recurrent.forward(parameters, layer, a, state[:, layer], rounded, restarts)  # (N2)
        layers.append(tape)
        a = masked(tape.h[1:], masks[layer + 1])  # (N2)
    top = rounded(a)
    logits: FloatArray = top @ rounded(parameters["output.W"]) + parameters["output.b"]  # (N3)
    log_p = log_softmax(logits)  # (N6)
    p = np.exp(log_p)  # (N7)
    nats = -np.take_along_axis(log_p, y[..., None].astype(np.intp), axis=-1)[..., 0]  # (N8)
    return Tape(x, y, masks, layers, top, logits, p, nats, rounded)


def final_state(tape: Tape) -> FloatArray:
    """State carried out of a forward pass, ``(S, L, B, H)``."""
    return np.stack([layer.state[:, -1] for layer in tape.layers], axis=1)  # (C3)


def backward(parameters: Parameters, tape: Tape, scale: float, gradients: Parameters) -> None:
    """Accumulate the gradient of ``scale * nats.sum()`` into ``gradients``: (N10) to (N16).

    Back-propagation is truncated: no gradient flows into the carried-in state.
    """
    config, rounded = parameters.config, tape.rounded
    V, H = config.vocab_size, config.hidden
    dlogits: FloatArray = tape.probabilities.copy()
    T, B = tape.y.shape
    dlogits[np.arange(T)[:, None], np.arange(B), tape.y] -= 1  # (N10)
    dlogits = rounded(dlogits * scale)  # (N11); scale: (N9), (C1)
    gradients["output.W"] += tape.top.reshape(-1, H).T @ dlogits.reshape(-1, V)  # (N12)
    gradients["output.b"] += dlogits.reshape(-1, V).sum(axis=0)  # (N13)
    dy: FloatArray = masked(dlogits @ rounded(parameters["output.W"]).T, tape.masks[-1])  # (N14)
    for layer in reversed(range(config.layers)):
        # Without dropout, what the first layer reads depends on the symbol alone.
        symbols = tape.x if layer == 0 and tape.masks[0] is None else None
        dx = recurrent.backward(parameters, layer, tape.layers[layer], dy, gradients, symbols)  # (N15)
        dy = masked(dx, tape.masks[layer])
    np.add.at(gradients["embedding"], tape.x, dy)  # (N16)


class ReferenceNetwork(Network):
    """The reference as a `fastlstm.contract.Network`; ``threads`` has no effect."""

    def __init__(
        self, config: ModelConfig, seq_len: int, batch: int, threads: int | None = None, *, training: bool = True,
        dropout: Dropout | None = None, bf16: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(config, seq_len, batch, training=training, dropout=dropout, bf16=bf16)
        self._lock = threading.RLock()
        self._tape: Tape | None = None
        self._rounded = to_bf16 if bf16 else exact

    def turn(self) -> threading.RLock:
        return self._lock

    def _forward(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64] | None,
        step: int | None,
    ) -> float:  # fmt: skip
        _check_ids(self.config, x, y)
        # Copies of the ids: the caller may fill the arrays anew before the backward pass.
        self._tape = tape = forward(parameters, x.copy(), y.copy(), state, self._masks(step), self._rounded)
        state[...] = final_state(tape)
        if nats is not None:
            nats[...] = tape.nats
        return float(tape.nats.sum())

    def _read(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64],
        restarts: Restarts | None, ranks: NDArray[np.int32] | None,
    ) -> None:  # fmt: skip
        _check_ids(self.config, x, y)
        tape = forward(parameters, x, y, state, rounded=self._rounded, restarts=restarts)
        state[...] = final_state(tape)
        nats[...] = tape.nats
        if ranks is not None:
            p = tape.probabilities
            ranks[...] = (p > np.take_along_axis(p, y[..., None].astype(np.intp), axis=-1)).sum(axis=-1)

    def _probabilities(self) -> FloatArray:
        assert self._tape is not None
        return self._tape.probabilities.copy()

    def _begin(self, parameters: Parameters, state: FloatArray) -> None:
        self._reading = parameters, state.copy()

    def _advance(self, x: Ids) -> FloatArray:
        _check_ids(self.config, x)
        parameters, state = self._reading
        tape = forward(parameters, x[None], x[None], state, rounded=self._rounded)
        state[...] = final_state(tape)
        probabilities: FloatArray = tape.probabilities[0]
        return probabilities

    def _masks(self, step: int | None) -> Masks | None:
        if step is None:
            return None
        config, dtype = self.config, self._dtype
        units = [config.embedding, *config.layers * (config.hidden,)]
        return [
            factors(self.dropout, place, config.layers, step, (*self._sequence, n), dtype) if threshold else None
            for place, (n, threshold) in enumerate(zip(units, self._thresholds, strict=True))
        ]

    def _backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None:
        assert self._tape is not None
        backward(parameters, self._tape, scale, gradients)

    def _norm(self, gradients: Parameters) -> float:
        return norm(gradients.flat)

    def _update(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, rule: UpdateRule, norm: float
    ) -> bool:
        return update(parameters, gradients.flat, slots, rule, norm)

    def _generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: NDArray[np.float64], drawing: Drawing
    ) -> Ids:
        _check_ids(self.config, first)
        ids = np.empty(uniforms.shape, np.int32)
        current = first
        for n, u in enumerate(uniforms):
            tape = forward(parameters, current[None], current[None], state, rounded=self._rounded)
            state[...] = final_state(tape)
            logits = tape.logits[0, :, : self.config.vocab_size - drawing.withheld]
            if not (np.isfinite(tape.probabilities).all() and np.isfinite(logits.max(axis=-1)).all()):
                raise no_distribution()
            current = ids[n] = draw(logits, u, drawing)
        return ids


def _check_ids(config: ModelConfig, *arrays: Ids) -> None:
    for ids in arrays:
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size:
            raise bad_ids(config)


def draw(logits: FloatArray, u: FloatArray, drawing: Drawing) -> Ids:
    """Draw one symbol per lane, given the logits (B, V) of all that are not withheld, as `Drawing` describes.

    Probabilities will not do: beside a withheld symbol, those of all others may be too small to tell apart. The
    cumulative distribution of the symbols that are kept is inverted at ``u`` (B,).

    Returns
    -------
    ids : (B,) int32.
    """
    if drawing.temperature == 0:
        best: Ids = np.argmax(logits, axis=-1).astype(np.int32)
        return best
    below_best = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # with a temperature near 0, quotients may be -inf
        q = np.exp(log_softmax(below_best / drawing.temperature))
    q = kept(q, drawing)
    cumulative = np.cumsum(q, axis=-1)
    below: Ids = (cumulative <= u[:, None] * cumulative[:, -1:]).sum(axis=-1, dtype=np.int32)
    drawn: Ids = np.minimum(below, _last_kept(q))
    return drawn


def kept(q: FloatArray, drawing: Drawing) -> FloatArray:
    """Probabilities ``q`` (B, V), not normalised again, with 0 for the symbols that are left out.

    Each rule keeps the symbols that are at least as probable as the least probable of those it is about.
    """
    if drawing.top_k < q.shape[-1]:
        descending = -np.sort(-q, axis=-1)
        q = np.where(q >= descending[:, drawing.top_k - 1, None], q, 0.0)
    if drawing.top_p < 1:
        descending = -np.sort(-q, axis=-1)
        sums = np.cumsum(descending, axis=-1)
        too_few = (sums < drawing.top_p * sums[:, -1:]).sum(axis=-1)
        q = np.where(q >= np.take_along_axis(descending, too_few[:, None], axis=-1), q, 0.0)
    return np.where(q >= drawing.min_p * q.max(axis=-1, keepdims=True), q, 0.0)


def _last_kept(q: FloatArray) -> Ids:
    """The last symbol (B,) whose probability is not 0."""
    last: Ids = (q.shape[-1] - 1 - np.argmax(q[:, ::-1] > 0, axis=-1)).astype(np.int32)
    return last
