"""The equations of the recurrent cells: one time step forward, and back; a file for each cell.

`fastlstm.reference.layer` calls them at every time step. All arrays are ``(B, H)``: lanes are rows.

``forward(a, before)``
    From the pre-activations (one for each of `fastlstm.cells.Cell.parts`) and the state before the step (one for each
    part of the state) to the gates that `backward` needs and the state after the step.

``backward(gates, before, after, dh, carry)``
    From ``dh``, the gradient with respect to the h after the step as it comes from the layer above and, through the
    pre-activations, from the next step, and from ``carry``, what comes back from the next step elementwise, to the
    gradients with respect to the pre-activations and the carry to the step before.

Everything is analytic, so it also runs on complex numbers: that is what makes the complex-step gradient check possible.
"""

from __future__ import annotations

from types import ModuleType

from fastlstm.cells import CellName
from fastlstm.reference.cells import gru, lstm, rnn

#: The module of each cell.
CELLS: dict[CellName, ModuleType] = {"lstm": lstm, "rnn": rnn, "gru": gru}
