"""JAX as a peer: one compiled function for the whole step, a scan over time. Runs where jax is installed."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.protocol import Call, Job, serve
from benchmarks.workloads import CLIP_NORM, LEARNING_RATE, Workload

Tree = Any


def initialise(workload: Workload, key: jax.Array) -> Tree:
    V, E, H, L, *_ = workload
    keys = iter(jax.random.split(key, 2 * L + 2))

    def weights(rows: int, columns: int) -> jax.Array:
        return jax.random.normal(next(keys), (rows, columns)) / jnp.sqrt(rows)

    layers = [
        {"x": weights(E if layer == 0 else H, 4 * H), "h": weights(H, 4 * H), "bias": jnp.zeros(4 * H)}
        for layer in range(L)
    ]
    return {"embedding": weights(V, E), "layers": layers, "output": weights(H, V), "bias": jnp.zeros(V)}


def lstm(layer: Tree, inputs: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
    """One layer over time: the last state, and h of every step."""

    def cell(carry: tuple[jax.Array, jax.Array], projected: jax.Array) -> tuple[Any, jax.Array]:
        h, c = carry
        i, f, o, g = jnp.split(projected + h @ layer["h"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    return jax.lax.scan(cell, state, inputs @ layer["x"] + layer["bias"])


def mean_nats(parameters: Tree, x: jax.Array, y: jax.Array, states: Tree) -> tuple[jax.Array, Tree]:
    hidden, carried = parameters["embedding"][x], []
    for layer, state in zip(parameters["layers"], states, strict=True):
        state, hidden = lstm(layer, hidden, state)
        carried.append(state)
    log_p = jax.nn.log_softmax(hidden @ parameters["output"] + parameters["bias"])
    return -jnp.take_along_axis(log_p, y[..., None], axis=-1).mean(), carried


def clipped(gradients: Tree) -> Tree:
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))
    factor = jnp.minimum(1.0, CLIP_NORM / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor, gradients)


@partial(jax.jit, donate_argnums=(0, 1))
def step(parameters: Tree, slots: Tree, x: jax.Array, y: jax.Array, states: Tree) -> tuple[Tree, Tree, Tree, jax.Array]:
    (loss, states), gradients = jax.value_and_grad(mean_nats, has_aux=True)(parameters, x, y, states)
    gradients = clipped(gradients)
    slots = jax.tree.map(lambda m, g: m + g * g, slots, gradients)
    parameters = jax.tree.map(lambda p, g, m: p - LEARNING_RATE * g / jnp.sqrt(m + 1e-8), parameters, gradients, slots)
    return parameters, slots, states, loss


def prepare(job: Job) -> Call:
    """XLA creates its thread pool when the process starts: see ``environment`` in `benchmarks.peers`."""
    workload = job.workload
    first, second, third = jax.random.split(jax.random.PRNGKey(0), 3)
    parameters = initialise(workload, first)
    slots = jax.tree.map(jnp.zeros_like, parameters)
    x = jax.random.randint(second, (workload.T, workload.B), 0, workload.V)
    y = jax.random.randint(third, (workload.T, workload.B), 0, workload.V)
    zeros = jnp.zeros((workload.B, workload.H))
    states = [(zeros, zeros) for _ in range(workload.L)]

    def train() -> None:
        nonlocal parameters, slots, states
        parameters, slots, states, loss = step(parameters, slots, x, y, states)
        jax.block_until_ready((parameters, loss))

    return train


if __name__ == "__main__":
    serve(f"JAX {jax.__version__}", prepare)
