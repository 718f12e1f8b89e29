"""Files that are written whole or not at all, whatever happens meanwhile.

A file is written under a temporary name in its own folder, brought to disk, and only then given its name. A process
that is killed on the way leaves the temporary file behind; whoever writes into the folder next removes it. A writer
holds a lock on its temporary file, which the system gives up when the process ends: a temporary file that can be locked
belongs to nobody.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform != "win32":
    import fcntl

#: Names of temporary files; the second kind is that of version 0.1.0.
_TEMPORARY = re.compile(r"\.fastlstm-[0-9a-f]{16}\.tmp|\.model\.safetensors\.[0-9a-f]{8}\.tmp")
#: Errors of file systems that have no hard links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
#: Errors of file systems whose folders cannot be synced, as some that virtual machines share, and of folders that may
#: be written but not read.
_NO_FOLDER_SYNC = {
    errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM,
}  # fmt: skip


def write(path: Path, parts: Iterable[bytes | memoryview], *, overwrite: bool) -> None:
    """Write a file. Power may fail at any time: there is the old file or the new one, whole.

    Parameters
    ----------
    path : the file; its folder must exist.
    parts : its content, in order.
    overwrite : whether a file at ``path`` is replaced, keeping its mode.

    Raises
    ------
    FileExistsError
        When something is at ``path``, be it since a moment ago, and ``overwrite`` is false.
    OSError
        When the file cannot be written. What was at ``path`` is unchanged, and no temporary file stays.
    """
    remove_abandoned(path.parent)
    with _temporary(path.parent) as (temporary, file):
        if overwrite:
            _copy_mode(path, temporary)
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
        if sys.platform == "win32":
            file.close()  # an open file cannot be renamed there
        if overwrite:
            os.replace(temporary, path)
        else:
            _name_if_free(temporary, path)
    _sync_folder(path.parent)


def try_folder(folder: Path) -> None:
    """See that files can be written into a folder, and remove what killed writers left there; raises `OSError`."""
    remove_abandoned(folder)
    with _temporary(folder):
        pass


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of writers that were killed. What cannot be removed stays."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if _TEMPORARY.fullmatch(name)]
    for name in names:
        with contextlib.suppress(OSError):
            _remove_if_abandoned(folder / name)


def _remove_if_abandoned(temporary: Path) -> None:
    if sys.platform == "win32":
        temporary.unlink()  # refused there while its writer has it open
        return
    # Network file systems lock a file only for who may write to it.
    access = os.O_RDWR if os.access(temporary, os.W_OK) else os.O_RDONLY
    descriptor = os.open(temporary, access | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file that is locked while it is open; it is removed at the end unless it has been renamed."""
    path, file = _create(folder)
    try:
        with file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _create(folder: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = folder / f".fastlstm-{secrets.token_hex(8)}.tmp"
        file = open(path, "xb")  # noqa: SIM115 - the caller closes it
        try:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # without locks nobody can lock it, so nobody removes it
                    fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                return path, file
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        file.close()  # another process removed it before it was locked


def _copy_mode(path: Path, temporary: Path) -> None:
    """Before anything is written: what was private must not be readable for a moment."""
    try:
        mode = os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        return
    if mode != stat.S_IMODE(os.stat(temporary).st_mode):
        with contextlib.suppress(PermissionError):  # a file system without modes
            os.chmod(temporary, mode)


def _name_if_free(temporary: Path, path: Path) -> None:
    """Give the file its name unless something has it: linking, unlike renaming, never replaces."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    """Make a new name in the folder survive a loss of power; where that cannot be asked for, the system sees to it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:  # the file itself is there, whole
            raise
