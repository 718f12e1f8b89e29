"""The entry points: a training step and sampling, each one compiled function that all workers run together.

A step is a sequence of phases, with a barrier wherever a phase reads what another worker has written. A bit set selects
the phases to run. So one compiled function serves forward passes, gradients, training, and the profile that times each
phase alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.draw import draw
from fastlstm.kernels.dropout import dropped, embedding_folded, mask_inputs
from fastlstm.kernels.gradients import embedding_gradients, transpose_states, weight_gradients
from fastlstm.kernels.output import (
    input_gradients,
    logits,
    predict,
    predict_backward,
    project_inputs,
    project_symbols,
)
from fastlstm.kernels.pack import enter, gather_rows, index_symbols, pack_model, store_state
from fastlstm.kernels.partition import split
from fastlstm.kernels.recurrent import backward_layer, carry_state, forward_layer, share_of, teams_of
from fastlstm.kernels.simd.vector import width
from fastlstm.kernels.sync import ALL_WORKERS, barrier, forget_tasks, meet
from fastlstm.kernels.update import norm_of, sum_squares, update

#: The phases of a step, each a bit of the argument ``phases`` of `step`, in the order of execution.
CLEAR, PACK, ENTER, TABLE, LAYERS, INPUTS, OUTPUT = 1, 2, 4, 8, 16, 32, 64
OUTPUT_BACK, TRANSPOSE, LAYERS_BACK, INPUTS_BACK, WEIGHTS, EMBEDDING = 128, 256, 512, 1024, 2048, 4096
NORM, UPDATE = 8192, 16384

#: Together, the phases before the first product; symbol by symbol, the weights are packed once.
PREPARE = PACK | ENTER
FORWARD = PREPARE | TABLE | LAYERS | INPUTS | OUTPUT
BACKWARD = OUTPUT_BACK | TRANSPOSE | LAYERS_BACK | INPUTS_BACK | WEIGHTS | EMBEDDING

#: Returned by `step` in place of nats when ids are out of range and nothing has been computed.
BAD_IDS = -np.inf


@jit.device
def clear_embedding(buffers: Any, gradients: Any, worker: int, workers: int) -> None:
    """Clear this worker's part of the embedding's gradient: a step adds only to the rows of its symbols."""
    first, last = split(buffers.places[1, 0], worker, workers)
    for i in range(first, last):
        gradients[i] = 0


@jit.device
def forward_phases(
    phases: int,
    plan: Any,
    buffers: Any,
    parameters: Any,
    x: Any,
    y: Any,
    state: Any,
    share: Any,
    worker: int,
    workers: int,
    teams: int,
) -> None:
    """Forward pass: from parameters and symbols to activations, probabilities, nats and the state carried out."""
    sync = buffers.sync
    if phases & PACK:
        pack_model(plan, buffers, parameters, worker, workers)
    if phases & ENTER:
        enter(plan, buffers, parameters, x, state, worker, workers)
    if phases & PREPARE:
        barrier(sync, ALL_WORKERS, workers)
    folded = embedding_folded(buffers)
    if folded and phases & TABLE:
        project_symbols(plan, buffers, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
    for layer in range(plan.L):
        if not (folded and layer == 0) and phases & INPUTS:
            if dropped(buffers, layer):
                first, last = split(plan.T * plan.B, worker, workers)
                mask_inputs(plan, buffers, layer, first, last, worker)
                barrier(sync, ALL_WORKERS, workers)
            project_inputs(plan, buffers, layer, worker, workers, teams)
            barrier(sync, ALL_WORKERS, workers)
        if phases & LAYERS:
            forward_layer(plan, buffers, layer, share)
            barrier(sync, ALL_WORKERS, workers)
    if phases & OUTPUT:
        store_state(plan, buffers, state, worker, workers)
        predict(plan, buffers, y, worker, workers)
        barrier(sync, ALL_WORKERS, workers)


@jit.device
def backward_phases(
    phases: int, plan: Any, buffers: Any, gradients: Any, y: Any, scale: Any, share: Any, worker: int, workers: int
) -> None:
    """Backward pass: from probabilities to ``gradients``."""
    sync = buffers.sync
    if phases & OUTPUT_BACK:
        predict_backward(plan, buffers, y, scale, worker, workers)
    if phases & TRANSPOSE:
        transpose_states(plan, buffers, worker, workers)
    if worker == 0:
        forget_tasks(sync)
    barrier(sync, ALL_WORKERS, workers)
    for layer in range(plan.L - 1, -1, -1):
        if phases & LAYERS_BACK:
            backward_layer(plan, buffers, layer, share)
            barrier(sync, ALL_WORKERS, workers)
        if not (layer == 0 and embedding_folded(buffers)) and phases & INPUTS_BACK:
            input_gradients(plan, buffers, layer, worker, workers)
            barrier(sync, ALL_WORKERS, workers)
    if phases & WEIGHTS:
        weight_gradients(plan, buffers, gradients, share, 0 if phases & CLEAR else 1, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
    if phases & EMBEDDING:
        embedding_gradients(plan, buffers, gradients, worker, workers)
        barrier(sync, ALL_WORKERS, workers)


@jit.device
def in_range(ids: Any, symbols: int) -> bool:
    """Whether every id is from 0 to ``symbols - 1``; without an early exit, so that the loop is vectorised."""
    wrong = 0
    for k in range(len(ids)):
        wrong |= (ids[k] < 0) | (ids[k] >= symbols)
    return wrong == 0


@jit.kernel
def step(
    call: int, seat: int, wanted: int, patience: int, phases: int, plans: Any, buffers: Any, parameters: Any,
    gradients: Any, slots: Any, x: Any, y: Any, state: Any, scale: Any, rule: Any,
) -> float:  # fmt: skip
    """One worker's share of a training step.

    Parameters
    ----------
    call, seat, wanted, patience : arguments of `fastlstm.kernels.sync.meet`, which assigns worker numbers.
    phases : the phases to run: ``FORWARD``, ``BACKWARD``, ``UPDATE`` and so on, or a union of them. With ``CLEAR`` the
        backward phases overwrite the gradients, else they add to them.
    plans, buffers : of a `fastlstm.kernels.workspace.Workspace`.
    parameters, gradients : flat arrays, in, in/out. slots : (slots, parameters), in/out.
    x, y : (T*B,) int32. state : (S, L, B, H), in/out.
    scale : factor of the nats in the loss that is differentiated.
    rule : `fastlstm.optimizers.UpdateRule`. Its bound ``clip_norm`` is applied to the norm in ``buffers.norm``, which
        ``NORM`` computes. After ``UPDATE``, ``buffers.broken[0]`` is 0 if all values were finite, else NaN.

    Returns
    -------
    Nats summed over the T*B predicted symbols (the same for every worker), or ``BAD_IDS``.
    """
    plan, sync = plans[0], buffers.sync
    worker, workers = meet(sync, call, seat, wanted, patience)
    if worker < 0:
        return np.nan
    if not (in_range(x, plan.V) and in_range(y, plan.V)):
        return BAD_IDS
    teams = teams_of(workers, plan.B)
    share = share_of(plan, width(buffers.arena), worker, workers, teams)
    if phases & CLEAR:
        clear_embedding(buffers, gradients, worker, workers)
    forward_phases(phases, plan, buffers, parameters, x, y, state, share, worker, workers, teams)
    if phases & BACKWARD:
        backward_phases(phases, plan, buffers, gradients, y, scale, share, worker, workers)
    norm = buffers.norm[0]
    if phases & NORM:
        sum_squares(gradients, buffers.partial, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
        norm = norm_of(buffers.partial)
        if worker == 0:
            buffers.norm[0] = norm
    if phases & UPDATE:
        buffers.broken[worker] = update(parameters, gradients, slots, buffers.spans, rule, norm, worker, workers)
    barrier(sync, ALL_WORKERS, workers)  # no worker returns before all are done: see `workers.Workers.run`
    if worker == 0 and phases & UPDATE:
        for other in range(1, workers):
            buffers.broken[0] += buffers.broken[other]
    nats = 0.0
    for row in range(len(buffers.nats)):
        nats += buffers.nats[row]
    return nats


@jit.inlined
def read_symbols(
    plan: Any, buffers: Any, parameters: Any, symbols: Any, share: Any, worker: int, workers: int, teams: int
) -> None:
    """One time step of all layers; the new state is copied to entry 0, where the next step reads it."""
    if not plan.all_symbols:
        if worker == 0:
            index_symbols(plan, buffers, symbols)
            gather_rows(plan, buffers, parameters)
        barrier(buffers.sync, ALL_WORKERS, workers)
        project_symbols(plan, buffers, worker, workers)
        barrier(buffers.sync, ALL_WORKERS, workers)
    for layer in range(plan.L):
        if layer > 0:
            if teams > 1:  # a team's lanes need not be the rows of its workers here
                barrier(buffers.sync, ALL_WORKERS, workers)
            project_inputs(plan, buffers, layer, worker, workers, teams)
            if teams > 1:
                barrier(buffers.sync, ALL_WORKERS, workers)
        forward_layer(plan, buffers, layer, share)
        carry_state(plan, buffers, layer, share)


@jit.inlined
def draw_symbols(
    plan: Any, buffers: Any, uniforms: Any, ids: Any, drawing: Any, worker: int, workers: int, teams: int
) -> None:
    """Draw the next symbols of this worker's lanes into ``ids`` (B,); the next time step reads them."""
    vectors = plan.Vp // width(buffers.arena)
    first, last = split(plan.B, worker, workers)
    if teams == 1:
        first_vector, last_vector = split(vectors, worker, workers)
        logits(plan, buffers, 0, plan.B, first_vector, last_vector)
    barrier(buffers.sync, ALL_WORKERS, workers)
    if teams > 1:
        logits(plan, buffers, first, last - first, 0, vectors)
    for b in range(first, last):
        drawn = draw(buffers.arena, plan.p + b * plan.Vp, plan.V, plan.Vp, uniforms[b], drawing)
        if drawn < 0:
            buffers.counts[1] = 1
        ids[b] = max(drawn, 0)
        if plan.all_symbols:
            buffers.slot[b] = ids[b]
    barrier(buffers.sync, ALL_WORKERS, workers)


@jit.kernel
def generate(
    call: int, seat: int, wanted: int, patience: int, plans: Any, buffers: Any, parameters: Any, current: Any,
    state: Any, uniforms: Any, ids: Any, drawing: Any,
) -> int:  # fmt: skip
    """Draw n symbols, at least one, one after another in each of B lanes (a network with T = 1).

    One worker's share, as in `step`. ``buffers.counts[1]`` is set to 1 if logits are not finite.

    Parameters
    ----------
    call, seat, wanted, patience : arguments of `fastlstm.kernels.sync.meet`, which assigns worker numbers.
    current : (B,) int32, the symbols read first. state : (S, L, B, H), in/out.
    uniforms : (n, B) float64 in [0, 1). ids : (n, B) int32, out. drawing : `fastlstm.drawing.Drawing`.

    Returns
    -------
    0 when an id of ``current`` is out of range and nothing has been computed, else 1.
    """
    plan, sync = plans[0], buffers.sync
    worker, workers = meet(sync, call, seat, wanted, patience)
    if worker < 0:
        return 1
    if not in_range(current, plan.V):
        return 0
    teams = teams_of(workers, plan.B)
    share = share_of(plan, width(buffers.arena), worker, workers, teams)
    pack_model(plan, buffers, parameters, worker, workers)
    enter(plan, buffers, parameters, current, state, worker, workers)
    barrier(sync, ALL_WORKERS, workers)
    if plan.all_symbols:
        project_symbols(plan, buffers, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
    for n in range(len(uniforms)):
        read = current if n == 0 else ids[n - 1]
        read_symbols(plan, buffers, parameters, read, share, worker, workers, teams)
        draw_symbols(plan, buffers, uniforms[n], ids[n], drawing, worker, workers, teams)
    store_state(plan, buffers, state, worker, workers)
    barrier(sync, ALL_WORKERS, workers)
    return 1
