"""Text from a model or a file, made safe for a terminal."""

from __future__ import annotations

import codecs
import io
import re

#: What tells why nothing happens for a while.
COMPILING = "compiling kernels ..."

#: What could disturb a terminal: control characters but tab and line feed, line separators, changes of the direction of
#: writing, surrogates.
_DISTURBING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Printable:
    """Makes the pieces of a text, characters or UTF-8 bytes, safe to print: no terminal takes them for a command.

    What only the next piece can complete, a part of a character or of a line end, is kept until then.
    """

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines = io.IncrementalNewlineDecoder(None, translate=True)

    def __call__(self, piece: str | bytes, final: bool = False) -> str:
        """The next piece, for people to read; with ``final`` nothing is kept."""
        text = piece if isinstance(piece, str) else self._characters.decode(piece, final)
        return _DISTURBING.sub("\N{REPLACEMENT CHARACTER}", self._lines.decode(text, final))


def printable(text: str | bytes) -> str:
    """A text that no terminal takes for a command, for people to read."""
    return Printable()(text, final=True)
