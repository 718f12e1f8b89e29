"""Weight gradients: sums over all T*B rows, partitioned among the workers by columns, never by rows.

The unit of work is a strip of up to four vectors of columns. ``da`` of the strip is packed in blocks of
`fastlstm.kernels.workspace.REDUCTION` rows; while a block is in the first- or second-level cache, the transpose of
``[x; h]`` is multiplied by it. The gradients of the bias and the table are summed in the same pass. Every sum runs over
the rows in order, so it does not depend on the number of workers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastlstm.kernels import jit
from fastlstm.kernels.dropout import dropped, embedding_folded
from fastlstm.kernels.pack import column
from fastlstm.kernels.partition import split
from fastlstm.kernels.simd.arithmetic import splat
from fastlstm.kernels.simd.memory import copy_vectors, load, load_part, prefetch, store, store_part
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.sync import next_task
from fastlstm.kernels.tile.call import tile
from fastlstm.kernels.tile.operands import Elements, Packed, Rows, Vectors
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.tile.shape import ROWS, VECTORS
from fastlstm.kernels.workspace import REDUCTION


class Strips(NamedTuple):
    """An operand of `strip_product`: unit ``n*ROWS + u`` of row r is at ``at + n*strip + u + r*row``."""

    at: int
    strip: int
    row: int
    units: int


@jit.device
def transpose_states(plan: Any, buffers: Any, worker: int, workers: int) -> None:
    """Copy this worker's rows of every layer's h into strips of ``ROWS`` units: operand A of the tiles below.

    Whole vectors are stored for ``ROWS`` elements; the excess elements are overwritten by the rows that follow. The
    last rows are copied element by element, because the memory after them belongs to another worker or buffer.
    """
    arena, H, Hp = buffers.arena, plan.H, plan.Hp
    U = width(arena)
    length = (plan.T + 1) * plan.B
    first, last = split(length, worker, workers)
    stored = (ROWS + U - 1) // U * U
    careful = max(first, last - (stored + ROWS - 1) // ROWS)
    strips = (H + ROWS - 1) // ROWS
    for layer in range(plan.L):
        h, ht = plan.h + layer * plan.h_size, plan.ht + layer * plan.ht_size
        for start in range(first, last, 64):  # few enough rows to stay in the cache for all strips
            end = min(start + 64, last)
            for strip in range(strips):
                read, write = h + strip * ROWS, ht + strip * length * ROWS
                for k in range(start, min(end, careful)):
                    for u in range(0, ROWS, U):
                        store(arena, write + k * ROWS + u, load(arena, read + k * Hp + u))
                for k in range(max(start, careful), end):
                    for u in range(ROWS):
                        arena[write + k * ROWS + u] = arena[read + k * Hp + u]


@jit.device
def states_before(plan: Any, layer: int) -> Strips:
    """The h that a layer reads with its recurrent weights: that of the time step before, from entry 0 on."""
    return Strips(plan.ht + layer * plan.ht_size, (plan.T + 1) * plan.B * ROWS, ROWS, plan.H)


@jit.device
def strips_of_inputs(plan: Any, buffers: Any, place: int) -> Strips:
    """What a place reads: h of the layer below at the same time step, or ``masked``.

    The latter is not transposed: its rows are an odd number of vectors apart, so that a tile reads it almost as fast.
    """
    if dropped(buffers, place):
        return Strips(plan.masked + place * plan.masked_size, ROWS, plan.M, plan.E if place == 0 else plan.H)
    return Strips(plan.ht + (place - 1) * plan.ht_size + plan.B * ROWS, (plan.T + 1) * plan.B * ROWS, ROWS, plan.H)


@jit.device
def expect_rows(arena: Any, source: int, row: int, first: int, last: int, vectors: int) -> None:
    """Prefetch rows ``first .. last`` of ``vectors`` vectors: their stride is too large for the hardware prefetcher."""
    for k in range(first, last):
        for v in range(vectors):
            prefetch(arena, source + k * row + v * width(arena))


@jit.device
def strip_product(
    arena: Any, inputs: Any, start: int, depth: int, vectors: int, strip: int, sums: int, add: int, following: int,
    row: int,
) -> None:  # fmt: skip
    """``sums (units, strip) += inputs[start :].T da[start :]`` over ``depth`` rows of a packed strip.

    Meanwhile the rows that will be packed next are prefetched: from ``following`` on, ``row`` elements apart.
    """
    U = width(arena)
    units = inputs.units
    at = inputs.at + start * inputs.row
    tiles = (units + ROWS - 1) // ROWS
    for n in range(tiles):
        first, last = split(depth, n, tiles)
        expect_rows(arena, following, row, first, last, vectors)
        tile(
            min(ROWS, units - n * ROWS), vectors, depth, Elements(arena, at + n * inputs.strip, 1, inputs.row),
            Vectors(arena, strip, U, vectors * U), Rows(arena, sums + n * ROWS * vectors * U, vectors * U), add,
        )  # fmt: skip


@jit.device
def add_vectors(arena: Any, source: int, target: int, vectors: int) -> None:
    """Add ``vectors`` contiguous vectors of the arena at ``source`` to those at ``target``."""
    U = width(arena)
    for v in range(vectors):
        store(arena, target + v * U, load(arena, target + v * U) + load(arena, source + v * U))


@jit.device
def pack_row(arena: Any, source: int, vectors: int, strip: int, bias: int) -> None:
    """Copy one row of ``vectors`` vectors to ``strip``, and add it to ``bias``."""
    copy_vectors(arena, source, strip, vectors)
    add_vectors(arena, source, bias, vectors)


@jit.device
def pack_strip(arena: Any, source: int, row: int, depth: int, vectors: int, strip: int, bias: int) -> None:
    """Pack ``depth`` rows, ``row`` elements apart, into ``strip``, and add them to ``bias``."""
    for k in range(depth):
        pack_row(arena, source + k * row, vectors, strip + k * vectors * width(arena), bias)


@jit.device
def pack_and_scatter(
    plan: Any, buffers: Any, source: int, inputs: int, start: int, depth: int, j: int, vectors: int, strip: int,
    bias: int,
) -> None:  # fmt: skip
    """`pack_strip` for a folded layer 0; also adds each row at ``inputs`` to its symbol's gradient in ``dtable``."""
    arena = buffers.arena
    U = width(arena)
    for k in range(depth):
        pack_row(arena, source + k * plan.N, vectors, strip + k * vectors * U, bias)
        table_row = plan.dtable + buffers.slot[start + k] * plan.N + j * U
        add_vectors(arena, inputs + k * plan.N, table_row, vectors)


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
    plan: Any, buffers: Any, gradients: Any, layer: int, j: int, vectors: int, scratch: int, add: int
) -> None:
    """Gradients of one strip of a layer's weights and biases, and of the table if it is folded into the layer.

    The gradient of the recurrent weights is computed from ``da_h``, that of the input weights from ``da``. Both are the
    same strip unless there are separate gates.
    """
    arena = buffers.arena
    U = width(arena)
    G, H, B, N = plan.G, plan.H, plan.B, plan.N
    X = plan.E if layer == 0 else H
    folded = layer == 0 and embedding_folded(buffers)
    sums_x = scratch
    sums_h = sums_x + X * vectors * U
    bias = sums_h + H * vectors * U
    bias_h = bias + vectors * U * plan.separate
    strip = bias_h + vectors * U
    clear(arena, bias, vectors)
    clear(arena, bias_h, vectors)
    if folded:
        for d in range(buffers.counts[0]):
            clear(arena, plan.dtable + d * N + j * U, vectors)
    for start in range(0, plan.T * B, REDUCTION):
        depth = min(REDUCTION, plan.T * B - start)
        more = 1 if start > 0 else 0
        at = layer * plan.a_size + start * N + j * U
        source, inputs = plan.a_h + at, plan.a + at
        following = source + depth * N
        if folded:
            pack_and_scatter(plan, buffers, source, inputs, start, depth, j, vectors, strip, bias_h)
        else:
            pack_strip(arena, source, N, depth, vectors, strip, bias_h)
        strip_product(arena, states_before(plan, layer), start, depth, vectors, strip, sums_h, more, following, N)
        if not folded:
            if plan.separate:
                pack_strip(arena, inputs, N, depth, vectors, strip, bias)
            strip_product(
                arena, strips_of_inputs(plan, buffers, layer), start, depth, vectors, strip, sums_x, more, following, N
            )
    if folded:
        table_strip(plan, buffers, j, vectors, sums_x, bias)
    W, b, b_h = buffers.places[layer + 1, 0], buffers.places[layer + 1, 1], buffers.places[layer + 1, 2]
    add_strip(arena, sums_x, X, j, vectors, G, H, gradients, W, add)
    add_strip(arena, sums_h, H, j, vectors, G, H, gradients, W + X * G * H, add)
    add_strip(arena, bias, 1, j, vectors, G, H, gradients, b, add)
    if plan.separate:
        add_separate_bias(plan, arena, bias_h, j, vectors, gradients, b_h, add)


@jit.device
def table_strip(plan: Any, buffers: Any, j: int, vectors: int, sums: int, bias: int) -> None:
    """``rows.T dtable`` of one strip, into ``sums``; with separate gates also ``dtable`` summed over symbols: bias."""
    arena = buffers.arena
    U, symbols = width(arena), buffers.counts[0]
    if plan.separate:
        for d in range(symbols):
            add_vectors(arena, plan.dtable + d * plan.N + j * U, bias, vectors)
    for m in range(0, plan.E, ROWS):
        tile(
            min(ROWS, plan.E - m), vectors, symbols, Elements(arena, plan.rows + m, 1, plan.E),
            Vectors(arena, plan.dtable + j * U, U, plan.N), Rows(arena, sums + m * vectors * U, vectors * U), 0,
        )  # fmt: skip


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
def output_strip(plan: Any, buffers: Any, gradients: Any, j: int, vectors: int, scratch: int, add: int) -> None:
    """Gradients of one strip of the output layer's weights and bias."""
    arena = buffers.arena
    U = width(arena)
    bias = scratch + plan.H * vectors * U
    strip = bias + vectors * U
    clear(arena, bias, vectors)
    for start in range(0, plan.T * plan.B, REDUCTION):
        depth = min(REDUCTION, plan.T * plan.B - start)
        more = 1 if start > 0 else 0
        source = plan.p + start * plan.Vp + j * U
        following = source + depth * plan.Vp
        pack_strip(arena, source, plan.Vp, depth, vectors, strip, bias)
        inputs = strips_of_inputs(plan, buffers, plan.L)
        strip_product(arena, inputs, start, depth, vectors, strip, scratch, more, following, plan.Vp)
    W, b = buffers.places[plan.L + 1, 0], buffers.places[plan.L + 1, 1]
    add_strip(arena, scratch, plan.H, j, vectors, 1, plan.V, gradients, W, add)
    add_strip(arena, bias, 1, j, vectors, 1, plan.V, gradients, b, add)


@jit.device
def weight_gradients(
    plan: Any, buffers: Any, gradients: Any, scratch: int, add: int, worker: int, workers: int
) -> None:
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
            layer_strip(plan, buffers, gradients, layer, j, end - j, scratch, add)
    strips = (symbols + VECTORS - 1) // VECTORS
    task = next_task(buffers.sync)
    while task < strips:
        j, end = split(symbols, task, strips)
        output_strip(plan, buffers, gradients, j, end - j, scratch, add)
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
    arena = buffers.arena
    U = width(arena)
    inputs = (plan.E + U - 1) // U
    first, last = split(buffers.counts[0], worker, workers)
    product(
        last - first, 0, inputs, plan.N, Rows(arena, plan.dtable + first * plan.N, plan.N), Packed(arena, plan.wxt),
        Rows(arena, plan.drows + first * inputs * U, inputs * U), 0,
    )  # fmt: skip
    for d in range(first, last):
        at = buffers.places[0, 0] + buffers.symbols[d] * plan.E
        for e in range(plan.E):
            gradients[at + e] += arena[plan.drows + d * inputs * U + e]
