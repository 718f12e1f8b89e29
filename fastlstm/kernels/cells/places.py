"""Positions of the data of one group of units of one lane, which the time loops pass to a cell."""

from __future__ import annotations

from typing import NamedTuple


class Places(NamedTuple):
    """Positions in the arena of one vector of units of one lane at one time step.

    Attributes
    ----------
    inputs : the input parts of the pre-activations, a vector for each of the G gates (forward).
    recurrent : their recurrent parts, also G vectors (forward).
    bias_h : biases of the recurrent parts of separate gates, a vector for each (forward).
    gates : G vectors, in which the forward pass may save the gates.
    gates_h : the same for the recurrent parts: G vectors if there are separate gates, else ``gates`` itself.
    da : in the arena of operands, G vectors of the gradients with respect to the pre-activations: for separate gates,
        those of the input parts (backward). It may be ``gates`` itself.
    da_h : the same for the recurrent parts, if there are separate gates.
    before, after : the first part of the state, h, before the step and after it.
    after_r : in the arena of operands, the rounded h after the step; it may be ``after`` itself.
    part : distance from a part of the state to the next.
    dh : the gradient with respect to the h after the step (backward).
    carry : the gradient that flows back in time elementwise, in/out (backward).
    """

    inputs: int
    recurrent: int
    bias_h: int
    gates: int
    gates_h: int
    da: int
    da_h: int
    before: int
    after: int
    after_r: int
    part: int
    dh: int
    carry: int
