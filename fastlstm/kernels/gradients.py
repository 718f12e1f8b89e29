"""Weight gradients: sums over all T*B rows, partitioned among the workers by columns, never by rows.

The unit of work is a strip of up to four vectors of columns. ``da`` of the strip is packed in blocks of
`fastlstm.kernels.workspace.REDUCTION` groups of rows; while a block is in the first- or second-level cache, the
transpose of ``[x; h]`` is multiplied by it. The gradients of the bias and the table are summed in the same pass. Every
sum runs over the rows in order, so it does not depend on the number of workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastlstm.kernels import jit
from fastlstm.kernels.dropout import dropped, embedding_folded
from fastlstm.kernels.pack import column
from fastlstm.kernels.partition import split
from fastlstm.kernels.simd.arithmetic import splat
from fastlstm.kernels.simd.groups import add_group, copy_group
from fastlstm.kernels.simd.memory import load, load_part, prefetch, round_vectors, store, store_part, store_transposed
from fastlstm.kernels.simd.vector import terms, width
from fastlstm.kernels.sync import next_task
from fastlstm.kernels.tile.call import tile
from fastlstm.kernels.tile.operands import Elements, Packed, Rows, Vectors
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.tile.shape import ROWS, VECTORS
from fastlstm.kernels.workspace import REDUCTION


class Transposed(NamedTuple):
    """An operand of `strip_product`: unit u at position k is at ``at + u*row + k``."""

    at: int
    row: int
    units: int


@jit.device
def transpose(operands: Any, source: int, row: int, units: int, target: int, apart: int, first: int, last: int) -> None:
    """Transpose positions ``first .. last``, of ``units`` units each, ``row`` apart; ``first`` is a multiple of U.

    Whole vectors are written; the elements beyond the last position are zero.
    """
    U = width(operands)
    for k in range(first, last, U):
        for u in range(0, units, U):
            at, to = source + k * row + u, target + u * apart + k
            store_transposed(operands, at, row, operands, to, apart, min(U, last - k), U)


@jit.device
def transpose_states(plan: Any, buffers: Any, worker: int, workers: int) -> None:
    """Transpose this worker's positions of every layer's h, of what dropout left, and of the embeddings.

    These are operands A of the tiles below, which read a row of positions for each unit.
    """
    operands = buffers.operands
    U = width(operands)
    first, last = positions_of(U, (plan.T + 1) * plan.B, worker, workers)
    for layer in range(plan.L):
        h, ht = plan.h_r + layer * plan.h_r_size, plan.ht + layer * plan.ht_size
        transpose(operands, h, plan.Hp, plan.Hp, ht, plan.Q, first, last)
    first, last = positions_of(U, plan.T * plan.B, worker, workers)
    for place in range(plan.L + 1):
        if dropped(buffers, place):
            masked, masked_t = plan.masked + place * plan.masked_size, plan.masked_t + place * plan.masked_t_size
            transpose(operands, masked, plan.M, plan.Ep if place == 0 else plan.Hp, masked_t, plan.Q, first, last)
    if embedding_folded(buffers):
        first, last = positions_of(U, buffers.counts[0], worker, workers)
        transpose(operands, plan.rows_r, plan.Ep, plan.Ep, plan.rows_t, plan.Dp, first, last)


@jit.device
def positions_of(U: int, positions: int, worker: int, workers: int) -> tuple[int, int]:
    """This worker's range of positions, from a multiple of ``U`` on."""
    first, last = split((positions + U - 1) // U, worker, workers)
    return first * U, min(last * U, positions)


@jit.device
def states_before(plan: Any, layer: int) -> Transposed:
    """The h that a layer reads with its recurrent weights: that of the time step before, from entry 0 on."""
    return Transposed(plan.ht + layer * plan.ht_size, plan.Q, plan.H)


@jit.device
def inputs_transposed(plan: Any, buffers: Any, place: int) -> Transposed:
    """What a place reads: h of the layer below at the same time step, or what dropout left of it."""
    if dropped(buffers, place):
        return Transposed(plan.masked_t + place * plan.masked_t_size, plan.Q, plan.E if place == 0 else plan.H)
    return Transposed(plan.ht + (place - 1) * plan.ht_size + plan.B, plan.Q, plan.H)


@jit.device
def expect_rows(arena: Any, source: int, row: int, first: int, last: int, vectors: int) -> None:
    """Prefetch rows ``first .. last`` of ``vectors`` vectors: their stride is too large for the hardware prefetcher."""
    for k in range(first, last):
        for v in range(vectors):
            prefetch(arena, source + k * row + v * width(arena))


@jit.device
def strip_product(
    buffers: Any, inputs: Any, start: int, depth: int, vectors: int, strip: int, sums: int, add: int, following: int,
    row: int,
) -> None:  # fmt: skip
    """``sums (units, strip) += inputs[start :].T da[start :]`` over ``depth`` rows of a packed strip.

    Meanwhile the rows that will be packed next are prefetched: from ``following`` on, ``row`` elements apart.
    """
    arena, operands = buffers.arena, buffers.operands
    U, P = width(arena), terms(operands)
    units, at = inputs.units, inputs.at + start
    tiles = (units + ROWS - 1) // ROWS
    for n in range(tiles):
        first, last = split(depth, n, tiles)
        expect_rows(operands, following, row, first, last, vectors)
        tile(
            min(ROWS, units - n * ROWS), vectors, (depth + P - 1) // P,
            Elements(operands, at + n * ROWS * inputs.row, inputs.row, P),
            Vectors(operands, strip, U * P, vectors * U * P), Rows(arena, sums + n * ROWS * vectors * U, vectors * U),
            add,
        )  # fmt: skip


@jit.device
def add_vectors(source: Any, at: int, arena: Any, target: int, vectors: int) -> None:
    """Add ``vectors`` contiguous vectors of ``source`` at ``at`` to those of the arena at ``target``."""
    U = width(arena)
    for v in range(vectors):
        store(arena, target + v * U, load(arena, target + v * U) + load(source, at + v * U))


@jit.device
def pack_strip(operands: Any, source: int, row: int, depth: int, vectors: int, strip: int) -> None:
    """Pack ``depth`` rows, ``row`` elements apart, into ``strip``."""
    U, P = width(operands), terms(operands)
    for k in range(0, depth, P):
        for v in range(vectors):
            copy_group(operands, source + k * row + v * U, row, depth - k, strip + (k * vectors + v * P) * U)


@jit.device
def add_rows(operands: Any, strip: int, depth: int, vectors: int, arena: Any, sums: int) -> None:
    """Add the ``depth`` rows of a packed strip to ``sums``."""
    U, P = width(arena), terms(operands)
    for v in range(vectors):
        total = load(arena, sums + v * U)
        for k in range(0, depth, P):
            total = add_group(operands, strip + (k * vectors + v * P) * U, total)
        store(arena, sums + v * U, total)


@jit.device
def scatter(plan: Any, buffers: Any, inputs: int, start: int, depth: int, j: int, vectors: int) -> None:
    """For a folded layer 0: add ``depth`` rows of ``da`` at ``inputs`` to their symbols' gradients in ``dtable``."""
    for k in range(depth):
        table_row = plan.dtable + buffers.slot[start + k] * plan.N + j * width(buffers.arena)
        add_vectors(buffers.operands, inputs + k * plan.N, buffers.arena, table_row, vectors)


@jit.device
def add_strip(
    arena: Any,
    sums: int,
    rows: int,
    j: int,
    vectors: int,
    gates: int,
    columns: int,
    gradients: Any,
    at: int,
    add: int,
) -> None:
    """Add the sums of a strip (rows, vectors) to columns of the (rows, gates*columns) gradient at ``gradients[at]``.

    If ``add`` is 0, the sums overwrite the gradient.
    """
    U = width(arena)
    for v in range(vectors):
        begin, n = column(j + v, gates, columns, U)
        for m in range(rows):
            read, write = sums + (m * vectors + v) * U, at + m * gates * columns + begin
            if n < U:
                before = load_part(gradients, write, n) if add else splat(arena, 0.0)
                store_part(gradients, write, n, before + load(arena, read))
            elif add:
                store(gradients, write, load(gradients, write) + load(arena, read))
            else:
                store(gradients, write, load(arena, read))


@jit.device
def clear(arena: Any, at: int, vectors: int) -> None:
    """Set ``vectors`` contiguous vectors to zero."""
    for v in range(vectors):
        store(arena, at + v * width(arena), splat(arena, 0.0))


@jit.device
def layer_strip(
    plan: Any, buffers: Any, gradients: Any, layer: int, j: int, vectors: int, share: Any, add: int
) -> None:
    """Gradients of one strip of a layer's weights and biases, and of the table if it is folded into the layer.

    The gradient of the recurrent weights is computed from ``da_h``, that of the input weights from ``da``. Both are the
    same strip unless there are separate gates.
    """
    arena, operands, strip = buffers.arena, buffers.operands, share.strip
    U = width(arena)
    G, H, B, N = plan.G, plan.H, plan.B, plan.N
    X, block = plan.E if layer == 0 else H, REDUCTION * terms(operands)
    folded = layer == 0 and embedding_folded(buffers)
    sums_x = share.scratch
    sums_h = sums_x + X * vectors * U
    bias = sums_h + H * vectors * U
    bias_h = bias + vectors * U * plan.separate
    clear(arena, bias, vectors)
    clear(arena, bias_h, vectors)
    if folded:
        for d in range(buffers.counts[0]):
            clear(arena, plan.dtable + d * N + j * U, vectors)
    for start in range(0, plan.T * B, block):
        depth = min(block, plan.T * B - start)
        more = 1 if start > 0 else 0
        at = layer * plan.da_size + start * N + j * U
        source, inputs = plan.da_h + at, plan.da + at
        following = source + depth * N
        pack_strip(operands, source, N, depth, vectors, strip)
        add_rows(operands, strip, depth, vectors, arena, bias_h)
        if folded:
            scatter(plan, buffers, inputs, start, depth, j, vectors)
        h = states_before(plan, layer)
        strip_product(buffers, h, start, depth, vectors, strip, sums_h, more, following, N)
        if not folded:
            if plan.separate:
                pack_strip(operands, inputs, N, depth, vectors, strip)
                add_rows(operands, strip, depth, vectors, arena, bias)
            x = inputs_transposed(plan, buffers, layer)
            strip_product(buffers, x, start, depth, vectors, strip, sums_x, more, following, N)
    if folded:
        table_strip(plan, buffers, j, vectors, strip, sums_x, bias)
    W, b, b_h = buffers.places[layer + 1, 0], buffers.places[layer + 1, 1], buffers.places[layer + 1, 2]
    add_strip(arena, sums_x, X, j, vectors, G, H, gradients, W, add)
    add_strip(arena, sums_h, H, j, vectors, G, H, gradients, W + X * G * H, add)
    add_strip(arena, bias, 1, j, vectors, G, H, gradients, b, add)
    if plan.separate:
        add_separate_bias(plan, arena, bias_h, j, vectors, gradients, b_h, add)


@jit.device
def table_strip(plan: Any, buffers: Any, j: int, vectors: int, strip: int, sums: int, bias: int) -> None:
    """``rows.T dtable`` of one strip, into ``sums``; with separate gates also ``dtable`` summed over symbols: bias."""
    arena, operands = buffers.arena, buffers.operands
    U, symbols, N = width(arena), buffers.counts[0], plan.N
    for d in range(symbols):
        row = d * N + j * U
        if plan.separate:
            add_vectors(arena, plan.dtable + row, arena, bias, vectors)
        round_vectors(arena, plan.dtable + row, operands, plan.dtable_r + row, vectors)
    block = REDUCTION * terms(operands)
    for start in range(0, symbols, block):
        depth = min(block, symbols - start)
        source = plan.dtable_r + start * N + j * U
        pack_strip(operands, source, N, depth, vectors, strip)
        rows = Transposed(plan.rows_t, plan.Dp, plan.E)
        more = 1 if start > 0 else 0
        strip_product(buffers, rows, start, depth, vectors, strip, sums, more, source + depth * N, N)


@jit.device
def add_separate_bias(
    plan: Any, arena: Any, sums: int, j: int, vectors: int, gradients: Any, at: int, add: int
) -> None:
    """Add the sums of a strip's separate gates, the last ``R`` of each group, to ``b_h`` at ``gradients[at]``."""
    for v in range(vectors):
        group, gate = (j + v) // plan.G, (j + v) % plan.G - (plan.G - plan.R)
        if gate >= 0:
            vector = group * plan.R + gate
            add_strip(arena, sums + v * width(arena), 1, vector, 1, plan.R, plan.H, gradients, at, add)


@jit.device
def output_strip(plan: Any, buffers: Any, gradients: Any, j: int, vectors: int, share: Any, add: int) -> None:
    """Gradients of one strip of the output layer's weights and bias."""
    arena, operands, scratch, strip = buffers.arena, buffers.operands, share.scratch, share.strip
    U = width(arena)
    bias = scratch + plan.H * vectors * U
    clear(arena, bias, vectors)
    block = REDUCTION * terms(operands)
    for start in range(0, plan.T * plan.B, block):
        depth = min(block, plan.T * plan.B - start)
        more = 1 if start > 0 else 0
        source = plan.dlogits + start * plan.Vp + j * U
        following = source + depth * plan.Vp
        pack_strip(operands, source, plan.Vp, depth, vectors, strip)
        add_rows(operands, strip, depth, vectors, arena, bias)
        inputs = inputs_transposed(plan, buffers, plan.L)
        strip_product(buffers, inputs, start, depth, vectors, strip, scratch, more, following, plan.Vp)
    W, b = buffers.places[plan.L + 1, 0], buffers.places[plan.L + 1, 1]
    add_strip(arena, scratch, plan.H, j, vectors, 1, plan.V, gradients, W, add)
    add_strip(arena, bias, 1, j, vectors, 1, plan.V, gradients, b, add)


@jit.device
def weight_gradients(plan: Any, buffers: Any, gradients: Any, share: Any, add: int, worker: int, workers: int) -> None:
    """This worker's strips of the layers, then strips of the output layer until none is left.

    If ``add`` is 0, the sums overwrite the gradients. An LSTM's strip is one group of units; if the workers form one
    team, this worker has computed the group's ``da``. Workers claim strips of the output layer as they become free, so
    that all finish at about the same time.
    """
    U = width(buffers.arena)
    gates, symbols = plan.N // U, plan.Vp // U
    strips = (gates + VECTORS - 1) // VECTORS
    first, last = split(strips, worker, workers)
    for layer in range(plan.L):
        for strip in range(first, last):
            j, end = split(gates, strip, strips)
            layer_strip(plan, buffers, gradients, layer, j, end - j, share, add)
    strips = (symbols + VECTORS - 1) // VECTORS
    task = next_task(buffers.sync)
    while task < strips:
        j, end = split(symbols, task, strips)
        output_strip(plan, buffers, gradients, j, end - j, share, add)
        task = next_task(buffers.sync)


@jit.device
def scatter_gradients(plan: Any, buffers: Any, gradients: Any, worker: int, workers: int) -> None:
    """Add this worker's columns of ``dx`` of each position to the gradient of its symbol's embedding, in order."""
    arena = buffers.arena
    U = width(arena)
    first, last = split((plan.E + U - 1) // U, worker, workers)
    for row in range(plan.T * plan.B):
        source = plan.dx + row * plan.Ep
        target = buffers.places[0, 0] + buffers.symbols[buffers.slot[row]] * plan.E
        for e in range(first * U, last * U, U):
            n = min(U, plan.E - e)
            if n == U:
                store(gradients, target + e, load(gradients, target + e) + load(arena, source + e))
            else:
                more = load_part(gradients, target + e, n) + load(arena, source + e)
                store_part(gradients, target + e, n, more)


@jit.device
def embedding_gradients(plan: Any, buffers: Any, gradients: Any, worker: int, workers: int) -> None:
    """This worker's part of the gradient of the embedding."""
    if embedding_folded(buffers):
        unfold_gradients(plan, buffers, gradients, worker, workers)
    else:
        scatter_gradients(plan, buffers, gradients, worker, workers)


@jit.device
def unfold_gradients(plan: Any, buffers: Any, gradients: Any, worker: int, workers: int) -> None:
    """Add ``dtable Wx.T`` of this worker's symbols to their rows of the embedding's gradient."""
    arena, operands = buffers.arena, buffers.operands
    first, last = split(buffers.counts[0], worker, workers)
    product(
        last - first, 0, plan.Ep // width(arena), plan.N, Rows(operands, plan.dtable_r + first * plan.N, plan.N),
        Packed(operands, plan.wxt), Rows(arena, plan.drows + first * plan.Ep, plan.Ep), 0,
    )  # fmt: skip
    for d in range(first, last):
        at = buffers.places[0, 0] + buffers.symbols[d] * plan.E
        for e in range(plan.E):
            gradients[at + e] += arena[plan.drows + d * plan.Ep + e]
