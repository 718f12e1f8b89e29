"""The optimizers, each declared once, and the numbers of one update; each backend implements it over flat arrays.

Everything that an optimizer remembers is in its slots, arrays like the parameters, and in the number of the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

from fastlstm.elementary import power

OptimizerName = Literal["adagrad", "sgd", "rmsprop", "adam", "adamw"]

#: The formulas of an update, which `UpdateRule.formula` selects at run time.
ADAGRAD, SGD, RMSPROP, ADAM = range(4)

#: What a formula keeps for each parameter: the names of its slots, in their order.
SLOTS: dict[int, tuple[str, ...]] = {
    ADAGRAD: ("square",),
    SGD: ("mean",),
    RMSPROP: ("mean", "square"),
    ADAM: ("mean", "square"),
}


class UpdateRule(NamedTuple):
    """The numbers of one update: clipping, weight decay, then a formula. The defaults are those of Adagrad.

    All that depends on the number of the step is computed before, in float64: `Optimizer.rule`.

    Attributes
    ----------
    lr : learning rate.
    clip_value : bound on the absolute value of each element of the gradient; inf: no bound.
    clip_norm : bound on the norm of the whole gradient; inf: no bound.
    eps : added to the divisor (Adagrad: under its root), to avoid division by 0.
    formula : `ADAGRAD`, `SGD`, ...
    keep_mean, add_mean : factors of the old mean and of the gradient in the new mean of the gradients.
    keep_square, add_square : the same for the mean of the squared gradients.
    mean_scale, square_scale : factors that correct the bias of both means in the first steps.
    nesterov : 1 for Nesterov's momentum, else 0.
    l2 : weight decay that is added to the clipped gradient: factor of the parameter.
    shrink : decoupled weight decay: the fraction of the parameter that is taken off.
    """

    lr: float
    clip_value: float = math.inf
    clip_norm: float = math.inf
    eps: float = 1e-8
    formula: int = ADAGRAD
    keep_mean: float = 0.0
    add_mean: float = 1.0
    keep_square: float = 0.0
    add_square: float = 1.0
    mean_scale: float = 1.0
    square_scale: float = 1.0
    nesterov: float = 0.0
    l2: float = 0.0
    shrink: float = 0.0

    @property
    def slots(self) -> int:
        """Number of values that the rule keeps for each parameter."""
        return len(SLOTS[self.formula])


class Optimizer(NamedTuple):
    """The declaration of an optimizer.

    Attributes
    ----------
    lr : its usual learning rate.
    formula : `ADAGRAD`, `SGD`, ...
    defaults : the settings of `fastlstm.config.TrainConfig` that it has beside the learning rate, with its own values.
    averages : whether a new gradient enters the mean by ``1 - beta1`` (Adam), and both means are corrected.
    decoupled : whether weight decay acts on the parameters, and not through the gradient.
    """

    lr: float
    formula: int
    defaults: Mapping[str, float]
    averages: bool = False
    decoupled: bool = False

    def rule(
        self,
        lr: float,
        step: int = 0,
        *,
        clip_value: float = math.inf,
        clip_norm: float = math.inf,
        **given: float,
    ) -> UpdateRule:
        """The numbers of step ``step``, counted from 0; ``given`` replace values of `defaults`."""
        if unknown := given.keys() - self.defaults.keys():
            raise TypeError(f"the optimizer does not have {', '.join(sorted(unknown))}")
        values = {**self.defaults, **given}
        beta1, beta2 = values.get("beta1", values.get("momentum", 0.0)), values.get("beta2", 0.0)
        decay, done = values["weight_decay"], step + 1
        return UpdateRule(
            float(lr),
            clip_value,
            clip_norm,
            eps=values.get("eps", 0.0),
            formula=self.formula,
            keep_mean=beta1,
            add_mean=1.0 - beta1 if self.averages else 1.0,
            keep_square=beta2,
            add_square=1.0 - beta2,
            mean_scale=1.0 / (1.0 - power(beta1, done)) if self.averages else 1.0,
            square_scale=1.0 / (1.0 - power(beta2, done)) if self.averages else 1.0,
            nesterov=float(values.get("nesterov", 0.0)),
            l2=0.0 if self.decoupled else decay,
            shrink=lr * decay if self.decoupled else 0.0,
        )


_ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

OPTIMIZERS: dict[OptimizerName, Optimizer] = {
    "adagrad": Optimizer(0.05, ADAGRAD, {"eps": 1e-8, "weight_decay": 0.0}),
    "sgd": Optimizer(0.5, SGD, {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0}),
    "rmsprop": Optimizer(0.002, RMSPROP, {"momentum": 0.0, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.0}),
    "adam": Optimizer(0.008, ADAM, {**_ADAM, "weight_decay": 0.0}, averages=True),
    "adamw": Optimizer(0.008, ADAM, {**_ADAM, "weight_decay": 0.01}, averages=True, decoupled=True),
}
