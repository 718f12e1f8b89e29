"""The memory of a run on a long text: it grows with the text by the size of its ids only."""

import os
import shutil
import subprocess
import sys

import pytest
from commands import environment
from harness import Outcome, part, require
from subjects import TEXT

pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not report the memory of a process")

SHORT, LONG = 1 << 20, 1 << 30
#: Bytes per character of a text whose characters and ids take one each; a block of it is there as both.
MEMORY_PER_CHARACTER = 1.1
#: Bytes in a unit in which the system reports memory.
_UNIT = 1 if sys.platform == "darwin" else 1024
RUN = [
    "-m", "fastlstm.train", "--data", "long.txt", "--steps=20", "--hidden=16", "--embedding=4", "--batch=16",
    "--seq-len=16", "--val-frac=1e-5", "--sample-length=0", "--threads=1", "--out=run",
]  # fmt: skip


@part("a text of 1 GB", full=1, small=0, seconds=900)
def test_a_long_text_takes_little_more_memory_than_its_characters(trials):
    """A run on a text of 1 GB takes that much more memory than one on a text of 1 MB."""
    trials.run(train_on_a_long_text)


def train_on_a_long_text(trial):
    short, long = (memory_of_a_run(trial.folder, size) for size in (SHORT, LONG))
    per_character = (long - short) / (LONG - SHORT)
    require(per_character <= MEMORY_PER_CHARACTER, Outcome.WRONG, f"{per_character:.2f} bytes per character")


def memory_of_a_run(folder, size):
    """The most memory that a run on a text of so many bytes has had, in bytes."""
    require(shutil.disk_usage(folder).free > 2 * size, Outcome.WRONG, "there is no space for the text")
    block = (TEXT.encode() * (SHORT // len(TEXT) + 1))[:SHORT]
    with open(folder / "long.txt", "wb") as file:
        for _ in range(size // SHORT):
            file.write(block)
    command = [sys.executable, *RUN, "--overwrite"]
    with open(folder / "errors.txt", "wb") as errors:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    require(process.returncode == 0, Outcome.WRONG, (folder / "errors.txt").read_text())
    return usage.ru_maxrss * _UNIT
