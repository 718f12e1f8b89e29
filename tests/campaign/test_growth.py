"""Memory, threads and descriptors do not grow in a long-running process."""

import dataclasses
import gc
import os
import threading

import pytest
from harness import Outcome, part, require
from memory import IS_KNOWN, resident_memory
from subjects import SHORT_RUN, TEXT, fresh_model

from fastlstm import Model

#: Number of steps in the campaign, and in the default suite.
STEPS, FEW_STEPS = 25_000, 2_500
#: Bytes per step that count as a leak, less than any Python object; and bytes that an allocator may keep in reserve.
LEAK, STOCK = 32, 1 << 20


def train(model, steps, folder):
    model.fit(TEXT, dataclasses.replace(SHORT_RUN, steps=steps, eval_every=0, sample_every=0))


def train_with_looks(model, steps, folder):
    model.fit(TEXT, dataclasses.replace(SHORT_RUN, steps=steps, eval_every=50, sample_every=50))


def draw(model, steps, folder):
    for _ in range(steps // 100):
        model.sample("so", 100, threads=2)


def save_and_load(model, steps, folder):
    for _ in range(steps // 100):
        model.save(folder / "model.safetensors")
        Model.load(folder / "model.safetensors")


USES = (train, train_with_looks, draw, save_and_load)


@pytest.mark.skipif(not IS_KNOWN, reason="the system does not report the memory of a process")
@part("25,000 steps without growth", full=len(USES), small=len(USES), seconds=300)
def test_memory_threads_and_descriptors_do_not_grow(trials):
    """After 25,000 repetitions of any use, the process is as large as after the first tenth of them."""
    trials.run(use_for_long)


def use_for_long(trial):
    use, steps = USES[trial.number % len(USES)], STEPS if trial.part.is_full else FEW_STEPS
    model = fresh_model(hidden=16)
    use(model, max(steps // 10, 250), trial.folder)
    before = size_of_process()
    use(model, steps, trial.folder)
    after = size_of_process()
    grown = after["memory"] - before["memory"]
    require(grown <= STOCK + LEAK * steps, Outcome.WRONG, f"{use.__name__}: {grown:,} bytes more after {steps} steps")
    for what in ("threads", "descriptors"):
        require(
            after[what] <= before[what], Outcome.WRONG, f"{use.__name__}: {before[what]}, then {after[what]} {what}"
        )


def size_of_process():
    gc.collect()
    return {
        "memory": resident_memory(),
        "threads": threading.active_count(),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }
