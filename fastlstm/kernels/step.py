"""The entry points: a training step and sampling, each one compiled function that all workers run together.

A step is a sequence of phases; a barrier stands wherever a phase reads what another worker has written. Which phases
run is said by a set of bits, so that one compiled function serves forward passes, gradients, training, and the
profile that times each phase alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm.kernels import jit
from fastlstm.kernels.cells import backward_layer, forward_layer, share_of
from fastlstm.kernels.gradients import embedding_gradients, transpose_states, weight_gradients
from fastlstm.kernels.output import (
    input_gradients,
    logits,
    predict,
    predict_backward,
    project_inputs,
    project_symbols,
    softmax_row,
)
from fastlstm.kernels.pack import gather_rows, index_symbols, load_state, prepare, store_state, use_all_symbols
from fastlstm.kernels.simd import width
from fastlstm.kernels.sync import ALL_WORKERS, barrier, forget_tasks, start_together
from fastlstm.kernels.tile import split
from fastlstm.kernels.update import adagrad, norm_factor, sum_squares

#: The phases of a step, each a bit of the ``phases`` that `step` runs, in the order in which it runs them.
CLEAR, PREPARE, TABLE, LAYERS, INPUTS, OUTPUT = 1, 2, 4, 8, 16, 32
OUTPUT_BACK, TRANSPOSE, LAYERS_BACK, INPUTS_BACK, WEIGHTS, EMBEDDING = 64, 128, 256, 512, 1024, 2048
NORM, UPDATE = 4096, 8192

FORWARD = PREPARE | TABLE | LAYERS | INPUTS | OUTPUT
BACKWARD = OUTPUT_BACK | TRANSPOSE | LAYERS_BACK | INPUTS_BACK | WEIGHTS | EMBEDDING


@jit.device
def clear_embedding(buffers: Any, gradients: Any, worker: int, workers: int) -> None:
    """This worker's part of clearing the gradients: of the embedding, where the step touches only some rows."""
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
) -> None:
    """From parameters and symbols to activations, probabilities, nats and the state carried out."""
    sync = buffers.sync
    if phases & PREPARE:
        prepare(plan, buffers, parameters, x, state, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
    if phases & TABLE:
        project_symbols(plan, buffers, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
    for layer in range(plan.L):
        if layer > 0 and phases & INPUTS:
            project_inputs(plan, buffers, layer, worker, workers)
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
    """From probabilities back to everything that adds to ``gradients``."""
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
        if layer > 0 and phases & INPUTS_BACK:
            input_gradients(plan, buffers, layer, worker, workers)
            barrier(sync, ALL_WORKERS, workers)
    if phases & WEIGHTS:
        weight_gradients(plan, buffers, gradients, share.scratch, 0 if phases & CLEAR else 1, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
    if phases & EMBEDDING:
        embedding_gradients(plan, buffers, gradients, worker, workers)
        barrier(sync, ALL_WORKERS, workers)


@jit.kernel
def step(
    phases: int, worker: int, workers: int, teams: int, plans: Any, buffers: Any, parameters: Any, gradients: Any,
    slots: Any, x: Any, y: Any, state: Any, scale: Any, lr: Any, eps: Any, clip_value: Any, clip_norm: float,
) -> float:  # fmt: skip
    """One worker's share of a training step; all ``workers`` must call it.

    Parameters
    ----------
    phases : which phases to run: ``FORWARD``, ``BACKWARD``, ``UPDATE`` and so on, or several of them. With ``CLEAR``
        the backward phases replace the gradients, else they add to them.
    worker, workers, teams : who this is among how many, in how many teams (see `fastlstm.kernels.cells`).
    plans, buffers : from `fastlstm.kernels.plan.make`; ``plans`` is `Plan.as_array`.
    parameters, gradients, slots : flat arrays, in, in/out, in/out.
    x, y : (T*B,) int32. state : (S, L, B, H), in/out.
    scale : of the loss that is differentiated. lr, eps, clip_value, clip_norm : of the update (inf: no bound).

    Returns
    -------
    Nats summed over the T*B predicted symbols (the same for every worker).
    """
    plan, sync = plans[0], buffers.sync
    if not start_together(sync, workers):
        return np.nan
    share = share_of(plan, width(buffers.arena), worker, workers, teams)
    if phases & CLEAR:
        clear_embedding(buffers, gradients, worker, workers)
    forward_phases(phases, plan, buffers, parameters, x, y, state, share, worker, workers)
    if phases & BACKWARD:
        backward_phases(phases, plan, buffers, gradients, y, scale, share, worker, workers)
    factor = 1.0
    if phases & NORM:
        sum_squares(gradients, buffers.partial, worker, workers)
        barrier(sync, ALL_WORKERS, workers)
        factor = norm_factor(buffers.partial, clip_norm)
    if phases & UPDATE:
        shrink = parameters.dtype.type(factor)
        adagrad(parameters, gradients, slots, lr, eps, clip_value, shrink, worker, workers)
    barrier(sync, ALL_WORKERS, workers)  # nobody leaves before all are done: see `workers.Workers.run`
    nats = 0.0
    for row in range(len(buffers.nats)):
        nats += buffers.nats[row]
    return nats


@jit.device
def draw(arena: Any, at: int, symbols: int, padded: int, u: float, temperature: float) -> int:
    """Draw a symbol from the logits at ``arena[at]`` by inverting the distribution at ``u``; temperature 0: the top."""
    if temperature == 0.0:
        best = 0
        for v in range(1, symbols):
            if arena[at + v] > arena[at + best]:
                best = v
        return best
    _, total = softmax_row(arena, at, padded, 1.0 / temperature)
    left = u * np.float64(total)
    for v in range(symbols):
        left -= np.float64(arena[at + v])
        if left < 0.0:
            return v
    return symbols - 1


@jit.kernel
def generate(
    plans: Any, buffers: Any, parameters: Any, current: Any, state: Any, uniforms: Any, temperature: float, ids: Any
) -> None:
    """Draw ``len(uniforms)`` symbols one after the other in each of B lanes (a network with T = 1).

    Parameters
    ----------
    current : (B,) int32, the symbols read first. state : (S, L, B, H), in/out.
    uniforms : (n, B) float64 in [0, 1). ids : (n, B) int32, out.
    """
    plan, arena = plans[0], buffers.arena
    share = share_of(plan, width(arena), 0, 1, 1)
    prepare(plan, buffers, parameters, current, state, 0, 1)
    if plan.all_symbols:
        project_symbols(plan, buffers, 0, 1)
    for n in range(len(uniforms)):
        read = current if n == 0 else ids[n - 1]
        if plan.all_symbols:
            use_all_symbols(buffers, read)
        else:
            index_symbols(plan, buffers, read)
            gather_rows(plan, buffers, parameters)
            project_symbols(plan, buffers, 0, 1)
        for layer in range(plan.L):
            if layer > 0:
                project_inputs(plan, buffers, layer, 0, 1)
            forward_layer(plan, buffers, layer, share)
        logits(plan, buffers, 0, plan.B)
        for b in range(plan.B):
            ids[n, b] = draw(arena, plan.p + b * plan.Vp, plan.V, plan.Vp, uniforms[n, b], temperature)
        store_state(plan, buffers, state, 0, 1)
        load_state(plan, buffers, state, 0, 1)
