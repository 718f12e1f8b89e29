"""The norm of the gradients, clipping and Adagrad in NumPy."""

from __future__ import annotations

import math

import numpy as np

from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray


def norm(g: FloatArray) -> float:
    """The L2 norm of all gradients (parameters,) together, summed in float64."""
    return float(np.sqrt(np.sum(np.square(g, dtype=np.float64))))


def update(p: FloatArray, g: FloatArray, slots: FloatArray, rule: UpdateRule, norm: float) -> None:
    """Clip the gradients, then take one step of Adagrad (Duchi, Hazan and Singer 2011).

    Parameters
    ----------
    p, g : (parameters,) parameters, in/out; gradients, in.
    slots : (1, parameters) sums of squared gradients, in/out.
    rule : learning rate, bounds and eps.
    norm : the norm that ``rule.clip_norm`` bounds.
    """
    (m,) = slots
    if rule.clip_value < math.inf:
        g = np.clip(g, -rule.clip_value, rule.clip_value)
    if norm > rule.clip_norm:
        g = g * g.dtype.type(rule.clip_norm / norm)
    m += g * g
    p -= rule.lr * g / np.sqrt(m + rule.eps)
