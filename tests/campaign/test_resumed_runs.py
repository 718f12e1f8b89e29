"""Runs that are killed or stopped, and resumed: they end with the bytes of the run that was never interrupted."""

import dataclasses
import functools
import json
import os
import signal
import tempfile
import time
from pathlib import Path

from commands import lay_out, run_in_child
from forks import fork
from harness import Outcome, part, require
from subjects import TEXT
from test_same_bits import random_run

from fastlstm import Model, cli, run_checkpoint
from fastlstm.trainer import Trainer

#: A run of about a second, which saves often.
RUN = [
    "train", "--data", "notes.txt", "--steps=20000", "--hidden=16", "--embedding=4", "--batch=4", "--seq-len=8",
    "--sample-length=20", "--threads=2", "--dropout-output=0.2", "--save-every=800", "--out=run", "--quiet",
]  # fmt: skip
LONGEST_RUN = 60.0


@part("kills and resumes", full=500, small=2, seconds=300)
def test_a_killed_and_resumed_run_ends_with_the_bytes_of_one_that_was_never_killed(trials):
    """SIGKILL at a random instant, of every 25th run 20 times: all files are the same in the end."""
    trials.run(kill_and_resume)


def kill_and_resume(trial):
    rng = trial.generator()
    lay_out(trial.folder)
    for _ in range(20 if trial.number % 25 == 24 else 1):
        kill(trial.folder, lifetime() * rng.uniform(0.0, 1.05))
    ended = run_in_child(arguments(trial.folder), trial.folder, LONGEST_RUN)
    require(ended.status == 0, Outcome.WRONG, f"status {ended.status}: {ended.errors[-300:]!r}")
    found, expected = result(trial.folder / "run"), undisturbed()
    for name, content in expected.items():
        require(found.get(name) == content, Outcome.WRONG, f"{name} is another one")
    require(set(found) == set(expected), Outcome.WRONG, f"files: {sorted(found)}")


def arguments(folder):
    """Of the next attempt: the run goes on, if it has begun."""
    return ["train", "--resume=run", "--quiet"] if (folder / "run" / "config.toml").exists() else RUN


def kill(folder, instant):
    """Start the run in a child, and kill it after so many seconds."""

    def train():
        os.chdir(folder)
        cli.main(arguments(folder))

    child = fork(train)
    time.sleep(instant)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@functools.cache
def lifetime() -> float:
    """Seconds of an undisturbed run in a child."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        started = time.monotonic()
        run_in_child(RUN, folder, LONGEST_RUN)
        return time.monotonic() - started


@functools.cache
def undisturbed():
    """The result of the run that is not killed."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        run_in_child(RUN, folder, LONGEST_RUN)
        return result(Path(folder, "run"))


def result(folder):
    """The files of a run by name, without what depends on the clock, and without the log."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    del files["train.log"]
    state = run_checkpoint.read(folder)
    state.state.seconds = state.good.seconds = 0.0
    files["last.safetensors"] = repr((state.state.scalars(), state.good.scalars())).encode() + b"".join(
        array.tobytes() for array in [*state.state.arrays().values(), *state.good.arrays().values(), state.best.flat]
    )
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    timeless = [{key: line[key] for key in line if key not in ("seconds", "chars_per_s")} for line in lines]
    files["metrics.jsonl"] = repr(timeless).encode()
    files["config.toml"] = files["config.toml"].split(b"[run]")[0]  # what follows is a record of how it was run
    return files


@part("resume points", full=300, small=10)
def test_a_run_that_goes_on_from_a_file_ends_with_the_same_bits(trials):
    """Any cell, optimizer, schedule and dropout; stopped at a random step, of every fifth run after each step."""
    trials.run(stop_and_resume)


def stop_and_resume(trial):
    rng = trial.generator()
    kind, config = random_run(trial, rng)
    config = dataclasses.replace(config, steps=60)
    whole = new_run(kind, config)
    whole.run()
    run, path = new_run(kind, config), trial.folder / "last.safetensors"
    points = range(1, 60) if trial.number % 5 == 0 else [int(rng.integers(1, 60))]
    for at in points:
        for progress in run:
            if progress.step == at:
                break
        run_checkpoint.write(path, run.checkpoint)
        stored = run_checkpoint.read(path)
        run = Trainer.resumed(stored, stored.vocab, stored.vocab.encode(TEXT))
    run.run()
    what = f"stopped at {list(points)}: {config}"
    require(run.state.has_arrays_of(whole.state), Outcome.WRONG, what)
    require(run.training == whole.training, Outcome.WRONG, f"another record: {what}")


def new_run(kind, config):
    model = Model.for_text(TEXT, hidden=8, embedding=4, seed=config.seed, **kind)
    return Trainer(model.content, model.encode(TEXT), config)
