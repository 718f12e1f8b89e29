"""What an update of the parameters needs to know; each backend carries it out over flat arrays."""

from __future__ import annotations

import math
from typing import NamedTuple


class UpdateRule(NamedTuple):
    """Clipping, then Adagrad (Duchi, Hazan and Singer 2011): ``m += g*g; p -= lr * g / sqrt(m + eps)``.

    Attributes
    ----------
    lr : learning rate.
    clip_value : bound on each entry of the gradient; inf: none.
    clip_norm : bound on the norm of the whole gradient; inf: none.
    eps : added to m, so that nothing is divided by 0.
    """

    lr: float
    clip_value: float = math.inf
    clip_norm: float = math.inf
    eps: float = 1e-8

    @property
    def slots(self) -> int:
        """Numbers that the rule keeps for each parameter: m."""
        return 1
