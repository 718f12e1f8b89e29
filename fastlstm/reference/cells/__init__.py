"""The equations of the recurrent cells: one time step forward and backward, a file for each cell.

`fastlstm.reference.layer` calls them at every time step. All arrays are ``(B, H)``: lanes are rows.

``forward(a, before)``
    ``a`` has the pre-activations, one for each of `fastlstm.cells.Cell.parts`; ``before`` the state before the step,
    one array for each part. Returns the gates that `backward` needs (`fastlstm.cells.Cell.saved`), and the state after
    the step.

``backward(gates, before, after, dh, carry)``
    ``dh`` is the gradient with respect to the h after the step that comes from the layer above and, through the
    pre-activations, from the next step; ``carry`` is the gradient that comes from the next step elementwise. Returns
    the gradients with respect to the pre-activations, and the carry for the step before.

All functions are analytic, so they also work on complex numbers, as the complex-step gradient check needs.
"""

from __future__ import annotations

from types import ModuleType

from fastlstm.cells import CellName
from fastlstm.reference.cells import gru, lstm, rnn

#: The module of each cell.
CELLS: dict[CellName, ModuleType] = {"lstm": lstm, "rnn": rnn, "gru": gru}
