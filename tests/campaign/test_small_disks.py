"""Disks that are full before a save or during it: small file systems in memory, else a limit on the size of files."""

import ctypes
import os
import resource
import shutil
import subprocess
import sys

import pytest
from commands import finish, judge, lay_out, models_in, patience, require_kept, require_whole, start
from forks import result_in_child
from harness import Outcome, each, part, require
from saves import TURNS, require_only, save_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

_PAGE = 4096
#: Size of a disk: two of the largest files fit, and little more.
_PAGES = 256
#: Of Linux: the process gets mounts of its own, which end with it.
_CLONE_NEWNS = 0x20000


class SmallDisk:
    """A small file system for this process and those started by it; where the system does not allow that, a limit."""

    def __init__(self, folder):
        folder.mkdir()
        self.is_mounted = _mount(folder)
        self._filler = folder / "filler"

    def leave_free(self, pages):
        """Leave so many pages of free space; ``None``: all of them."""
        if not self.is_mounted:
            size = resource.RLIM_INFINITY if pages is None else pages * _PAGE
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            return
        self._filler.unlink(missing_ok=True)
        if pages is not None:
            free = os.statvfs(self._filler.parent).f_bavail - pages
            with open(self._filler, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, free * _PAGE)


def _mount(folder):
    if not sys.platform.startswith("linux") or os.geteuid() or ctypes.CDLL(None).unshare(_CLONE_NEWNS):
        return False
    options = f"size={_PAGES * _PAGE},mode=755"
    commands = [["mount", "--make-rprivate", "/"], ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]]
    return all(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)


@part("full disks", full=TURNS, small=2, seconds=60)
def test_a_save_on_a_full_disk_leaves_the_old_file_and_nothing_else(trials):
    """With any space left, from none to more than enough: the new file, or a clear error and the old one."""
    trials.run(fill_a_disk)


def fill_a_disk(trial):
    return result_in_child(lambda: saves_on_a_small_disk(trial), trial.part.seconds)


def saves_on_a_small_disk(trial):
    save, folder = save_of(trial.number), trial.folder / "disk" / "run"
    disk = SmallDisk(folder.parent)
    folder.mkdir()

    def save_with(pages):
        disk.leave_free(None)
        path = save.prepare(folder)
        disk.leave_free(pages)
        refused = save.refusal(path)
        require(refused == (pages < needed), Outcome.WRONG, f"refused: {refused}, with {pages} of {needed} pages")
        save.require_whole(path, f"with {pages} of {needed} pages", saved=not refused)
        if path.exists():
            require_only(path)
        disk.leave_free(None)
        save.require_tidied(path)
        return Outcome.REFUSED if refused else Outcome.HELD

    needed = -(-len(save.new) // _PAGE)
    return each(save_with, range(needed + 2))


RUN = [
    "-m", "fastlstm.train", "--data", "notes.txt", "--hidden=32", "--embedding=4", "--batch=4", "--seq-len=8",
    "--steps=3000", "--sample-every=100", "--eval-every=100", "--out=disk/run",
]  # fmt: skip


@part("runs on full disks", full=16, small=0, seconds=180)
def test_a_run_on_a_full_disk_says_so_and_saves_its_model_elsewhere(trials):
    """With any space left, one line: before training if there is none, else where the model has been saved instead."""
    trials.run(run_on_a_small_disk)


def run_on_a_small_disk(trial):
    lay_out(trial.folder)
    ended = result_in_child(lambda: run_with(trial.number, trial.folder), trial.part.seconds)
    outcome = judge(ended, f"a run on a disk of {trial.number} pages")
    require_kept(trial.folder)
    made = [path for path in models_in(trial.folder) if path.parent.name != "kept" and path.name == "model.safetensors"]
    for path in made:
        require_whole(path)
    require(made or ended.status, Outcome.LOST, f"no model, and status {ended.status}")
    if trial.number == 0:
        require(not made, Outcome.WRONG, "the full disk has been found only after training")
    return outcome


def run_with(pages, folder):
    """Run with so many pages of space; the disk ends with this process, so what is on it is copied elsewhere."""
    disk = SmallDisk(folder / "disk")
    disk.leave_free(pages)
    ended = finish(start(RUN, folder), 60 + patience())
    disk.leave_free(None)
    if disk.is_mounted:
        shutil.copytree(folder / "disk", folder / "copy")
    return ended
