"""The recurrent cells: the structure of each, declared once.

Configuration, parameter table, both networks and checkpoints read `CELLS`. The equations of a cell are in
`fastlstm.reference.cells`, its kernels in `fastlstm.kernels.cells`, each in a file of the cell's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

CellName = Literal["lstm", "rnn", "gru"]


@dataclass(frozen=True)
class Cell:
    """A recurrent cell, whose pre-activations are ``a = [x; h] W + b``.

    Attributes
    ----------
    gates : names of the G gates, in the order of their blocks of H columns in ``W`` and ``b``.
    state : names of the S parts of the carried state; the first is h, which the layer above and the output read.
    separate : the last R gates, whose recurrent part ``h W + b_h`` is kept separate from their input part ``x W + b``:
        the cell combines the two itself. So they have different gradients, and the recurrent part has its own bias.
    tanh_gates : the gates whose activation is tanh; that of the others is the sigmoid.
    forget_gate : the gate whose bias starts at ``forget_bias``; ``None`` if there is none.
    keeps_gates : whether the backward pass needs the gates; else the state is enough.
    """

    gates: tuple[str, ...]
    state: tuple[str, ...]
    separate: tuple[str, ...] = ()
    tanh_gates: tuple[str, ...] = ()
    forget_gate: str | None = None
    keeps_gates: bool = True

    def __post_init__(self) -> None:
        if self.separate != self.gates[len(self.gates) - len(self.separate) :] or self.state[0] != "h":
            raise ValueError("the separate gates must be the last ones, and h the first part of the state")

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the P = G + R pre-activations: the gates, then the recurrent parts of the separate ones."""
        return (*self.gates, *(f"{gate}_h" for gate in self.separate))

    @property
    def saved(self) -> tuple[str, ...]:
        """Names of what the forward pass saves besides the state: the gates, and the separate recurrent parts."""
        return self.parts if self.keeps_gates else ()

    def tensors(self, inputs: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters of a layer that reads vectors of ``inputs``, in storage order."""
        columns = len(self.gates) * hidden
        shapes: dict[str, tuple[int, ...]] = {"W": (inputs + hidden, columns), "b": (columns,)}
        if self.separate:
            shapes["b_h"] = (len(self.separate) * hidden,)
        return shapes

    def parameter_count(self, inputs: int, hidden: int) -> int:
        """Number of parameters of such a layer."""
        return sum(math.prod(shape) for shape in self.tensors(inputs, hidden).values())


#: All cells by name.
CELLS: dict[CellName, Cell] = {
    "lstm": Cell(gates=("i", "f", "o", "g"), state=("h", "c"), tanh_gates=("g",), forget_gate="f"),
    "rnn": Cell(gates=("a",), state=("h",), tanh_gates=("a",), keeps_gates=False),
    "gru": Cell(gates=("r", "z", "n"), state=("h",), separate=("n",), tanh_gates=("n",)),
}
