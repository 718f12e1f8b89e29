"""Output folders in which no model can be saved."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import become_nobody, judge, run_in_child
from harness import Outcome, part, require
from subjects import TEXT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

RUN = ["train", "--data=notes.txt", "--steps=3", "--hidden=4", "--embedding=3", "--sample-length=5", "--threads=1"]


class Folder(NamedTuple):
    """A folder given to ``--out``, and a function that makes it unusable for a user who is nobody in particular."""

    out: str
    spoil: Callable[[], object]


def make(path, mode):
    """A function that makes a folder of that mode."""

    def made():
        os.makedirs(path)
        os.chmod(path, mode)

    return made


FOLDERS = [
    Folder("run", make("run", 0o555)),  # no file may be created
    Folder("run", make("run", 0o666)),  # no file may be reached
    Folder("run", make("run", 0)),
    Folder("around/run", make("around", 0o555)),
    Folder("around/more/run", make("around/more", 0)),
    Folder("run", lambda: Path("run").touch()),
    Folder("run/run", lambda: Path("run").touch()),
    Folder("run", lambda: os.symlink("missing/run", "run")),
    Folder("run", lambda: os.symlink("run", "run")),
    Folder("run", make("run/model.safetensors", 0o777)),
    Folder("x" * 300, lambda: None),
    Folder("/dev/null", lambda: None),
    Folder("/proc/run", lambda: None),
]


@part("unusable folders", full=len(FOLDERS), small=len(FOLDERS))
def test_an_unusable_folder_is_found_before_training(trials):
    """One line that says what to do, before the first step, and nothing is left behind."""
    trials.run(run_into)


def run_into(trial):
    Path("notes.txt").write_text(TEXT)
    os.chmod(".", 0o777)
    out, spoil = FOLDERS[trial.number]
    spoil()
    before = sorted(trial.folder.rglob("*"))
    ended = run_in_child([*RUN, "--out", out], trial.folder, trial.part.seconds, prepare=become_nobody)
    refused = judge(ended, out) is Outcome.REFUSED and "--out" in ended.errors
    require(refused, Outcome.WRONG, f"folder {trial.number} is not refused: {ended.errors!r}")
    require("step" not in ended.output, Outcome.WRONG, f"folder {trial.number} is found only after training")
    require(sorted(trial.folder.rglob("*")) == before, Outcome.WRONG, f"folder {trial.number}: files are left")
    return Outcome.REFUSED
