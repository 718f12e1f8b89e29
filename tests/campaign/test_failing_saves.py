"""Saves that fail: no space, no permission, no folder, at each system call of a save."""

import errno
import itertools
import os
import resource
import time

from commands import finish, judge, lay_out, models_in, patience, require_kept, require_whole, start
from harness import Outcome, each, part, require
from saves import TURNS, require_only, save_of
from system import Failing

_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EFBIG, errno.EDQUOT, errno.ENOENT, errno.EPERM)
#: Each error, once or at all later calls too.
FAILURES = list(itertools.product(_ERRORS, (True, False)))


@part("failing saves", full=TURNS * len(FAILURES), small=2 * len(FAILURES))
def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(trials):
    """If any system call of a save fails, each in turn: a clear error, and in the folder one complete file, the old or
    the new one.
    """
    trials.run(fail_a_save)


def fail_a_save(trial):
    number, lasting = FAILURES[trial.number % len(FAILURES)]
    save = save_of(trial.number // len(FAILURES) + trial.number % len(FAILURES))

    def fail_at(at):
        path = save.prepare(trial.folder)
        what = f"after {os.strerror(number)} at call {at}{' and later' if lasting else ''}"
        with Failing(at, number, lasting=lasting):
            refused = save.refusal(path)
        save.require_whole(path, what, saved=not refused)  # a save can succeed in spite of some failures
        if path.exists():
            require_only(path, what)
        require(path.exists() or not any(trial.folder.iterdir()), Outcome.WRONG, f"temporary files are left {what}")
        return Outcome.REFUSED if refused else Outcome.HELD

    return each(fail_at, range(len(save.calls(trial.folder))))


#: A run that reports when it trains; its output fills the pipe, so that it cannot end before `finish` reads.
RUN = [
    "-m", "fastlstm.train", "--data", "notes.txt", "--hidden=16", "--embedding=4", "--batch=4", "--seq-len=8",
    "--steps=10000", "--sample-every=100", "--sample-length=2000", "--eval-every=0", "--out=a/run",
]  # fmt: skip


@part("runs that cannot save", full=24, small=1, seconds=180)
def test_a_run_that_cannot_save_its_model_reports_it_and_saves_it_elsewhere(trials):
    """The folder removed or replaced by something else, a limit on file size: one line, and the work is not lost."""
    trials.run(keep_a_run_from_saving)


def keep_a_run_from_saving(trial):
    lay_out(trial.folder)
    obstacle = OBSTACLES[trial.number % len(OBSTACLES)]
    limit = no_large_files if obstacle is None else None
    process = start(RUN, trial.folder, preexec_fn=limit)
    if obstacle:
        wait_for_a_step(process)
        time.sleep(0.3 * trial.generator().random())
        obstacle(trial.folder / "a")
    ended = finish(process, 30 + patience())
    outcome = judge(ended, f"a run kept from saving by {getattr(obstacle, '__name__', 'a limit')}")
    require_kept(trial.folder)
    made = [path for path in models_in(trial.folder) if path.parts[-2] != "kept" and path.name == "model.safetensors"]
    for path in made:
        require_whole(path)
    require(made or not obstacle, Outcome.LOST, f"no model anywhere: {ended.errors!r}")
    require(not list(trial.folder.rglob("*.tmp")), Outcome.WRONG, "temporary files are left")
    return outcome


def wait_for_a_step(process):
    for line in process.stdout:
        if line.startswith(b"step"):
            return


def no_large_files():
    """Limit files to 2 KB: beyond that, writes fail or the process receives SIGXFSZ."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def remove_folder(folder):
    for path in (folder / "run").iterdir():
        path.unlink()
    (folder / "run").rmdir()


def remove_folder_and_the_one_around(folder):
    remove_folder(folder)
    folder.rmdir()


def put_a_file_in_its_place(folder):
    remove_folder(folder)
    (folder / "run").touch()


def put_a_folder_in_the_model_s_place(folder):
    (folder / "run" / "model.safetensors").mkdir()


OBSTACLES = (
    remove_folder, None, remove_folder_and_the_one_around, put_a_file_in_its_place, put_a_folder_in_the_model_s_place,
)  # fmt: skip
