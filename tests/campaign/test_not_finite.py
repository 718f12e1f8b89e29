"""NaN and infinities that appear in the middle of a run: in the carried state, a gradient, a parameter, a slot."""

import dataclasses
import math
from unittest import mock

import numpy as np
from harness import Outcome, part, require
from subjects import KINDS, SHORT_RUN, TEXT, fresh_model

from fastlstm import Observer
from fastlstm.contract import Network, StepResult
from fastlstm.errors import DivergenceError
from fastlstm.optimizers import OPTIMIZERS
from fastlstm.recovery import MOST_RECOVERIES

STEPS = 25
VALUES = (math.nan, math.inf, -math.inf)
PLACES = ("carried state", "gradient", "parameter", "slot")
_TRAIN_STEP = Network.train_step


class Sabotage(Observer):
    """Puts a value into an array of a step, and observes whether the run notices it in that step.

    Parameters
    ----------
    model : that is trained.
    place : of the value, one of `PLACES`.
    times : how often; a run that has gone back takes the step again.
    rng : chooses the step, the element and the value.

    Attributes
    ----------
    tensor : name of the tensor to which the element belongs; ``None`` for the carried state.
    reasons : why the run has gone back.
    """

    def __init__(self, model, place, times, rng):
        self._config, self._place, self._left = model.config, place, times
        self._at, self._value = int(rng.integers(STEPS)), rng.choice(VALUES)
        size = model.parameters.flat.size
        self._element = int(rng.integers(size if place != "carried state" else model.zero_state(SHORT_RUN.batch).size))
        tensors = (name for name, view in model.parameters.items() for _ in range(view.size))
        self.tensor = None if place == "carried state" else list(tensors)[self._element]
        self.reasons = []
        self._is_unseen = False

    def step(self, network, parameters, gradients, slots, x, y, state, scale, rule, step=None):
        """`Network.train_step`, with the value in its place if the step is the one."""
        arguments = network, parameters, gradients, slots, x, y, state, scale, rule, step
        if step != self._at or not self._left or network.config != self._config:
            return _TRAIN_STEP(*arguments)
        self._left -= 1
        self._is_unseen = True
        if self._place == "gradient":
            return self._step_with_gradient(*arguments)
        array = {"carried state": state, "parameter": parameters.flat, "slot": slots[0]}[self._place]
        array.reshape(-1)[self._element] = self._value
        return _TRAIN_STEP(*arguments)

    def _step_with_gradient(self, network, parameters, gradients, slots, x, y, state, scale, rule, step):
        nats = network.forward(parameters, x, y, state, step=step)
        gradients.flat[...] = 0
        network.backward(parameters, scale, gradients)
        gradients.flat[self._element] = self._value
        norm = network.norm(gradients)
        return StepResult(nats, norm, network.update(parameters, gradients, slots, rule, norm))

    def stepped(self, progress):
        require(not self._is_unseen, Outcome.WRONG, f"{self._value} in the {self._place} is not seen in its step")

    def recovered(self, progress, reason):
        self._is_unseen = False
        self.reasons.append(reason)

    def kept(self, progress, content):
        require(np.isfinite(content.parameters.flat).all(), Outcome.LOST, "a model that is not finite could be saved")


@part("numbers that are not finite", full=360, small=12, seconds=30)
def test_a_number_that_is_not_finite_is_seen_in_its_step(trials):
    """The run says where it is, and goes back; if it appears too often, the run ends. The model is finite."""
    trials.run(sabotage)


def sabotage(trial):
    rng = trial.generator()
    model = fresh_model(trial.number // len(PLACES) % len(KINDS))
    place = PLACES[trial.number % len(PLACES)]
    times = int(rng.choice([1, MOST_RECOVERIES, MOST_RECOVERIES + 1]))
    config = dataclasses.replace(SHORT_RUN, steps=STEPS, optimizer=str(rng.choice(list(OPTIMIZERS))), sample_length=0)
    observer = Sabotage(model, place, times, rng)
    what = f"{place} of {observer.tensor}, {config.optimizer}"
    with mock.patch.object(Network, "train_step", lambda *arguments: observer.step(*arguments)):
        try:
            model.fit(TEXT, config, observer=observer)
        except DivergenceError as error:
            require(times > MOST_RECOVERIES, Outcome.WRONG, f"the run ends after {times} times: {what}")
            observer.reasons.append(str(error))
    require(len(observer.reasons) == times, Outcome.WRONG, f"noticed {observer.reasons}, not {times} times: {what}")
    for reason in observer.reasons:
        require(names(reason, place, observer.tensor), Outcome.WRONG, f"not named: {what}: {reason}")
    require(np.isfinite(model.parameters.flat).all(), Outcome.LOST, f"the model is not finite: {what}")


def names(reason, place, tensor):
    """Whether a reason names what broke: a gradient or slot alone, or the first that a step computes from the rest."""
    if place == "gradient":
        return f"the gradient of {tensor} is no longer finite" in reason
    if place == "slot":
        return f" {tensor} is no longer finite" in reason
    return "is no longer finite" in reason or "the loss is no longer a finite number" in reason
