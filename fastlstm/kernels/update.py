"""Clipping, weight decay and the optimizers: one pass over the flat parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.partition import split
from fastlstm.kernels.simd.arithmetic import clamp, fma, splat, sqrt, sum_of
from fastlstm.kernels.simd.memory import load, load_part, store, store_part
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.workspace import NORM_BLOCK
from fastlstm.optimizers import ADAGRAD, RMSPROP, SGD


@jit.device
def sum_squares(gradients: Any, partial: Any, worker: int, workers: int) -> None:
    """Sum the squared gradients of this worker's blocks of ``NORM_BLOCK`` elements, a float64 for each block."""
    U = width(gradients)
    first, last = split(len(partial), worker, workers)
    for block in range(first, last):
        start, stop = block * NORM_BLOCK, min((block + 1) * NORM_BLOCK, len(gradients))
        whole = start + (stop - start) // (4 * U) * (4 * U)
        s0 = s1 = s2 = s3 = splat(gradients, 0.0)
        for i in range(start, whole, 4 * U):
            g0, g1 = load(gradients, i), load(gradients, i + U)
            g2, g3 = load(gradients, i + 2 * U), load(gradients, i + 3 * U)
            s0, s1, s2, s3 = fma(g0, g0, s0), fma(g1, g1, s1), fma(g2, g2, s2), fma(g3, g3, s3)
        total = np.float64(sum_of((s0 + s1) + (s2 + s3)))
        for i in range(whole, stop):
            total += np.float64(gradients[i]) * np.float64(gradients[i])
        if not np.isfinite(total):  # the squares overflowed float32: sum them in float64
            total = np.float64(0.0)
            for i in range(start, stop):
                total += np.float64(gradients[i]) * np.float64(gradients[i])
        partial[block] = total


@jit.device
def norm_of(partial: Any) -> float:
    """The norm, from the sums of squares of the blocks in ``partial``."""
    total = 0.0
    for block in range(len(partial)):
        total += partial[block]
    return math.sqrt(total)


@jit.device
def norm_factor(norm: float, clip_norm: float) -> float:
    """The factor that reduces the norm of the gradients to at most ``clip_norm``."""
    return clip_norm / norm if norm > clip_norm else 1.0


# The formulas: each gives the new values of a vector of parameters p and of its slots, in their order. d is the clipped
# gradient with weight decay, m the mean of the gradients, v the sum or the mean of their squares. Arithmetic rounds the
# rule's numbers to the dtype of the vectors.


@jit.device
def adagrad(p: Any, d: Any, v: Any, rule: Any) -> Any:
    """``v += d^2; p -= lr d / sqrt(v + eps)``."""
    new_v = v + d * d
    return p - d * rule.lr / sqrt(new_v + rule.eps), new_v


@jit.device
def sgd(p: Any, d: Any, m: Any, rule: Any) -> Any:
    """``m = mu m + d; p -= lr m``, or with Nesterov ``p -= lr (d + mu m)``."""
    new_m = fma(m, rule.keep_mean, d)
    ahead = rule.keep_mean if rule.nesterov != 0.0 else 1.0
    return p - fma(new_m, ahead, d * rule.nesterov) * rule.lr, new_m


@jit.device
def rmsprop(p: Any, d: Any, m: Any, v: Any, rule: Any) -> Any:
    """``v = beta v + (1 - beta) d^2; m = mu m + d / (sqrt(v) + eps); p -= lr m``."""
    new_v = fma(v, rule.keep_square, d * d * rule.add_square)
    new_m = fma(m, rule.keep_mean, d / (sqrt(new_v) + rule.eps))
    return p - new_m * rule.lr, new_m, new_v


@jit.device
def adam(p: Any, d: Any, m: Any, v: Any, rule: Any) -> Any:
    """``m = beta1 m + (1 - beta1) d; v = beta2 v + (1 - beta2) d^2; p -= lr m' / (sqrt(v') + eps)``.

    m' and v' are m and v, scaled.
    """
    new_m = fma(m, rule.keep_mean, d * rule.add_mean)
    new_v = fma(v, rule.keep_square, d * d * rule.add_square)
    return p - new_m * (rule.lr * rule.mean_scale) / (sqrt(new_v * rule.square_scale) + rule.eps), new_m, new_v


@jit.device
def decayed(p: Any, g: Any, how: Any) -> Any:
    """Parameters after decoupled weight decay, and the clipped gradients with the other kind.

    Without decay both stay as they are, bit for bit: ``0.0 - 0.0`` is 0, which keeps the sign of a parameter of -0.
    """
    rule, factor, decays = how
    d = clamp(g, -rule.clip_value, rule.clip_value) * factor
    return fma(p, 0.0 - rule.shrink * decays, p), fma(p, rule.l2 * decays, d)


# How a vector or a part of one is read and written.


@jit.device
def read_whole(array: Any, at: int, n: int) -> Any:
    """Elements ``at`` to ``at + n``, which are a whole vector."""
    return load(array, at)


@jit.device
def write_whole(array: Any, at: int, n: int, value: Any) -> None:
    """Write elements ``at`` to ``at + n``, which are a whole vector."""
    store(array, at, value)


@jit.device
def read_part(array: Any, at: int, n: int) -> Any:
    """Elements ``at`` to ``at + n``, then zeros."""
    return load_part(array, at, n)


@jit.device
def write_part(array: Any, at: int, n: int, value: Any) -> None:
    """Write elements ``at`` to ``at + n``."""
    store_part(array, at, n, value)


# Applying a formula to elements ``at`` to ``at + n``. The result is a vector of zeros, with NaN in place of elements
# whose gradient, new parameter or new slots are not finite: 0 times these is NaN.


@jit.inlined
def apply_1(formula: Any, read: Any, write: Any, p: Any, g: Any, slots: Any, how: Any, at: int, n: int) -> Any:
    """Apply a formula with one slot."""
    slot = slots[0]
    old_g = read(g, at, n)
    old_p, d = decayed(read(p, at, n), old_g, how)
    new_p, new_slot = formula(old_p, d, read(slot, at, n), how[0])
    write(p, at, n, new_p)
    write(slot, at, n, new_slot)
    return fma(new_slot, 0.0, fma(new_p, 0.0, old_g * 0.0))


@jit.inlined
def apply_2(formula: Any, read: Any, write: Any, p: Any, g: Any, slots: Any, how: Any, at: int, n: int) -> Any:
    """Apply a formula with two slots."""
    first, second = slots[0], slots[1]
    old_g = read(g, at, n)
    old_p, d = decayed(read(p, at, n), old_g, how)
    new_p, new_first, new_second = formula(old_p, d, read(first, at, n), read(second, at, n), how[0])
    write(p, at, n, new_p)
    write(first, at, n, new_first)
    write(second, at, n, new_second)
    return fma(new_second, 0.0, fma(new_first, 0.0, fma(new_p, 0.0, old_g * 0.0)))


@jit.inlined
def sweep(apply: Any, formula: Any, p: Any, g: Any, slots: Any, how: Any, start: int, stop: int) -> float:
    """Apply a formula to elements ``start`` to ``stop``; returns 0, or NaN if any value is not finite.

    ``apply`` is that for the number of slots of the formula. ``how``: the rule, the factor that clips the norm, and 1
    or 0 for whether weight decay acts.
    """
    U = width(p)
    whole = stop - (stop - start) % U
    broken = splat(p, 0.0)
    for i in range(start, whole, U):
        broken = broken + apply(formula, read_whole, write_whole, p, g, slots, how, i, U)
    if whole < stop:
        broken = broken + apply(formula, read_part, write_part, p, g, slots, how, whole, stop - whole)
    return np.float64(sum_of(broken))


@jit.device
def update_span(p: Any, g: Any, slots: Any, how: Any, start: int, stop: int) -> float:
    """Update elements ``start`` to ``stop`` by the rule's formula; returns as `sweep`."""
    formula = how[0].formula
    if formula == ADAGRAD:
        return sweep(apply_1, adagrad, p, g, slots, how, start, stop)
    if formula == SGD:
        return sweep(apply_1, sgd, p, g, slots, how, start, stop)
    if formula == RMSPROP:
        return sweep(apply_2, rmsprop, p, g, slots, how, start, stop)
    return sweep(apply_2, adam, p, g, slots, how, start, stop)


@jit.device
def update(
    parameters: Any, gradients: Any, slots: Any, spans: Any, rule: Any, norm: float, worker: int, workers: int
) -> float:
    """Update this worker's range of the parameters and of the slots (slots, parameters) by the rule.

    Parameters
    ----------
    spans : (spans, 3), the start, the stop and whether weight decay acts, of each span of the parameters.
    rule : `fastlstm.optimizers.UpdateRule`.
    norm : the norm of the gradients, which ``rule.clip_norm`` bounds.

    Returns
    -------
    0 if all gradients, new parameters and new slots of the range are finite, else NaN.
    """
    U, count = width(parameters), len(parameters)
    first, last = split(-(-count // U), worker, workers)
    factor, broken = parameters.dtype.type(norm_factor(norm, rule.clip_norm)), 0.0
    for span in range(len(spans)):
        start, stop = max(spans[span, 0], first * U), min(spans[span, 1], last * U)
        if start < stop:
            how = rule, factor, float(spans[span, 2])
            broken += update_span(parameters, gradients, slots, how, start, stop)
    return broken
