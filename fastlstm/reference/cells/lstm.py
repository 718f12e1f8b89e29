"""The LSTM with forget gate, without peepholes (Gers, Schmidhuber and Cummins 2000).

The numbers are those of the equations in ``docs/derivation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm.params import FloatArray
from fastlstm.reference.functions import sigmoid

Arrays = Sequence[FloatArray]


def forward(a: Arrays, before: Arrays) -> tuple[Arrays, Arrays]:
    """Gates i, f, o, g and state h, c of one step, (L1) to (L6); see `fastlstm.reference.cells`."""
    ai, af, ao, ag = a
    _, c_before = before
    i = sigmoid(ai)  # (L1)
    f = sigmoid(af)  # (L2)
    o = sigmoid(ao)  # (L3)
    g = np.tanh(ag)  # (L4)
    c = f * c_before + i * g  # (L5)
    h = o * np.tanh(c)  # (L6)
    return (i, f, o, g), (h, c)


def backward(
    gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray
) -> tuple[Arrays, FloatArray]:
    """Gradients of one step, (L7) to (L13); the carry is the gradient with respect to c."""
    i, f, o, g = gates
    _, c_before = before
    _, c = after
    tanh_c = np.tanh(c)  # (L7)
    dc = carry + dh * o * (1 - tanh_c**2)  # (L8)
    dai = dc * g * i * (1 - i)  # (L9)
    daf = dc * c_before * f * (1 - f)  # (L10)
    dao = dh * tanh_c * o * (1 - o)  # (L11)
    dag = dc * i * (1 - g**2)  # (L12)
    # The carry is (L13).
    return (dai, daf, dao, dag), dc * f
