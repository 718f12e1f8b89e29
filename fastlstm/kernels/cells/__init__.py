"""The pointwise kernels of the recurrent cells, a file for each, and the choice between them.

A cell's file has four functions. ``forward(arena, at)``, where ``at`` is a `fastlstm.kernels.cells.places.Places`,
and ``backward(arena, operands, at)`` compute one vector of units of one lane at one time step. ``expect(arena, at)``
prefetches what ``forward`` will write, and ``expect_backward`` what ``backward`` will read and write.

Kernels get a `Chosen`, an empty value whose numba *type* identifies the cell. So they are compiled for each cell
separately, and the choice costs nothing at run time.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from numba import types
from numba.extending import NativeValue, models, overload, register_model, typeof_impl, unbox

from fastlstm.cells import CellName
from fastlstm.kernels import jit
from fastlstm.kernels.cells import gru, lstm, rnn

#: The module of each cell.
CELLS: dict[CellName, ModuleType] = {"lstm": lstm, "rnn": rnn, "gru": gru}


class Chosen:
    """The cell that kernels are compiled for.

    Parameters
    ----------
    cell : name of the cell.
    """

    def __init__(self, cell: CellName) -> None:
        self.cell = cell


class ChosenType(types.Type):
    """Numba type of `Chosen`, one for each cell."""

    def __init__(self, cell: CellName) -> None:
        self.cell = cell
        super().__init__(name=f"Chosen({cell})")


@typeof_impl.register(Chosen)
def _typeof(value: Chosen, context: Any) -> ChosenType:
    return ChosenType(value.cell)


register_model(ChosenType)(models.OpaqueModel)


@unbox(ChosenType)
def _unbox(chosen: ChosenType, value: Any, context: Any) -> NativeValue:
    return NativeValue(context.context.get_dummy_value())


def forward(chosen: Chosen, arena: Any, at: Any) -> None:
    """Call the chosen cell's ``forward``."""
    CELLS[chosen.cell].forward(arena, at)


def expect(chosen: Chosen, arena: Any, at: Any) -> None:
    """Call the chosen cell's ``expect``."""
    CELLS[chosen.cell].expect(arena, at)


def backward(chosen: Chosen, arena: Any, operands: Any, at: Any) -> None:
    """Call the chosen cell's ``backward``."""
    CELLS[chosen.cell].backward(arena, operands, at)


def expect_backward(chosen: Chosen, arena: Any, operands: Any, at: Any) -> None:
    """Call the chosen cell's ``expect_backward``."""
    CELLS[chosen.cell].expect_backward(arena, operands, at)


def _compile_forward(function: Any, name: str) -> None:
    """Make calls of ``function`` in kernels call the chosen cell's function ``name``."""

    @overload(function)
    def choose(chosen, arena, at):
        implementation = getattr(CELLS[chosen.cell], name)
        return lambda chosen, arena, at: implementation(arena, at)


def _compile_backward(function: Any, name: str) -> None:
    """The same for functions that also take the arena of operands."""

    @overload(function)
    def choose(chosen, arena, operands, at):
        implementation = getattr(CELLS[chosen.cell], name)
        return lambda chosen, arena, operands, at: implementation(arena, operands, at)


if not jit.DISABLED:
    for _forward in (forward, expect):
        _compile_forward(_forward, _forward.__name__)
    for _backward in (backward, expect_backward):
        _compile_backward(_backward, _backward.__name__)
