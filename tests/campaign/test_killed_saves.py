"""SIGKILL at each system call of a save."""

import os
import signal

import pytest
from forks import fork, status_of
from harness import Outcome, each, part, require
from saves import TURNS, save_of
from system import Dying

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@part("killed saves", full=TURNS, small=4, seconds=60)
def test_a_save_killed_at_any_call_leaves_a_whole_file(trials):
    """Before each call and in the middle of each write: the old file or the new one, whole; the next save succeeds and
    removes what the killed one left.
    """
    trials.run(kill_a_save)


def kill_a_save(trial):
    save = save_of(trial.number)

    def kill_at(case):
        at, halfway = case
        path = save.prepare(trial.folder)

        def die():
            with Dying(at, halfway=halfway):
                save.write(path)

        status = status_of(fork(die))
        require(status == -signal.SIGKILL, Outcome.WRONG, f"status {status} instead of a kill at call {at}")
        save.require_whole(path, f"after a kill at call {at}")
        save.require_tidied(path)

    calls = list(enumerate(save.calls(trial.folder)))
    return each(kill_at, [(at, False) for at, _ in calls] + [(at, True) for at, name in calls if name == "write"])
