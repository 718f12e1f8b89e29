"""What must not change a bit of a run's result: looking at it and saving it, the number of threads, repeating it."""

import dataclasses
from unittest import mock

from harness import Outcome, part, require
from subjects import KINDS, SHORT_RUN, TEXT

from fastlstm import Model, Observer, run_checkpoint
from fastlstm.optimizers import OPTIMIZERS

STEPS = 40


def random_run(trial, rng):
    """A model and the settings of a run that change its steps."""
    config = dataclasses.replace(
        SHORT_RUN,
        steps=STEPS,
        seed=int(rng.integers(1000)),
        optimizer=str(rng.choice(list(OPTIMIZERS))),
        schedule=str(rng.choice(["constant", "cosine", "plateau"])),
        dropout_output=float(rng.choice([0.0, 0.3])),
        checks=int(rng.integers(1, 8)),
    )
    return KINDS[trial.number % len(KINDS)], config


def bits(kind, config, observer=None):
    """Train a new model; returns the bits of its parameters."""
    model = Model.for_text(TEXT, hidden=8, embedding=4, seed=config.seed, **kind)
    model.fit(TEXT, config, observer=observer or Observer())
    return model.parameters.flat.tobytes()


class Saving(Observer):
    """Saves the model whenever it can be saved, and reads all numbers."""

    def __init__(self, path):
        self._path = path

    def stepped(self, progress):
        assert progress.seconds_left >= 0

    def kept(self, progress, checkpoint):
        run_checkpoint.write(self._path, checkpoint)


@part("runs that are looked at", full=300, small=12)
def test_looking_at_a_run_changes_no_bit(trials):
    """Any number of validations, samples, saves and observers: the same parameters as without all of them."""
    trials.run(look_at_a_run)


def look_at_a_run(trial):
    rng = trial.generator()
    kind, config = random_run(trial, rng)
    unwatched = dataclasses.replace(config, eval_every=0, sample_every=0, sample_length=0)
    often = {name: int(rng.integers(1, STEPS)) for name in ("eval_every", "sample_every", "sample_length")}
    watched = bits(kind, dataclasses.replace(config, **often), Saving(trial.folder / "model.safetensors"))
    require(watched == bits(kind, unwatched), Outcome.WRONG, f"other bits with {often}: {config}")


@part("threads and repetitions", full=300, small=4)
def test_threads_and_repetitions_change_no_bit(trials):
    """With 1, 2 and 4 threads, each twice, the same parameters."""
    trials.run(repeat_a_run)


def repeat_a_run(trial):
    kind, config = random_run(trial, trial.generator())
    with mock.patch("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0):  # else so small a step is not shared
        found = {bits(kind, dataclasses.replace(config, threads=threads)) for threads in (1, 2, 4, 1, 2, 4)}
    require(len(found) == 1, Outcome.WRONG, f"{len(found)} results of one run: {config}")
