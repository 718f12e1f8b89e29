"""Files of machine code that are verified before anything in them is used.

Unpickling a damaged file can do anything, and running damaged machine code even more. So each file begins with the
SHA-256 of what it is for and of what it holds, and a file that does not match counts as absent: it is built again and
overwritten. That covers a damaged, truncated or foreign file, one of another version, and one under another's name.
(It is a check against damage, not against an attacker: whoever can write here can also write a matching digest.)

There is no index: an entry is one file, put in place by one rename, so processes that start at once cannot mix up
each other's entries, and one that is killed leaves no half-written entry.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_DIGEST_SIZE = hashlib.sha256().digest_size

#: Age in seconds from which a temporary file is what a killed process left: writing one takes milliseconds.
_ABANDONED = 3600


class Key(NamedTuple):
    """What an entry is for.

    Attributes
    ----------
    variant : what entries that stand side by side differ in, argument types and processor.
    origin : what the entry was made from, source and versions. An entry of another origin is overwritten.
    """

    variant: str
    origin: str


class VerifiedFiles:
    """Pickled objects in a folder, one file each.

    Parameters
    ----------
    folder : where; `save` does not create it.
    name : what the names of all its files begin with.
    dumps : pickles an object.
    """

    def __init__(self, folder: Path, name: str, dumps: Callable[[Any], bytes]) -> None:
        self._folder = folder
        self._name = name
        self._dumps = dumps

    def load(self, key: Key) -> Any | None:
        """The object saved for ``key``; None if there is none, or it is not exactly what was saved."""
        try:
            stored = self._path(key).read_bytes()
        except OSError:
            return None
        contents = stored[_DIGEST_SIZE:]
        return pickle.loads(contents) if stored[:_DIGEST_SIZE] == _digest(key, contents) else None

    def save(self, key: Key, data: Any) -> None:
        """Replace what is saved for ``key``. Raises OSError when it cannot be written."""
        self._remove_abandoned()
        contents, path = self._dumps(data), self._path(key)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            temporary.write_bytes(_digest(key, contents) + contents)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{self._name}.{hashlib.sha256(key.variant.encode()).hexdigest()[:16]}.nbc"

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob(f"{self._name}.*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _ABANDONED:
                    path.unlink()
            except OSError:  # another process was quicker
                continue


def _digest(key: Key, contents: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (*(text.encode() for text in key), contents):
        digest.update(hashlib.sha256(part).digest())
    return digest.digest()
