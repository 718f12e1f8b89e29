"""Where the arrays of one group of units of one lane lie: what the time loops tell a cell."""

from __future__ import annotations

from typing import NamedTuple


class Places(NamedTuple):
    """Positions in the arena of one vector of units of one lane at one time step.

    Attributes
    ----------
    inputs : the input parts of the pre-activations, a vector for each of the G gates (forward).
    recurrent : their recurrent parts, the same (forward).
    bias_h : biases of the recurrent parts of separate gates, a vector for each (forward).
    gates : G vectors, which the forward pass may keep gates in, and where the backward pass leaves the gradients with
        respect to the pre-activations, ``da``: of the input parts, for separate gates.
    gates_h : the same for the recurrent parts: G vectors where there are separate gates, else ``gates`` itself.
    before, after : the first part of the state, h, before the step and after it.
    part : distance from a part of the state to the next.
    dh : the gradient with respect to the h after the step (backward).
    carry : what goes back in time elementwise, in/out (backward).
    """

    inputs: int
    recurrent: int
    bias_h: int
    gates: int
    gates_h: int
    before: int
    after: int
    part: int
    dh: int
    carry: int
