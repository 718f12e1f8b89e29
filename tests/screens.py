"""A terminal that tests can look at."""

import io
import re

from rich.console import Console

_PIECES = re.compile(r"\x1b\[(\?)?(\d*)([A-Za-z])|([^\x1b])", re.DOTALL)


class Screen(io.StringIO):
    """Shows what is written to it, with the control codes that a picture uses; any other fails.

    Attributes
    ----------
    rows : all that is shown, with what has left the screen at the top.
    codes : the control codes received.
    """

    def __init__(self, width, height, encoding="utf-8"):
        super().__init__()
        self.width, self.height = width, height
        self.rows, self.row, self.column, self.wraps = [""], 0, 0, True
        self.codes = set()
        self._encoding = encoding

    encoding = property(lambda self: self._encoding)

    @property
    def console(self):
        return Console(
            file=self, force_terminal=True, width=self.width, height=self.height, highlight=False, _environ={}
        )

    @property
    def text(self):
        return "\n".join(row.rstrip() for row in self.rows)

    def isatty(self):
        return True

    def write(self, text):
        for private, count, code, character in _PIECES.findall(text):
            if character:
                self._put(character)
            else:
                self.codes.add(code)
                {"A": self._up, "C": self._right, "K": self._erase_rest, "J": self._erase_below}.get(
                    code, lambda count: None
                )(int(count or 1))
                if private and count == "7":
                    self.wraps = code == "h"
                assert code in "ACKJm" or private
        return super().write(text)

    def narrow(self, console, width):
        """Make the screen narrower: it breaks lines that are too long, as most terminals do."""
        broken, row = [], 0
        for number, line in enumerate(self.rows):
            pieces = [line[at : at + width] for at in range(0, len(line), width)] or [""]
            if number == self.row:
                row = len(broken) + self.column // width
            broken += pieces
        self.column %= width
        self.rows, self.row, self.width = broken, row, width
        console.width = width

    def _put(self, character):
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row, self.column = self.row + 1, 0
            self.rows += [""] * (self.row + 1 - len(self.rows))
        else:
            if self.column == self.width:
                if self.wraps:
                    self._put("\n")
                else:
                    self.column -= 1
            line = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = line[: self.column] + character + line[self.column + 1 :]
            self.column += 1

    def _up(self, count):
        self.row = max(self.row - count, len(self.rows) - self.height, 0)

    def _right(self, count):
        self.column = min(self.column + count, self.width - 1)

    def _erase_rest(self, count):
        self.rows[self.row] = self.rows[self.row][: self.column]

    def _erase_below(self, count):
        self._erase_rest(count)
        self.rows[self.row + 1 :] = []
