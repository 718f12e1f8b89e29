"""The Elman RNN with tanh (Elman 1990): equations (R1) and (R2) of ``docs/derivation.md``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm.params import FloatArray

Arrays = Sequence[FloatArray]


def forward(a: Arrays, before: Arrays) -> tuple[Arrays, Arrays]:
    """The state h of one step, and no gates: the backward pass needs only h; see `fastlstm.reference.cells`."""
    return (), (np.tanh(a[0]),)  # (R1)


def backward(
    gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray
) -> tuple[Arrays, FloatArray]:
    """Gradients of one step; there is no elementwise carry, so it is returned unchanged."""
    (h,) = after
    return (dh * (1 - h**2),), carry  # (R2)
