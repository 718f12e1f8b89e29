"""The lock of a run folder: the file ``.lock`` in it, which only one run at a time can lock.

The system holds the lock, and releases it when the process ends, however it ends: a file that a killed run has left
behind locks nothing, and the next run takes it over. The file contains the number of the process, for messages only.
On file systems that have no locks, runs go on without.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import weakref
from pathlib import Path
from typing import Self

from fastlstm.errors import ModelFileError, RunInUseError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

#: Name of the file in a run folder.
FILE_NAME = ".lock"

#: Errors of a lock that is held already; all others mean that the file system has no locks.
_EXCLUDED = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}
#: Seconds to wait for a lock that is held already: `in_use` holds it for an instant.
_PATIENCE, _PAUSE = 0.2, 0.005
#: Windows locks bytes, and nobody can read them then: this one is far behind the number of the process.
_LOCKED_BYTE = 1 << 30
#: Whatever is there under the file's name: wait for no other end of a pipe, and follow no link.
_AS_IT_IS = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


class Lock:
    """The lock of a run folder, also as a context manager: at most one object in all processes holds it.

    Child processes do not hold it, neither forked nor started ones.

    Parameters
    ----------
    folder : the run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / FILE_NAME
        self._descriptor = -1

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Lock the folder, which must exist.

        Raises
        ------
        RunInUseError
            When the lock is held already, by this process or another one.
        ModelFileError
            When the file cannot be opened or created.
        """
        deadline = time.monotonic() + _PATIENCE
        while not self._try():
            if time.monotonic() > deadline:
                raise RunInUseError(
                    f"{str(self._folder)!r} is in use by another run{_process(self._path)}: wait until it has ended,"
                    " or choose another folder with --out"
                )
            time.sleep(_PAUSE)
        _held.add(self)
        with contextlib.suppress(OSError):  # a full disk: the folder is locked all the same
            number = f"{os.getpid()}\n".encode()
            os.write(self._descriptor, number)
            os.ftruncate(self._descriptor, len(number))

    def release(self) -> None:
        """Remove the file and unlock the folder; does nothing unless the lock is held."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        _held.discard(self)
        # The file is removed while it is locked: whoever opened it before finds it gone when its turn comes. Windows
        # removes no open file: there it is closed first, and stays if another run has opened it meanwhile.
        own = _is_at(descriptor, self._path)
        if sys.platform == "win32":
            os.close(descriptor)
        if own:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if sys.platform != "win32":
            os.close(descriptor)

    def _try(self) -> bool:
        """Open and lock the file, unless it is locked already or was removed meanwhile."""
        descriptor = self._open()
        try:
            locked = _lock(descriptor) and _is_at(descriptor, self._path)
            if locked:
                self._descriptor, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return locked

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | _AS_IT_IS, 0o666)
        except OSError as error:
            raise ModelFileError(
                f"cannot write {str(self._path)!r} ({error.strerror}), which tells other runs that the folder is in"
                " use: check the folder and its permissions, or choose another with --out"
            ) from None

    def _forget(self) -> None:
        """Close the file without unlocking it: this process was forked from the one that holds the lock."""
        os.close(self._descriptor)
        self._descriptor = -1


def in_use(folder: Path) -> bool:
    """Whether a run holds the lock of a folder; false where that cannot be found out."""
    try:
        descriptor = os.open(folder / FILE_NAME, os.O_RDONLY | _AS_IT_IS)
    except OSError:
        return False
    try:
        return not _lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file; returns whether nobody else has locked it, as far as the file system can tell."""
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _EXCLUDED
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one at a path: its last owner may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _process(path: Path) -> str:
    """The process whose number the file contains, as a phrase; empty if it contains none."""
    try:
        number = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return f" (process {number})" if number.isdigit() and len(number) < 20 else ""


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock._forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
