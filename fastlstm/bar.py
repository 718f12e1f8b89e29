"""How far a long operation is: a bar in the last line of a terminal."""

from __future__ import annotations

import contextlib
import math
from time import monotonic
from types import TracebackType
from typing import TextIO

from rich.segment import Segment
from rich.style import Style

from fastlstm import signals
from fastlstm.picture import Line, Picture, has_only_ascii, is_live, terminal

#: Seconds before a bar is shown, and between two pictures of it.
_PATIENCE_SECONDS, _PICTURE_SECONDS = 1.0, 0.2

_DONE, _LEFT = Style(color="cyan"), Style(dim=True)


def clock(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def line(before: str, share: float, after: str, width: int, only_ascii: bool) -> Line:
    """A line of a picture: a bar between two texts, of which a share from 0 to 1 is done."""
    columns = max(width - len(before) - len(after), 0)
    done = math.floor(columns * share)
    full, empty = ("=", "-") if only_ascii else ("━", "─")
    return [Segment(before), Segment(full * done, _DONE), Segment(empty * (columns - done), _LEFT), Segment(after)]


class Bar:
    """Shows how far an operation is that takes more than a second, on a terminal; it leaves nothing there.

    Use it as a context manager, and call it with what has been done since the last call.

    Parameters
    ----------
    output : where to show it; nothing is shown if it is no terminal.
    total : what is to be done, of any unit; 0: that is not known yet, see `reached`.
    unit : its name, in plural: "characters".
    """

    def __init__(self, output: TextIO, total: int, unit: str) -> None:
        self._console = terminal(output)
        self._total, self._unit, self._done = total, unit, 0
        self._started = monotonic()
        self._due = self._started + _PATIENCE_SECONDS if is_live(self._console) else math.inf
        self._picture: Picture | None = None
        self._context = contextlib.ExitStack()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._context:
            if self._picture is not None:
                self._picture.draw([[]])  # an empty line, and then none: a picture of none leaves the first column
                self._picture.draw([])

    def __call__(self, done: int) -> None:
        """Add to what has been done."""
        self._done += done
        if (now := monotonic()) >= self._due:
            self._due = now + _PICTURE_SECONDS
            self._shown().draw([self._line(now - self._started)])

    def reached(self, done: int, total: int) -> None:
        """Note how much has been done in all, and what is to be done."""
        self._total = total
        self(done - self._done)

    def _shown(self) -> Picture:
        """The picture, which takes the last line of the terminal from the first call on."""
        if self._picture is None:
            self._picture = Picture(self._console)
            self._context.enter_context(signals.cleanup(self._picture.restore_terminal))
            self._context.enter_context(self._picture)
        return self._picture

    def _line(self, seconds: float) -> Line:
        share = min(self._done / self._total, 1.0) if self._total else 0.0
        left = seconds * (1 / share - 1) if share else math.inf
        after = f"  {math.floor(100 * share)} %  {self._done / seconds:,.0f} {self._unit}/s  {clock(left)} left"
        shown = line("", share, after, self._console.width, has_only_ascii(self._console))
        return Segment.adjust_line_length(shown, self._console.width, pad=False)
