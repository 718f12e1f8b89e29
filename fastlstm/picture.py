"""A picture in the last lines of a terminal, redrawn in place while other output goes above it."""

from __future__ import annotations

import contextlib
import math
import os
import sys
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.file_proxy import FileProxy
from rich.segment import ControlType, Segment, Segments

#: A line of the picture; it must not be wider than the terminal.
Line = list[Segment]

_TO_WRAP, _NOT_TO_WRAP = "\x1b[?7h", "\x1b[?7l"
_ERASE_REST = "\x1b[K"
#: From the second column, as some terminals take the erasure of all lines for the end of a page, and keep a copy.
_ERASE_BELOW = "\x1b[C\x1b[J\r"
_SHOW_CURSOR = "\x1b[?25h"


def terminal(output: TextIO) -> Console:
    """The console of an output; it shows no colours if ``NO_COLOR`` is set."""
    # With NO_COLOR rich still writes text that is bold or dim; without a colour system it does not.
    return Console(file=output, highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")


def is_live(console: Console) -> bool:
    """Whether a picture can be drawn: on a terminal that can move its cursor (with ``TERM=dumb``, it cannot)."""
    return console.file.isatty() and console.is_interactive


def has_only_ascii(console: Console) -> bool:
    """Whether not more than ASCII is to be shown: the console of Linux has no font for much beyond it."""
    return console.options.ascii_only or os.environ.get("TERM") == "linux"


class Picture(RenderHook):
    """Lines at the end of a terminal's output; use it as a context manager.

    Each line is written over its predecessor, so that nothing flickers. (`rich.live.Live` erases the lines first, and
    leaves pieces of them behind when the terminal becomes narrower.)

    Parameters
    ----------
    console : the terminal.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lines: list[Line] = []
        self._drawn: list[Line] = []
        self._width = 0  # of the terminal when they were drawn
        self._context = contextlib.ExitStack()

    def __enter__(self) -> Picture:
        self._context.callback(self.console.show_cursor, True)
        self.console.show_cursor(False)
        self.console.push_render_hook(self)
        self._context.callback(self._leave)
        # What others print, warnings for example, goes above the picture, unless it goes to a file.
        if sys.stdout.isatty():
            self._context.enter_context(contextlib.redirect_stdout(FileProxy(self.console, sys.stdout)))
        if sys.stderr.isatty():
            self._context.enter_context(contextlib.redirect_stderr(FileProxy(self.console, sys.stderr)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()

    def _leave(self) -> None:
        self.console.pop_render_hook()
        if self._drawn:
            self.console.line()

    def restore_terminal(self) -> None:
        """Undo what the picture has changed in the terminal; safe at any point of its work."""
        next_line = "\r\n" if self._drawn else ""
        os.write(self.console.file.fileno(), (_TO_WRAP + _SHOW_CURSOR + next_line).encode())

    def draw(self, lines: list[Line]) -> None:
        """Draw the picture, of these lines."""
        self._lines = lines
        self.console.print(self, crop=False)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Print above the picture: it is erased, and drawn again below."""
        if renderables == [self]:
            return renderables
        erasure = Segments([*self._to_first_line(self.console.width), _code(_ERASE_BELOW)])
        self._drawn = []
        return [erasure, *renderables, self]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _code(_NOT_TO_WRAP)  # terminals disagree about the width of some characters
        width = options.size.width
        yield from self._to_first_line(width)
        if width != self._width or len(self._lines) < len(self._drawn):
            yield _code(_ERASE_BELOW)
        for number, line in enumerate(self._lines):
            if number:
                yield Segment.line()
            yield from line
            if Segment.get_line_length(line) < width:
                yield _code(_ERASE_REST)
        yield _code("\r" + _TO_WRAP)  # what is typed is shown here, until it is written over
        self._drawn, self._width = self._lines, width

    def _to_first_line(self, width: int) -> list[Segment]:
        """From the last line of the picture to its first; a terminal that has become narrower has broken the lines."""
        rows = len(self._drawn) - 1
        if width < self._width:
            rows = sum(max(1, math.ceil(Segment.get_line_length(line) / max(width, 1))) for line in self._drawn[:-1])
        return [_code("\r" + (f"\x1b[{rows}A" if rows > 0 else ""))]


def _code(code: str) -> Segment:
    """A control code; its type is of no interest."""
    return Segment(code, None, [(ControlType.ERASE_IN_LINE, 0)])
