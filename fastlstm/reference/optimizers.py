"""The norm of the gradients, clipping, weight decay and the optimizers in NumPy, as the equations of their papers.

Numbers such as (C4) are equations of ``docs/derivation.md``. In the optimizers, m is the slot with the mean of the
gradients, v that with the sum or the mean of their squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastlstm.optimizers import ADAGRAD, ADAM, RMSPROP, SGD, UpdateRule
from fastlstm.params import FloatArray, Parameters, table


def norm(g: FloatArray) -> float:
    """The L2 norm of all gradients (parameters,) together, summed in float64."""
    return float(np.sqrt(np.sum(np.square(g, dtype=np.float64))))  # (C4)


def update(parameters: Parameters, gradients: FloatArray, slots: FloatArray, rule: UpdateRule, norm: float) -> bool:
    """Clip the gradients, decay the weights, and take one step of the rule's formula.

    Parameters
    ----------
    parameters : in/out.
    gradients : (parameters,), in.
    slots : (slots, parameters), in/out.
    rule : the numbers of this step.
    norm : the norm that ``rule.clip_norm`` bounds.

    Returns
    -------
    Whether all gradients, new parameters and new slots are finite.
    """
    p, g = parameters.flat, gradients
    if rule.clip_value < math.inf:
        g = np.clip(g, -rule.clip_value, rule.clip_value)  # (C5)
    if norm > rule.clip_norm:
        g = g * g.dtype.type(rule.clip_norm / norm)  # (C6)
    if rule.l2:
        g = g + rule.l2 * decaying(parameters)
    decoupled = rule.shrink * decaying(parameters) if rule.shrink else None
    p -= FORMULAS[rule.formula](g, slots, rule)
    if decoupled is not None:
        p -= decoupled
    return bool(np.isfinite(gradients).all() and np.isfinite(p).all() and np.isfinite(slots).all())


def decaying(parameters: Parameters) -> FloatArray:
    """A copy of the parameters (parameters,), with 0 in place of those that weight decay spares."""
    found = np.zeros_like(parameters.flat)
    for entry in table(parameters.config):
        if entry.decays:
            found[entry.start : entry.stop] = parameters.flat[entry.start : entry.stop]
    return found


def adagrad(g: FloatArray, slots: FloatArray, rule: UpdateRule) -> FloatArray:
    """Duchi, Hazan and Singer 2011: ``v = v + g^2; p = p - lr g / sqrt(v + eps)``."""
    (v,) = slots
    v += g * g
    step: FloatArray = rule.lr * g / np.sqrt(v + rule.eps)
    return step


def sgd(g: FloatArray, slots: FloatArray, rule: UpdateRule) -> FloatArray:
    """Classical momentum and Nesterov's (Sutskever et al. 2013), as PyTorch writes them, the rate outside of m.

    ``m = mu m + g``; then ``p = p - lr m``, or with Nesterov, who looks one step ahead, ``p = p - lr (g + mu m)``.
    """
    (m,) = slots
    m[...] = rule.keep_mean * m + g
    step: FloatArray = rule.lr * (g + rule.keep_mean * m) if rule.nesterov else rule.lr * m
    return step


def rmsprop(g: FloatArray, slots: FloatArray, rule: UpdateRule) -> FloatArray:
    """Tieleman and Hinton 2012, with momentum mu of the steps: without it m is the last one.

    ``v = beta v + (1 - beta) g^2; m = mu m + g / (sqrt(v) + eps); p = p - lr m``.
    """
    m, v = slots
    v[...] = rule.keep_square * v + rule.add_square * g * g
    m[...] = rule.keep_mean * m + g / (np.sqrt(v) + rule.eps)
    step: FloatArray = rule.lr * m
    return step


def adam(g: FloatArray, slots: FloatArray, rule: UpdateRule) -> FloatArray:
    """Adam (Kingma and Ba 2015), algorithm 1; with decoupled decay AdamW (Loshchilov and Hutter 2019).

    ``m = beta1 m + (1 - beta1) g; v = beta2 v + (1 - beta2) g^2``; with ``m' = m / (1 - beta1^t)`` and
    ``v' = v / (1 - beta2^t)``, ``p = p - lr m' / (sqrt(v') + eps)``.
    """
    m, v = slots
    m[...] = rule.keep_mean * m + rule.add_mean * g
    v[...] = rule.keep_square * v + rule.add_square * g * g
    step: FloatArray = rule.lr * (m * rule.mean_scale) / (np.sqrt(v * rule.square_scale) + rule.eps)
    return step


#: The step that each formula takes off the parameters; it changes the slots in place.
FORMULAS: dict[int, Callable[[FloatArray, FloatArray, UpdateRule], FloatArray]] = {
    ADAGRAD: adagrad,
    SGD: sgd,
    RMSPROP: rmsprop,
    ADAM: adam,
}
