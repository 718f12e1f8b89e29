"""Several processes that want the lock of one run folder at the same time."""

import contextlib
import fcntl
import os
import signal
import time

import pytest
from commands import finish, judge, lay_out, patience, require_whole, start
from forks import fork, status_of
from harness import LONGEST_WAIT, Outcome, part, require

from fastlstm.errors import RunInUseError
from fastlstm.lock import FILE_NAME, Lock, in_use

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PROCESSES = 8
#: Exit status of a process that met another one that has the lock too.
NOT_ALONE = 3
#: Seconds for which processes take turns, and how many of them are killed meanwhile.
TAKING_TURNS, KILLED = 0.3, 3


class Signal:
    """A pipe on which processes wait until it is given."""

    def __init__(self):
        self._reader, self._writer = os.pipe()

    def wait(self):
        """Wait in a forked process."""
        os.close(self._writer)
        os.read(self._reader, 1)

    def give(self):
        os.close(self._writer)
        os.close(self._reader)


@part("races for a lock", full=50, small=4)
def test_of_the_processes_that_start_together_one_gets_the_lock(trials):
    """Exactly one of eight, whether the folder is new or that of a killed run, and the others are refused; then it is
    free.
    """
    trials.run(race)


def race(trial):
    if trial.number % 2:
        leave_a_stale_lock(trial.folder)
    start, over, (reader, writer) = Signal(), Signal(), os.pipe()

    def compete():
        start.wait()
        with contextlib.suppress(RunInUseError), Lock(trial.folder):
            os.write(writer, b"won\n")
            over.wait()
            return
        os.write(writer, b"lost\n")

    children = [fork(compete) for _ in range(PROCESSES)]
    start.give()
    with os.fdopen(reader) as results:
        found = [results.readline() for _ in children]
        os.close(writer)
    winner = in_use(trial.folder)
    over.give()
    statuses = [status_of(child) for child in children]
    require(set(statuses) == {0}, Outcome.TRACEBACK, f"statuses {statuses}")
    require(sorted(found) == ["lost\n"] * (PROCESSES - 1) + ["won\n"], Outcome.WRONG, f"{found.count('won')} winners")
    require(winner, Outcome.WRONG, "the folder is not in use, although a process has won")
    require_free(trial.folder)


def leave_a_stale_lock(folder):
    """Leave the lock of a killed process."""
    reader, writer = os.pipe()

    def hold():
        Lock(folder).acquire()
        os.write(writer, b"held")
        signal.pause()

    child = fork(hold)
    os.read(reader, 4)
    os.kill(child, signal.SIGKILL)
    status_of(child)
    os.close(reader)
    os.close(writer)
    require((folder / FILE_NAME).exists(), Outcome.WRONG, "the lock of a killed process is not left")


def require_free(folder):
    require(not in_use(folder) and not any(folder.iterdir()), Outcome.WRONG, "the lock is not released, or files stay")
    with Lock(folder):
        pass


@part("locks that change hands", full=50, small=2, seconds=20)
def test_a_lock_that_changes_hands_has_one_owner(trials):
    """Eight processes take turns, and some of them are killed: never do two have the lock, and then it is free."""
    trials.run(take_turns)


def take_turns(trial):
    rng = trial.generator()
    folder, witness = trial.folder / "run", trial.folder / "witness"
    folder.mkdir()
    witness.touch()

    def take():
        # Opened before the lock, so that the system closes it before when the process is killed.
        with open(witness, "rb") as file:
            deadline = time.monotonic() + TAKING_TURNS
            while time.monotonic() < deadline:
                with contextlib.suppress(RunInUseError), Lock(folder):
                    try:
                        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        return NOT_ALONE
                    time.sleep(1e-4)
                    fcntl.flock(file, fcntl.LOCK_UN)
        return 0

    children = [fork(take) for _ in range(PROCESSES)]
    for child in children[:KILLED]:
        time.sleep(0.5 * TAKING_TURNS * rng.random())
        os.kill(child, signal.SIGKILL)
    statuses = [status_of(child) for child in children]
    require(NOT_ALONE not in statuses, Outcome.WRONG, "two processes had the lock at the same time")
    killed, others = statuses[:KILLED], statuses[KILLED:]
    require({*killed, *others} <= {0, -signal.SIGKILL} and not any(others), Outcome.TRACEBACK, f"statuses {statuses}")
    with Lock(folder):  # a killed process may have left the file
        pass
    require_free(folder)


#: A short run; with the same text, all runs want the same folder.
SHORT = [
    "-m",
    "fastlstm.train",
    "--data",
    "notes.txt",
    "--hidden=8",
    "--embedding=4",
    "--batch=4",
    "--seq-len=8",
    "--steps=300",
]


@part("runs that race for a folder", full=50, small=1, seconds=180)
def test_of_the_runs_that_start_together_in_a_folder_one_gets_it(trials):
    """With ``--out`` one trains and the others are refused in a line; without it each has a folder of its own."""
    trials.run(race_of_runs)


def race_of_runs(trial):
    lay_out(trial.folder)
    named = trial.number % 2 == 0
    processes = [start([*SHORT, *(["--out=run"] if named else [])], trial.folder) for _ in range(3)]
    ended = [finish(process, LONGEST_WAIT + 3 * patience()) for process in processes]
    for one in ended:
        judge(one, "a run that starts with others")
    trained = [one for one in ended if one.status == 0]
    require(len(trained) == (1 if named else 3), Outcome.WRONG, f"{len(trained)} runs of 3 trained")
    folders = list(trial.folder.rglob("config.toml"))
    require(len(folders) == len(trained), Outcome.WRONG, f"{len(folders)} folders of {len(trained)} runs")
    for path in folders:
        require(require_whole(path.parent / "model.safetensors").training["steps"] == 300, Outcome.LOST, str(path))
