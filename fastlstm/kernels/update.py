"""Clipping and Adagrad: one pass over the flat parameters."""

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


@jit.device
def adagrad_vector(p: Any, g: Any, m: Any, rule: Any, factor: Any) -> Any:
    """New values of a vector of p and of m: ``d = clip(g) * factor; m += d*d; p -= lr * d / sqrt(m + eps)``."""
    d = clamp(g, -rule.clip_value, rule.clip_value) * factor
    s = m + d * d
    return p - d * rule.lr / sqrt(s + rule.eps), s


@jit.device
def update(parameters: Any, gradients: Any, slots: Any, rule: Any, norm: float, worker: int, workers: int) -> None:
    """Update this worker's range of the parameters and of the slots (slots, parameters) by the rule.

    ``norm`` is the norm of the gradients, which ``rule.clip_norm`` bounds; the rule's other numbers have the dtype of
    the arrays.
    """
    factor = parameters.dtype.type(norm_factor(norm, rule.clip_norm))
    adagrad(parameters, gradients, slots[0], rule, factor, worker, workers)


@jit.device
def adagrad(p: Any, g: Any, m: Any, rule: Any, factor: Any, worker: int, workers: int) -> None:
    """Update this worker's range of parameters p and sums of squares m; ``rule`` and ``factor`` have their dtype."""
    U = width(p)
    first, last = split(len(p) // U, worker, workers)
    for i in range(first * U, last * U, U):
        new_p, new_m = adagrad_vector(load(p, i), load(g, i), load(m, i), rule, factor)
        store(p, i, new_p)
        store(m, i, new_m)
    n = len(p) % U
    if n > 0 and worker == workers - 1:
        i = len(p) - n
        new_p, new_m = adagrad_vector(load_part(p, i, n), load_part(g, i, n), load_part(m, i, n), rule, factor)
        store_part(p, i, n, new_p)
        store_part(m, i, n, new_m)
