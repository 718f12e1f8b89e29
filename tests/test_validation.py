"""Validation: estimates during a run, the best model, early stopping, and independence of what is only shown."""

import itertools
import time

import numpy as np
import pytest

from fastlstm import Model, TrainConfig, inference, recovery
from fastlstm.errors import ConfigError, ModelFileError
from fastlstm.inference import Inference, Networks
from fastlstm.observers import Observer
from fastlstm.params import Parameters
from fastlstm.text import split

SETTINGS = {"seq_len": 8, "batch": 4, "steps": 40, "sample_length": 0}


class Recorder(Observer):
    """Records validations, and the model of the last step."""

    def __init__(self):
        self.validations, self.last = [], None

    def validated(self, progress):
        self.validations.append((progress.step, progress.val_nats, progress.val_error))

    def ended(self, progress, checkpoint):
        self.last = checkpoint.state.parameters.flat.tobytes()


def fitted(text, seed=0, **settings):
    model, recorder = Model.for_text(text, hidden=8, embedding=4, seed=seed), Recorder()
    result = model.fit(text, TrainConfig(**SETTINGS | settings), observer=recorder)
    return model, recorder, result


@pytest.fixture(scope="module")
def trained(default_text):
    """A model that has learned something, and the loss of every symbol of a text in one pass."""
    model = Model.for_text(default_text, hidden=32, embedding=16)
    model.fit(default_text[:60_000], TrainConfig(steps=300, seq_len=32, batch=16, sample_length=0))
    return model


def inference_of(model):
    return Inference(Networks(model.config), model.parameters, "fast", None)


def test_an_estimate_lies_within_its_error_of_the_exact_loss(trained, default_text):
    """Over 40 texts, at most 6 may be more than two standard errors away (expected: 2; binomial: 1 in 100)."""
    ids, away = trained.encode(default_text), 0
    for n in range(40):
        part = ids[60_000 + n * 2500 : 60_000 + n * 2500 + 12_000]
        exact = trained.evaluate(part).nats_per_char
        found = inference_of(trained).estimate(part, 4000)
        assert 0 < found.error < 0.2
        away += abs(found.nats_per_char - exact) > 2 * found.error
    assert away <= 6


def test_an_estimate_from_all_symbols_differs_only_by_the_warm_up(trained, default_text):
    """The lanes cover all but less than a block each, and their state has warmed up over 128 symbols."""
    ids = trained.encode(default_text)[: 64 * 640 + 1]
    exact = trained.evaluate(ids).nats_per_char
    found = inference_of(trained).estimate(ids, 64 * (640 + 128))
    assert found.error == 0.0
    assert found.nats_per_char == pytest.approx(exact, abs=1e-3)


def test_an_estimate_does_not_depend_on_threads_or_earlier_calls(trained, default_text):
    ids = trained.encode(default_text)[:20_000]
    used = inference_of(trained)
    used.estimate(ids[5:], 3000)
    results = {used.estimate(ids, 5000)}
    for threads in (1, 2, 3):
        results.add(Inference(Networks(trained.config), trained.parameters, "fast", threads).estimate(ids, 5000))
    assert len(results) == 1


def test_a_short_text_is_evaluated_exactly(trained, default_text):
    ids = trained.encode(default_text)[:200]
    assert inference_of(trained).estimate(ids, 10_000) == inference.Estimate(trained.evaluate(ids).nats_per_char, 0.0)


def test_validations_on_the_way_are_estimates_and_the_last_one_is_exact(default_text):
    text = default_text[:30_000]
    model, recorder, result = fitted(text)
    assert [step for step, _, _ in recorder.validations] == list(range(4, 41, 4))
    assert all(error > 0 for _, _, error in recorder.validations[:-1])
    assert recorder.validations[-1] == (40, model.evaluate(split(model.encode(text), 0.1)[1]).nats_per_char, None)
    assert result.val_nats == recorder.validations[-1][1]


def overfitting(text):
    """A run that learns little text by heart with a constant rate: its best model is not the last one."""
    return fitted(text[:1500], steps=400, lr=0.3, schedule="constant", val_frac=0.3)


def test_the_best_model_is_left_and_the_last_one_reported(default_text):
    model, recorder, result = overfitting(default_text)
    assert result.model_step < result.steps == 400
    assert model.training["model_step"] == result.model_step
    assert recorder.last is not None
    val = split(model.encode(default_text[:1500]), 0.3)[1]
    last = Model(model.config, model.vocab, Parameters(model.config, np.frombuffer(recorder.last, np.float32)))
    assert result.val_nats == model.evaluate(val).nats_per_char < last.evaluate(val).nats_per_char


@pytest.mark.parametrize("moment", ["a step", "the last sample"])
def test_a_stopped_run_leaves_the_best_model_of_its_checks_and_reports_the_last(moment, default_text):
    """Unless it was stopped when both had been evaluated exactly: then that decides."""
    text, stopping = default_text[:1500], []

    class Stopper(Recorder):
        def stepped(self, progress):
            if moment == "a step" and progress.step == 399:
                stopping.append(True)

        def validated(self, progress):
            super().validated(progress)
            if progress.step == 400:
                stopping.append(True)

    model, recorder = Model.for_text(text, hidden=8, embedding=4), Stopper()
    config = TrainConfig(
        **SETTINGS | {"steps": 400, "lr": 0.3, "schedule": "constant", "val_frac": 0.3, "sample_length": 3}
    )
    result = model.fit(text, config, observer=recorder, stop=lambda: bool(stopping))
    ref, _, whole = overfitting(default_text)
    assert recorder.last is not None
    assert (result.finished, result.model_step) == (moment != "a step", whole.model_step)
    assert model.parameters.flat.tobytes() == ref.parameters.flat.tobytes()
    if moment == "a step":
        checks = {step: nats for step, nats, _ in recorder.validations}
        assert result.val_nats == model.training["val_nats"] == checks[result.model_step]
    else:
        assert result.val_nats == whole.val_nats


@pytest.mark.parametrize("callback", ["validated", "sampled"])
def test_an_error_of_an_observer_is_no_divergence(callback, default_text):
    class Failing(Recorder):
        recoveries = 0

        def recovered(self, progress, reason):
            self.recoveries += 1

    def fail(*_):
        raise ModelFileError("the disk is full")

    observer = Failing()
    setattr(observer, callback, fail)
    model = Model.for_text(default_text[:3000], hidden=8, embedding=4)
    with pytest.raises(ModelFileError, match="the disk is full"):
        model.fit(default_text[:3000], TrainConfig(**SETTINGS | {"sample_length": 3}), observer=observer)
    assert observer.recoveries == 0


@pytest.mark.parametrize("settings", [{"patience": 2}, {"schedule": "plateau"}])
def test_what_validation_decides_needs_a_part_for_it(settings, default_text):
    with pytest.raises(ConfigError, match="need a part for validation"):
        fitted(default_text[:3000], val_frac=0.0, **settings)


def test_a_run_that_improves_to_the_end_leaves_its_last_model(default_text):
    model, recorder, result = fitted(default_text[:30_000])
    assert (result.model_step, recorder.last) == (40, model.parameters.flat.tobytes())
    assert model.training["model_step"] == 40


@pytest.mark.parametrize("settings", [{}, {"patience": 3}, {"schedule": "plateau", "decay_patience": 1}])
def test_how_often_a_run_is_validated_or_sampled_changes_no_bit(settings, default_text):
    """Also where checks choose the model, end the run or lower its rate: they are at steps of their own."""
    results = set()
    for shown in ({"eval_every": 1, "sample_every": 3}, {"eval_every": 0, "sample_every": 0}, {}):
        config = {"steps": 300, "lr": 0.3, "schedule": "constant", "val_frac": 0.3, "sample_length": 5}
        model, recorder, result = fitted(default_text[:1500], **config | shown | settings)
        results.add((model.parameters.flat.tobytes(), recorder.last, result.val_nats, result.model_step, result.steps))
    assert len(results) == 1


def test_patience_ends_a_run_after_so_many_checks_without_a_better_one(default_text):
    text = default_text[:1500]
    settings = {"steps": 2000, "lr": 0.3, "schedule": "constant", "val_frac": 0.3, "checks": 100}
    _, _, result = fitted(text, **settings, patience=4)
    assert result.finished
    assert result.steps < 2000
    assert result.steps - result.model_step in (0, 4 * 20)  # 0: the last one is better when both are evaluated exactly
    assert fitted(text, **settings, patience=8)[2].steps > result.steps


def test_a_plateau_lowers_the_rate(default_text):
    rates = []

    class Rates(Recorder):
        def stepped(self, progress):
            rates.append(progress.rate_factor)

    text = default_text[:1500]
    model = Model.for_text(text, hidden=8, embedding=4)
    config = TrainConfig(
        **SETTINGS | {"steps": 600, "lr": 0.3, "val_frac": 0.3}, schedule="plateau", decay_patience=1, checks=30
    )
    model.fit(text, config, observer=Rates())
    assert rates[0] == 1.0
    assert rates[-1] < 0.5
    assert {b / a for a, b in itertools.pairwise(rates)} == {1.0, 0.5}


def test_minutes_fix_the_steps_and_the_steps_repeat_the_run(default_text):
    text, planned = default_text[:30_000], []

    class Planner(Recorder):
        def planned(self, progress, chars_per_s):
            planned.append((progress.total, chars_per_s))

    def run(**length):
        model = Model.for_text(text, hidden=48, embedding=16)
        started = time.perf_counter()
        config = TrainConfig(seq_len=32, batch=16, sample_length=0, **length)
        result = model.fit(text, config, observer=Planner(), started=started)
        return model, result, time.perf_counter() - started - result.compile_seconds

    model, result, seconds = run(minutes=4 / 60)
    [(total, speed)] = planned
    assert result.finished
    assert result.steps == total == model.training["config"]["steps"]
    assert model.training["config"]["minutes"] is None
    assert 0.2 < result.chars_per_s / speed < 5  # the machine may be busy with other things
    assert 1 < seconds < 20
    again, _, _ = run(steps=total)
    assert again.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert len(planned) == 1


def test_a_run_that_is_stopped_while_it_plans_takes_no_step(default_text):
    model = Model.for_text(default_text[:30_000], hidden=8, embedding=4)
    before = model.parameters.flat.copy()
    result = model.fit(default_text[:30_000], TrainConfig(minutes=1.0), stop=lambda: True)
    assert (result.steps, result.finished) == (0, False)
    assert model.parameters.flat.tobytes() == before.tobytes()


def test_a_run_of_too_few_minutes_takes_a_step(default_text):
    _, _, result = fitted(default_text[:3000], steps=None, minutes=1e-6)
    assert result.steps == 1


def test_a_copy_for_recovery_is_taken_at_steps_that_do_not_depend_on_time():
    assert recovery.steps_between(1) == 200
    assert recovery.steps_between(64 * 32) == 10
    assert recovery.steps_between(500) == 40
    assert np.all(np.diff([recovery.steps_between(n) for n in range(1, 5000)]) <= 0)
