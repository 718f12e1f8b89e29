"""The lines of files, of standard input and of growing logs, in blocks of whole lines, as they arrive."""

from __future__ import annotations

import codecs
import contextlib
import itertools
import os
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath
from typing import AnyStr, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from fastlstm import corpora, decompression
from fastlstm.errors import StoppedError
from fastlstm.sources import (
    ENCODING,
    STANDARD_INPUT,
    codec_name,
    is_corpus,
    marked,
    open_file,
    quoted,
    readable,
    standard_input,
    undecodable,
)

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


def decoded(chunks: Iterable[bytes], source: str, encoding: str = ENCODING) -> Iterator[str]:
    """Decode bytes, which may be damaged: what is not of the encoding becomes symbols that no text contains.

    In UTF-8 each such byte becomes a lone surrogate, U+DC80 to U+DCFF; other encodings give U+FFFD. A byte order mark
    at the start is removed.

    Parameters
    ----------
    chunks : the bytes.
    source : whose they are, for messages.
    encoding : as Python names it.

    Raises
    ------
    ConfigError
        When there is no such encoding.
    TextError
        When a byte order mark tells that it is another one, or is missing, or when the codec replaces nothing.
    """
    codec = codec_name(encoding)
    is_utf8 = codec == ENCODING
    decoder = codecs.getincrementaldecoder("utf-8-sig" if is_utf8 else codec)(
        "surrogateescape" if is_utf8 else "replace"
    )
    for chunk in itertools.chain(marked(chunks, quoted(source), codec), [b""]):
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeError as error:  # of some rare codecs
            raise undecodable(quoted(source), codec, " ".join(str(error).split())) from None
        if text:
            yield text


def read(source: str, stop: Stop) -> Iterator[bytes]:
    """The bytes of a source in chunks: of a pipe, each is what has arrived.

    Parameters
    ----------
    source : the path of a file, which is decompressed if its suffix is one of `fastlstm.decompression.FORMATS`, ``-``
        for standard input, or the name of a corpus.
    stop : called for each chunk, and while nothing arrives.

    Raises
    ------
    TextError
        When the source cannot be read.
    StoppedError
        When ``stop`` returned true.
    """
    suffix = PurePath(source).suffix.lower()
    if source == STANDARD_INPUT:
        yield from _arriving(standard_input(), source, stop)
    elif is_corpus(source):
        yield corpora.load(source)
    elif suffix in decompression.FORMATS:
        with open_file(source) as file, readable(quoted(source)):
            for chunk in decompression.blocks(file, suffix, name=quoted(source), size=_BLOCK):
                _check(stop)
                yield chunk
    else:
        with open_file(source, buffering=0) as file:
            yield from _arriving(file, source, stop)


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
    file = open_file(path, buffering=0)
    while True:
        with file:
            yield _growing(file, path, stop)
        file = _reopened(path, stop)


def _growing(file: BinaryIO, path: str, stop: Stop) -> Iterator[bytes]:
    """What is in a file and is added to it, until it is replaced."""
    replaced = False
    while True:
        _check(stop)
        with readable(quoted(path)):
            chunk, ends = file.read(_BLOCK), replaced
            replaced = replaced or (not chunk and _is_replaced(file, path))
        if chunk:
            yield chunk
        elif ends:
            return
        elif not replaced:
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
        with readable(quoted(path)), contextlib.suppress(FileNotFoundError):
            return cast(BinaryIO, open(path, "rb", buffering=0))
        time.sleep(_INTERVAL)


def _arriving(file: BinaryIO, name: str, stop: Stop) -> Iterator[bytes]:
    """What can be read of a file or a pipe at once, until its end."""
    descriptor, ended = file.fileno(), False
    with readable(quoted(name)):
        while not ended:
            _check(stop)
            if not _has_more(descriptor, _INTERVAL):
                continue
            chunks = [os.read(descriptor, _BLOCK)]
            size = len(chunks[0])
            while chunks[-1] and size < _BLOCK and _has_more(descriptor, _PATIENCE):
                chunks.append(os.read(descriptor, _BLOCK - size))
                size += len(chunks[-1])
            ended = not chunks[-1]
            if size:
                yield b"".join(chunks)


def _has_more(descriptor: int, seconds: float) -> bool:
    """Whether a read returns at once, with something or at the end; waits so long for that."""
    if sys.platform == "win32":  # its select is for sockets: there a read waits, and a signal takes effect after it
        return True
    return bool(select.select([descriptor], [], [], seconds)[0])


def _check(stop: Stop) -> None:
    if stop():
        raise StoppedError
