"""The hyperparameters of an update of the parameters; each backend implements it over flat arrays."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class UpdateRule(NamedTuple):
    """Clipping, then Adagrad (Duchi, Hazan and Singer 2011): ``m += g*g; p -= lr * g / sqrt(m + eps)``.

    Attributes
    ----------
    lr : learning rate.
    clip_value : bound on the absolute value of each element of the gradient; inf: no bound.
    clip_norm : bound on the norm of the whole gradient; inf: no bound.
    eps : added to m, to avoid division by 0.
    """

    lr: float
    clip_value: float = math.inf
    clip_norm: float = math.inf
    eps: float = 1e-8

    def cast(self, number: Any) -> Any:
        """The rule as kernels take it: numbers of a NumPy dtype's scalar type, but the bound on the norm a float64."""
        return UpdateRule(number(self.lr), number(self.clip_value), float(self.clip_norm), number(self.eps))

    @property
    def slots(self) -> int:
        """Number of values that the rule keeps for each parameter: 1, m."""
        return 1
