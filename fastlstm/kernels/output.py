"""Phases that process all time steps at once: input projections, output layer, softmax and loss, and their gradients.

No row depends on another here, so the T*B rows are split evenly among the workers, regardless of lane and time step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.dropout import dropped, inputs_of, mask_gradients, mask_states
from fastlstm.kernels.functions import exp, log
from fastlstm.kernels.partition import split
from fastlstm.kernels.simd.arithmetic import max_of, maximum, splat, sum_of
from fastlstm.kernels.simd.memory import copy_vectors, load, store
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.tile.operands import Packed, Rows
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.tile.shape import ROWS

#: Rows of a block: the results of the first pass over a block are still in the cache for the second.
BLOCK = 8 * ROWS


@jit.device
def biased_product(rows: int, first: int, last: int, depth: int, a: Rows, w: Packed, bias: int, c: Rows) -> None:
    """``C = A W + bias`` for vectors ``first .. last`` of the columns; ``bias`` is an offset in C's array."""
    U = width(c.array)
    for r in range(rows):
        copy_vectors(c.array, bias + first * U, c.at + r * c.row + first * U, last - first)
    product(rows, first, last, depth, a, w, c, 1)


@jit.device
def project_symbols(plan: Any, buffers: Any, worker: int, workers: int) -> None:
    """Compute this worker's columns of the table: the input projection of every listed symbol."""
    arena = buffers.arena
    first, last = split(plan.Hp // width(arena), worker, workers)
    biased_product(
        buffers.counts[0], first * plan.G, last * plan.G, plan.E,
        Rows(buffers.operands, plan.rows_r, plan.Ep), Packed(buffers.operands, plan.wx), plan.bias,
        Rows(arena, plan.table, plan.N),
    )  # fmt: skip


@jit.device
def project_inputs(plan: Any, buffers: Any, layer: int, worker: int, workers: int, teams: int) -> None:
    """This worker's part of the input projection of a layer, other than by the table, into its gates.

    A single team splits the units, as in its time steps: with few rows, no worker should have to read all weights.
    Several teams split the rows.
    """
    arena, operands = buffers.arena, buffers.operands
    first, last, first_unit, last_unit = 0, plan.T * plan.B, 0, plan.Hp // width(arena)
    if teams == 1:
        first_unit, last_unit = split(last_unit, worker, workers)
    else:
        first, last = split(last, worker, workers)
    inputs, apart = inputs_of(plan, buffers, layer)
    for block in range(first, last, BLOCK):
        biased_product(
            min(BLOCK, last - block), first_unit * plan.G, last_unit * plan.G, plan.E if layer == 0 else plan.H,
            Rows(operands, inputs + block * apart, apart),
            Packed(operands, plan.wx + layer * plan.wx_size), plan.bias + layer * plan.bias_size,
            Rows(arena, plan.a + layer * plan.a_size + block * plan.N, plan.N),
        )  # fmt: skip


@jit.device
def softmax_row(arena: Any, at: int, size: int, scale: float) -> tuple[float, float]:
    """Replace logits at ``arena[at : at + size]`` by ``exp(scale * (logit - max))``; returns maximum and sum."""
    U = width(arena)
    top = load(arena, at)
    for j in range(U, size, U):
        top = maximum(top, load(arena, at + j))
    highest = max_of(top)
    total = splat(arena, 0.0)
    for j in range(0, size, U):
        e = exp((load(arena, at + j) - highest) * scale)
        store(arena, at + j, e)
        total = total + e
    return highest, sum_of(total)


@jit.device
def logits(plan: Any, buffers: Any, first: int, rows: int, first_vector: int, last_vector: int) -> None:
    """Vectors ``first_vector .. last_vector`` of the logits of ``rows`` rows from row ``first``, into ``p``."""
    arena, operands = buffers.arena, buffers.operands
    inputs, apart = inputs_of(plan, buffers, plan.L)
    biased_product(
        rows, first_vector, last_vector, plan.H, Rows(operands, inputs + first * apart, apart),
        Packed(operands, plan.wy), plan.by, Rows(arena, plan.p + first * plan.Vp, plan.Vp),
    )  # fmt: skip


@jit.device
def rank_of(arena: Any, at: int, symbols: int, target: float) -> int:
    """How many of the logits at ``arena[at]`` are above that of the target."""
    above = 0
    for v in range(symbols):
        if arena[at + v] > target:
            above += 1
    return above


@jit.device
def predict(plan: Any, buffers: Any, y: Any, worker: int, workers: int) -> None:
    """Output layer for this worker's rows: probabilities into ``p``, nats and ranks of the targets, as wanted."""
    arena, nats, Vp = buffers.arena, buffers.nats, plan.Vp
    ranking, normalising = buffers.reading[1] != 0, buffers.reading[2] == 0
    U = width(arena)
    first, last = split(plan.T * plan.B, worker, workers)
    for block in range(first, last, BLOCK):
        rows = min(BLOCK, last - block)
        if dropped(buffers, plan.L):
            mask_states(plan, buffers, plan.L, block, block + rows, worker)
        logits(plan, buffers, block, rows, 0, Vp // U)
        for row in range(block, block + rows):
            at = plan.p + row * Vp
            target = arena[at + y[row]]
            if ranking:
                buffers.ranks[row] = rank_of(arena, at, plan.V, target)
            highest, total = softmax_row(arena, at, Vp, 1.0)
            nats[row] = log(np.float64(total)) + (np.float64(highest) - np.float64(target))
            if normalising:
                for j in range(0, Vp, U):
                    store(arena, at + j, load(arena, at + j) / total)


@jit.device
def predict_backward(plan: Any, buffers: Any, y: Any, scale: float, worker: int, workers: int) -> None:
    """Gradients of the output layer for this worker's rows: ``dlogits``, and those of the top h, into ``dy``."""
    arena, operands, Vp = buffers.arena, buffers.operands, plan.Vp
    U = width(arena)
    first, last = split(plan.T * plan.B, worker, workers)
    for block in range(first, last, BLOCK):
        rows = min(BLOCK, last - block)
        for row in range(block, block + rows):
            at = plan.p + row * Vp
            arena[at + y[row]] -= 1
            for j in range(0, Vp, U):
                store(operands, plan.dlogits + row * Vp + j, load(arena, at + j) * scale)
        product(
            rows, 0, plan.Hp // U, Vp, Rows(operands, plan.dlogits + block * Vp, Vp), Packed(operands, plan.wyt),
            Rows(arena, plan.dy + block * plan.Hp, plan.Hp), 0,
        )  # fmt: skip
        if dropped(buffers, plan.L):
            mask_gradients(plan, buffers, plan.L, block, block + rows, plan.H, plan.dy, plan.Hp, worker)


@jit.device
def input_gradients(plan: Any, buffers: Any, layer: int, worker: int, workers: int) -> None:
    """This worker's rows of the gradient of a layer's inputs, ``da Wx.T``: ``dy`` of the layer below, or ``dx``."""
    arena, operands = buffers.arena, buffers.operands
    U = width(arena)
    first, last = split(plan.T * plan.B, worker, workers)
    at, apart, inputs = (plan.dx, plan.Ep, plan.E) if layer == 0 else (plan.dy, plan.Hp, plan.H)
    product(
        last - first, 0, (inputs + U - 1) // U, plan.N,
        Rows(operands, plan.da + layer * plan.da_size + first * plan.N, plan.N),
        Packed(operands, plan.wxt + layer * plan.wxt_size), Rows(arena, at + first * apart, apart), 0,
    )  # fmt: skip
    if dropped(buffers, layer):
        mask_gradients(plan, buffers, layer, first, last, inputs, at, apart, worker)
