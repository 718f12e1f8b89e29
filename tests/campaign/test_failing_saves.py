"""Saves that fail: no space, no permission, no folder, at each system call of a save."""

import builtins
import contextlib
import errno
import io
import os
import resource
import time

from commands import finish, judge, lay_out, models_in, patience, require_kept, require_whole, start
from harness import Outcome, part, require
from subjects import file_of, fresh_model

from fastlstm.errors import ModelFileError

#: System calls that write, or that reserve space and names for what is written.
_CALLS = ("open", "fsync", "replace", "rename", "link", "chmod", "fchmod", "write")
_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EFBIG, errno.EIO, errno.EROFS, errno.EDQUOT, errno.ENOENT, errno.EPERM)


class FailingSystem(contextlib.ExitStack):
    """Replaces the system calls; the one numbered ``at`` fails, and if ``lasting`` all later ones."""

    def __init__(self, at=None, number=errno.ENOSPC, lasting=False):
        super().__init__()
        self.at, self.number, self.lasting, self.count = at, number, lasting, 0
        for name in _CALLS:
            if hasattr(os, name):
                self._replace(os, name, self._failing(getattr(os, name)))
        self._replace(builtins, "open", self._failing(self._opened))
        self._open = io.open

    def _replace(self, owner, name, function):
        self.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, function)

    def _failing(self, function):
        def call(*arguments, **settings):
            self.check()
            return function(*arguments, **settings)

        return call

    def _opened(self, *arguments, **settings):
        file = self._open(*arguments, **settings)
        return FailingFile(file, self) if file.writable() else file

    def check(self):
        """Count a call, and raise an error if it should fail."""
        self.count += 1
        if self.at is not None and (self.count == self.at or (self.lasting and self.count > self.at)):
            raise OSError(self.number, os.strerror(self.number))


class FailingFile:
    """A file opened for writing, whose writes fail as determined by a `FailingSystem`."""

    def __init__(self, file, system):
        self._file, self._system = file, system

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()

    def write(self, data):
        self._system.check()
        return self._file.write(data)

    def flush(self):
        self._system.check()
        self._file.flush()

    def __getattr__(self, name):
        return getattr(self._file, name)


@part("failing saves", full=400, small=60)
def test_a_save_that_fails_leaves_the_old_model_and_nothing_else(trials):
    """If any system call of a save fails: a clear error, and in the folder one complete model, old or new."""
    trials.run(fail_a_save)


def fail_a_save(trial):
    rng = trial.generator()
    path = trial.folder / "model.safetensors"
    path.write_bytes(file_of(0))
    model = fresh_model(1)
    model.training = {"steps": 3}
    with FailingSystem() as counting:
        model.save(trial.folder / "model.safetensors")
    new = path.read_bytes()
    path.write_bytes(file_of(0))
    at, number = 1 + int(rng.integers(counting.count)), int(rng.choice(_ERRORS))
    outcome = Outcome.HELD  # a save can succeed in spite of some failures
    try:
        with FailingSystem(at, number, lasting=rng.random() < 0.5):
            model.save(path)
    except ModelFileError as error:
        require("\n" not in str(error) and path.name in str(error), Outcome.WRONG, f"unclear: {error}")
        outcome = Outcome.REFUSED
    left = [found.name for found in trial.folder.iterdir()]
    require(left == [path.name], Outcome.WRONG, f"in the folder: {left}, after {os.strerror(number)} at call {at}")
    allowed = (new,) if outcome is Outcome.HELD else (file_of(0), new)
    require(path.read_bytes() in allowed, Outcome.LOST, f"the file is neither the old model nor the new one: call {at}")
    return outcome


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
