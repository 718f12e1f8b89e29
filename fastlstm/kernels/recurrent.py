"""The recurrent layers over time, forward and backward, for any cell.

The lanes of text are partitioned among *teams* of workers. A team owns its lanes for the whole sequence, and inside a
team each worker owns groups of units. With many lanes a team is one worker, and no worker waits between time steps.
With few lanes all workers form one team, which synchronises at a barrier in every time step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fastlstm.kernels import jit
from fastlstm.kernels.cells import backward, expect, expect_backward, forward
from fastlstm.kernels.cells.places import Places
from fastlstm.kernels.dropout import embedding_folded
from fastlstm.kernels.partition import split
from fastlstm.kernels.simd.arithmetic import splat
from fastlstm.kernels.simd.memory import copy_vectors, round_vectors, store
from fastlstm.kernels.simd.vector import terms, width
from fastlstm.kernels.sync import ALL_WORKERS, barrier
from fastlstm.kernels.tile.call import tile
from fastlstm.kernels.tile.operands import Elements, Packed, Rows, Vectors
from fastlstm.kernels.tile.product import product
from fastlstm.kernels.tile.shape import ROWS, VECTORS, VECTORS_ONE_ROW, device_pitch


class Share(NamedTuple):
    """What one worker owns: its team's lanes, its vectors of units, its scratch, and its team's barrier."""

    first_lane: int
    last_lane: int
    first_unit: int  # in vectors of units
    last_unit: int
    scratch: int
    strip: int
    team_barrier: int
    members: int


@jit.device
def teams_of(workers: int, batch: int) -> int:
    """The largest number of equal teams such that each has at least ``ROWS`` lanes, a full tile; else 1."""
    teams = 1
    for n in range(2, workers + 1):
        if workers % n == 0 and n * ROWS <= batch:
            teams = n
    return teams


@jit.device
def share_of(plan: Any, U: int, worker: int, workers: int, teams: int) -> Any:
    """The `Share` of ``worker`` when ``workers`` form ``teams`` equal teams; ``U`` is the vector width."""
    members = workers // teams
    team, member = worker // members, worker % members
    first_lane, last_lane = split(plan.B, team, teams)
    first_unit, last_unit = split(plan.Hp // U, member, members)
    return Share(
        first_lane, last_lane, first_unit, last_unit,
        plan.scratch + worker * plan.scratch_size, plan.strip + worker * plan.strip_size,
        ALL_WORKERS + 16 * (1 + team), members,
    )  # fmt: skip


class Layer(NamedTuple):
    """What the places of a layer's data follow from: sizes, and the starts of its buffers.

    Kernels read it from the plan once. They would read the plan itself again after every store, because the compiler
    cannot know that no store changes it.
    """

    batch: int
    width: int
    units: int
    columns: int
    gates_of_unit: int
    separate: int
    part: int
    gates: int
    gates_h: int
    da: int
    da_h: int
    h: int
    h_r: int
    bias_h: int
    dy: int
    carry: int


@jit.device
def layer_of(plan: Any, U: int, layer: int, share: Any) -> Any:
    """The `Layer` of index ``layer``; ``U`` is the vector width.

    Gates that no backward pass needs are all saved in one place of the worker's scratch, which stays in the cache.
    """
    columns, gates_of_unit = plan.N, plan.G
    gates, gates_h = plan.a + layer * plan.a_size, plan.a_h + layer * plan.a_h_size
    if plan.wht_size == 0:
        columns, gates_of_unit = 0, 0
        gates = gates_h = share.scratch + ROWS * VECTORS_ONE_ROW * U
    return Layer(
        plan.B, U, plan.Hp, columns, gates_of_unit, plan.R, plan.L * plan.h_size, gates, gates_h,
        plan.da + layer * plan.da_size, plan.da_h + layer * plan.da_h_size,
        plan.h + layer * plan.h_size, plan.h_r + layer * plan.h_r_size, plan.bias_h + layer * plan.bias_h_size,
        plan.dy, plan.carry,
    )  # fmt: skip


@jit.device
def expect_row(buffers: Any, layer: Any, t: int, b: int, unit: int, units: int) -> None:
    """Prefetch what the next cells of lane ``b`` will write, while a tile is computed.

    These cache lines were last used in the previous sequence, and stores that miss the cache wait for each other.
    """
    for u in range(unit, unit + units):
        expect(buffers.cell, buffers.arena, places_of(layer, t, b, u, 0, 0))


@jit.device
def places_of(layer: Any, t: int, b: int, unit: int, inputs: int, recurrent: int) -> Any:
    """The `Places` of vector ``unit`` of the units of lane ``b`` at time step ``t``."""
    column, r = unit * layer.width, t * layer.batch + b
    state = r * layer.units + column
    gates = r * layer.columns + column * layer.gates_of_unit
    return Places(
        inputs=inputs,
        recurrent=recurrent,
        bias_h=layer.bias_h + column * layer.separate,
        gates=layer.gates + gates,
        gates_h=layer.gates_h + gates,
        da=layer.da + gates,
        da_h=layer.da_h + gates,
        before=layer.h + state,
        after=layer.h + state + layer.batch * layer.units,
        after_r=layer.h_r + state + layer.batch * layer.units,
        part=layer.part,
        dh=layer.dy + state,
        carry=layer.carry + b * layer.units + column,
    )


@jit.device
def restart(plan: Any, buffers: Any, layer: int, t: int, share: Any) -> None:
    """Replace this worker's part of the state after time step ``t``, in the lanes that restart there."""
    arena, vectors = buffers.arena, share.last_unit - share.first_unit
    column = share.first_unit * width(arena)
    for b in range(share.first_lane, share.last_lane):
        if buffers.restarts[t * plan.B + b]:
            row = ((t + 1) * plan.B + b) * plan.Hp + column
            for part in range(plan.S):
                block = part * plan.L + layer
                start = plan.start + block * plan.start_size + column
                copy_vectors(arena, start, plan.h + block * plan.h_size + row, vectors)
            h, rounded = plan.h + layer * plan.h_size + row, plan.h_r + layer * plan.h_r_size + row
            round_vectors(arena, h, buffers.operands, rounded, vectors)


@jit.inlined
def forward_layer(plan: Any, buffers: Any, layer: int, share: Any) -> None:
    """This worker's share of a layer over all time steps: gates and state of its lanes and units.

    The input parts of the pre-activations are in ``table`` (layer 0 without dropout) or in ``a``. Each tile writes
    ``h Wh`` to the scratch, and the cell adds the two while ``h Wh`` is in the first-level cache.
    """
    arena, operands = buffers.arena, buffers.operands
    U, P = width(arena), terms(operands)
    B, H, Hp, G, N = plan.B, plan.H, plan.Hp, plan.G, plan.N
    h, a = plan.h_r + layer * plan.h_r_size, plan.a + layer * plan.a_size
    wh = plan.wh + layer * plan.wh_size
    folded = layer == 0 and embedding_folded(buffers)
    row, apart, groups = VECTORS_ONE_ROW * U, device_pitch(H, P) * U * P, (H + P - 1) // P
    owned = share.last_lane - share.first_lane
    tiles = (owned + ROWS - 1) // ROWS
    height, taller = owned // tiles, owned % tiles  # the first tiles have one row more; no divisions below
    widest = (VECTORS_ONE_ROW if owned == 1 else VECTORS) // G
    restarting = buffers.reading[0] != 0
    table, slot, here, scratch = plan.table, buffers.slot, layer_of(plan, U, layer, share), share.scratch
    for t in range(plan.T):
        for unit in range(share.first_unit, share.last_unit, widest):
            units = min(widest, share.last_unit - unit)
            first = share.first_lane
            for n in range(tiles):
                rows = height + (1 if n < taller else 0)
                if unit + widest < share.last_unit:
                    for b in range(first, first + rows):
                        expect_row(buffers, here, t, b, unit + widest, units)
                tile(
                    rows, units * G, groups, Elements(operands, h + (t * B + first) * Hp, Hp, P),
                    Vectors(operands, wh + unit * G * apart, apart, U * P), Rows(arena, scratch, row), 0,
                )  # fmt: skip
                for b in range(first, first + rows):
                    r = t * B + b
                    inputs = table + slot[r] * N if folded else a + r * N
                    recurrent = scratch + (b - first) * row
                    for u in range(units):
                        column, block = (unit + u) * G * U, u * G * U
                        at = places_of(here, t, b, unit + u, inputs + column, recurrent + block)
                        forward(buffers.cell, arena, at)
                        round_vectors(arena, at.after, operands, at.after_r, 1)
                first += rows
        if restarting:
            restart(plan, buffers, layer, t, share)
        barrier(buffers.sync, share.team_barrier, share.members)


@jit.inlined
def carry_state(plan: Any, buffers: Any, layer: int, share: Any) -> None:
    """Copy this worker's share of entry T of a layer's state to entry 0."""
    arena, vectors = buffers.arena, share.last_unit - share.first_unit
    after = plan.T * plan.B * plan.Hp
    for b in range(share.first_lane, share.last_lane):
        first = b * plan.Hp + share.first_unit * width(arena)
        for part in range(plan.S):
            at = plan.h + (part * plan.L + layer) * plan.h_size + first
            copy_vectors(arena, at + after, at, vectors)
        h, rounded = plan.h + layer * plan.h_size + first, plan.h_r + layer * plan.h_r_size + first
        round_vectors(arena, h, buffers.operands, rounded, vectors)


@jit.device
def backward_layer(plan: Any, buffers: Any, layer: int, share: Any) -> None:
    """This worker's share of back-propagation through time: ``da``, and ``da_h Wh.T`` added to ``dy``."""
    arena, operands = buffers.arena, buffers.operands
    U = width(arena)
    B, Hp, N = plan.B, plan.Hp, plan.N
    da_h, wht = plan.da_h + layer * plan.da_h_size, plan.wht + layer * plan.wht_size
    here = layer_of(plan, U, layer, share)
    for b in range(share.first_lane, share.last_lane):
        for j in range(share.first_unit, share.last_unit):
            store(arena, plan.carry + b * Hp + j * U, splat(arena, 0.0))
    for t in range(plan.T - 1, -1, -1):
        for b in range(share.first_lane, share.last_lane):
            for j in range(share.first_unit, share.last_unit):
                if b + 1 < share.last_lane:
                    expect_backward(buffers.cell, arena, operands, places_of(here, t, b + 1, j, 0, 0))
                elif t > 0:
                    expect_backward(buffers.cell, arena, operands, places_of(here, t - 1, share.first_lane, j, 0, 0))
                backward(buffers.cell, arena, operands, places_of(here, t, b, j, 0, 0))
        barrier(buffers.sync, share.team_barrier, share.members)
        if t > 0:
            row = t * B + share.first_lane
            product(
                share.last_lane - share.first_lane, share.first_unit, share.last_unit, N,
                Rows(operands, da_h + row * N, N), Packed(operands, wht),
                Rows(arena, plan.dy + (row - B) * Hp, Hp), 1,
            )  # fmt: skip
