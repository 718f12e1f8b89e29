"""The bits of training and sampling in float32, on each vector unit: they must be the same.

usage: python -m tests.bits [--tests] [--arm PYTHON] [--units NAME ...] [--runs NAME ...]

Each of `RUNS` is trained and sampled from, in a process for each of `UNITS`, and a table of hashes is printed. Narrower
units than that of this machine are selected by numba's variables, and so is the code that numba generates for them.
``--arm PYTHON`` adds another machine: a program that runs a Python for ARM64, for example in an emulator. ``--tests``
runs the tests of vectors, functions and tiles on each unit first. The exit status is 1 if a hash differs or a test fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np

from fastlstm import Model, Observer, TrainConfig

ROOT = Path(__file__).parents[1]

_SSE2 = "+sse,+sse2,+cx8,+cmov,+fxsr,+mmx"
_AVX = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx"
_AVX2 = f"{_AVX},+avx2,+fma,+bmi,+bmi2,+lzcnt,+movbe"

#: The variables that make numba generate code for another vector unit of x86, the widest first.
UNITS = {
    "avx512": {"NUMBA_CPU_NAME": "skylake-avx512", "NUMBA_CPU_FEATURES": f"{_AVX2},+avx512f,+avx512dq,+avx512bw,+avx512vl"},
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": _AVX2},
    "avx": {"NUMBA_CPU_NAME": "sandybridge", "NUMBA_CPU_FEATURES": _AVX},
    "sse2": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": _SSE2},
}  # fmt: skip

#: Tests that are run on each unit: those of all that depends on it.
TESTS = ("test_simd.py", "test_functions.py", "test_tile.py", "test_dropout.py")

TEXT = "the cat sat on the mat; so did the dog, at last.\nWho knows why? 'I do', said 7 of 10.\n" * 60


class Run(NamedTuple):
    """A model and its training: what differs from `_MODEL` and `_TRAINING`."""

    model: dict[str, object]
    training: dict[str, object]


_MODEL = {"hidden": 37, "embedding": 13}
_TRAINING = {"steps": 60, "seq_len": 20, "batch": 7, "checks": 6, "sample_length": 0}
_DROPOUT = {"dropout_embedding": 0.1, "dropout_layers": 0.2, "dropout_output": 0.3}

#: All cells, optimizers, schedules and kinds of clipping; one layer and two; one lane and many; odd sizes and such that
#: sums are made in several parts (rows of a weight gradient: 128; depth of a product: 512).
RUNS = {
    "lstm": Run({"cell": "lstm"}, {"optimizer": "adagrad", "clip_norm": None, "clip_value": 0.02}),
    "lstm-one-lane": Run({"cell": "lstm", "layers": 2, "hidden": 40}, {"optimizer": "adam", "batch": 1, "warmup": 9}),
    "lstm-dropout": Run({"cell": "lstm", "layers": 2}, {"optimizer": "adamw", "schedule": "wsd", **_DROPOUT}),
    "lstm-large": Run({"cell": "lstm", "hidden": 141, "embedding": 33}, {"steps": 12, "batch": 17, "clip_norm": 0.3}),
    "gru": Run({"cell": "gru"}, {"optimizer": "rmsprop", "schedule": "step", "clip_norm": 0.5}),
    "gru-dropout": Run({"cell": "gru", "layers": 2}, {"optimizer": "adamw", **_DROPOUT, "dropout_held": True}),
    "gru-one-lane": Run({"cell": "gru", "layers": 2, "hidden": 21}, {"batch": 1, "schedule": "linear"}),
    "rnn": Run({"cell": "rnn", "hidden": 45}, {"optimizer": "sgd", "nesterov": True, "lr": 0.05}),
    "rnn-plateau": Run({"cell": "rnn", "layers": 2}, {"optimizer": "rmsprop", "momentum": 0.5, "schedule": "plateau"}),
}


class _Losses(Observer):
    """Records the losses of a run, in nats per symbol."""

    def __init__(self):
        self.nats = []

    def stepped(self, progress):
        self.nats += [progress.loss, progress.norm, progress.rate]

    def validated(self, progress):
        self.nats += [progress.train_nats, progress.val_nats]


def hashes(run: Run, threads: int) -> dict[str, str]:
    """Train and sample; returns the hash of what is computed, by kind."""
    model = Model.for_text(TEXT, **_MODEL | run.model, dtype="float32")
    losses = _Losses()
    config = TrainConfig(**_TRAINING | run.training, threads=threads)
    with mock.patch("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0):  # else so small a step is not shared
        trainer = model.trainer(TEXT, config, observer=losses)
        for _ in trainer:
            pass
        last = trainer.checkpoint.state
        sampled = [model.sample("the ", 300, temperature=t, seed=1, threads=threads) for t in (0.0, 0.7, 1.0)]
        sampled += model.continuations("the", 3, 60, temperature=1.0, seed=2, threads=threads)
    nats = np.array([*losses.nats, trainer.result.val_nats, model.evaluate(TEXT[:500]).nats_per_char])
    kinds = {
        "parameters": [last.parameters.flat.tobytes(), model.parameters.flat.tobytes()],
        "slots": [last.slots.tobytes(), last.carried.tobytes()],
        "nats": [nats.tobytes()],
        "samples": [text.encode() for text in sampled],
    }
    return {kind: hashlib.sha256(b"".join(parts)).hexdigest()[:8] for kind, parts in kinds.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bits", description="Compare bits between vector units.")
    parser.add_argument("--tests", action="store_true", help="also run tests on each unit")
    parser.add_argument("--arm", metavar="PYTHON", help="a program that runs Python on ARM64")
    parser.add_argument("--units", nargs="+", choices=UNITS, metavar="NAME", help=f"of {', '.join(UNITS)}")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS), metavar="NAME", help="of " + ", ".join(RUNS))
    parser.add_argument("--here", action="store_true", help="print the hashes of this machine as JSON")
    options = parser.parse_args()
    if options.here:
        print(json.dumps({f"{name} {n}": hashes(RUNS[name], n) for name in options.runs for n in (1, 2)}))
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
