"""The lock of a run folder: held by one at a time, and never left behind."""

import contextlib
import errno
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest
from programs import begun

from fastlstm import lock as lock_module
from fastlstm.errors import ModelFileError, RunInUseError
from fastlstm.lock import FILE_NAME, Lock, in_use

#: Holds the lock of the current folder until its standard input is closed.
HOLDER = """
from pathlib import Path
from fastlstm.lock import Lock
with Lock(Path()):
    print("held", flush=True)
    input()
"""

needs_flock = pytest.mark.skipif(sys.platform == "win32", reason="there is no flock here")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")


@contextlib.contextmanager
def held_by_another_process(folder):
    with begun("-c", HOLDER, cwd=folder, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == "held\n", process.stderr.read()
        yield process


def test_the_second_run_of_a_folder_is_refused_with_the_process_of_the_first(tmp_path):
    with held_by_another_process(tmp_path) as process:
        assert in_use(tmp_path)
        with pytest.raises(RunInUseError, match=rf"is in use by another run \(process {process.pid}\): .* --out$"):
            Lock(tmp_path).acquire()
        process.communicate("\n")
    assert not in_use(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()
    with Lock(tmp_path):
        pass


def test_the_lock_of_a_killed_run_is_free_and_its_file_taken_over(tmp_path):
    with held_by_another_process(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / FILE_NAME).read_text() == f"{process.pid}\n"
        assert not in_use(tmp_path)
        with Lock(tmp_path):
            assert in_use(tmp_path)
            assert (tmp_path / FILE_NAME).read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / FILE_NAME).exists()


def test_another_object_of_the_same_process_is_refused(tmp_path):
    with Lock(tmp_path), pytest.raises(RunInUseError, match=str(os.getpid())):
        Lock(tmp_path).acquire()


def test_a_lock_that_is_held_cannot_be_acquired_again_and_stays_held(tmp_path):
    with Lock(tmp_path) as lock:
        with pytest.raises(RunInUseError):
            lock.acquire()
        assert in_use(tmp_path)


def test_a_lock_can_be_used_again_and_a_second_release_does_nothing(tmp_path):
    lock, other = Lock(tmp_path), Lock(tmp_path)
    for _ in range(3):
        lock.acquire()
        lock.release()
        lock.release()
    other.acquire()
    lock.release()
    assert in_use(tmp_path)
    other.release()


def test_locks_of_different_folders_are_independent(tmp_path):
    (tmp_path / "other").mkdir()
    with Lock(tmp_path), Lock(tmp_path / "other"):
        assert in_use(tmp_path)
        assert in_use(tmp_path / "other")


def test_a_started_program_does_not_keep_the_lock(tmp_path):
    lock = Lock(tmp_path)
    lock.acquire()
    with begun("-c", "input()", cwd=tmp_path, stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        Lock(tmp_path).acquire()
        assert child.poll() is None


@needs_fork
def test_a_forked_process_neither_keeps_nor_releases_the_lock(tmp_path):
    lock = Lock(tmp_path)
    lock.acquire()
    child = multiprocessing.get_context("fork").Process(target=release_and_stay, args=[lock, tmp_path / "released"])
    child.start()
    try:
        wait_for(tmp_path / "released")
        assert in_use(tmp_path)
        lock.release()
        assert child.is_alive()
        Lock(tmp_path).acquire()
    finally:
        child.kill()
        child.join()


def release_and_stay(lock, mark):
    lock.release()
    mark.touch()
    time.sleep(60)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_lock_on_a_removed_file_does_not_count(tmp_path, monkeypatch):
    """The last run has opened the file, and another one removes it before it is locked."""
    real, removed = lock_module._lock, []

    def remove_and_lock(descriptor, **settings):
        if not removed:
            (tmp_path / FILE_NAME).unlink()
            removed.append(True)
        return real(descriptor, **settings)

    monkeypatch.setattr(lock_module, "_lock", remove_and_lock)
    with Lock(tmp_path):
        assert in_use(tmp_path)
    assert removed


def test_the_file_of_another_run_is_not_removed(tmp_path):
    """A folder was moved away during a run, and another run has taken its place."""
    folder, moved = tmp_path / "run", tmp_path / "moved"
    folder.mkdir()
    with Lock(folder):
        folder.rename(moved)
        folder.mkdir()
        other = Lock(folder)
        other.acquire()
        assert in_use(moved)
    assert in_use(folder)
    assert not in_use(moved)


def test_a_removed_folder_is_released_without_an_error(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    with Lock(folder):
        (folder / FILE_NAME).unlink()
        folder.rmdir()


@needs_flock
def test_looking_whether_a_folder_is_in_use_does_not_refuse_a_run(tmp_path):
    """Listings look at any time; with two of them, one nearly always looks."""
    (tmp_path / FILE_NAME).touch()
    over = threading.Event()

    def look():
        while not over.is_set():
            in_use(tmp_path)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(50):
            with Lock(tmp_path):
                pass
            (tmp_path / FILE_NAME).touch()
    finally:
        over.set()
        for thread in threads:
            thread.join()


@needs_flock
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_goes_on_without(number, tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock_module.fcntl, "flock", refuse)
    with Lock(tmp_path):
        assert (tmp_path / FILE_NAME).exists()
        assert not in_use(tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_a_full_disk_does_not_prevent_the_lock(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(lock_module.os, "write", full)
    with Lock(tmp_path), pytest.raises(RunInUseError, match="in use by another run: wait"):
        Lock(tmp_path).acquire()


@pytest.mark.parametrize("place", ["missing", "folder", "link"])
def test_a_lock_that_cannot_be_created_is_one_line_and_changes_nothing(place, tmp_path):
    folder, target = tmp_path / "run", tmp_path / "precious"
    target.write_text("unchanged")
    if place != "missing":
        folder.mkdir()
    if place == "folder":
        (folder / FILE_NAME).mkdir()
    if place == "link":
        (folder / FILE_NAME).symlink_to(target)
    with pytest.raises(ModelFileError, match=r"^cannot write .*\.lock.*: check the folder .* --out$"):
        Lock(folder).acquire()
    assert not in_use(folder)
    assert target.read_text() == "unchanged"


@pytest.mark.parametrize("content", ["", "many", "1 2", "9" * 30, "\xff"])
def test_a_strange_file_is_reported_without_a_process(content, tmp_path):
    with Lock(tmp_path):
        (tmp_path / FILE_NAME).write_text(content, encoding="latin-1")
        with pytest.raises(RunInUseError, match="in use by another run: wait"):
            Lock(tmp_path).acquire()
