"""The lines of files, of standard input and of growing logs, in blocks of whole lines, as they arrive."""

from __future__ import annotations

import codecs
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import AnyStr, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import ConfigError, StoppedError, TextError

STANDARD_INPUT = "-"
#: Symbols of the longest line; a longer one is cut into lines of this length.
LONGEST = 1 << 20

#: Bytes that are read at a time; a block has about as many symbols, and those of the line that began before them.
_BLOCK = 1 << 20
#: Seconds for which a read waits for more after it has got something, as many programs write little at a time.
_PATIENCE = 0.005
#: Seconds between looks at a growing file, and at ``stop`` while nothing arrives.
_INTERVAL = 0.1

Stop = Callable[[], bool]


class Block(NamedTuple):
    """Whole lines of a text. Its last line, and the parts of one longer than `LONGEST`, may lack a newline.

    Attributes
    ----------
    text : at least one symbol.
    number : of its first line in the whole text, from 1.
    """

    text: str | bytes
    number: int


def whole_lines(pieces: Iterable[AnyStr]) -> Iterator[Block]:
    """A text given in pieces, in blocks: all lines that a piece completes, at once; memory does not grow."""
    rest: AnyStr | None = None
    number = 1
    for piece in pieces:
        text = piece if rest is None else rest + piece
        newline = b"\n" if isinstance(text, bytes) else "\n"
        if end := text.rfind(newline) + 1:
            yield Block(text[:end], number)
            number += text.count(newline, 0, end)
            text = text[end:]
        while len(text) >= LONGEST:
            yield Block(text[:LONGEST], number)
            text = text[LONGEST:]
        rest = text
    if rest:
        yield Block(rest, number)


def line_starts(codes: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Where the lines of a block start.

    Parameters
    ----------
    codes : (N,) its code points or bytes.

    Returns
    -------
    (n+1,): the start of each line, or part of a line longer than `LONGEST`, and N.
    """
    ends = np.flatnonzero(codes == ord("\n")) + 1
    bounds = np.unique(np.concatenate([[0], ends, [len(codes)]]))
    lengths = np.diff(bounds)
    if lengths.max(initial=0) <= LONGEST:
        return bounds
    parts = -(-lengths // LONGEST)
    within = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.append(np.repeat(bounds[:-1], parts) + within * LONGEST, bounds[-1])


def decoded(chunks: Iterable[bytes], encoding: str = "utf-8") -> Iterator[str]:
    """Decode bytes, which may be damaged: what is not of the encoding becomes symbols that no text contains.

    In UTF-8 each such byte becomes a lone surrogate, U+DC80 to U+DCFF; other encodings give U+FFFD. A byte order mark
    at the start is removed.

    Raises
    ------
    ConfigError
        When there is no such encoding.
    """
    try:
        "".encode(encoding)  # refuses what encodes no text, such as base64
        codec = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise ConfigError(f"there is no encoding {encoding!r}: give one such as utf-8, latin-1 or utf-16") from None
    is_utf8 = codec == "utf-8"
    decoder = codecs.getincrementaldecoder("utf-8-sig" if is_utf8 else codec)(
        "surrogateescape" if is_utf8 else "replace"
    )
    for chunk in chunks:
        if text := decoder.decode(chunk):
            yield text
    if text := decoder.decode(b"", True):
        yield text


def read(source: str, stop: Stop) -> Iterator[bytes]:
    """The bytes of a file, or of standard input (``-``), in chunks; each has what is there, if that is not nothing.

    Raises
    ------
    TextError
        When the source cannot be read.
    StoppedError
        When ``stop`` returns true, which is called while nothing arrives, and for each chunk.
    """
    if source == STANDARD_INPUT:
        if sys.stdin is None:
            raise TextError("standard input is closed: name a file instead of '-'")
        with _readable("standard input"):
            yield from _arriving(sys.stdin.fileno(), stop)
    else:
        with _opened(source) as file, _readable(repr(source)):
            yield from _arriving(file.fileno(), stop)


def follow(path: str, stop: Stop) -> Iterator[Iterator[bytes]]:
    """The bytes of a file that grows, from its start, for each file that takes its place; ends by ``stop`` only.

    A file is replaced when another one has its path, as when logs are rotated, or when it has become shorter. The rest
    of a file that has been moved is read before the next one.

    Raises
    ------
    TextError
        When the file cannot be read. One that is missing later is waited for.
    StoppedError
        When ``stop`` returns true.
    """
    file = _opened(path)
    while True:
        with file, _readable(repr(path)):
            yield _growing(file, path, stop)
        file = _reopened(path, stop)


def _growing(file: BinaryIO, path: str, stop: Stop) -> Iterator[bytes]:
    """What is in a file and is added to it, until it is replaced."""
    replaced = False
    while True:
        _check(stop)
        if chunk := file.read(_BLOCK):
            yield chunk
        elif replaced:
            return
        else:
            replaced = _is_replaced(file, path)
            if not replaced:
                time.sleep(_INTERVAL)


def _is_replaced(file: BinaryIO, path: str) -> bool:
    ours = os.fstat(file.fileno())
    if ours.st_size < file.tell():
        return True
    try:
        current = os.stat(path)
    except FileNotFoundError:  # moved, and the next one is not there yet
        return False
    return not os.path.samestat(ours, current)


def _reopened(path: str, stop: Stop) -> BinaryIO:
    while True:
        _check(stop)
        with contextlib.suppress(FileNotFoundError):
            return open(path, "rb", buffering=0)
        time.sleep(_INTERVAL)


def _opened(path: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise TextError(f"there is no file {path!r}: check the path") from None
    except IsADirectoryError:
        raise TextError(f"{path!r} is a folder: name the files in it one by one") from None
    except OSError as error:
        raise TextError(f"cannot read {path!r} ({error.strerror}): check the file and its permissions") from None
    except ValueError:  # a NUL, or a character that the file system's encoding cannot represent
        raise TextError(f"{path!r} cannot be the path of a file: check it for invalid characters") from None


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Failures of reading a source become a `TextError`."""
    try:
        yield
    except OSError as error:
        raise TextError(f"cannot read {name} ({error.strerror}): check it, or name another file") from None


def _arriving(descriptor: int, stop: Stop) -> Iterator[bytes]:
    """Read a file or a pipe until its end."""
    while True:
        while not _has_more(descriptor, _INTERVAL):
            _check(stop)
        _check(stop)
        chunks = [os.read(descriptor, _BLOCK)]
        size = len(chunks[0])
        while chunks[-1] and size < _BLOCK and _has_more(descriptor, _PATIENCE):
            chunks.append(os.read(descriptor, _BLOCK - size))
            size += len(chunks[-1])
        if size:
            yield b"".join(chunks)
        if not chunks[-1]:
            return


def _has_more(descriptor: int, seconds: float) -> bool:
    """Whether a read returns at once, with something or at the end; waits so long for that."""
    if sys.platform == "win32":  # its select is for sockets: there a read waits, and a signal takes effect after it
        return True
    return bool(select.select([descriptor], [], [], seconds)[0])


def _check(stop: Stop) -> None:
    if stop():
        raise StoppedError
