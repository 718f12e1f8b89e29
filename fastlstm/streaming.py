"""Texts that arrive in pieces: where they end, and the whole characters among their bytes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import AnyStr, Generic


class Ending(Generic[AnyStr]):
    """Ends a text that arrives in pieces: before the first of several texts that appears in it.

    First is the one that is complete first, and of two that are complete at the same time the longer one. The result
    does not depend on how the text is divided.

    Parameters
    ----------
    texts : none of them empty.
    nothing : the empty ``str`` or ``bytes``, like the pieces.

    Attributes
    ----------
    ended : whether one of the texts has appeared.
    """

    def __init__(self, texts: Sequence[AnyStr], nothing: AnyStr) -> None:
        self.ended = False
        self._texts: Sequence[AnyStr] = texts
        self._held: AnyStr = nothing

    def __call__(self, piece: AnyStr) -> AnyStr:
        """The text up to here that has not been returned yet, but for an end that may begin one of the texts."""
        text = self._held + piece
        found = [(start + len(one), start) for one in self._texts if (start := text.find(one)) >= 0]
        self.ended = bool(found)
        stop = min(found)[1] if found else len(text) - self._begun(text)
        self._held = text[:0] if found else text[stop:]
        return text[:stop]

    def rest(self) -> AnyStr:
        """What has been held back, once no piece follows."""
        return self._held

    def _begun(self, text: AnyStr) -> int:
        """Length of the longest end of ``text`` with which one of the texts begins."""
        lengths = (n for one in self._texts for n in range(1, len(one)) if text.endswith(one[:n]))
        return max(lengths, default=0)


def whole_characters(pieces: Iterable[str | bytes]) -> Iterator[str | bytes]:
    """The same text in pieces of whole characters: bytes of an incomplete one, in UTF-8, wait for the next piece.

    What is not UTF-8 stays as it is. A ``str`` consists of whole characters.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for piece in pieces:
        yield piece if isinstance(piece, str) else decoder.decode(piece).encode("utf-8", "surrogateescape")
    if rest := decoder.decode(b"", final=True):
        yield rest.encode("utf-8", "surrogateescape")
