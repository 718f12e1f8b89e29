"""A model of a disk at a power loss: what was not synced may be there or not, in any order, and in part.

A file system promises little: the data of a file are on the disk once the file has been synced, and a change of the
names in a folder, which is atomic, once the folder has been. Everything else may have reached the disk at any time
before, or never: names without data, data block by block, and blocks that still hold what the disk held before.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from system import System

_BLOCK = 512
#: What a name stands for, if not for a file.
FOLDER = -1
#: Most sets of unsynced changes of names that are tried at an instant; if there are more, these are drawn.
_MOST_SETS = 64


class Named(NamedTuple):
    """A change of the names in a folder, atomic: the number of the file that each name then stands for, or ``None``."""

    folder: str
    names: dict[str, int | None]


class Written(NamedTuple):
    """Data written to the file of that number."""

    file: int
    start: int
    data: bytes


class Synced(NamedTuple):
    """The file of that number was synced, or the folder of that path."""

    what: int | str


class Recording(System):
    """Records what this process does to files and folders below ``root``.

    Parameters
    ----------
    root : a folder that exists; paths are relative to it.
    without : number of the sync, counted from 0, that is left out; ``None``: none is.

    Attributes
    ----------
    names, contents : what was there before: the files by name, and their contents by number.
    log : what was done.
    syncs : number of syncs.
    """

    def __init__(self, root, without=None):
        super().__init__()
        self.log: list[Named | Written | Synced] = []
        self.syncs = 0
        self._root, self._without = root, without
        self._numbers: dict[tuple, int] = {}  # by the system's identities, which it uses again when a file is removed
        self._new = itertools.count()
        self._paths: dict[int, Path] = {}  # by file descriptor
        there = list(root.rglob("*"))
        self.names = {self._name(path): FOLDER if path.is_dir() else self._number(path) for path in there}
        self.contents = {self._number(path): path.read_bytes() for path in there if path.is_file()}

    def call(self, name, function, *arguments, **settings):
        record = getattr(self, f"_record_{name}", None)
        return record(function, *arguments, **settings) if record else function(*arguments, **settings)

    def _record_open(self, function, path, *arguments, **settings):
        is_new = not os.path.lexists(path)
        file = function(path, *arguments, **settings)
        self._paths[file if isinstance(file, int) else file.fileno()] = Path(path)
        if is_new:
            self._record(path, self._number(path, is_new=True))
        return file

    def _record_write(self, function, file, data):
        start = file.tell()
        count = function(file, data)
        self.log.append(Written(self._number(file.fileno()), start, bytes(data)[:count]))
        return count

    def _record_fsync(self, function, descriptor):
        self.syncs += 1
        if self.syncs - 1 == self._without:
            return
        function(descriptor)
        path = self._paths[descriptor]
        self.log.append(Synced(self._name(path) if path.is_dir() else self._number(descriptor)))

    def _record_replace(self, function, source, target):
        number = self._number(source)
        function(source, target)
        self._record(target, number, **{self._name(source): None})

    _record_rename = _record_replace

    def _record_link(self, function, source, target):
        function(source, target)
        self._record(target, self._number(source))

    def _record_unlink(self, function, path, **settings):
        function(path, **settings)
        self._record(path, None)

    def _record_mkdir(self, function, path, *arguments, **settings):
        function(path, *arguments, **settings)
        self._record(path, FOLDER)

    def _record(self, path, number, **others):
        self.log.append(Named(self._name(Path(path).parent), {self._name(path): number, **others}))

    def _number(self, file, *, is_new=False):
        found = os.stat(file)
        identity = found.st_dev, found.st_ino
        if is_new or identity not in self._numbers:
            self._numbers[identity] = next(self._new)
        return self._numbers[identity]

    def _name(self, path):
        return os.path.relpath(path, self._root)


class Loss(NamedTuple):
    """What a disk holds after a power loss: contents of files by name; and whether all that was recorded was done."""

    files: dict[str, bytes]
    is_after_all: bool


def losses(recording, rng, parts=4) -> Iterator[Loss]:
    """Power losses at every instant of a recording: sets of the changes of names that have not been synced, each with
    none, all, and ``parts`` random parts of the data that have not.
    """
    for stop in range(len(recording.log) + 1):
        log = recording.log[:stop]
        loose = [at for at, done in enumerate(log) if isinstance(done, Named) and not _is_synced(done.folder, at, log)]
        for lost in _subsets(loose, rng):
            names = _names(recording, [done for at, done in enumerate(log) if at not in lost])
            for part in (_nothing, _everything, *[_some] * parts):
                files = {name: part(*_contents(recording, number, log), rng) for name, number in names.items()}
                yield Loss(files, stop == len(recording.log))


def _is_synced(what, at, log):
    return Synced(what) in log[at:]


def _subsets(items, rng):
    count = 2 ** len(items)
    chosen = range(count) if count <= _MOST_SETS else rng.choice(count, _MOST_SETS, replace=False)
    return [{item for place, item in enumerate(items) if int(bits) >> place & 1} for bits in chosen]


def _names(recording, log):
    """The files that can be reached: those with a name, in folders with a name."""
    names = dict(recording.names)
    for done in log:
        if isinstance(done, Named):
            names.update(done.names)
    return {
        name: number
        for name, number in names.items()
        if number not in (None, FOLDER)
        and all(names.get(str(folder)) == FOLDER for folder in Path(name).parents if folder != Path())
    }


def _contents(recording, number, log):
    """The content of a file that is on the disk for certain, and that of which parts may be on it."""
    certain = whole = recording.contents.get(number, b"")
    for at, done in enumerate(log):
        if isinstance(done, Written) and done.file == number:
            whole = _with(whole, done)
            if _is_synced(number, at, log):
                certain = _with(certain, done)
    return certain, whole


def _with(content, written):
    before = content[: written.start].ljust(written.start, b"\0")
    return before + written.data + content[written.start + len(written.data) :]


def _nothing(certain, whole, rng):
    return certain


def _everything(certain, whole, rng):
    return whole


def _some(certain, whole, rng):
    """Some blocks of what may be on the disk, and a length that need not fit to them."""
    data = bytearray(certain.ljust(len(whole), b"\0"))
    for start in range(0, len(whole), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(whole)))
        if data[block] != whole[block]:
            held = data[block], whole[block], rng.bytes(block.stop - block.start)
            data[block] = held[rng.integers(len(held))]
    lengths = len(certain), len(whole), int(rng.integers(len(whole) + 1))
    return bytes(data[: max(len(certain), lengths[rng.integers(len(lengths))])])
