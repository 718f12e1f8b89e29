"""Copying parameters into the order in which tiles read them.

Only `column` knows how the packed order (for each group of U units all gates) maps to the order of the parameters (for
each gate all units). A packed vector that extends beyond the matrix is filled with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.partition import split
from fastlstm.kernels.simd.arithmetic import splat
from fastlstm.kernels.simd.groups import store_group
from fastlstm.kernels.simd.memory import load, load_part, prefetch, round_vectors, store_transposed
from fastlstm.kernels.simd.vector import terms, width
from fastlstm.kernels.tile.shape import device_pitch

#: How many rows ahead to prefetch: the stride between rows is too large for the hardware prefetcher.
AHEAD = 8


@jit.device
def column(j: int, gates: int, columns: int, U: int) -> tuple[int, int]:
    """First column of vector ``j``, and how many columns it holds, in a matrix of ``gates`` blocks of ``columns``."""
    unit = j // gates * U
    return j % gates * columns + unit, min(U, columns - unit)


@jit.device
def pack(
    source: Any, at: int, depth: int, gates: int, columns: int, target: Any, to: int, first: int, last: int
) -> None:
    """Pack vectors ``first .. last`` of the (depth, gates*columns) matrix at ``source[at]`` into ``target[to]``."""
    U, P = width(target), terms(target)
    row, apart = gates * columns, device_pitch(depth, P)
    for j in range(first, last):
        begin, n = column(j, gates, columns, U)
        for k in range(0, depth, P):
            read, write = at + k * row + begin, to + (j * apart + k // P) * U * P
            one = read_row(source, read, row, n)
            other = splat(source, 0.0)
            if P > 1 and k + 1 < depth:
                other = read_row(source, read + row, row, n)
            store_group(target, write, one, other)


@jit.device
def read_row(source: Any, at: int, row: int, n: int) -> Any:
    """The ``n`` elements at ``source[at]`` as a vector; those `AHEAD` rows further on are prefetched."""
    prefetch(source, at + AHEAD * row)
    return load(source, at) if n == width(source) else load_part(source, at, n)


@jit.device
def pack_transposed(
    source: Any, at: int, rows: int, gates: int, columns: int, padded: int, target: Any, to: int, first: int, last: int
) -> None:
    """Pack the transpose of the (rows, gates*columns) matrix at ``source[at]``: vectors ``first .. last`` of its rows.

    The reduction runs over ``padded`` packed columns; those beyond the matrix are zero.
    """
    U, P = width(target), terms(target)
    for j in range(first, last):
        n = min(U, rows - j * U)
        for vector in range(padded // U):
            begin, m = column(vector, gates, columns, U)
            read = at + j * U * gates * columns + begin
            write = to + (j * device_pitch(padded, P) * P + vector * U) * U
            store_transposed(source, read, gates * columns, target, write, U * P, n, m)


@jit.device
def pack_bias(
    source: Any, at: int, gates: int, columns: int, padded: int, target: Any, to: int, padding: float
) -> None:
    """Pack a bias of ``gates * columns`` elements into ``padded`` elements; ``padding`` fills the rest."""
    U = width(target)
    for j in range(padded // U):
        begin, n = column(j, gates, columns, U)
        for u in range(U):
            target[to + j * U + u] = source[at + begin + u] if u < n else padding


@jit.device
def pack_parameters(plan: Any, buffers: Any, parameters: Any, worker: int, workers: int) -> None:
    """This worker's share of packing all weights, and their transposes if the network has a backward pass."""
    backward = plan.wht_size > 0
    arena, operands, places = buffers.arena, buffers.operands, buffers.places
    U = width(arena)
    E, H, G, V, N = plan.E, plan.H, plan.G, plan.V, plan.N
    first_unit, last_unit = split(plan.Hp // U, worker, workers)
    first, last = first_unit * G, last_unit * G
    for layer in range(plan.L):
        X = E if layer == 0 else H
        W = places[layer + 1, 0]
        Wh = W + X * G * H
        pack(parameters, W, X, G, H, operands, plan.wx + layer * plan.wx_size, first, last)
        pack(parameters, Wh, H, G, H, operands, plan.wh + layer * plan.wh_size, first, last)
        if backward:
            at = plan.wht + layer * plan.wht_size
            pack_transposed(parameters, Wh, H, G, H, N, operands, at, first_unit, last_unit)
            inputs = (X + U - 1) // U
            at = plan.wxt + layer * plan.wxt_size
            first_input, last_input = split(inputs, worker, workers)
            pack_transposed(parameters, W, X, G, H, N, operands, at, first_input, last_input)
        if worker == 0:
            pack_bias(parameters, places[layer + 1, 1], G, H, N, arena, plan.bias + layer * plan.bias_size, 0.0)
            if plan.R > 0:
                bias_h = plan.bias_h + layer * plan.bias_h_size
                pack_bias(parameters, places[layer + 1, 2], plan.R, H, plan.R * plan.Hp, arena, bias_h, 0.0)
    W = places[plan.L + 1, 0]
    first, last = split(plan.Vp // U, worker, workers)
    pack(parameters, W, H, 1, V, operands, plan.wy, first, last)
    if backward:
        pack_transposed(parameters, W, H, 1, V, plan.Vp, operands, plan.wyt, first_unit, last_unit)
    if worker == 0:
        pack_bias(parameters, places[plan.L + 1, 1], 1, V, plan.Vp, arena, plan.by, -np.inf)


@jit.device
def index_symbols(plan: Any, buffers: Any, x: Any) -> None:
    """List the distinct symbols of ``x`` (T*B,), and assign each a row of the table."""
    symbols, rank, slot, counts = buffers.symbols, buffers.rank, buffers.slot, buffers.counts
    for d in range(counts[0]):
        rank[symbols[d]] = -1
    distinct = 0
    for k in range(len(x)):
        v = x[k]
        if rank[v] < 0:
            rank[v] = distinct
            symbols[distinct] = v
            distinct += 1
        slot[k] = rank[v]
    counts[0] = distinct


@jit.device
def use_all_symbols(buffers: Any, x: Any) -> None:
    """Assign each symbol of ``x`` (T*B,) its row in a table of all symbols."""
    for k in range(len(x)):
        buffers.slot[k] = x[k]


@jit.device
def gather_rows(plan: Any, buffers: Any, parameters: Any) -> None:
    """Copy the embeddings of the listed symbols into ``rows``, and round them."""
    arena, at = buffers.arena, buffers.places[0, 0]
    for d in range(buffers.counts[0]):
        for e in range(plan.E):
            arena[plan.rows + d * plan.Ep + e] = parameters[at + buffers.symbols[d] * plan.E + e]
        vectors = plan.Ep // width(arena)
        round_vectors(arena, plan.rows + d * plan.Ep, buffers.operands, plan.rows_r + d * plan.Ep, vectors)


@jit.device
def load_state(plan: Any, buffers: Any, state: Any, worker: int, workers: int) -> None:
    """Copy this worker's lanes of the carried-in state (S, L, B, H) to entry 0 of the state, and round h."""
    first, last = split(plan.B, worker, workers)
    for part in range(plan.S):
        for layer in range(plan.L):
            for b in range(first, last):
                at = plan.h + (part * plan.L + layer) * plan.h_size + b * plan.Hp
                for u in range(plan.H):
                    buffers.arena[at + u] = state[part, layer, b, u]
                for u in range(plan.H, plan.Hp):  # a call that met NaN has left it here, too
                    buffers.arena[at + u] = 0
    vectors = (last - first) * plan.Hp // width(buffers.arena)
    for layer in range(plan.L):
        h, rounded = plan.h + layer * plan.h_size, plan.h_r + layer * plan.h_r_size
        at = first * plan.Hp
        round_vectors(buffers.arena, h + at, buffers.operands, rounded + at, vectors)


@jit.device
def store_state(plan: Any, buffers: Any, state: Any, worker: int, workers: int) -> None:
    """Copy entry T of this worker's lanes to the state carried out (S, L, B, H)."""
    first, last = split(plan.B, worker, workers)
    for part in range(plan.S):
        for layer in range(plan.L):
            for b in range(first, last):
                at = plan.h + (part * plan.L + layer) * plan.h_size + (plan.T * plan.B + b) * plan.Hp
                for u in range(plan.H):
                    state[part, layer, b, u] = buffers.arena[at + u]


@jit.device
def pack_model(plan: Any, buffers: Any, parameters: Any, worker: int, workers: int) -> None:
    """What depends on the parameters alone: pack the weights and, for a table of all symbols, all embeddings."""
    pack_parameters(plan, buffers, parameters, worker, workers)
    if plan.all_symbols and worker == workers - 1:
        gather_rows(plan, buffers, parameters)


@jit.device
def enter(plan: Any, buffers: Any, parameters: Any, x: Any, state: Any, worker: int, workers: int) -> None:
    """What depends on the sequence: load the carried-in state, and find the symbols' rows in the table."""
    load_state(plan, buffers, state, worker, workers)
    if worker == workers - 1:
        if plan.all_symbols:
            use_all_symbols(buffers, x)
        else:
            index_symbols(plan, buffers, x)
            gather_rows(plan, buffers, parameters)
