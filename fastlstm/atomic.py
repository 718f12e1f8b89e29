"""Atomic writing of files: a file is written completely or not at all.

A file is written under a temporary name in its own folder, synced to disk, and only then renamed. A process that is
killed before the rename leaves the temporary file behind; the next write into the folder removes it. A writer holds a
lock on its temporary file, and the system releases the lock when the process ends: a temporary file that can be locked
has no writer any more.
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
#: Errors of file systems that cannot sync folders (such as some folders shared with virtual machines), and of folders
#: that are writable but not readable.
_NO_FOLDER_SYNC = {
    errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM,
}  # fmt: skip


def write(path: Path, parts: Iterable[bytes | memoryview], *, overwrite: bool) -> None:
    """Write a file atomically: after a power failure at any time, either the old or the new file exists, complete.

    Parameters
    ----------
    path : the file; its folder must exist.
    parts : the content, in order.
    overwrite : whether to replace a file at ``path``; its mode is kept.

    Raises
    ------
    FileExistsError
        When ``path`` exists at the time of the rename, and ``overwrite`` is false.
    OSError
        When the file cannot be written. What was at ``path`` is unchanged, and the temporary file is removed.
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


def make_folder(folder: Path) -> None:
    """Create a folder if needed, and those around it: they are still there after a power failure.

    Raises
    ------
    OSError
        When it cannot be created.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _sync_folder(path.parent)


def try_folder(folder: Path, size: int = 1) -> None:
    """Raise `OSError` unless a file of so many bytes can be written; first remove temporary files of killed writers."""
    remove_abandoned(folder)
    with _temporary(folder) as (_, file):
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.write(bytes(size))


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of killed writers. Files that cannot be removed are left."""
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(folder) if _TEMPORARY.fullmatch(name)]
    for name in names:
        with contextlib.suppress(OSError):
            _remove_if_abandoned(folder / name)


def _remove_if_abandoned(temporary: Path) -> None:
    if sys.platform == "win32":
        temporary.unlink()  # Windows refuses this while the writer has it open
        return
    # Network file systems grant an exclusive lock only on a file that is open for writing.
    access = os.O_RDWR if os.access(temporary, os.W_OK) else os.O_RDONLY
    descriptor = os.open(temporary, access | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink()
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new temporary file, locked while it is open, and removed at the end unless it has been renamed."""
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
                with contextlib.suppress(OSError):  # without locks, no other process removes it either
                    fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():
                return path, file
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
        file.close()  # another process removed it before it was locked


def _copy_mode(path: Path, temporary: Path) -> None:
    """Copy the mode before writing any data: a private file must not become readable, even briefly."""
    try:
        mode = os.stat(path).st_mode & 0o777
    except FileNotFoundError:
        return
    if mode != stat.S_IMODE(os.stat(temporary).st_mode):
        with contextlib.suppress(PermissionError):  # a file system without modes
            os.chmod(temporary, mode)


def _name_if_free(temporary: Path, path: Path) -> None:
    """Rename the file unless ``path`` exists, by a hard link: unlike a rename it never replaces a file."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    """Sync the folder, so that the rename survives a power failure; skipped where the system does not support it."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:  # otherwise ignored: the file itself is complete
            raise
