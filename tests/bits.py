"""The bits of training and sampling in float32, on every vector unit: they must be the same.

usage: python -m tests.bits [--arm PYTHON] [--units NAME ...] [--runs NAME ...] [--tests]

Each of `RUNS` is trained and sampled from, with one thread and with two, on this machine as it is and on each of
`UNITS` that it can stand for: numba's variables make it generate code for these, with other registers and instructions.
``--arm PYTHON`` adds a program that runs Python on ARM64, which may be an emulator. ``--tests`` also runs tests there:
those of vectors, functions, tiles and whole training steps. A table of hashes is printed. The exit status is 1 if one
of them differs between units, or a test fails.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import llvmlite.binding as llvm
import numpy as np

from fastlstm import Model, Observer, TrainConfig

ROOT = Path(__file__).parents[1]

_SSE2 = "+sse,+sse2,+cx8,+cmov,+fxsr,+mmx"
_AVX = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+avx"
_AVX2 = f"{_AVX},+avx2,+fma,+bmi,+bmi2,+lzcnt,+movbe"
_AVX512 = f"{_AVX2},+avx512f,+avx512dq,+avx512bw,+avx512vl"


def _unit(processor, features):
    return {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features}


#: The variables for units of x86: registers of 64, 32, 32 and 16 bytes, the last two without fused multiply-adds.
UNITS = {
    "avx512": _unit("skylake-avx512", _AVX512),
    "avx2": _unit("haswell", _AVX2),
    "avx": _unit("sandybridge", _AVX),
    "sse2": _unit("generic", _SSE2),
}

#: The tests that ``--tests`` runs, as an expression of pytest.
TESTS = "test_simd or test_functions or (test_tile and not slow) or (training_steps and float32)"

TEXT = "the cat sat on the mat; so did the dog, at last.\nWho knows why? 'I do', said 7 of 10.\n" * 60


class Run(NamedTuple):
    """A model and its training: what differs from `_MODEL` and `_TRAINING`."""

    model: Mapping[str, object]
    training: Mapping[str, object]


_MODEL = {"hidden": 37, "embedding": 13, "escape": False}
_TRAINING = {"steps": 60, "seq_len": 20, "batch": 7, "checks": 6, "sample_length": 0}
_DROPOUT = {"dropout_embedding": 0.1, "dropout_layers": 0.2, "dropout_output": 0.3}

#: All cells, optimizers, schedules that change the rate, and kinds of clipping; with an escape and without; one layer
#: and two; one lane and many; odd sizes and such that sums are made in several parts (rows of a weight gradient: 128;
#: depth of a product: 512).
RUNS = {
    "lstm": Run({"cell": "lstm"}, {"optimizer": "adagrad", "clip_norm": None, "clip_value": 0.02}),
    "lstm-one-lane": Run({"cell": "lstm", "layers": 2, "hidden": 40}, {"optimizer": "adam", "batch": 1, "warmup": 9}),
    "lstm-dropout": Run({"cell": "lstm", "layers": 2}, {"optimizer": "adamw", "schedule": "wsd", **_DROPOUT}),
    "lstm-large": Run({"cell": "lstm", "hidden": 141, "embedding": 33}, {"steps": 12, "batch": 17, "clip_norm": 0.3}),
    "lstm-escape": Run({"cell": "lstm", "escape": True}, {"optimizer": "adamw"}),
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


def hashes(run, threads):
    """Train and sample; returns the hash of what is computed, by kind."""
    model = Model.for_text(TEXT, **_MODEL | run.model, dtype="float32")
    losses, how = _Losses(), {"threads": threads, "precision": "float32"}
    config = TrainConfig(**_TRAINING | run.training, **how)
    with mock.patch("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0):  # else so small a step is not shared
        trainer = model.trainer(TEXT, config, observer=losses)
        for _ in trainer:
            pass
        last = trainer.checkpoint.state
        sampled = [model.sample("the ", 300, temperature=t, seed=1, **how) for t in (0.0, 0.7, 1.0)]
        sampled += model.continuations("the", 3, 60, temperature=1.0, seed=2, **how)
    nats = np.array([*losses.nats, trainer.result.val_nats, model.evaluate(TEXT[:500], **how).nats_per_char])
    kinds = {
        "parameters": [last.parameters.flat.tobytes(), model.parameters.flat.tobytes()],
        "slots": [last.slots.tobytes(), last.carried.tobytes()],
        "nats": [nats.tobytes()],
        "samples": [text.encode() for text in sampled],
    }
    return {kind: hashlib.sha256(b"".join(parts)).hexdigest()[:8] for kind, parts in kinds.items()}


def here(names):
    """Hashes of runs on this machine, by the number of threads, the run and the kind."""
    return {f"{threads} thr.": {name: hashes(RUNS[name], threads) for name in names} for threads in (1, 2)}


def supported():
    """Names of the units that this machine can stand for."""
    has = llvm.get_host_cpu_features()
    return [
        name
        for name, unit in UNITS.items()
        if all(has.get(feature[1:]) for feature in unit["NUMBA_CPU_FEATURES"].split(","))
    ]


class Machine(NamedTuple):
    """A program that runs Python, and environment variables for it."""

    python: str
    variables: Mapping[str, str]

    def run(self, *arguments):
        """Run Python with warnings as errors: one may say that code cannot be cached."""
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | self.variables
        command = [self.python, "-W", "error", *arguments]
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    def hashes(self, names):
        """The result of `here` there."""
        done = self.run("-m", "tests.bits", "--here", "--runs", *names)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return json.loads(done.stdout)

    def passes_tests(self):
        """Run `TESTS`; returns whether they pass, and prints what pytest says if they do not."""
        files = (f"tests/test_{name}.py" for name in ("simd", "functions", "tile", "equivalence"))
        done = self.run("-m", "pytest", "-p", "no:cacheprovider", "-k", TESTS, *files)
        print("  tests:", done.stdout.splitlines()[-1] if done.returncode == 0 else done.stdout + done.stderr)
        return done.returncode == 0


def named(machine, found):
    """The result of `here` on a machine with the machine in its keys."""
    return {f"{machine}, {threads}": runs for threads, runs in found.items()}


def differences(found):
    """The runs and kinds whose hashes are not the same on all machines, with any threads; ``found`` as by `named`."""
    first = next(iter(found.values()))
    pairs = [(name, kind) for name, kinds in first.items() for kind in kinds]
    return [f"{kind} of {name}" for name, kind in pairs if len({one[name][kind] for one in found.values()}) > 1]


def print_table(found):
    """Print a row for each machine and number of threads, and a column for each run: a hash of all kinds."""
    first = next(iter(found.values()))
    print(f"{'':18}", *(f"{name:14}" for name in first))
    for machine, runs in found.items():
        row = (hashlib.sha256("".join(kinds.values()).encode()).hexdigest()[:8] for kinds in runs.values())
        print(f"{machine:18}", *(f"{cell:14}" for cell in row))


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.bits", description="Compare bits between vector units.")
    parser.add_argument("--arm", metavar="PYTHON", help="a program that runs Python on ARM64")
    parser.add_argument("--units", nargs="*", choices=UNITS, metavar="NAME", help=f"{', '.join(UNITS)} (all it can)")
    parser.add_argument("--runs", nargs="+", choices=RUNS, metavar="NAME", help=f"{', '.join(RUNS)} (all)")
    parser.add_argument("--tests", action="store_true", help="also run tests on each unit")
    parser.add_argument("--here", action="store_true", help="only print the hashes of this machine, as JSON")
    options = parser.parse_args()
    if options.arm and not os.path.exists(options.arm):
        parser.error(f"there is no program {options.arm}")
    runs = options.runs or list(RUNS)
    if options.here:
        print(json.dumps(here(runs)))
        return 0
    machines = {"this one": Machine(sys.executable, {})}
    for name in supported() if options.units is None else options.units:
        machines[name] = Machine(sys.executable, UNITS[name])
    if options.arm:
        machines["neon"] = Machine(os.path.abspath(options.arm), {})
    found, passed = {}, True
    for name, machine in machines.items():
        print(name, flush=True)
        if options.tests:
            passed = machine.passes_tests() and passed
        found |= named(name, machine.hashes(runs))
    print_table(found)
    different = differences(found)
    print("\n".join(f"not the same everywhere: {what}" for what in different) or "the same bits everywhere")
    return 0 if passed and not different else 1


if __name__ == "__main__":
    sys.exit(main())
