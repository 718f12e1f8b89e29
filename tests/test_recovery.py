"""Divergence: seen wherever it arises, undone with a lower rate, and named when it cannot be undone."""

import math

import numpy as np
import pytest

from fastlstm import Model, TrainConfig, recovery
from fastlstm.errors import DivergenceError
from fastlstm.observers import Observer
from fastlstm.params import Parameters
from fastlstm.run_state import RunState

SETTINGS = {"seq_len": 8, "batch": 4, "steps": 30, "sample_length": 0, "val_frac": 0.0}


@pytest.fixture(autouse=True)
def _copies_every_ten_steps(monkeypatch):
    monkeypatch.setattr(recovery, "steps_between", lambda symbols: 10)


class Saboteur(Observer):
    """Damages the model after a step, a number of times; records the recoveries."""

    def __init__(self, model, step, times, damage):
        self.model, self.step, self.left, self.damage = model, step, times, damage
        self.recoveries, self.steps = [], []

    def stepped(self, progress):
        self.steps.append(progress.step)
        if progress.step == self.step and self.left:
            self.left -= 1
            self.damage(self.model)

    def recovered(self, progress, reason):
        self.recoveries.append((progress.step, reason))


def poison(model):
    model.parameters["layers.0.W"][3, 5] = math.nan


def fitted(text, times, damage=poison, **settings):
    model = Model.for_text(text, hidden=8, embedding=4)
    observer = Saboteur(model, 20, times, damage)
    model.fit(text, TrainConfig(**SETTINGS | settings), observer=observer)
    return model, observer


def test_a_run_recovers_from_two_divergences_with_a_lower_rate(default_text):
    model, observer = fitted(default_text[:3000], times=2)
    assert [step for step, _ in observer.recoveries] == [10, 10]
    assert observer.steps == [*range(1, 21), *range(11, 21), *range(11, 31)]
    assert model.training["finished"]
    assert all(np.isfinite(view).all() for view in model.parameters.values())
    assert "the loss is no longer a finite number" in observer.recoveries[0][1]
    assert "the gradient of output.b is no longer finite" in observer.recoveries[0][1]  # the first that is computed
    rates = [float(reason.split("learning rate of ")[1].split(":")[0]) for _, reason in observer.recoveries]
    assert rates[1] == pytest.approx(recovery.RECOVERY_FACTOR * rates[0], rel=0.01)  # three digits are shown


def test_a_third_divergence_ends_the_run_with_a_finite_model(default_text):
    with pytest.raises(DivergenceError, match=r"the gradient of output\.b") as found:
        fitted(default_text[:3000], times=3)
    assert "restored to step 10" in str(found.value)


def test_a_recovered_run_can_be_repeated_to_the_bit(default_text):
    runs = {fitted(default_text[:3000], times=1)[0].parameters.flat.tobytes() for _ in range(2)}
    assert len(runs) == 1


def test_a_run_that_fails_leaves_the_best_model_of_its_checks(default_text):
    text = default_text[:3000]
    model = Model.for_text(text, hidden=8, embedding=4)
    checks = []

    class Keeper(Saboteur):
        def validated(self, progress):
            checks.append((progress.val_nats, progress.step, model.parameters.flat.tobytes()))

    config = TrainConfig(**SETTINGS | {"val_frac": 0.2})
    with pytest.raises(DivergenceError) as found:
        model.fit(text, config, observer=Keeper(model, 20, 3, poison))
    _, step, best = min(checks)
    assert f"restored to step {step}" in str(found.value)
    assert model.parameters.flat.tobytes() == best


@pytest.mark.parametrize("where", ["loss", "gradient", "parameter", "slot"])
def test_what_broke_first_is_named(where, rng):
    model = Model.for_text("abc", hidden=3, embedding=2)
    state, gradients = RunState.start(model.parameters, batch=1, slots=2), Parameters(model.config)
    assert recovery.broken(1.0, state, gradients) == ""
    arrays = {"gradient": gradients, "parameter": state.parameters, "slot": Parameters(model.config, state.slots[1])}
    if where != "loss":
        arrays[where]["layers.0.b"][-1] = rng.choice([np.nan, np.inf, -np.inf])
    found = recovery.broken(math.nan if where == "loss" else 1.0, state, gradients)
    expected = {
        "loss": "the loss is no longer a finite number",
        "gradient": "the gradient of layers.0.b",
        "parameter": "the parameter layers.0.b",
        "slot": "the optimizer's slot of layers.0.b",
    }
    assert found.startswith(expected[where])
