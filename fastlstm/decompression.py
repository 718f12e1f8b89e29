"""Decompression of files, in blocks: gzip, bzip2, xz, lzma and zstd."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple, Protocol

from fastlstm import extras
from fastlstm.errors import TextError

#: The formats of compressed files by the suffixes of their names.
FORMATS: Mapping[str, str] = MappingProxyType(
    {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".lzma": "lzma", ".zst": "zstd"}
)


class _Decompressor(Protocol):
    """Decompresses one stream; most files consist of one. Those of the standard library have this interface."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Unbounded:
    """A decompressor that returns all that follows from its input, however long that is."""

    needs_input = True

    def __init__(self, decompressor: Any) -> None:
        self._decompressor = decompressor

    @property
    def eof(self) -> bool:
        return bool(self._decompressor.eof)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._decompressor.unused_data)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return bytes(self._decompressor.decompress(data))


class _Codec(NamedTuple):
    """How to decompress a format.

    Attributes
    ----------
    new : makes a decompressor.
    error : what it raises for damaged data.
    input : bytes to give to it at a time. Memory for what follows from them is bounded by their number where the
        decompressor does not bound it: each 4 bytes of zstd can stand for 128 KiB.
    """

    new: Callable[[], _Decompressor]
    error: type[Exception]
    input: int = 1 << 12


def blocks(file: BinaryIO, suffix: str, *, name: str, size: int) -> Iterator[bytes]:
    """The content of a compressed file, whose streams (members, frames) are joined.

    Parameters
    ----------
    file : from its beginning.
    suffix : a key of `FORMATS`.
    name : of the file, for messages.
    size : bytes of a block; the last one may be shorter.

    Raises
    ------
    TextError
        When the file is damaged, cut short or not of this format, or when this Python lacks the library for it.
    FastlstmError
        When the optional library for zstd is missing.
    """
    codec = _codec(FORMATS[suffix], name)
    try:
        yield from _gathered(_streams(file, codec, size), size)
    except (codec.error, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file; bz2 reports damage without a number
            raise
        raise TextError(
            f"cannot decompress {name} ({' '.join(str(error).split())}): the file is damaged, or not {FORMATS[suffix]};"
            " get a whole one, or give it another suffix if it is not compressed"
        ) from None


def _streams(file: BinaryIO, codec: _Codec, size: int) -> Iterator[bytes]:
    """The contents of the streams of a file, in pieces of any size."""
    data = _next_stream(b"", file, codec.input)
    while data:
        decompressor = codec.new()
        while not decompressor.eof:
            if not data and decompressor.needs_input and not (data := file.read(codec.input)):
                raise EOFError("it ends too early")
            yield decompressor.decompress(data, size)
            data = b""
        data = _next_stream(decompressor.unused_data, file, codec.input)


def _next_stream(unused: bytes, file: BinaryIO, size: int) -> bytes:
    """The first bytes of the next stream, empty at the end of the file; zeros between streams are padding."""
    while not (data := unused.lstrip(b"\0")) and (unused := file.read(size)):
        pass
    return data


def _gathered(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of a size."""
    left = bytearray()
    for piece in pieces:
        left += piece
        while len(left) >= size:
            yield bytes(left[:size])
            del left[:size]
    if left:
        yield bytes(left)


def _codec(kind: str, name: str) -> _Codec:
    if kind == "gzip":
        zlib = _library("zlib", name)
        return _Codec(lambda: _Unbounded(zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)), zlib.error)
    if kind == "bzip2":
        return _Codec(_library("bz2", name).BZ2Decompressor, OSError)
    if kind in ("xz", "lzma"):
        lzma = _library("lzma", name)
        return _Codec(lzma.LZMADecompressor, lzma.LZMAError)
    if sys.version_info >= (3, 14):
        zstd = _library("compression.zstd", name)
        return _Codec(zstd.ZstdDecompressor, zstd.ZstdError)
    zstandard = extras.load("zstandard", extra="zstd", purpose=name)
    return _Codec(lambda: _Unbounded(zstandard.ZstdDecompressor().decompressobj()), zstandard.ZstdError, input=1 << 8)


def _library(module: str, name: str) -> Any:
    """A module that Python may have been built without."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise TextError(f"this Python has no {module}, which {name} needs: decompress the file first") from None
