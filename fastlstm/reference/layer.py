"""Recurrent cells, forward and backward over a sequence, one equation a line.

Lanes are rows: ``x[t]`` is ``(B, X)``, ``h[t]`` is ``(B, H)``. ``h`` and ``c`` have T+1 entries whose
entry 0 is the carried-in state, so no step is special. ``W`` is ``(X+H, G*H)`` in the concatenated form
``a = [x; h] W + b`` (see `fastlstm.params`).

Everything here is analytic, so it also runs on complex numbers: that is what makes the complex-step
gradient check possible.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastlstm.params import FloatArray


def sigmoid(a: FloatArray) -> FloatArray:
    """The logistic function, as ``(1 + tanh(a/2)) / 2``, which cannot overflow."""
    half: FloatArray = 0.5 * np.tanh(0.5 * a)
    return half + 0.5


@dataclass
class LSTMTape:
    """What an LSTM layer's forward pass leaves for its backward pass.

    ``x`` (T, B, X); gates ``i, f, o, g`` (T, B, H); ``h, c`` (T+1, B, H).
    """

    x: FloatArray
    i: FloatArray
    f: FloatArray
    o: FloatArray
    g: FloatArray
    c: FloatArray
    h: FloatArray


def lstm_forward(W: FloatArray, b: FloatArray, x: FloatArray, state: FloatArray) -> LSTMTape:
    """LSTM with forget gate over a sequence (Gers, Schmidhuber and Cummins 2000, without peepholes).

    Parameters
    ----------
    W, b : (X+H, 4H) and (4H,); gate order i, f, o, g.
    x : (T, B, X).
    state : (2, B, H), the carried-in h and c.
    """
    T, B, H = len(x), x.shape[1], W.shape[1] // 4
    i, f, o, g = (np.empty((T, B, H), W.dtype) for _ in range(4))
    h, c = (np.empty((T + 1, B, H), W.dtype) for _ in range(2))
    h[0], c[0] = state
    for t in range(T):
        z = np.concatenate([x[t], h[t]], axis=1)
        ai, af, ao, ag = np.split(z @ W + b, 4, axis=1)
        i[t] = sigmoid(ai)
        f[t] = sigmoid(af)
        o[t] = sigmoid(ao)
        g[t] = np.tanh(ag)
        c[t + 1] = f[t] * c[t] + i[t] * g[t]
        h[t + 1] = o[t] * np.tanh(c[t + 1])
    return LSTMTape(x, i, f, o, g, c, h)


def lstm_backward(
    W: FloatArray, tape: LSTMTape, dy: FloatArray, dW: FloatArray, db: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Back-propagation through time for `lstm_forward`.

    Parameters
    ----------
    W : (X+H, 4H).
    tape : what the forward pass left.
    dy : (T, B, H), gradient with respect to ``h[1:]`` from above.
    dW, db : accumulated into.

    Returns
    -------
    dx : (T, B, X).
    da : (T, B, 4H), gradient with respect to the gates before their nonlinearity.
    """
    T, B, H = dy.shape
    X = W.shape[0] - H
    dx, da = np.empty_like(tape.x), np.empty((T, B, 4 * H), W.dtype)
    dh_next, dc_next = np.zeros((B, H), W.dtype), np.zeros((B, H), W.dtype)
    for t in reversed(range(T)):
        i, f, o, g = tape.i[t], tape.f[t], tape.o[t], tape.g[t]
        tanh_c = np.tanh(tape.c[t + 1])
        dh = dy[t] + dh_next
        dc = dc_next + dh * o * (1 - tanh_c**2)
        dai = dc * g * i * (1 - i)
        daf = dc * tape.c[t] * f * (1 - f)
        dao = dh * tanh_c * o * (1 - o)
        dag = dc * i * (1 - g**2)
        da[t] = np.concatenate([dai, daf, dao, dag], axis=1)
        z = np.concatenate([tape.x[t], tape.h[t]], axis=1)
        dW += z.T @ da[t]
        db += da[t].sum(axis=0)
        dz = da[t] @ W.T
        dx[t], dh_next = dz[:, :X], dz[:, X:]
        dc_next = dc * f
    return dx, da


@dataclass
class RNNTape:
    """What an RNN layer's forward pass leaves: ``x`` (T, B, X), ``h`` (T+1, B, H)."""

    x: FloatArray
    h: FloatArray


def rnn_forward(W: FloatArray, b: FloatArray, x: FloatArray, state: FloatArray) -> RNNTape:
    """Elman RNN with tanh over a sequence (Elman 1990).

    Parameters
    ----------
    W, b : (X+H, H) and (H,).
    x : (T, B, X).
    state : (1, B, H), the carried-in h.
    """
    T, B, H = len(x), x.shape[1], W.shape[1]
    h = np.empty((T + 1, B, H), W.dtype)
    h[0] = state[0]
    for t in range(T):
        z = np.concatenate([x[t], h[t]], axis=1)
        h[t + 1] = np.tanh(z @ W + b)
    return RNNTape(x, h)


def rnn_backward(
    W: FloatArray, tape: RNNTape, dy: FloatArray, dW: FloatArray, db: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Back-propagation through time for `rnn_forward`; arguments and results as in `lstm_backward`."""
    T, B, H = dy.shape
    X = W.shape[0] - H
    dx, da = np.empty_like(tape.x), np.empty((T, B, H), W.dtype)
    dh_next = np.zeros((B, H), W.dtype)
    for t in reversed(range(T)):
        dh = dy[t] + dh_next
        da[t] = dh * (1 - tape.h[t + 1] ** 2)
        z = np.concatenate([tape.x[t], tape.h[t]], axis=1)
        dW += z.T @ da[t]
        db += da[t].sum(axis=0)
        dz = da[t] @ W.T
        dx[t], dh_next = dz[:, :X], dz[:, X:]
    return dx, da
