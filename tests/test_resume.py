"""A run that is interrupted and resumed ends with the bytes of the run that was never interrupted."""

import dataclasses
import math

import numpy as np
import pytest
from runs_to_resume import IDS, VOCAB, run_config, untrained

from fastlstm import recovery, run_checkpoint
from fastlstm.errors import ConfigError, TextError
from fastlstm.inference import Estimate
from fastlstm.observers import Observer
from fastlstm.trainer import Trainer
from fastlstm.validation import Validation

#: Steps after which the run is interrupted: every sixth, so also at copies, checks, samples and where lanes wrap.
POINTS = range(3, 300, 6)


class Reports(Observer):
    """Collects what a run reports."""

    def __init__(self):
        self.samples, self.validations, self.losses, self.last = {}, {}, {}, None

    def stepped(self, progress):
        self.losses[progress.step] = progress.train_nats

    def sampled(self, progress, text):
        self.samples[progress.step] = text

    def validated(self, progress):
        self.validations[progress.step] = progress.val_nats, progress.val_error

    def ended(self, progress, checkpoint):
        self.last = checkpoint.state.copy()

    def all(self):
        return self.samples, self.validations, self.losses


def add(first, second):
    return tuple(a | b for a, b in zip(first.all(), second.all(), strict=True))


def whole_run(config):
    model, reports = untrained(), Reports()
    trainer = Trainer(model.content, IDS, config, observer=reports)
    trainer.run()
    return trainer, reports


def interrupted(config, at, path):
    """The first steps of a run, whose checkpoint is then written to a file."""
    reports = Reports()
    trainer = Trainer(untrained().content, IDS, config, observer=reports)
    for progress in trainer:
        if progress.step == at:
            break
    run_checkpoint.write(path, trainer.checkpoint)
    return reports


def assert_same(comp, comp_last, ref, ref_last):
    assert comp.content.parameters.flat.tobytes() == ref.content.parameters.flat.tobytes()
    assert comp.training == ref.training
    comp_last.seconds = ref_last.seconds  # another clock
    assert comp_last == ref_last


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "adamw", "lr": 0.02, "schedule": "plateau", "patience": 5, "warmup": 20},
        {"optimizer": "sgd", "lr": 0.5, "backend": "reference", "steps": 150},
    ],
    ids=["adagrad", "adamw, plateau", "sgd, reference"],
)
def test_a_run_resumed_at_any_of_50_steps_ends_with_the_same_bits(settings, tmp_path):
    config = run_config(**settings)
    ref, whole = whole_run(config)
    assert ref.progress.epoch > 2  # the lanes wrap on the way
    points = [at for at in POINTS if at < ref.state.step][:: 1 if not settings else 5]
    assert len(points) == 50 or settings
    for at in points:
        first, second = interrupted(config, at, tmp_path / "last"), Reports()
        late = Trainer.resumed(run_checkpoint.read(tmp_path / "last"), VOCAB, IDS, observer=second)
        late.run()
        assert_same(late, second.last, ref, whole.last)
        assert add(first, second) == whole.all()


def test_a_run_interrupted_20_times_ends_with_the_same_bits(tmp_path, rng):
    config = run_config(optimizer="adam", lr=0.01)
    ref, whole = whole_run(config)
    path, reports = tmp_path / "last", []
    run_checkpoint.write(path, Trainer(untrained().content, IDS, config).checkpoint)
    for at in [*np.sort(rng.choice(np.arange(1, 300), 20, replace=False)), None]:
        reports.append(Reports())
        trainer = Trainer.resumed(run_checkpoint.read(path), VOCAB, IDS, observer=reports[-1])
        for progress in trainer:
            if progress.step == at:
                break
        run_checkpoint.write(path, trainer.checkpoint)
    assert_same(trainer, reports[-1].last, ref, whole.last)
    merged = Reports()
    for one in reports:
        merged.samples, merged.validations, merged.losses = add(merged, one)
    assert merged.all() == whole.all()


class Poison(Observer):
    """Makes a parameter NaN after a step, once in the run: at the step itself when it is not resumed there."""

    def __init__(self, step):
        self.step, self.trainer = step, None

    def stepped(self, progress):
        if progress.step == self.step and self.trainer.state.recoveries == 0:
            self.trainer.content.parameters["output.b"][0] = math.nan


@pytest.mark.parametrize("at", [55, 60, 71, 79, 99])
def test_a_run_that_diverges_after_it_is_resumed_goes_back_to_the_same_copy(at, tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "steps_between", lambda symbols: 20)

    def run(trainer, until=None):
        trainer.observer = poison = Poison(75)
        poison.trainer = trainer
        for progress in trainer:
            if progress.step == until and (until < 75 or trainer.state.recoveries):
                break
        return trainer

    config = run_config(steps=120)
    ref = run(Trainer(untrained().content, IDS, config))
    assert ref.state.recoveries == 1
    early = run(Trainer(untrained().content, IDS, config), until=at)
    run_checkpoint.write(tmp_path / "last", early.checkpoint)
    late = run(Trainer.resumed(run_checkpoint.read(tmp_path / "last"), VOCAB, IDS))
    assert late.state.recoveries == 1
    assert late.content.parameters.flat.tobytes() == ref.content.parameters.flat.tobytes()


class StopWithin(Reports):
    """Stops a run within the validation after a step."""

    def __init__(self, step):
        super().__init__()
        self.step, self.calls, self.checkpoint = step, 0, None

    def stop(self):
        self.calls += self.step in self.losses
        return self.calls > 0

    def ended(self, progress, checkpoint):
        self.checkpoint = checkpoint


def test_a_run_stopped_within_a_validation_goes_on_from_the_copy_before(tmp_path):
    """Else the check at this step would be lost."""
    config = run_config()
    ref, whole = whole_run(config)
    first, second = StopWithin(215), Reports()
    trainer = Trainer(untrained().content, IDS, config, observer=first, stop=first.stop)
    trainer.run()
    assert trainer.state.step == 215
    assert 215 not in first.validations
    assert first.checkpoint.state.step < 215
    run_checkpoint.write(tmp_path / "last", first.checkpoint)
    late = Trainer.resumed(run_checkpoint.read(tmp_path / "last"), VOCAB, IDS, observer=second)
    late.run()
    assert_same(late, second.last, ref, whole.last)
    assert add(first, second) == whole.all()


def test_a_resumed_run_that_is_stopped_within_a_validation_goes_on_from_where_it_was_resumed(tmp_path):
    """Not from the copy before, which may be much older, nor with the best model of a later check."""
    config = run_config()
    ref, whole = whole_run(config)
    first, second, third = interrupted(config, 171, tmp_path / "last"), StopWithin(172), Reports()
    Trainer.resumed(run_checkpoint.read(tmp_path / "last"), VOCAB, IDS, observer=second, stop=second.stop).run()
    assert (second.checkpoint.state.step, second.checkpoint.good.step) == (171, 0)
    run_checkpoint.write(tmp_path / "last", second.checkpoint)
    late = Trainer.resumed(run_checkpoint.read(tmp_path / "last"), VOCAB, IDS, observer=third)
    late.run()
    assert_same(late, third.last, ref, whole.last)
    assert tuple(a | b for a, b in zip(add(first, second), third.all(), strict=True)) == whole.all()


@pytest.fixture
def overfitting(monkeypatch):
    """Runs whose validation loss rises from check to check."""

    def estimate(self, trained):
        self.checks = getattr(self, "checks", 0) + 1
        return Estimate(float(self.checks), 0.1)

    def exact(self, parameters):
        return 2.5 if parameters is self._inference.parameters else 1.5

    monkeypatch.setattr(Validation, "estimate", estimate)
    monkeypatch.setattr(Validation, "exact", exact)


def test_the_checkpoint_after_a_run_is_that_of_its_last_step_and_not_of_the_model_that_it_leaves(overfitting):
    found = []
    trainer = Trainer(untrained().content, IDS, run_config())
    trainer.observer = Reports()
    trainer.observer.ended = lambda progress, checkpoint: found.append(checkpoint.state.copy())
    result = trainer.run()
    assert result.model_step < result.steps
    assert trainer.checkpoint.state == found[0]
    assert trainer.checkpoint.state.parameters.flat.tobytes() != trainer.content.parameters.flat.tobytes()
    assert trainer.checkpoint.last.training["model_step"] == 300


def test_a_loop_goes_on_after_an_interrupt_in_the_last_sample(overfitting):
    ref, whole = whole_run(run_config())
    reports = Interrupter("sampled", 300)
    trainer = Trainer(untrained().content, IDS, run_config(), observer=reports)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    trainer.run()
    assert_same(trainer, reports.last, ref, whole.last)
    assert (trainer.result.model_step, trainer.result.val_nats) == (ref.result.model_step, ref.result.val_nats)


def test_a_stopped_run_is_not_checked_more_than_one_that_goes_on(monkeypatch):
    """Else it might go back where the other does not."""
    trainer = Trainer(untrained().content, IDS, run_config(), stop=lambda: trainer.state.step == 50)
    monkeypatch.setattr(trainer._steps, "loss_after", lambda state: math.inf)
    trainer.run()
    assert (trainer.state.step, trainer.state.recoveries, trainer.result.finished) == (50, 0, False)


def test_copies_that_are_reported_are_points_to_resume_from(tmp_path):
    """What is saved during a run is the copy of an earlier step, after all that was reported up to it."""
    config, found = run_config(), {}

    class Keeper(Observer):
        def kept(self, progress, checkpoint):
            assert checkpoint.state.step == progress.step - 1
            run_checkpoint.write(tmp_path / str(checkpoint.state.step), checkpoint)
            found[checkpoint.state.step] = tmp_path / str(checkpoint.state.step)

    ref, whole = whole_run(config)
    Trainer(untrained().content, IDS, config, observer=Keeper()).run()
    assert len(found) > 0
    for step, path in found.items():
        second = Reports()
        late = Trainer.resumed(run_checkpoint.read(path), VOCAB, IDS, observer=second)
        late.run()
        assert_same(late, second.last, ref, whole.last)
        assert min(second.losses) == step + 1


@pytest.mark.parametrize("at", [1, 140, 299, 300])
def test_more_steps_go_on_from_a_finished_or_stopped_run(at, tmp_path):
    """With a constant rate the result is that of a run of so many steps from the start."""
    config = run_config(schedule="constant", checks=1, sample_every=0)
    long = dataclasses.replace(config, steps=400)
    ref, _ = whole_run(long)
    path = tmp_path / "last"
    if at < 300:
        interrupted(config, at, path)
    else:
        trainer, reports = Trainer(untrained().content, IDS, config), Reports()
        trainer.observer = reports
        reports.ended = lambda progress, checkpoint: run_checkpoint.write(path, checkpoint)
        trainer.run()
    late = Trainer.resumed(run_checkpoint.read(path), VOCAB, IDS, long)
    late.run()
    assert late.state.step == 400
    assert late.content.parameters.flat.tobytes() == ref.content.parameters.flat.tobytes()


@pytest.fixture
def checkpoint(tmp_path):
    interrupted(run_config(), 100, tmp_path / "last")
    return run_checkpoint.read(tmp_path / "last")


@pytest.mark.parametrize("change", ["symbol", "length", "vocabulary"])
def test_a_changed_text_is_refused(change, checkpoint):
    ids, vocab = IDS.copy(), VOCAB
    if change == "symbol":
        ids[7] = (ids[7] + 1) % len(VOCAB)
    elif change == "length":
        ids = ids[:-1]
    else:
        vocab = type(VOCAB)(VOCAB.symbols + np.uint32(1))
    with pytest.raises(TextError, match=r"not that of the run, or has changed: .*--init-from"):
        Trainer.resumed(checkpoint, vocab, ids)


@pytest.mark.parametrize(("name", "value"), [("lr", 0.5), ("seed", 1), ("batch", 4), ("optimizer", "sgd")])
def test_a_setting_that_changes_what_a_step_computes_is_refused(name, value, checkpoint):
    with pytest.raises(ConfigError, match=f"{name} of the run is .* cannot become"):
        Trainer.resumed(checkpoint, VOCAB, IDS, run_config(**{name: value}))


def test_fewer_steps_than_taken_are_refused(checkpoint):
    with pytest.raises(ConfigError, match="has taken 100 steps already"):
        Trainer.resumed(checkpoint, VOCAB, IDS, run_config(steps=99))


def test_settings_of_what_is_shown_and_of_the_machine_may_change(checkpoint):
    ref, _ = whole_run(run_config())
    config = run_config(threads=2, eval_every=7, sample_every=3, sample_length=5, save_every=9, save_minutes=1)
    late = Trainer.resumed(checkpoint, VOCAB, IDS, config)
    late.run()
    assert late.content.parameters.flat.tobytes() == ref.content.parameters.flat.tobytes()


def test_a_loop_that_is_left_goes_on_in_the_next_one():
    ref, whole = whole_run(run_config())
    reports = Reports()
    trainer, steps = Trainer(untrained().content, IDS, run_config(), observer=reports), []
    for until in (10, 11, 150, None):
        for progress in trainer:
            steps.append(progress.step)
            if progress.step == until:
                break
    assert steps == list(range(1, 301))
    assert_same(trainer, reports.last, ref, whole.last)
    assert reports.all() == whole.all()
    assert list(trainer) == []  # it has ended


class Interrupter(Reports):
    """Raises KeyboardInterrupt once in a callback, as a notebook does in the middle of a step."""

    def __init__(self, callback, step):
        super().__init__()
        self.step = step
        original = getattr(self, callback)

        def raising(progress, *rest):
            if progress.step == self.step:
                self.step = None
                raise KeyboardInterrupt
            original(progress, *rest)

        setattr(self, callback, raising)


@pytest.mark.parametrize(("callback", "step"), [("stepped", 250), ("validated", 215), ("sampled", 232)])
def test_a_loop_goes_on_after_an_interrupt_in_the_middle_of_a_step(callback, step):
    ref, whole = whole_run(run_config())
    reports = Interrupter(callback, step)
    trainer = Trainer(untrained().content, IDS, run_config(), observer=reports)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert trainer.training["steps"] == step
    trainer.run()
    assert_same(trainer, reports.last, ref, whole.last)
    assert reports.all() == whole.all()
