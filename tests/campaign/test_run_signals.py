"""Signals to a run of ``train`` at any time."""

import functools
import os
import select
import signal
import tempfile
import time
from pathlib import Path

import pytest
from commands import (
    SIGNALLED,
    environment,
    finish,
    judge,
    lay_out,
    models_in,
    patience,
    require_kept,
    require_whole,
    start,
)
from harness import LONGEST_WAIT, BrokenPromiseError, Outcome, part, require

from fastlstm import Model

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system has other signals, or none")

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
#: Steps of a run that trains for about a second.
STEPS = 40_000
RUN = [
    "-m", "fastlstm.train", "--data", "notes.txt", f"--steps={STEPS}", "--hidden=16", "--embedding=4", "--batch=4",
    "--seq-len=8", "--sample-length=20", "--threads=2",
]  # fmt: skip
_MARK = Path(__file__).with_name("mark")


def started(folder, arguments):
    """Start a run and wait until it has imported fastlstm: before that, only the interpreter would get a signal."""
    longest_start = 10 * patience()
    reader, writer = os.pipe()
    try:
        variables = environment(folder, CAMPAIGN_MARK=str(writer))
        variables["PYTHONPATH"] = os.pathsep.join([str(_MARK), variables["PYTHONPATH"]])
        process = start(arguments, folder, env=variables, pass_fds=[writer])
        os.close(writer)
        marked = select.select([reader], [], [], longest_start)[0]
    finally:
        os.close(reader)
    if not marked:
        process.kill()
        raise BrokenPromiseError(Outcome.HANG, "the interpreter does not start")
    return process


@functools.cache
def lifetime() -> float:
    """Seconds of a run without signals, from its mark to its end: the shorter of two."""
    return min(lifetime_of_one() for _ in range(2))


def lifetime_of_one() -> float:
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        process = started(Path(folder), RUN)
        begun = time.monotonic()
        process.communicate()
        return time.monotonic() - begun


def hostile_run(trial, rng):
    """Start a run whose output folder, from the text's name or by --out, may hold a finished model already."""
    lay_out(trial.folder)
    if rng.random() < 0.5:
        (trial.folder / "runs").mkdir()
        (trial.folder / "kept").rename(trial.folder / "runs" / "notes")
        (trial.folder / "kept").symlink_to("runs/notes")
        return started(trial.folder, RUN)
    return started(trial.folder, [*RUN, "--out", "run"])


def made_models(folder):
    """Paths of models that a run has saved besides the finished one; each must load."""
    paths = [path for path in models_in(folder) if path.name == "model.safetensors" and path.parent.name != "kept"]
    kept = (folder / "kept").resolve()
    return [path for path in paths if path.resolve().parent != kept and require_whole(path)]


@part("signals to runs", full=320, small=2, seconds=180)
def test_a_signal_ends_a_run_at_once_and_loses_nothing(trials):
    """SIGINT, SIGTERM, SIGHUP or SIGQUIT, once or twice, at any instant: the usual status soon, at most one line,
    no model or one that loads and has at least one step, and no finished model is lost.
    """
    trials.run(signal_run)


def signal_run(trial):
    rng = trial.generator()
    instant = 1.1 * lifetime() * rng.random()
    process = hostile_run(trial, rng)
    time.sleep(instant)
    numbers = [int(number) for number in rng.choice(NUMBERS, 1 + (rng.random() < 0.3))]
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.2 * rng.random() ** 3)
    ended = finish(process, patience())  # a busy machine takes its time to save a model and to end a process
    outcome = judge(ended, f"{signal.Signals(numbers[0]).name} x{len(numbers)}")
    require(ended.status in {0, *(SIGNALLED + number for number in numbers)}, Outcome.WRONG, f"status {ended.status}")
    require_kept(trial.folder)
    models = made_models(trial.folder)
    require(models or ended.status, Outcome.LOST, "status 0, and no model")
    for path in models:
        require(Model.load(path).training["steps"] > 0, Outcome.WRONG, "a model of no steps is saved")
    require_no_temporary(trial.folder)
    return outcome


def require_no_temporary(folder):
    left = [str(path) for path in folder.rglob("*.tmp")]
    require(not left, Outcome.WRONG, f"temporary files are left: {left}")


@part("kills of runs", full=30, small=1, seconds=180)
def test_a_killed_run_leaves_complete_models_or_none(trials):
    """SIGKILL at any instant, also during a save: existing models load, and the next save removes incomplete files."""
    trials.run(kill_run)


def kill_run(trial):
    rng = trial.generator()
    # Every second kill is near the end, when the model is saved.
    instant = lifetime() * (rng.random() if trial.number % 2 else rng.uniform(0.9, 1.02))
    process = hostile_run(trial, rng)
    time.sleep(instant)
    process.kill()
    finish(process, LONGEST_WAIT)
    require_kept(trial.folder)
    made_models(trial.folder)
    model = require_whole(trial.folder / "kept" / "model.safetensors")
    for folder in {path.parent for path in trial.folder.rglob("*.tmp")}:
        model.save(folder / "model.safetensors")
    require_no_temporary(trial.folder)


@functools.cache
def undisturbed_bits() -> bytes:
    """The final parameters of an undisturbed run."""
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        finish(started(Path(folder), [*RUN, "--out", "run"]), 20 * patience())
        return Model.load(Path(folder, "run")).parameters.flat.tobytes()


@part("stopped and continued runs", full=20, small=1, seconds=180)
def test_a_stopped_and_continued_run_gives_the_same_bits(trials):
    """SIGSTOP and SIGCONT at any instants, as by Ctrl-Z and fg, change no bit of the model."""
    trials.run(stop_and_continue_run)


def stop_and_continue_run(trial):
    rng = trial.generator()
    lay_out(trial.folder)
    pause = lifetime() / 5
    process = started(trial.folder, [*RUN, "--out", "run"])
    for _ in range(5):
        time.sleep(pause * rng.random())
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1 * rng.random())
        process.send_signal(signal.SIGCONT)
    ended = finish(process, lifetime() + patience())
    require(judge(ended, "train") is Outcome.HELD, Outcome.WRONG, f"status {ended.status}")
    model = require_whole(trial.folder / "run" / "model.safetensors")
    require(model.parameters.flat.tobytes() == undisturbed_bits(), Outcome.WRONG, "other bits")
