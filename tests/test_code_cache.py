"""Files of machine code are loaded exactly as they were saved, or not at all."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from fastlstm.kernels.code_cache import Key, VerifiedFiles

KEY = Key("float32 on this processor", "this source")


@pytest.fixture
def files(tmp_path):
    return VerifiedFiles(tmp_path, "kernel-1.py311", pickle.dumps)


def path_of(folder):
    (path,) = folder.iterdir()
    return path


def test_what_was_saved_is_loaded(files):
    assert files.load(KEY) is None
    files.save(KEY, ["code", 1])
    assert files.load(KEY) == ["code", 1]


def test_a_file_damaged_anywhere_is_absent_until_it_is_saved_again(files, tmp_path):
    """Every bit of every byte, every truncation, anything appended."""
    files.save(KEY, b"machine code" * 3)
    path = path_of(tmp_path)
    whole = path.read_bytes()
    flipped = [
        whole[:at] + bytes([whole[at] ^ (1 << bit)]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    truncated = [whole[:at] for at in range(len(whole))]
    others = [whole + b"\0", whole + whole, whole[1:], bytes(len(whole)), bytes(1000)]
    for damaged in flipped + truncated + others:
        path.write_bytes(damaged)
        assert files.load(KEY) is None
    files.save(KEY, b"new")
    assert files.load(KEY) == b"new"


class Executed:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "x")


def test_a_file_is_not_unpickled_before_it_is_verified(files, tmp_path):
    files.save(KEY, 1)
    path, made = path_of(tmp_path), tmp_path / "made"
    contents = pickle.dumps(Executed(str(made)))
    for foreign in (contents, bytes(32) + contents, path.read_bytes()[:32] + contents):
        path.write_bytes(foreign)
        assert files.load(KEY) is None
        assert not made.exists()


def test_a_file_under_the_name_of_another_is_absent(files, tmp_path):
    """Swapped files are undamaged, but their digests are of other keys."""
    other = KEY._replace(variant="float64 on this processor")
    files.save(KEY, "32 bits")
    first = path_of(tmp_path)
    files.save(other, "64 bits")
    (second,) = set(tmp_path.iterdir()) - {first}
    first.rename(tmp_path / "kept")
    second.rename(first)
    (tmp_path / "kept").rename(second)
    assert files.load(KEY) is files.load(other) is None


def test_an_entry_of_another_origin_is_overwritten(files, tmp_path):
    """Edited source or another numba version leaves no old files behind."""
    newer = KEY._replace(origin="edited source")
    files.save(KEY, "old")
    assert files.load(newer) is None
    files.save(newer, "new")
    assert files.load(newer) == "new"
    assert files.load(KEY) is None
    path_of(tmp_path)


def test_a_save_that_fails_leaves_the_last_entry_and_no_other_file(tmp_path, files, monkeypatch):
    files.save(KEY, "whole")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        files.save(KEY, "lost")
    assert files.load(KEY) == "whole"
    path_of(tmp_path)


KILLED = """
import os, pickle, signal, sys
from pathlib import Path
from fastlstm.kernels.code_cache import Key, VerifiedFiles
os.replace = lambda source, target: os.kill(os.getpid(), signal.SIGKILL)
VerifiedFiles(Path(sys.argv[1]), "kernel-1.py311", pickle.dumps).save(Key(*sys.argv[2:]), "half")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_killed_during_a_save_leaves_only_a_file_that_the_next_save_removes(tmp_path, files):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), *KEY], check=False)
    assert done.returncode == -signal.SIGKILL
    assert files.load(KEY) is None
    left = path_of(tmp_path)
    files.save(KEY, "whole")
    assert left.exists()  # it may belong to a process that is still writing
    an_hour_ago = time.time() - 3601
    os.utime(left, (an_hour_ago, an_hour_ago))
    files.save(KEY, "whole")
    assert path_of(tmp_path) != left
    assert files.load(KEY) == "whole"
