"""Nonlinearities of the cells."""

from __future__ import annotations

import numpy as np

from fastlstm.params import FloatArray


def sigmoid(a: FloatArray) -> FloatArray:
    """The logistic function, computed as ``(1 + tanh(a/2)) / 2``, which cannot overflow."""
    half: FloatArray = 0.5 * np.tanh(0.5 * a)
    return half + 0.5  # (A6)
