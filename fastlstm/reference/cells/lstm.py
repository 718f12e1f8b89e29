"""The LSTM with forget gate, without peepholes (Gers, Schmidhuber and Cummins 2000)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm.params import FloatArray
from fastlstm.reference.functions import sigmoid

Arrays = Sequence[FloatArray]


def forward(a: Arrays, before: Arrays) -> tuple[Arrays, Arrays]:
    """Gates i, f, o, g and state h, c of one step; see `fastlstm.reference.cells`."""
    ai, af, ao, ag = a
    _, c_before = before
    i = sigmoid(ai)
    f = sigmoid(af)
    o = sigmoid(ao)
    g = np.tanh(ag)
    c = f * c_before + i * g
    h = o * np.tanh(c)
    return (i, f, o, g), (h, c)


def backward(
    gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray
) -> tuple[Arrays, FloatArray]:
    """Gradients of one step; the carry is the gradient with respect to c."""
    i, f, o, g = gates
    _, c_before = before
    _, c = after
    tanh_c = np.tanh(c)
    dc = carry + dh * o * (1 - tanh_c**2)
    dai = dc * g * i * (1 - i)
    daf = dc * c_before * f * (1 - f)
    dao = dh * tanh_c * o * (1 - o)
    dag = dc * i * (1 - g**2)
    return (dai, daf, dao, dag), dc * f
