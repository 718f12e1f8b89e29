"""Clipping and Adagrad in NumPy."""

from __future__ import annotations

import numpy as np

from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray


def update(p: FloatArray, g: FloatArray, m: FloatArray, rule: UpdateRule) -> None:
    """Clip the gradients, then take one step of Adagrad (Duchi, Hazan and Singer 2011).

    Parameters
    ----------
    p, g, m : (parameters,) parameters, in/out; gradients; sum of squared gradients, in/out.
    rule : rate and bounds.
    """
    if rule.clip_value is not None:
        g = np.clip(g, -rule.clip_value, rule.clip_value)
    if rule.clip_norm is not None:
        norm = np.sqrt(np.sum(np.square(g, dtype=np.float64)))
        g = g * g.dtype.type(min(1.0, rule.clip_norm / max(norm, np.finfo(np.float64).tiny)))
    m += g * g
    p -= rule.lr * g / np.sqrt(m + rule.eps)
