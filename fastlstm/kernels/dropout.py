"""Dropout: random numbers, the factors of a row of units, and rows multiplied by them.

Which number belongs to which unit is declared in `fastlstm.dropout`. A row's factors are computed where they are used,
in the forward pass and again in the backward pass: that takes less time than it would take to store and load them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.dropout import CALLS, INCREMENTS, LEVELS, MULTIPLIERS, NUMBERS, PLACE, ROUNDS, WORD
from fastlstm.kernels import jit
from fastlstm.kernels.simd.memory import load, store
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.simd.words import WORDS, count_from, store_kept

# Words of 32 bits are the lower halves of uint64: processors multiply vectors of those.
_M0, _M1 = (np.uint64(m) for m in MULTIPLIERS)
_W0, _W1 = (np.uint64(w) for w in INCREMENTS)
_WORD, _UPPER_WORD = np.uint64(WORD - 1), np.uint64(32)
_HALF, _UPPER_HALF = np.uint64(LEVELS - 1), np.uint64(16)


#: In the buffer ``masks``: the words of the key, the step, whether masks differ between time steps (1 or 0), and from
#: here on the thresholds of all places; 0 where nothing is dropped.
KEY, STEP, TIMED, THRESHOLDS = 0, 2, 3, 4


@jit.device
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """Philox4x32-10: vectors of the four random words of counters; the upper halves of the uint64 are undefined.

    Parameters
    ----------
    c0, c1, c2, c3 : vectors of the words of the counters. k0, k1 : the words of the key, uint64.
    """
    for _ in range(ROUNDS):
        p0, p1 = (c0 & _WORD) * _M0, (c2 & _WORD) * _M1
        c0, c1, c2, c3 = (p1 >> _UPPER_WORD) ^ c1 ^ k0, p1, (p0 >> _UPPER_WORD) ^ c3 ^ k1, p0
        k0, k1 = (k0 + _W0) & _WORD, (k1 + _W1) & _WORD
    return c0, c1, c2, c3


@jit.device
def draw_factors(
    factors: Any, at: int, units: int, threshold: int, first: int, lane: int, time: int, masks: Any
) -> None:
    """Write what the units of a row are multiplied by to ``factors[at:]``, in whole groups of ``CALLS * NUMBERS``.

    Parameters
    ----------
    first : the first call of the row. lane, time : the other coordinates of its counters.
    masks : the buffer of this name, with the key and the step.
    """
    number = factors.dtype.type
    kept = number(LEVELS) / number(LEVELS - threshold)
    none = count_from(0) & np.uint64(0)
    c1, c2, c3 = none ^ np.uint64(lane), none ^ np.uint64(time), none ^ np.uint64(masks[STEP])
    k0, k1 = np.uint64(masks[KEY]), np.uint64(masks[KEY + 1])
    for group in range((units + CALLS * NUMBERS - 1) // (CALLS * NUMBERS)):
        for call in range(0, CALLS, WORDS):
            drawn = philox(count_from(first + group * CALLS + call), c1, c2, c3, k0, k1)
            for n in range(4):
                to = at + group * CALLS * NUMBERS + 2 * n * CALLS + call
                store_kept(factors, to, drawn[n] & _HALF, threshold, kept)
                store_kept(factors, to + CALLS, (drawn[n] >> _UPPER_HALF) & _HALF, threshold, kept)


@jit.device
def apply_factors(arena: Any, factors: int, source: int, into: Any, target: int, units: int) -> None:
    """``into[target] = arena[source] * factors`` for whole vectors; a product, so that NaN is not dropped."""
    for u in range(0, units, width(arena)):
        store(into, target + u, load(arena, source + u) * load(arena, factors + u))


@jit.device
def draw_row(plan: Any, buffers: Any, place: int, row: int, units: int, worker: int) -> int:
    """Compute the factors of row ``row`` of a place into this worker's buffer; returns their offset."""
    at = plan.factors + worker * plan.factors_size
    lane, time = row % plan.B, row // plan.B * buffers.masks[TIMED]
    threshold = buffers.masks[THRESHOLDS + place]
    draw_factors(buffers.arena, at, units, threshold, place * PLACE, lane, time, buffers.masks)
    return at


@jit.device
def dropped(buffers: Any, place: int) -> bool:
    """Whether units of a place are dropped in this pass."""
    return buffers.masks[THRESHOLDS + place] > 0


@jit.device
def embedding_folded(buffers: Any) -> bool:
    """Whether layer 0 reads the table of symbols: with dropout, each position has an embedding of its own."""
    return not dropped(buffers, 0)


@jit.device
def inputs_of(plan: Any, buffers: Any, place: int) -> tuple[int, int]:
    """Offset of the T*B rows that a place reads, and the distance between them: h of the layer below, or ``masked``.

    Both are in the arena of operands.
    """
    if dropped(buffers, place):
        return plan.masked + place * plan.masked_size, plan.M
    return plan.h_r + (place - 1) * plan.h_r_size + plan.B * plan.Hp, plan.Hp


@jit.device
def mask_states(plan: Any, buffers: Any, place: int, first: int, last: int, worker: int) -> None:
    """Write rows ``first .. last`` of h of the layer below a place, multiplied by their factors, to ``masked``."""
    source = plan.h + (place - 1) * plan.h_size + plan.B * plan.Hp
    target = plan.masked + place * plan.masked_size
    for row in range(first, last):
        factors = draw_row(plan, buffers, place, row, plan.H, worker)
        at, to = source + row * plan.Hp, target + row * plan.M
        apply_factors(buffers.arena, factors, at, buffers.operands, to, plan.Hp)


@jit.device
def mask_embeddings(plan: Any, buffers: Any, first: int, last: int, worker: int) -> None:
    """Write the embeddings read in rows ``first .. last``, multiplied by their factors, to ``masked``."""
    for row in range(first, last):
        factors = draw_row(plan, buffers, 0, row, plan.E, worker)
        source, target = plan.rows + buffers.slot[row] * plan.Ep, plan.masked + row * plan.M
        apply_factors(buffers.arena, factors, source, buffers.operands, target, plan.Ep)


@jit.device
def mask_inputs(plan: Any, buffers: Any, place: int, first: int, last: int, worker: int) -> None:
    """Write rows ``first .. last`` of what a place reads, multiplied by their factors, to ``masked``."""
    if place == 0:
        mask_embeddings(plan, buffers, first, last, worker)
    else:
        mask_states(plan, buffers, place, first, last, worker)


@jit.device
def mask_gradients(
    plan: Any, buffers: Any, place: int, first: int, last: int, units: int, at: int, apart: int, worker: int
) -> None:
    """Multiply the gradients of rows ``first .. last`` of a place, ``apart`` elements apart from ``at`` on, in place.

    The rows consist of whole vectors for ``units`` units.
    """
    U = width(buffers.arena)
    for row in range(first, last):
        factors = draw_row(plan, buffers, place, row, units, worker)
        here = at + row * apart
        apply_factors(buffers.arena, factors, here, buffers.arena, here, (units + U - 1) // U * U)
