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
    gates : G vectors. The forward pass may save the gates here; the backward pass writes the gradients with respect to
        the pre-activations, ``da``: for separate gates, those of the input parts.
    gates_h : the same for the recurrent parts: G vectors if there are separate gates, else ``gates`` itself.
    before, after : the first part of the state, h, before the step and after it.
    part : distance from a part of the state to the next.
    dh : the gradient with respect to the h after the step (backward).
    carry : the gradient that flows back in time elementwise, in/out (backward).
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
