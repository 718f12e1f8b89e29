"""The LSTM's kernels; the equations are in `fastlstm.reference.cells.lstm`."""

from __future__ import annotations

from typing import Any

from fastlstm.kernels import jit
from fastlstm.kernels.functions import sigmoid, tanh
from fastlstm.kernels.simd.memory import load, prefetch, prefetch_to_write, store
from fastlstm.kernels.simd.vector import width


@jit.device
def forward(arena: Any, at: Any) -> None:
    """Gates i, f, o, g, and the state h, c after the step."""
    U = width(arena)
    i = sigmoid(load(arena, at.inputs) + load(arena, at.recurrent))
    f = sigmoid(load(arena, at.inputs + U) + load(arena, at.recurrent + U))
    o = sigmoid(load(arena, at.inputs + 2 * U) + load(arena, at.recurrent + 2 * U))
    g = tanh(load(arena, at.inputs + 3 * U) + load(arena, at.recurrent + 3 * U))
    c = f * load(arena, at.before + at.part) + i * g
    store(arena, at.gates, i)
    store(arena, at.gates + U, f)
    store(arena, at.gates + 2 * U, o)
    store(arena, at.gates + 3 * U, g)
    store(arena, at.after + at.part, c)
    store(arena, at.after, o * tanh(c))


@jit.device
def expect(arena: Any, at: Any) -> None:
    """Prefetch what `forward` will write."""
    for v in range(4):
        prefetch_to_write(arena, at.gates + v * width(arena))
    prefetch_to_write(arena, at.after + at.part)
    prefetch_to_write(arena, at.after)


@jit.device
def backward(arena: Any, operands: Any, at: Any) -> None:
    """``da``; the carry is the gradient with respect to c."""
    U = width(arena)
    i = load(arena, at.gates)
    f = load(arena, at.gates + U)
    o = load(arena, at.gates + 2 * U)
    g = load(arena, at.gates + 3 * U)
    dh = load(arena, at.dh)
    tanh_c = tanh(load(arena, at.after + at.part))
    dc = load(arena, at.carry) + dh * o * (1.0 - tanh_c * tanh_c)
    store(operands, at.da, dc * g * i * (1.0 - i))
    store(operands, at.da + U, dc * load(arena, at.before + at.part) * f * (1.0 - f))
    store(operands, at.da + 2 * U, dh * tanh_c * o * (1.0 - o))
    store(operands, at.da + 3 * U, dc * i * (1.0 - g * g))
    store(arena, at.carry, dc * f)


@jit.device
def expect_backward(arena: Any, operands: Any, at: Any) -> None:
    """Prefetch what `backward` will read and write, and no pass has used recently."""
    U = width(arena)
    for v in range(4):
        prefetch(arena, at.gates + v * U)
        prefetch_to_write(operands, at.da + v * U)
    prefetch(arena, at.before + at.part)
