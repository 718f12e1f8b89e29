"""Make text from a model or a file safe to print on a terminal."""

from __future__ import annotations

import codecs
import io
import re
import shutil
import textwrap

#: Message before kernels are compiled, which takes a while.
COMPILING = "compiling kernels ..."

#: Characters that are unsafe on a terminal: control characters other than tab and line feed, line separators, changes
#: of the writing direction, surrogates.
_DISTURBING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

#: Those, and those that move the cursor: all that is not shown as one character in its place.
_NOT_SHOWN = re.compile(rf"{_DISTURBING.pattern}|[\t\n]")
#: Names of symbols that would not be seen, or be taken for something else.
_SPELLINGS = {" ": "space", "\\": "\\\\"}


class Printable:
    """Converts pieces of text, characters or UTF-8 bytes, so that a terminal interprets none of them as a command.

    An incomplete character or line end at the end of a piece is buffered until the next one.
    """

    def __init__(self) -> None:
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines = io.IncrementalNewlineDecoder(None, translate=True)

    def __call__(self, piece: str | bytes, final: bool = False) -> str:
        """Convert the next piece; with ``final``, nothing is buffered."""
        text = piece if isinstance(piece, str) else self._characters.decode(piece, final)
        return _DISTURBING.sub("\N{REPLACEMENT CHARACTER}", self._lines.decode(text, final))


def printable(text: str | bytes) -> str:
    """Convert a whole text, so that a terminal interprets nothing in it as a command."""
    return Printable()(text, final=True)


def visible(text: str) -> str:
    """Convert a text to one of the same length and one line, in which control characters have pictures, such as ``␍``.

    A terminal interprets nothing in it as a command.
    """
    return _NOT_SHOWN.sub(lambda found: _picture(ord(found[0])), text)


def _picture(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    return "\N{SYMBOL FOR DELETE}" if code == 0x7F else "\N{REPLACEMENT CHARACTER}"


def printable_line(text: object) -> str:
    """Convert a value's text to one line, so that a terminal interprets nothing in it as a command."""
    return " ".join(printable(str(text)).split())


def spelled(code: int, is_byte: bool = False) -> str:
    """A symbol, a code point or the value of a byte, by itself where it can be seen, else by a name or an escape."""
    if is_byte and code >= 0x80:
        return f"\\x{code:02x}"
    symbol = chr(code)
    if symbol in _SPELLINGS:
        return _SPELLINGS[symbol]
    return symbol if symbol.isprintable() else symbol.encode("unicode_escape").decode()


def wrapped(text: str) -> str:
    """Break the lines of a text between words, to the width of the terminal; indented lines are kept, to be copied."""
    columns = max(20, shutil.get_terminal_size().columns)
    lines = [
        line
        if line.startswith(" ")
        else textwrap.fill(line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in text.split("\n")
    ]
    return "\n".join(lines)
