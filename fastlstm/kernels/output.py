"""The rows of all time steps at once: input projections, output layer, softmax and loss, and their gradients.

These phases know no time, so the T*B rows are dealt to the workers evenly, whatever lanes they belong to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.cells import copy_vectors
from fastlstm.kernels.functions import exp
from fastlstm.kernels.simd import lanes_max, lanes_sum, load, maximum, splat, store, width
from fastlstm.kernels.tile import ROWS, product, split

#: Rows taken through a layer together: what the first passage over them leaves is in the cache for the second.
BLOCK = 8 * ROWS


@jit.device
def biased_product(
    rows: int, first: int, last: int, depth: int, arena: Any, a: int, a_row: int, w: int, bias: int, c: int, c_row: int
) -> None:
    """``C = A W + bias`` for vectors ``first .. last`` of the columns."""
    lanes = width(arena)
    for r in range(rows):
        copy_vectors(arena, bias + first * lanes, c + r * c_row + first * lanes, last - first)
    product(rows, first, last, depth, arena, a, a_row, arena, w, arena, c, c_row, 1)


@jit.device
def project_symbols(plan: Any, buffers: Any, worker: int, workers: int) -> None:
    """This worker's columns of the table: the input projection of every listed symbol."""
    arena = buffers.arena
    first, last = split(plan.Hp // width(arena), worker, workers)
    biased_product(
        buffers.counts[0], first * plan.G, last * plan.G, plan.E,
        arena, plan.rows, plan.E, plan.wx, plan.bias, plan.table, plan.N,
    )  # fmt: skip


@jit.device
def project_inputs(plan: Any, buffers: Any, layer: int, worker: int, workers: int, teams: int) -> None:
    """This worker's part of the input projection of an upper layer, into its gates.

    One team deals the units as in its time steps: with few rows nobody should read all weights. Several deal the rows.
    """
    arena = buffers.arena
    first, last, first_unit, last_unit = 0, plan.T * plan.B, 0, plan.Hp // width(arena)
    if teams == 1:
        first_unit, last_unit = split(last_unit, worker, workers)
    else:
        first, last = split(last, worker, workers)
    for block in range(first, last, BLOCK):
        biased_product(
            min(BLOCK, last - block), first_unit * plan.G, last_unit * plan.G, plan.H,
            arena, plan.h + (layer - 1) * plan.h_size + (plan.B + block) * plan.Hp, plan.Hp,
            plan.wx + layer * plan.wx_size, plan.bias + layer * plan.N,
            plan.a + layer * plan.a_size + block * plan.N, plan.N,
        )  # fmt: skip


@jit.device
def softmax_row(arena: Any, at: int, size: int, scale: float) -> tuple[float, float]:
    """Turn logits at ``arena[at : at + size]`` into ``exp(scale * (logit - max))``; returns the maximum and the sum."""
    lanes = width(arena)
    top = load(arena, at)
    for j in range(lanes, size, lanes):
        top = maximum(top, load(arena, at + j))
    highest = lanes_max(top)
    total = splat(arena, 0.0)
    for j in range(0, size, lanes):
        e = exp((load(arena, at + j) - highest) * scale)
        store(arena, at + j, e)
        total = total + e
    return highest, lanes_sum(total)


@jit.device
def logits(plan: Any, buffers: Any, first: int, rows: int, first_vector: int, last_vector: int) -> None:
    """Some vectors of the logits of ``rows`` rows of the top layer from row ``first``, into ``p``."""
    arena = buffers.arena
    biased_product(
        rows, first_vector, last_vector, plan.H,
        arena, plan.h + (plan.L - 1) * plan.h_size + (plan.B + first) * plan.Hp, plan.Hp,
        plan.wy, plan.by, plan.p + first * plan.Vp, plan.Vp,
    )  # fmt: skip


@jit.device
def predict(plan: Any, buffers: Any, y: Any, worker: int, workers: int) -> None:
    """This worker's rows of the output layer: probabilities into ``p``, the targets' nats into ``nats``."""
    arena, nats, Vp = buffers.arena, buffers.nats, plan.Vp
    lanes = width(arena)
    first, last = split(plan.T * plan.B, worker, workers)
    for block in range(first, last, BLOCK):
        rows = min(BLOCK, last - block)
        logits(plan, buffers, block, rows, 0, Vp // lanes)
        for row in range(block, block + rows):
            at = plan.p + row * Vp
            target = arena[at + y[row]]
            highest, total = softmax_row(arena, at, Vp, 1.0)
            nats[row] = math.log(np.float64(total)) + (np.float64(highest) - np.float64(target))
            for j in range(0, Vp, lanes):
                store(arena, at + j, load(arena, at + j) / total)


@jit.device
def predict_backward(plan: Any, buffers: Any, y: Any, scale: float, worker: int, workers: int) -> None:
    """This worker's rows of the output layer's gradients: ``p`` becomes ``dlogits``, ``dy`` that of the top h."""
    arena, Vp = buffers.arena, plan.Vp
    lanes = width(arena)
    first, last = split(plan.T * plan.B, worker, workers)
    for block in range(first, last, BLOCK):
        rows = min(BLOCK, last - block)
        for row in range(block, block + rows):
            at = plan.p + row * Vp
            arena[at + y[row]] -= 1
            for j in range(0, Vp, lanes):
                store(arena, at + j, load(arena, at + j) * scale)
        product(
            rows, 0, plan.Hp // lanes, Vp, arena, plan.p + block * Vp, Vp,
            arena, plan.wyt, arena, plan.dy + block * plan.Hp, plan.Hp, 0,
        )  # fmt: skip


@jit.device
def input_gradients(plan: Any, buffers: Any, layer: int, worker: int, workers: int) -> None:
    """This worker's rows of ``dy`` for the layer below: ``da Wx.T``."""
    arena = buffers.arena
    first, last = split(plan.T * plan.B, worker, workers)
    product(
        last - first, 0, plan.Hp // width(arena), plan.N,
        arena, plan.a + layer * plan.a_size + first * plan.N, plan.N,
        arena, plan.wxt + layer * plan.wxt_size, arena, plan.dy + first * plan.Hp, plan.Hp, 0,
    )  # fmt: skip
