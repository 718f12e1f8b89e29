"""The steps of a run: the next chunk of each lane, masking, the learning rate, forward, backward and update."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from fastlstm import schedules
from fastlstm.backend import build
from fastlstm.batches import Lanes
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.contract import StepResult
from fastlstm.dropout import Dropout
from fastlstm.masking import Masking
from fastlstm.params import Parameters
from fastlstm.run_state import RunState

#: The speed is measured for so many seconds, after a few steps in which the number of workers settles.
_MEASURED_SECONDS, _SETTLING_STEPS = 1.0, 3


class Steps:
    """Takes the steps of a run.

    Parameters
    ----------
    model : configuration of the model.
    lanes : the training text.
    config : settings of the run, with the precision in effect.
    total : number of steps of the whole run.
    escape_id : id of the vocabulary's escape, which is learned by masking; ``None``: there is none.

    Attributes
    ----------
    total : as given; it can be set when it becomes known.
    gradients, last_rate : of the last step.
    """

    def __init__(
        self, model: ModelConfig, lanes: Lanes, config: TrainConfig, total: int, escape_id: int | None = None
    ) -> None:
        self._lanes, self._config = lanes, config
        self._masking = None if escape_id is None else Masking(lanes, escape_id, config.seed)
        self.total = total
        self.last_rate = math.nan
        dropout = Dropout(
            config.dropout_embedding, config.dropout_layers, config.dropout_output, config.dropout_held, config.seed
        )
        self._network = build(
            config.backend, model, config.seq_len, config.batch, config.threads, dropout=dropout,
            bf16=config.is_bf16,
        )  # fmt: skip
        self.gradients = Parameters(model)
        self._x = np.zeros((config.seq_len, config.batch), np.int32)
        self._y = np.zeros_like(self._x)

    def take(self, state: RunState) -> StepResult:
        """Take one step; ``state`` changes in place. The loss is that before the update."""
        started = time.perf_counter()
        config, lanes, x, y = self._config, self._lanes, self._x, self._y
        lanes.cursor = state.cursor
        if lanes.next(x, y):
            state.carried[...] = 0
        if self._masking is not None:
            self._masking.apply(x, y, state.step)
        scale = 1.0 if config.reduction == "sum" else 1.0 / x.size
        self.last_rate = self.rate(state, state.step)
        result = self._network.train_step(
            state.parameters, self.gradients, state.slots, x, y, state.carried, scale,
            config.rule(self.last_rate, state.step), state.step,
        )  # fmt: skip
        state.loss = float(result.nats / x.size)
        state.seconds += time.perf_counter() - started
        state.step += 1
        state.cursor = lanes.cursor
        state.smooth(config.smoothing)
        return result

    def loss_after(self, state: RunState) -> float:
        """The loss of the last step's symbols after its update, nats per symbol; ``state`` is not changed."""
        nats = self._network.forward(state.parameters, self._x, self._y, state.carried.copy())
        return nats / self._x.size

    def rate(self, state: RunState, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return state.rate_factor * schedules.rate(self._config, step, self.total)

    def seconds_per_step(self, state: RunState, stop: Callable[[], bool]) -> float:
        """Measure the speed with steps on a copy of ``state``, which is not changed."""
        trial = state.copy()
        while trial.step < state.step + _SETTLING_STEPS and trial.seconds < _MEASURED_SECONDS and not stop():
            self.take(trial)
        first, trial.seconds = trial.step, 0.0
        self.take(trial)
        while trial.seconds < _MEASURED_SECONDS and not stop():
            self.take(trial)
        return trial.seconds / (trial.step - first)
