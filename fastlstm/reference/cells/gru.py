"""The GRU (Cho et al. 2014), with the reset gate applied after the recurrent product, as in PyTorch and cuDNN."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm.params import FloatArray
from fastlstm.reference.functions import sigmoid

Arrays = Sequence[FloatArray]


def forward(a: Arrays, before: Arrays) -> tuple[Arrays, Arrays]:
    """Gates r, z, n, the candidate's recurrent part, and h of one step; see `fastlstm.reference.cells`."""
    ar, az, an, n_h = a
    (h_before,) = before
    r = sigmoid(ar)
    z = sigmoid(az)
    n = np.tanh(an + r * n_h)
    h = (1 - z) * n + z * h_before
    return (r, z, n, n_h), (h,)


def backward(
    gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray
) -> tuple[Arrays, FloatArray]:
    """Gradients of one step; the carry is ``z * dh``, the gradient that reaches the previous h elementwise."""
    r, z, n, n_h = gates
    (h_before,) = before
    dh = dh + carry
    dan = dh * (1 - z) * (1 - n**2)
    daz = dh * (h_before - n) * z * (1 - z)
    dar = dan * n_h * r * (1 - r)
    return (dar, daz, dan, dan * r), dh * z
