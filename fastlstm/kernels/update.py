"""Clipping and Adagrad: one pass over the flat parameters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.plan import NORM_BLOCK
from fastlstm.kernels.simd import clamp, fma, lanes_sum, load, splat, sqrt, store, width
from fastlstm.kernels.tile import split


@jit.device
def sum_squares(gradients: Any, partial: Any, worker: int, workers: int) -> None:
    """This worker's blocks of the squared norm: a float64 for each block of ``NORM_BLOCK`` elements."""
    lanes = width(gradients)
    first, last = split(len(partial), worker, workers)
    for block in range(first, last):
        start, stop = block * NORM_BLOCK, min((block + 1) * NORM_BLOCK, len(gradients))
        whole = start + (stop - start) // (4 * lanes) * (4 * lanes)
        s0 = s1 = s2 = s3 = splat(gradients, 0.0)
        for i in range(start, whole, 4 * lanes):
            g0, g1 = load(gradients, i), load(gradients, i + lanes)
            g2, g3 = load(gradients, i + 2 * lanes), load(gradients, i + 3 * lanes)
            s0, s1, s2, s3 = fma(g0, g0, s0), fma(g1, g1, s1), fma(g2, g2, s2), fma(g3, g3, s3)
        total = np.float64(lanes_sum((s0 + s1) + (s2 + s3)))
        for i in range(whole, stop):
            total += np.float64(gradients[i]) * np.float64(gradients[i])
        partial[block] = total


@jit.device
def norm_factor(partial: Any, clip_norm: float) -> float:
    """What to multiply the gradients by, so that their norm is at most ``clip_norm``."""
    total = 0.0
    for block in range(len(partial)):
        total += partial[block]
    norm = math.sqrt(total)
    return 1.0 if norm <= clip_norm else clip_norm / norm


@jit.device
def adagrad_vector(p: Any, g: Any, m: Any, at: int, lr: Any, eps: Any, clip_value: Any, factor: Any) -> None:
    """One vector of parameters: ``d = clip(g) * factor; m += d*d; p -= lr * d / sqrt(m + eps)``."""
    d = clamp(load(g, at), -clip_value, clip_value) * factor
    s = load(m, at) + d * d
    store(m, at, s)
    store(p, at, load(p, at) - d * lr / sqrt(s + eps))


@jit.device
def adagrad(
    p: Any,
    g: Any,
    m: Any,
    lr: Any,
    eps: Any,
    clip_value: Any,
    factor: Any,
    scratch: Any,
    at: int,
    worker: int,
    workers: int,
) -> None:
    """This worker's parameters; all scalars have their dtype.

    The elements beyond the last whole vector go through the same arithmetic in three vectors of scratch.
    """
    lanes = width(p)
    first, last = split(len(p) // lanes, worker, workers)
    for i in range(first * lanes, last * lanes, lanes):
        adagrad_vector(p, g, m, i, lr, eps, clip_value, factor)
    rest = len(p) // lanes * lanes
    if worker == workers - 1 and rest < len(p):
        for k in range(lanes):
            inside = rest + k < len(p)
            scratch[at + k] = p[rest + k] if inside else 0
            scratch[at + lanes + k] = g[rest + k] if inside else 0
            scratch[at + 2 * lanes + k] = m[rest + k] if inside else 0
        adagrad_vector(scratch[at:], scratch[at + lanes :], scratch[at + 2 * lanes :], 0, lr, eps, clip_value, factor)
        for k in range(len(p) - rest):
            p[rest + k] = scratch[at + k]
            m[rest + k] = scratch[at + 2 * lanes + k]
