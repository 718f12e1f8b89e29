"""A damaged cache of compiled kernels costs a compilation, and never changes a result."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from commands import environment, finish, judge, require_whole, start
from damage import damaged
from harness import Outcome, part, require
from subjects import TEXT, file_of

from fastlstm.terminal import COMPILING

#: Compiles two small kernels, which is fast; the real ones take half a minute.
PROGRAM = """
import numpy as np
from fastlstm.kernels import jit

@jit.kernel
def twice(a):
    for i in range(len(a)):
        a[i] *= 2

@jit.kernel
def negative(a):
    for i in range(len(a)):
        a[i] = -a[i]

a = np.arange(1.0, 8.0)
twice(a)
negative(a)
print(a.sum(), sum(sum(kernel.stats.cache_hits.values()) for kernel in (twice, negative)))
"""
RESULT, KERNELS = "-56.0", "2"
#: Seconds for compiling the small kernels, and the real ones, with an empty cache.
LONGEST_COMPILING, COMPILING_ALL = 60, 400


class SmallKernels:
    """The program with small kernels, and the cache that its first run fills, made once per process."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())
        self.program = self.folder / "program.py"
        self.program.write_text(PROGRAM)
        self.cache = self.folder / "cache"
        result_of(self.started(self.cache))

    def started(self, folder):
        variables = environment(self.folder, NUMBA_CACHE_DIR=str(folder))
        return start([str(self.program)], self.folder, env=variables)


@cache
def small_kernels():
    return SmallKernels()


def result_of(process):
    """Wait for a program and verify its result; returns whether kernels came from the cache, and its warnings."""
    ended = finish(process, LONGEST_COMPILING)
    require(judge(ended, "a start") is Outcome.HELD, Outcome.WRONG, f"status {ended.status}: {ended.errors[-300:]}")
    value, hits = ended.output.split()
    require(value == RESULT, Outcome.WRONG, f"{value} instead of {RESULT}")
    return hits == KERNELS, ended.errors


def require_cached(folder):
    """The cache must be complete again: the next start loads the kernels without warnings."""
    loaded, errors = result_of(small_kernels().started(folder))
    require(loaded and not errors, Outcome.WRONG, f"the cache is not complete again: {errors[-300:]!r}")


def files_of(folder):
    return sorted([*folder.rglob("*.nbi"), *folder.rglob("*.nbc")])


@part("damaged caches", full=96, small=2, seconds=200)
def test_a_damaged_cache_gives_the_correct_result_and_is_rebuilt(trials):
    """For any contents of a cache file, a start gives the correct result with status 0, and the next one loads it."""
    trials.run(damage_the_cache)


def damage_the_cache(trial):
    folder = trial.folder / "cache"
    shutil.copytree(small_kernels().cache, folder)
    DAMAGES[trial.number % len(DAMAGES)](files_of(folder), trial.generator())
    result_of(small_kernels().started(folder))
    require_cached(folder)


def change_one(files, rng):
    path = files[rng.integers(len(files))]
    path.write_bytes(damaged(path.read_bytes(), rng))


def change_machine_code(files, rng):
    path = rng.choice([path for path in files if path.suffix == ".nbc"])
    content = path.read_bytes()
    code = max(content.find(b"\x7fELF"), 0)
    path.write_bytes(damaged(content, rng, code))


def empty_one(files, rng):
    files[rng.integers(len(files))].write_bytes(b"")


def fill_with_garbage(files, rng):
    path = files[rng.integers(len(files))]
    path.write_bytes(rng.bytes(path.stat().st_size))


def swap_two(files, rng):
    one, other = rng.choice(files, 2, replace=False)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def remove_one(files, rng):
    files[rng.integers(len(files))].unlink()


DAMAGES = (
    change_machine_code, change_one, change_machine_code, change_one, empty_one, fill_with_garbage, swap_two,
    remove_one,
)  # fmt: skip


@part("caches shared by four", full=9, small=1, seconds=400)
def test_four_processes_at_once_share_any_cache(trials):
    """With an empty, damaged or unusable cache, four processes that start at the same time compute correctly."""
    trials.run(share_the_cache)


def share_the_cache(trial):
    folder, rng, state = trial.folder / "cache", trial.generator(), trial.number % 3
    if state == 1:
        shutil.copytree(small_kernels().cache, folder)
        change_one(files_of(folder), rng)
    elif state == 2:
        folder.touch()  # nothing can be written below a file, even by root
    for process in [small_kernels().started(folder) for _ in range(4)]:
        result_of(process)
    if state != 2:
        require_cached(folder)


class RealKernels:
    """A model, its evaluation, and a cache of all real kernels, compiled once per process."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "model.safetensors").write_bytes(file_of(0))
        (self.folder / "notes.txt").write_text(TEXT)
        require_whole(self.folder / "model.safetensors")
        self.cache = self.folder / "cache"
        self.output = self.evaluated(self.cache)

    def evaluated(self, cache_folder):
        variables = environment(self.folder, NUMBA_CACHE_DIR=str(cache_folder))
        ended = finish(start(["-m", "fastlstm.evaluate", ".", "notes.txt"], self.folder, env=variables), COMPILING_ALL)
        require(
            judge(ended, "evaluate") is Outcome.HELD, Outcome.WRONG, f"status {ended.status}: {ended.errors[-300:]}"
        )
        return ended.output


@cache
def real_kernels():
    return RealKernels()


@part("damaged caches of real kernels", full=6, small=0, seconds=1200)
def test_a_damaged_cache_of_the_real_kernels_changes_no_result(trials):
    """As for the small kernels, with a user's cache."""
    trials.run(damage_the_real_cache)


def damage_the_real_cache(trial):
    folder = trial.folder / "cache"
    shutil.copytree(real_kernels().cache, folder)
    for path in files_of(folder):
        path.write_bytes(damaged(path.read_bytes(), trial.generator()))
    for _ in range(2):
        require(real_kernels().evaluated(folder) == real_kernels().output, Outcome.WRONG, "another evaluation")


TRAIN = [
    "-m", "fastlstm.train", "--data", "notes.txt", "--hidden=8", "--embedding=4", "--batch=4", "--seq-len=8",
    "--steps=20", "--threads=2",
]  # fmt: skip


@part("runs that share an empty cache", full=2, small=0, seconds=1500)
def test_runs_that_start_together_with_an_empty_cache_give_the_same_bits(trials):
    """Four runs that compile all kernels at the same time, and one that then loads them."""
    trials.run(train_with_an_empty_cache)


def train_with_an_empty_cache(trial):
    (trial.folder / "notes.txt").write_text(TEXT)
    variables = environment(trial.folder, NUMBA_CACHE_DIR=str(trial.folder / "cache"))

    def started(run):
        return start([*TRAIN, f"--out={run}"], trial.folder, env=variables)

    def finished(process):
        ended = finish(process, 2 * COMPILING_ALL)
        require(judge(ended, "train") is Outcome.HELD, Outcome.WRONG, f"status {ended.status}: {ended.errors[-300:]}")
        return ended

    runs = ["one", "two", "three", "four"]
    for process in [started(run) for run in runs]:
        finished(process)
    last = finished(started("last"))
    require(COMPILING not in last.errors, Outcome.WRONG, "the cache is not complete")
    models = [require_whole(trial.folder / run / "model.safetensors") for run in [*runs, "last"]]
    found = {model.parameters.flat.tobytes() for model in models}
    require(len(found) == 1, Outcome.WRONG, f"{len(found)} results of one run")
