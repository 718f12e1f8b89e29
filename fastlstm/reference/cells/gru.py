"""The GRU (Cho et al. 2014), with the reset gate applied after the recurrent product, as in PyTorch and cuDNN.

The numbers are those of the equations in ``docs/derivation.md``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm.params import FloatArray
from fastlstm.reference.functions import sigmoid

Arrays = Sequence[FloatArray]


def forward(a: Arrays, before: Arrays) -> tuple[Arrays, Arrays]:
    """Gates r, z, n, the candidate's recurrent part, and h of a step, (G3) to (G6); see `fastlstm.reference.cells`."""
    ar, az, an, n_h = a
    (h_before,) = before
    r = sigmoid(ar)  # (G3)
    z = sigmoid(az)  # (G4)
    n = np.tanh(an + r * n_h)  # (G5)
    h = (1 - z) * n + z * h_before  # (G6)
    return (r, z, n, n_h), (h,)


def backward(
    gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray
) -> tuple[Arrays, FloatArray]:
    """Gradients of one step, (G7) to (G12); the carry is ``z * dh``, which reaches the previous h elementwise."""
    r, z, n, n_h = gates
    (h_before,) = before
    dh = dh + carry  # (G7)
    dan = dh * (1 - z) * (1 - n**2)  # (G8)
    daz = dh * (h_before - n) * z * (1 - z)  # (G9)
    dar = dan * n_h * r * (1 - r)  # (G10)
    # The gradient of n_h is (G11), the carry (G12).
    return (dar, daz, dan, dan * r), dh * z
