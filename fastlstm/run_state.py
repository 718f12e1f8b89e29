"""The state of a run as one value, from which the run goes on to the same result, bit for bit.

The state does not contain what the caller passes to a run: the text, and the `fastlstm.config.TrainConfig`. It contains
no random generator either: the seeds of samples and of dropout follow from the configuration and the step.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import numpy as np

from fastlstm.params import FloatArray, Parameters

_ARRAYS = ("parameters", "slots", "carried")


@dataclasses.dataclass(eq=False)
class RunState:
    """The state of a run between two steps; a step changes it in place.

    States are compared bit for bit: NaN equals NaN, and -0.0 differs from 0.0.

    Attributes
    ----------
    parameters : of the model.
    slots : (slots of the update rule, number of parameters), the state of the optimizer.
    carried : (S, L, B, H), the carried state of the network.
    step : number of steps done.
    cursor : position of the next chunk in the lanes, see `fastlstm.batches.Lanes`.
    loss : of the last step, nats per symbol; NaN before the first.
    loss_sum, loss_weight : weighted sum of the losses so far, and the sum of their weights: see `smooth`.
    val_nats : loss of the last validation, nats per symbol; ``None`` before the first.
    val_error : its standard error, nats per symbol; ``None``: it is exact, or there is none.
    val_step : step of the last validation; ``None`` before the first.
    best_nats, best_step : lowest loss of a check so far, nats per symbol, and its step; ``None`` before the first.
    worse : checks since the best one.
    stalled : checks since the best one, or since the schedule "plateau" last lowered the rate.
    rate_factor : factor of the schedule's learning rate: lowered by "plateau", and after a divergence.
    recoveries : how often the run has gone back after a divergence.
    seconds : time spent in steps.
    """

    parameters: Parameters
    slots: FloatArray
    carried: FloatArray
    step: int = 0
    cursor: int = 0
    loss: float = math.nan
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    val_nats: float | None = None
    val_error: float | None = None
    val_step: int | None = None
    best_nats: float | None = None
    best_step: int | None = None
    worse: int = 0
    stalled: int = 0
    rate_factor: float = 1.0
    recoveries: int = 0
    seconds: float = 0.0

    @classmethod
    def start(cls, parameters: Parameters, batch: int, slots: int, first_loss: float | None = None) -> Self:
        """The state before the first step.

        Parameters
        ----------
        parameters : used, not copied.
        batch : B.
        slots : numbers that the update rule stores per parameter.
        first_loss : initial value of the smoothed loss, nats per symbol (the assignment's rule, with log V);
            ``None``: it starts from the loss of the first step.
        """
        config = parameters.config
        return cls(
            parameters,
            slots=np.zeros((slots, parameters.flat.size), config.dtype),
            carried=np.zeros(config.state_shape(batch), config.dtype),
            loss_sum=0.0 if first_loss is None else first_loss,
            loss_weight=0.0 if first_loss is None else 1.0,
        )

    @property
    def smoothed_loss(self) -> float | None:
        """The smoothed training loss, nats per symbol; ``None`` before the first, unless `start` was given one."""
        return self.loss_sum / self.loss_weight if self.loss_weight else None

    def smooth(self, smoothing: float) -> None:
        """Update the smoothed loss with the loss of the last step.

        It is an exponential average: each loss has ``smoothing`` times the weight of the next one. The sum is divided
        by the sum of the weights, which corrects its bias in the first steps. ``smoothing`` is at least 0, which
        gives the last loss alone, and below 1.
        """
        new = 1.0 - smoothing
        self.loss_sum = smoothing * self.loss_sum + new * self.loss
        self.loss_weight = smoothing * self.loss_weight + new

    def judge(self, nats: float) -> bool:
        """Record the loss of a check, nats per symbol; returns whether it is the best so far."""
        if self.best_nats is None or nats < self.best_nats:
            self.best_nats, self.best_step = nats, self.step
            self.worse = self.stalled = 0
            return True
        self.worse += 1
        self.stalled += 1
        return False

    def restore(self, other: Self) -> None:
        """Become equal to ``other``, in place: the arrays of this state are kept."""
        for name, array in self.arrays().items():
            array[...] = other.arrays()[name]
        for name, value in other.scalars().items():
            setattr(self, name, value)

    def arrays(self) -> dict[str, FloatArray]:
        """The arrays by name, not copied."""
        return dict(zip(_ARRAYS, (self.parameters.flat, self.slots, self.carried), strict=True))

    def scalars(self) -> dict[str, Any]:
        """All other fields by name: plain values, which Python's JSON represents exactly."""
        return {name: getattr(self, name) for name in self.scalar_names()}

    @classmethod
    def scalar_names(cls) -> tuple[str, ...]:
        """Names of the fields of `scalars`."""
        return tuple(field.name for field in dataclasses.fields(cls) if field.name not in _ARRAYS)

    def copy(self) -> Self:
        """A deep copy: it shares no array with this state."""
        parameters = Parameters(self.parameters.config, self.parameters.flat.copy())
        return dataclasses.replace(self, parameters=parameters, slots=self.slots.copy(), carried=self.carried.copy())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunState):
            return NotImplemented
        return repr(self.scalars()) == repr(other.scalars()) and self.has_arrays_of(other)

    def has_arrays_of(self, other: RunState) -> bool:
        """Whether the configuration and the arrays are equal, bit for bit."""
        mine, its = self.arrays(), other.arrays()
        return self.parameters.config == other.parameters.config and all(
            _same_bits(mine[name], its[name]) for name in mine
        )


def _same_bits(array: FloatArray, other: FloatArray) -> bool:
    return (array.shape, array.dtype) == (other.shape, other.dtype) and np.array_equal(
        array.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8)
    )
