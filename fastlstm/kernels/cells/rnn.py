"""The Elman RNN's kernels; the equations are in `fastlstm.reference.cells.rnn`."""

from __future__ import annotations

from typing import Any

from fastlstm.kernels import jit
from fastlstm.kernels.functions import tanh
from fastlstm.kernels.simd.memory import load, prefetch, prefetch_to_write, store


@jit.device
def forward(arena: Any, at: Any) -> None:
    """The state h after the step."""
    store(arena, at.after, tanh(load(arena, at.inputs) + load(arena, at.recurrent)))


@jit.device
def expect(arena: Any, at: Any) -> None:
    """Prefetch what `forward` will write."""
    prefetch_to_write(arena, at.after)


@jit.device
def backward(arena: Any, operands: Any, at: Any) -> None:
    """``da`` of the one gate."""
    h = load(arena, at.after)
    store(operands, at.da, load(arena, at.dh) * (1.0 - h * h))


@jit.device
def expect_backward(arena: Any, operands: Any, at: Any) -> None:
    """Prefetch what `backward` will read and write, and no pass has used recently."""
    prefetch(arena, at.after)
    prefetch_to_write(operands, at.da)
