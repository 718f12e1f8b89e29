"""The sources of a text: files, patterns of them, standard input and named corpora, read and decoded in pieces.

Nothing is held as a whole. A file is read again for each pass over the text; what can be read only once, such as a
pipe, is kept, in a temporary file if it is long.
"""

from __future__ import annotations

import codecs
import contextlib
import glob
import io
import itertools
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO, BinaryIO, cast

from fastlstm import corpora, decompression
from fastlstm.errors import ConfigError, TextError

STANDARD_INPUT = "-"
#: The encoding of texts for which no other is given.
ENCODING = "utf-8"

#: Bytes that are read and decoded at a time; this bounds the temporary memory for a long text.
_BLOCK = 1 << 18
#: Bytes of a source that are examined for UTF-16 and UTF-32.
_SAMPLE = 1 << 20
#: Fewer NULs than this do not indicate UTF-16 or UTF-32.
_FEW_NULS = 8
#: Byte order marks; those of UTF-32, little-endian, begin with those of UTF-16.
_MARKS = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}
_ALL_MARKS = tuple(itertools.chain(*_MARKS.values()))
#: Bytes, of what can be read only once, that are kept in memory; if there are more, all are in a temporary file.
_IN_MEMORY = 1 << 26


@dataclass
class _Source:
    """One text: a file, which is opened for each pass, or what is kept of something else.

    Attributes
    ----------
    name : for messages.
    path : of the file; its suffix also says whether what is kept is compressed.
    kept : the bytes; ``None``: they are in the file.
    hashes : of the blocks of the first pass, 64 bits each; ``None``: it is not over.
    """

    name: str
    path: str
    kept: BinaryIO | None = None
    hashes: list[int] | None = field(default=None, repr=False)

    def blocks(self) -> Iterator[bytes]:
        """The bytes; a block that is not that of the first pass is never returned."""
        hashes: list[int] = []
        for number, block in enumerate(self._read()):
            hashes.append(hash(block))
            if self.hashes is not None and self.hashes[number : number + 1] != hashes[-1:]:
                raise self._changed()
            yield block
        if self.hashes not in (None, hashes):
            raise self._changed()
        self.hashes = hashes

    def _read(self) -> Iterator[bytes]:
        suffix = PurePath(self.path).suffix.lower()
        with readable(self.name), self._opened() as file:
            if suffix in decompression.FORMATS:
                yield from decompression.blocks(file, suffix, name=self.name, size=_BLOCK)
            else:
                yield from _blocks(file)

    def _opened(self) -> contextlib.AbstractContextManager[BinaryIO]:
        if self.kept is None:
            return open(self.path, "rb")
        self.kept.seek(0)
        return contextlib.nullcontext(self.kept)

    def _changed(self) -> TextError:
        return TextError(f"{self.name} changed while it was read: try again when nothing writes to it, or copy it")


@dataclass(frozen=True)
class Sources:
    """Sources that are read one after another as one text, any number of times; made by `opened`.

    Attributes
    ----------
    given : their names as given, for messages.
    as_bytes : whether the text is bytes.
    """

    given: tuple[str, ...]
    as_bytes: bool
    _sources: tuple[_Source, ...]
    _codec: str

    def pieces(self) -> Iterator[str | bytes]:
        """The text in pieces, none of which is empty; each call is another pass.

        Characters are decoded: a byte order mark at the start of a source is removed, line ends are unchanged.

        Raises
        ------
        TextError
            When a source is damaged, cannot be read or decoded, or has changed since the first pass.
        """
        for source in self._sources:
            yield from source.blocks() if self.as_bytes else _decoded(source.blocks(), source.name, self._codec)

    def empty(self) -> TextError:
        """The error to raise when there is no symbol in them."""
        names = ", ".join(quoted(name) for name in self.given)
        return TextError(f"the text is empty ({names}): give a file with text in it")


@contextlib.contextmanager
def opened(names: Sequence[str], *, as_bytes: bool = False, encoding: str | None = None) -> Iterator[Sources]:
    """Sources, ready to be read until the context ends.

    Parameters
    ----------
    names : each the path of a file, ``-`` for standard input, the name of a corpus (`fastlstm.corpora.NAMES`), or a
        pattern as of `glob`, in which ``**`` stands for any folders: it means the files that match, in sorted order.
        An existing file takes precedence over a corpus or a pattern. An empty sequence means the default text.
        Files with a suffix of `fastlstm.decompression.FORMATS` are decompressed.
    as_bytes : whether the text is to be bytes.
    encoding : of all sources; ``None``: `ENCODING`.

    Raises
    ------
    TextError
        When a source is missing, a folder or unreadable.
    ConfigError
        When there is no such encoding, or when one is given for bytes.
    """
    if as_bytes and encoding is not None:
        raise ConfigError(f"bytes are read as they are: leave out the encoding ({encoding}), or use characters")
    codec = codec_name(ENCODING if encoding is None else encoding)
    given = tuple(names) or (corpora.DEFAULT,)
    with contextlib.ExitStack() as kept:
        found = tuple(source for name in given for source in _found(name, kept))
        yield Sources(given, as_bytes, found, codec)


def codec_name(encoding: str) -> str:
    """Python's own name of a text encoding; raises `ConfigError` if there is none of this name."""
    try:
        "a".encode(encoding)  # refuses what encodes no text, such as base64
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise ConfigError(
            f"there is no text encoding {encoding!r}: name one such as utf-8, utf-16, latin-1 or cp1252"
        ) from None


def is_pattern(name: str) -> bool:
    """Whether the name of a source is a pattern, unless a file has this very name."""
    return any(character in name for character in "*?[")


def exists(name: str) -> bool:
    """Whether there is a file or folder of this name, or a file that matches it as a pattern."""
    return os.path.exists(name) or bool(_matches(name))


def title(names: Sequence[str]) -> str:
    """What to call that which is made of sources: the name of the first, without folders, suffixes and wildcards."""
    first = names[0] if names else corpora.DEFAULT
    if first == STANDARD_INPUT:
        return "stdin"
    path = PurePath(first)
    if is_pattern(first) and not os.path.exists(first):
        path = PurePath(*(part for part in path.parts if not is_pattern(part) and part != os.pardir))
    if path.suffix.lower() in decompression.FORMATS:
        path = path.with_suffix("")
    return path.stem or "text"


def quoted(name: str) -> str:
    """The name of a source in messages."""
    return "standard input" if name == STANDARD_INPUT else repr(name)


def is_corpus(name: str) -> bool:
    """Whether the name of a source is that of a corpus, unless a file has this very name."""
    return name in corpora.NAMES and (os.path.isdir(name) or not os.path.exists(name))


def expanded(name: str) -> list[str]:
    """The files that match a name that is a pattern, in sorted order; of another one, the name itself.

    Raises
    ------
    TextError
        When no file matches.
    """
    if not is_pattern(name) or os.path.lexists(name):
        return [name]
    if not (matches := _matches(name)):
        raise TextError(f"no file matches {name!r}: check the path")
    return matches


def open_file(path: str, buffering: int = -1) -> BinaryIO:
    """Open a file to read its bytes; raises `TextError` if it cannot be opened."""
    if os.path.isdir(path):
        raise TextError(f"{quoted(path)} is a folder: name its files, for instance {os.path.join(path, '*')!r}")
    try:
        with readable(quoted(path)):
            return open(path, "rb", buffering)
    except ValueError:  # a NUL, or a character that the file system's encoding cannot represent
        raise TextError(f"{quoted(path)} cannot be the path of a file: check it for invalid characters") from None


def _found(name: str, kept: contextlib.ExitStack) -> Iterator[_Source]:
    """The sources of a name; ``kept`` closes what is kept of them."""
    if name == STANDARD_INPUT:
        yield _Source(quoted(name), "", _keep(standard_input(), quoted(name), kept))
    elif is_corpus(name):
        yield _Source(quoted(name), "", io.BytesIO(corpora.load(name)))
    else:
        yield from (_file(path, kept) for path in expanded(name))


def _matches(pattern: str) -> list[str]:
    """The files that match a pattern, sorted."""
    try:
        matches = glob.glob(pattern, recursive=True) if is_pattern(pattern) else []
    except ValueError:  # of a character that no path can have
        matches = []
    return sorted({path for path in matches if not os.path.isdir(path)})


def _file(path: str, kept: contextlib.ExitStack) -> _Source:
    """The source of a file that can be opened; what is no ordinary file, and so has no size, is read and kept."""
    name = quoted(path)
    with open_file(path) as file, readable(name):
        status = os.fstat(file.fileno())
        is_ordinary = stat.S_ISREG(status.st_mode) and status.st_size > 0
        return _Source(name, path, None if is_ordinary else _keep(file, name, kept))


def standard_input() -> BinaryIO:
    """Standard input, to read its bytes; raises `TextError` if it is closed."""
    if sys.stdin is None:
        raise TextError("standard input is closed: name a file instead of '-'")
    return sys.stdin.buffer


def _keep(file: BinaryIO, name: str, kept: contextlib.ExitStack) -> BinaryIO:
    """The content of a file that can be read only once."""
    import tempfile

    copy: IO[bytes] = kept.enter_context(tempfile.SpooledTemporaryFile(_IN_MEMORY))  # noqa: SIM115 - it is closed with `kept`
    with readable(name):
        for block in _blocks(file):
            try:
                copy.write(block)
            except OSError as error:
                raise TextError(
                    f"cannot keep {name} in a temporary file ({error.strerror}): make space, or name another folder"
                    " for it in TMPDIR"
                ) from None
    return cast(BinaryIO, copy)


@contextlib.contextmanager
def readable(name: str) -> Iterator[None]:
    """Errors of opening and reading a file become errors of a text."""
    try:
        yield
    except FileNotFoundError:
        raise TextError(
            f"there is no file {name}: check the path, or name a corpus ({', '.join(corpora.NAMES)})"
        ) from None
    except OSError as error:
        raise TextError(f"cannot read {name} ({error.strerror}): check the file and its permissions") from None


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _decoded(blocks: Iterator[bytes], name: str, codec: str) -> Iterator[str]:
    """Decode a source, given in blocks that may end within a character."""
    sample = list(itertools.islice(blocks, _SAMPLE // _BLOCK))
    _check_width(b"".join(sample), name, codec)
    is_first = True
    for text in _characters(itertools.chain(sample, blocks), name, codec):
        piece = text.removeprefix("\ufeff") if is_first else text
        is_first = False
        if piece:
            yield piece


def _characters(blocks: Iterable[bytes], name: str, codec: str) -> Iterator[str]:
    decoder, given = codecs.getincrementaldecoder(codec)(), 0
    for block in itertools.chain(blocks, [b""]):
        given += len(block)
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            offset = given - len(error.object) + error.start
            place = f"byte 0x{error.object[error.start]:02X} at offset {offset}"
            raise undecodable(name, codec, place) from None
        except UnicodeError as error:  # of some rare codecs
            raise undecodable(name, codec, " ".join(str(error).split())) from None
        if text:
            yield text


def undecodable(name: str, codec: str, why: str) -> TextError:
    """The error of a text that is not of its encoding."""
    return TextError(
        f"{name} is not {codec.upper()} ({why}): convert it to UTF-8, give its encoding with --encoding, or train a"
        " model of bytes (train --bytes)"
    )


def marked(chunks: Iterable[bytes], name: str, codec: str) -> Iterator[bytes]:
    """The same bytes, whose byte order mark must be that of their encoding; passed on as soon as that is known."""
    rest, start = iter(chunks), b""
    while any(mark.startswith(start) for mark in _ALL_MARKS if mark != start) and (chunk := next(rest, b"")):
        start += chunk
    _check_mark(start, name, codec)
    yield from itertools.chain([start] if start else [], rest)


def _check_mark(sample: bytes, name: str, codec: str) -> None:
    """Refuse a text that begins with the mark of another encoding, or without one that it needs."""
    if codec in _MARKS:
        if sample and not sample.startswith(_MARKS[codec]):
            raise TextError(
                f"{name} is not {codec.upper()} with a byte order mark: if it has none, give --encoding {codec}-le or"
                f" {codec}-be"
            )
    elif not codec.startswith(tuple(_MARKS)) and sample.startswith(_ALL_MARKS):
        raise _wide(name, codec)


def _check_width(sample: bytes, name: str, codec: str) -> None:
    """Refuse UTF-16 and UTF-32 that are to be decoded as something else, or that lack a byte order mark they need."""
    _check_mark(sample, name, codec)
    if not codec.startswith(tuple(_MARKS)) and _is_wide(sample):
        raise _wide(name, codec)


def _wide(name: str, codec: str) -> TextError:
    return TextError(
        f"{name} is not {codec.upper()} but looks like UTF-16 or UTF-32: convert it to UTF-8, give its encoding,"
        " for instance with --encoding utf-16, or train a model of bytes (train --bytes)"
    )


def _is_wide(sample: bytes) -> bool:
    """Whether the NULs among bytes are those of UTF-16 or UTF-32, which may be valid UTF-8, too.

    In UTF-16, every other byte is the high byte of a character, which is NUL for many characters, such as spaces and
    line ends in any script. Other text that contains NULs has them at even and odd indices alike. UTF-32 has more NULs
    than any text.
    """
    counts = [sample[parity::2].count(0) for parity in (0, 1)]
    few, many, half = min(counts), max(counts), len(sample) / 2
    one_sided = many >= 0.1 * half and few <= 0.1 * many
    return many >= _FEW_NULS and (one_sided or few >= 0.4 * half)
