"""The GRU's kernels; the equations are in `fastlstm.reference.cells.gru`."""

from __future__ import annotations

from typing import Any

from fastlstm.kernels import jit
from fastlstm.kernels.functions import sigmoid, tanh
from fastlstm.kernels.simd.memory import load, prefetch, prefetch_to_write, store
from fastlstm.kernels.simd.vector import width


@jit.device
def forward(arena: Any, at: Any) -> None:
    """Gates r, z, n, the candidate's recurrent part, and h after the step."""
    U = width(arena)
    r = sigmoid(load(arena, at.inputs) + load(arena, at.recurrent))
    z = sigmoid(load(arena, at.inputs + U) + load(arena, at.recurrent + U))
    n_h = load(arena, at.recurrent + 2 * U) + load(arena, at.bias_h)
    n = tanh(load(arena, at.inputs + 2 * U) + r * n_h)
    store(arena, at.gates, r)
    store(arena, at.gates + U, z)
    store(arena, at.gates + 2 * U, n)
    store(arena, at.gates_h + 2 * U, n_h)
    store(arena, at.after, (1.0 - z) * n + z * load(arena, at.before))


@jit.device
def expect(arena: Any, at: Any) -> None:
    """Prefetch what `forward` will write."""
    U = width(arena)
    for v in range(3):
        prefetch_to_write(arena, at.gates + v * U)
    prefetch_to_write(arena, at.gates_h + 2 * U)
    prefetch_to_write(arena, at.after)


@jit.device
def backward(arena: Any, operands: Any, at: Any) -> None:
    """The input and recurrent parts of ``da``; the carry is ``z * dh``."""
    U = width(arena)
    r = load(arena, at.gates)
    z = load(arena, at.gates + U)
    n = load(arena, at.gates + 2 * U)
    dh = load(arena, at.dh) + load(arena, at.carry)
    dn = dh * (1.0 - z) * (1.0 - n * n)
    dz = dh * (load(arena, at.before) - n) * z * (1.0 - z)
    dr = dn * load(arena, at.gates_h + 2 * U) * r * (1.0 - r)
    store(operands, at.da, dr)
    store(operands, at.da + U, dz)
    store(operands, at.da + 2 * U, dn)
    store(operands, at.da_h, dr)
    store(operands, at.da_h + U, dz)
    store(operands, at.da_h + 2 * U, dn * r)
    store(arena, at.carry, dh * z)


@jit.device
def expect_backward(arena: Any, operands: Any, at: Any) -> None:
    """Prefetch what `backward` will read and write, and no pass has used recently."""
    U = width(arena)
    for v in range(3):
        prefetch(arena, at.gates + v * U)
        prefetch_to_write(operands, at.da + v * U)
        prefetch_to_write(operands, at.da_h + v * U)
    prefetch(arena, at.gates_h + 2 * U)
    prefetch(arena, at.before)
