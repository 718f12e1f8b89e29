"""Files of machine code that are verified before they are used.

Unpickling a damaged file, or running damaged machine code, has undefined behaviour. So each file begins with a SHA-256
digest of its key and its contents. A file that does not match counts as absent: the entry is built again and
overwritten. That covers damaged, truncated and foreign files, those of other versions, and renamed ones.
(The digest detects damage, not an attack: who can write here can also write a matching digest.)

There is no index. An entry is one file, put in place by an atomic rename, so processes that start at the same time
cannot mix up each other's entries, and a process that is killed leaves no incomplete entry.
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

#: Age in seconds from which a temporary file must be the leftover of a killed process: writing one takes milliseconds.
_ABANDONED = 3600


class Key(NamedTuple):
    """The key of an entry.

    Attributes
    ----------
    variant : argument types and processor; entries of different variants exist side by side.
    origin : source and versions that the entry was compiled from. An entry of another origin is overwritten.
    """

    variant: str
    origin: str


class VerifiedFiles:
    """Pickled objects in a folder, one file each.

    Parameters
    ----------
    folder : an existing folder; `save` does not create it.
    name : prefix of the names of all its files.
    dumps : function that pickles an object.
    """

    def __init__(self, folder: Path, name: str, dumps: Callable[[Any], bytes]) -> None:
        self._folder = folder
        self._name = name
        self._dumps = dumps

    def load(self, key: Key) -> Any | None:
        """The object saved for ``key``; None if there is none, or if its file does not match its digest."""
        try:
            stored = self._path(key).read_bytes()
        except OSError:
            return None
        contents = stored[_DIGEST_SIZE:]
        return pickle.loads(contents) if stored[:_DIGEST_SIZE] == _digest(key, contents) else None

    def save(self, key: Key, data: Any) -> None:
        """Save an object for ``key``, replacing any earlier one. Raises OSError when it cannot be written."""
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
            except OSError:  # another process removed it first
                continue


def _digest(key: Key, contents: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in (*(text.encode() for text in key), contents):
        digest.update(hashlib.sha256(part).digest())
    return digest.digest()
