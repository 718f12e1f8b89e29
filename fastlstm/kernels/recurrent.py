"""The recurrent layers over time, forward and backward.

The lanes of text are dealt to *teams* of workers; a team owns its lanes for the whole sequence, and inside a
team each worker owns groups of units. With many lanes a team is one worker, and nobody waits for anybody between time
steps. With few lanes all workers form one team, which meets at a barrier once a time step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastlstm.kernels import jit
from fastlstm.kernels.functions import sigmoid, tanh
from fastlstm.kernels.simd import load, prefetch_to_write, splat, store, width
from fastlstm.kernels.sync import ALL_WORKERS, barrier
from fastlstm.kernels.tile import ROWS, VECTORS, VECTORS_ONE_ROW, device_pitch, product, split, tile


class Share(NamedTuple):
    """What one worker owns: lanes of its team, vectors of units in it, its scratch, and its team's barrier."""

    first_lane: int
    last_lane: int
    first_unit: int  # in vectors of units
    last_unit: int
    scratch: int
    team_barrier: int
    members: int


@jit.device
def teams_of(workers: int, batch: int) -> int:
    """The most equal teams of which each has a full tile of lanes."""
    teams = 1
    for n in range(2, workers + 1):
        if workers % n == 0 and n * ROWS <= batch:
            teams = n
    return teams


@jit.device
def share_of(plan: Any, lanes: int, worker: int, workers: int, teams: int) -> Any:
    """The `Share` of ``worker`` when ``workers`` form ``teams`` equal teams; ``lanes`` is the vector width."""
    members = workers // teams
    team, member = worker // members, worker % members
    first_lane, last_lane = split(plan.B, team, teams)
    first_unit, last_unit = split(plan.Hp // lanes, member, members)
    return Share(
        first_lane, last_lane, first_unit, last_unit,
        plan.scratch + worker * plan.scratch_size, ALL_WORKERS + 16 * (1 + team), members,
    )  # fmt: skip


@jit.device
def copy_vectors(arena: Any, source: int, target: int, vectors: int) -> None:
    """Copy ``vectors`` neighbouring vectors inside the arena."""
    lanes = width(arena)
    for v in range(vectors):
        store(arena, target + v * lanes, load(arena, source + v * lanes))


@jit.device
def lstm_cell(arena: Any, fed: int, back: int, gates: int, c_before: int, c_after: int, h_after: int) -> None:
    """One group of units of one lane; its gates i, f, o, g get what lies at ``fed`` and, recurrent, at ``back``."""
    lanes = width(arena)
    i = sigmoid(load(arena, fed) + load(arena, back))
    f = sigmoid(load(arena, fed + lanes) + load(arena, back + lanes))
    o = sigmoid(load(arena, fed + 2 * lanes) + load(arena, back + 2 * lanes))
    g = tanh(load(arena, fed + 3 * lanes) + load(arena, back + 3 * lanes))
    c = f * load(arena, c_before) + i * g
    store(arena, gates, i)
    store(arena, gates + lanes, f)
    store(arena, gates + 2 * lanes, o)
    store(arena, gates + 3 * lanes, g)
    store(arena, c_after, c)
    store(arena, h_after, o * tanh(c))


@jit.device
def lstm_cell_backward(arena: Any, gates: int, c_before: int, c_after: int, dh_at: int, dc_at: int) -> None:
    """Gradients of one group of one lane: its gates become their ``da``, ``dc`` moves one step back in time."""
    lanes = width(arena)
    i = load(arena, gates)
    f = load(arena, gates + lanes)
    o = load(arena, gates + 2 * lanes)
    g = load(arena, gates + 3 * lanes)
    dh = load(arena, dh_at)
    tanh_c = tanh(load(arena, c_after))
    dc = load(arena, dc_at) + dh * o * (1.0 - tanh_c * tanh_c)
    store(arena, gates, dc * g * i * (1.0 - i))
    store(arena, gates + lanes, dc * load(arena, c_before) * f * (1.0 - f))
    store(arena, gates + 2 * lanes, dh * tanh_c * o * (1.0 - o))
    store(arena, gates + 3 * lanes, dc * i * (1.0 - g * g))
    store(arena, dc_at, dc * f)


@jit.device
def expect_cell(plan: Any, arena: Any, a: int, c: int, h: int, r: int, unit: int, units: int) -> None:
    """Prefetch what the next cells of row ``r`` will read and write, while a tile is computed.

    These lines were last seen a sequence ago, and stores that miss the cache wait for each other.
    """
    lanes = width(arena)
    after = (r + plan.B) * plan.Hp + unit * lanes
    if plan.G == 4:
        for v in range(4 * units):
            prefetch_to_write(arena, a + r * plan.N + (4 * unit + v) * lanes)
        prefetch_to_write(arena, c + after)
    prefetch_to_write(arena, h + after)


@jit.device
def forward_layer(plan: Any, buffers: Any, layer: int, share: Any) -> None:
    """This worker's share of a layer, all time steps: gates, c and h of its lanes and units.

    The input's part of the gates is in ``table`` (layer 0) or already in ``a`` (above). Each tile leaves ``h Wh``
    in the scratch, and the cell adds the two while the latter is in the L1 cache.
    """
    arena = buffers.arena
    lanes = width(arena)
    B, H, Hp, G, N = plan.B, plan.H, plan.Hp, plan.G, plan.N
    h, c = plan.h + layer * plan.h_size, plan.c + layer * plan.h_size
    a, wh = plan.a + layer * plan.a_size, plan.wh + layer * plan.wh_size
    row, apart = VECTORS_ONE_ROW * lanes, device_pitch(H) * lanes
    owned = share.last_lane - share.first_lane
    tiles = (owned + ROWS - 1) // ROWS
    height, taller = owned // tiles, owned % tiles  # the first tiles have a row more; no division below here
    widest = (VECTORS_ONE_ROW if owned == 1 else VECTORS) // G
    for t in range(plan.T):
        for unit in range(share.first_unit, share.last_unit, widest):
            units = min(widest, share.last_unit - unit)
            first = t * B + share.first_lane
            for n in range(tiles):
                rows = height + (1 if n < taller else 0)
                if unit + widest < share.last_unit:
                    for r in range(first, first + rows):
                        expect_cell(plan, arena, a, c, h, r, unit + widest, units)
                tile(
                    rows, units * G, H, arena, h + first * Hp, Hp, 1,
                    arena, wh + unit * G * apart, apart, lanes, arena, share.scratch, row, 0,
                )  # fmt: skip
                for r in range(first, first + rows):
                    fed_row = plan.table + buffers.slot[r] * N if layer == 0 else a + r * N
                    for u in range(units):
                        fed = fed_row + (unit + u) * G * lanes
                        back = share.scratch + (r - first) * row + u * G * lanes
                        before = r * Hp + (unit + u) * lanes
                        after = before + B * Hp
                        if G == 4:
                            lstm_cell(arena, fed, back, a + before * 4, c + before, c + after, h + after)
                        else:
                            store(arena, h + after, tanh(load(arena, fed) + load(arena, back)))
                first += rows
        barrier(buffers.sync, share.team_barrier, share.members)


@jit.device
def carry_state(plan: Any, buffers: Any, layer: int, share: Any) -> None:
    """Copy this worker's share of entry T of a layer's h and c to entry 0."""
    arena = buffers.arena
    lanes, after = width(arena), plan.T * plan.B * plan.Hp
    for b in range(share.first_lane, share.last_lane):
        at = layer * plan.h_size + b * plan.Hp + share.first_unit * lanes
        copy_vectors(arena, plan.h + at + after, plan.h + at, share.last_unit - share.first_unit)
        if plan.G == 4:
            copy_vectors(arena, plan.c + at + after, plan.c + at, share.last_unit - share.first_unit)


@jit.device
def backward_layer(plan: Any, buffers: Any, layer: int, share: Any) -> None:
    """This worker's share of BPTT: ``a`` becomes ``da``, ``dy`` gains what comes back through h."""
    arena = buffers.arena
    lanes = width(arena)
    B, Hp, N = plan.B, plan.Hp, plan.N
    h, c = plan.h + layer * plan.h_size, plan.c + layer * plan.h_size
    a, wht = plan.a + layer * plan.a_size, plan.wht + layer * plan.wht_size
    for b in range(share.first_lane, share.last_lane):
        for j in range(share.first_unit, share.last_unit):
            store(arena, plan.dc + b * Hp + j * lanes, splat(arena, 0.0))
    for t in range(plan.T - 1, -1, -1):
        for b in range(share.first_lane, share.last_lane):
            now = (t * B + b) * Hp
            for j in range(share.first_unit, share.last_unit):
                before = now + j * lanes
                after = before + B * Hp
                gates = a + (t * B + b) * N + j * plan.G * lanes
                if plan.G == 4:
                    lstm_cell_backward(
                        arena, gates, c + before, c + after, plan.dy + before, plan.dc + b * Hp + j * lanes
                    )
                else:
                    y = load(arena, h + after)
                    store(arena, gates, load(arena, plan.dy + before) * (1.0 - y * y))
        barrier(buffers.sync, share.team_barrier, share.members)
        if t > 0:
            here = t * B + share.first_lane
            product(
                share.last_lane - share.first_lane, share.first_unit, share.last_unit, N,
                arena, a + here * N, N, arena, wht, arena, plan.dy + (here - B) * Hp, Hp, 1,
            )  # fmt: skip
