"""A recurrent layer over time, forward and backward, for any cell.

Lanes are rows: ``x[t]`` is ``(B, X)``, ``h[t]`` is ``(B, H)``. The state has T+1 entries. Entry 0 is the carried-in
state, so the first time step is no special case. ``W`` is ``(X+H, P*H)`` in the concatenated form
``a = [x; h] W + b``, with a block of columns for each of the P pre-activations of the cell (see `_weights`). Numbers
such as (T5) are equations of ``docs/derivation.md``.

The operands of products, ``x``, ``h``, ``W`` and ``da``, are rounded with ``rounded``. It is the identity, unless the
network computes in bf16. What is not an operand stays as it is, and ``da`` is rounded wherever it is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm.contract import Ids, Restarts
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference.cells import CELLS
from fastlstm.reference.rounding import Rounding, exact


@dataclass
class LayerTape:
    """What a layer's forward pass saves for its backward pass.

    Attributes
    ----------
    x : (T, B, X), inputs of the layer, rounded.
    gates : (number of `fastlstm.cells.Cell.saved`, T, B, H), in that order.
    state : (S, T+1, B, H); ``h`` is its first part.
    rounded : the rounding of operands.
    """

    x: FloatArray
    gates: FloatArray
    state: FloatArray
    rounded: Rounding

    @property
    def h(self) -> FloatArray:
        """(T+1, B, H), the hidden state; entry 0 is carried in."""
        h: FloatArray = self.state[0]
        return h


def forward(
    parameters: Parameters,
    layer: int,
    x: FloatArray,
    state: FloatArray,
    rounded: Rounding = exact,
    restarts: Restarts | None = None,
) -> LayerTape:
    """Run a layer over a sequence: (T1) to (T3).

    Parameters
    ----------
    parameters : of the model. layer : index of the layer.
    x : (T, B, X), inputs.
    state : (S, B, H), carried in.
    rounded : the rounding of operands.
    restarts : where the state is replaced; ``None``: nowhere. There is no backward pass for it.
    """
    cell, structure = CELLS[parameters.config.cell], parameters.config.structure
    W, b = _weights(parameters, layer)
    W, x = rounded(W), rounded(x)
    T, B, H = len(x), x.shape[1], parameters.config.hidden
    gates = np.empty((len(structure.saved), T, B, H), W.dtype)
    states = np.empty((len(structure.state), T + 1, B, H), W.dtype)
    states[:, 0] = state  # (C2)
    for t in range(T):
        z = np.concatenate([x[t], rounded(states[0, t])], axis=1)  # (T1)
        a = np.split(z @ W + b, len(structure.parts), axis=1)  # (T2)
        saved, after = cell.forward(a, states[:, t])  # (T3)
        for n, gate in enumerate(saved):
            gates[n, t] = gate
        for n, part in enumerate(after):
            states[n, t + 1] = part
        if restarts is not None:
            states[:, t + 1, restarts.after[t]] = restarts.state[:, layer, None]
    return LayerTape(x, gates, states, rounded)


def backward(
    parameters: Parameters,
    layer: int,
    tape: LayerTape,
    dy: FloatArray,
    gradients: Parameters,
    symbols: Ids | None = None,
) -> FloatArray:
    """Back-propagation through time for `forward`: (T4) to (T13).

    Parameters
    ----------
    parameters, layer : as for `forward`.
    tape : what `forward` returned.
    dy : (T, B, H), gradient with respect to ``h[1:]`` from the layer above.
    gradients : of the model's parameters; those of this layer are accumulated, in/out.
    symbols : (T, B) ids of which ``x`` is a function: `summed_by_symbol` then comes before the products with ``x`` and
        its weights. ``None``: it is not one.

    Returns
    -------
    dx : (T, B, X), gradient with respect to ``x``; with ``symbols``, a symbol's sum at one of its positions.
    """
    rounded = tape.rounded
    W, _ = _weights(parameters, layer)
    W = rounded(W)
    dW, db = _zeros_or_views(gradients, layer)
    X = W.shape[0] - parameters.config.hidden
    *_, da = through_time(parameters, layer, tape, dy)
    da_x = da if symbols is None else rounded(summed_by_symbol(da, symbols))
    dW[:X] += _rows(tape.x).T @ _rows(da_x)  # (T9)
    dW[X:] += _rows(rounded(tape.h[:-1])).T @ _rows(da)  # (T10)
    db += _rows(da).sum(axis=0)  # (T11)
    _add_separate(gradients, layer, dW, db)
    return da_x @ W[:X].T  # (T12)


def through_time(
    parameters: Parameters, layer: int, tape: LayerTape, dy: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The time loop of `backward`, from the last step to the first: (T4) to (T8).

    Parameters
    ----------
    parameters, layer, tape, dy : as for `backward`.

    Returns
    -------
    dh : (T, B, H), gradient with respect to ``h[1:]`` from the layer above and from the next step's pre-activations.
    carries : (T, B, H), gradient that comes from the next step elementwise: of the last part of the state.
    da : (T, B, P*H), gradients with respect to the pre-activations, rounded.
    """
    cell, rounded = CELLS[parameters.config.cell], tape.rounded
    W, _ = _weights(parameters, layer)
    T, B, H = dy.shape
    W_h = rounded(W[-H:])
    dh = np.empty_like(dy)
    da = np.empty((T, B, W.shape[1]), W.dtype)
    carries = np.empty_like(dy)
    dh_next, carry = np.zeros((B, H), W.dtype), np.zeros((B, H), W.dtype)  # (T4)
    for t in reversed(range(T)):
        dh[t] = dy[t] + dh_next  # (T5)
        carries[t] = carry
        das, carry = cell.backward(tape.gates[:, t], tape.state[:, t], tape.state[:, t + 1], dh[t], carry)  # (T6)
        da[t] = rounded(np.concatenate(das, axis=1))  # (T7)
        dh_next = da[t] @ W_h.T  # (T8)
    # What dh_next and carry hold now belongs to the carried-in state, which is a constant (C2).
    return dh, carries, da


def summed_by_symbol(da: FloatArray, symbols: Ids) -> FloatArray:
    """Gradients (T, B, N) with the sum over all positions of a symbol at its first one, and 0 at the others.

    Where ``x`` depends on the symbol alone, products with them have the same sums. The kernels multiply these sums,
    which are fewer; in bf16 it matters that they are what is rounded.
    """
    _, first, inverse = np.unique(symbols, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), da.shape[2]), da.dtype)
    np.add.at(sums, inverse.reshape(-1), _rows(da))  # (T13)
    summed = np.zeros_like(da)
    _rows(summed)[first] = sums
    return summed


def _rows(array: FloatArray) -> FloatArray:
    """An array (T, B, N) as a matrix (T*B, N)."""
    return array.reshape(-1, array.shape[-1])


# A separate gate has two pre-activations, x W + b and h W + b_h. W gets a block of columns for each: the first has
# zeros in the rows of h, the second in the rows of x. So all pre-activations of any cell are again [x; h] W + b.


def _weights(parameters: Parameters, layer: int) -> tuple[FloatArray, FloatArray]:
    """``W`` (X+H, P*H) and ``b`` (P*H,) with a block of columns for each of the P parts of the cell."""
    W, b = parameters[f"layers.{layer}.W"], parameters[f"layers.{layer}.b"]
    separate = parameters.config.structure.separate
    if not separate:
        return W, b
    H = parameters.config.hidden
    X, columns = W.shape[0] - H, len(separate) * H
    whole = np.concatenate([W, np.zeros((X + H, columns), W.dtype)], axis=1)  # (G1)
    whole[X:, W.shape[1] :] = W[X:, -columns:]  # (G1)
    whole[X:, W.shape[1] - columns : W.shape[1]] = 0  # (G1)
    return whole, np.concatenate([b, parameters[f"layers.{layer}.b_h"]])  # (G2)


def _zeros_or_views(gradients: Parameters, layer: int) -> tuple[FloatArray, FloatArray]:
    """Arrays in which to sum the gradients of `_weights`: zeros, or views of ``gradients`` without separate gates."""
    W, b = _weights(gradients, layer)
    if gradients.config.structure.separate:
        return np.zeros_like(W), np.zeros_like(b)
    return W, b


def _add_separate(gradients: Parameters, layer: int, dW: FloatArray, db: FloatArray) -> None:
    """Add the sums of `_zeros_or_views` to ``gradients``, if they are not views of it."""
    separate = gradients.config.structure.separate
    if not separate:
        return
    H = gradients.config.hidden
    X, columns = dW.shape[0] - H, len(separate) * H
    W = gradients[f"layers.{layer}.W"]
    width = W.shape[1]  # of the gates' columns: G * H
    dW[X:, width - columns : width] = dW[X:, width:]  # (G13)
    W += dW[:, :width]  # (G13)
    gradients[f"layers.{layer}.b"] += db[:width]  # (G14)
    gradients[f"layers.{layer}.b_h"] += db[width:]  # (G14)
