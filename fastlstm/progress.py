"""Progress output of a training run: a live display on a terminal, plain lines elsewhere, or next to nothing."""

from __future__ import annotations

import contextlib
import math
import sys
from itertools import zip_longest
from time import monotonic
from types import TracebackType
from typing import Protocol, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from fastlstm import bar, curve, signals
from fastlstm.bar import clock
from fastlstm.curve import Curve
from fastlstm.observers import Observer, Progress
from fastlstm.picture import Line, Picture, has_only_ascii, is_live, terminal
from fastlstm.run_checkpoint import Checkpoint
from fastlstm.terminal import COMPILING, printable

#: Seconds between plain lines.
_LINE_SECONDS = 10.0

#: Least seconds between two pictures; the share of the time that they may take; and the most seconds to wait after one
#: that took long. (While the terminal is held with Ctrl-S, a picture takes as long as it is held.)
_PICTURE_SECONDS, _PICTURE_SHARE, _MOST_WAIT_SECONDS = 0.2, 0.004, 10.0

#: If a step takes so long, a validation or a sample is shown at once, otherwise with one of the next steps.
_LONG_STEP_SECONDS = 1.0

#: Columns of the numbers: at least, with all of them; and if the curve is beside them, which has at least so many.
_LEAST_FACTS_COLUMNS, _FACTS_COLUMNS, _LEAST_CURVE_COLUMNS = 50, 51, 20

#: Least lines of the curve; lines that a terminal must have for a curve below the numbers; columns of its limits.
_LEAST_CURVE_LINES, _LINES_FOR_CURVE, _LIMIT_COLUMNS = 3, 16, 6

_DIM, _TRAINING, _VALIDATION, _WARNING = (
    Style(dim=True),
    Style(color="cyan"),
    Style(color="magenta"),
    Style(color="yellow"),
)


def nats_and_bits(nats: float, error: float | None = None) -> str:
    """A loss in nats and bits: ``1.234 nats (1.780 bits)``, or with its error ``1.234 +- 0.012 nats (1.780 bits)``."""
    around = f" +- {error:.2g}" if error else ""
    return f"{nats:#.4g}{around} nats ({nats / math.log(2):#.4g} bits)"


def plan(progress: Progress, chars_per_s: float) -> str:
    """The plan of a run of so many minutes."""
    steps = "one step fits" if progress.total == 1 else f"{progress.total:,} steps fit"
    return f"{steps} at {chars_per_s:,.0f} characters/s"


def resumed(progress: Progress) -> str:
    """Where a run goes on that was interrupted."""
    return f"resumed at step {progress.step:,}"


def recovery(progress: Progress, reason: str) -> str:
    """What a run does after a divergence."""
    return f"{reason}; going on from step {progress.step:,} with a lower rate"


def _best_nats(progress: Progress, estimates: bool) -> float | None:
    """The best validation loss so far; ``None`` if it is one of the estimates, and the last loss is exact."""
    return None if estimates and progress.val_error is None else progress.best_nats


class Output(Protocol):
    """What lines are printed to: a stream, or a file of a run."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class Quiet(Observer):
    """Only what changes the result unasked: that training diverged, and went back.

    Parameters
    ----------
    output : where to print.
    """

    def __init__(self, output: Output) -> None:
        self.output = output

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def recovered(self, progress: Progress, reason: str) -> None:
        self._print(recovery(progress, reason))

    def _print(self, line: str) -> None:
        print(line, file=self.output, flush=True)


class Lines(Quiet):
    """Plain lines: one for each validation, and otherwise one every ten seconds; and the samples."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._printed = monotonic()
        self._estimates = False

    def compiling(self) -> None:
        self._print(COMPILING)

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        self._print(plan(progress, chars_per_s))

    def started(self, progress: Progress) -> None:
        if progress.step:
            self._print(resumed(progress))

    def stepped(self, progress: Progress) -> None:
        if monotonic() - self._printed >= _LINE_SECONDS:
            self._line(progress)

    def validated(self, progress: Progress) -> None:
        self._estimates |= progress.val_error is not None
        self._line(progress)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        if progress.val_step != progress.step:
            self._line(progress)
        body = printable(text).rstrip("\n")
        self._print(f"--- sample at step {progress.step:,}\n{body}\n---")

    def _line(self, progress: Progress) -> None:
        parts = [f"step {progress.step:,}/{progress.total:,}", f"train {nats_and_bits(progress.train_nats)}"]
        if progress.val_nats is not None and progress.val_step == progress.step:
            parts.append(f"validation {nats_and_bits(progress.val_nats, progress.val_error)}")
        if (best := _best_nats(progress, self._estimates)) is not None:
            parts.append(f"best {best:#.4g} at step {progress.best_step:,}")
        if math.isfinite(progress.rate):
            parts.append(f"rate {progress.rate:.3g}")
        parts += [f"{progress.chars_per_s:,.0f} characters/s", f"{clock(progress.seconds_left)} left"]
        self._print("  ".join(parts))

    def _print(self, line: str) -> None:
        super()._print(line)
        self._printed = monotonic()


class Display(Observer):
    """A live picture on a terminal; use it as a context manager.

    Parameters
    ----------
    console : the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._picture = Picture(console)
        self._layout = _Layout(console)
        self._due = -math.inf
        self._progress: Progress | None = None  # once the run has started
        self._context = contextlib.ExitStack()

    def __enter__(self) -> Display:
        self._context.enter_context(signals.cleanup(self._picture.restore_terminal))
        self._context.enter_context(self._picture)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._context:
            if self._progress:
                self._picture.draw(self._layout.last_lines(self._progress))

    def compiling(self) -> None:
        self._picture.draw([[Segment(COMPILING)]])

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        self._picture.console.print(plan(progress, chars_per_s))

    def recovered(self, progress: Progress, reason: str) -> None:
        self._layout.go_back(progress)
        self._picture.console.print(recovery(progress, reason), style=_WARNING)

    def started(self, progress: Progress) -> None:
        self._progress = progress
        if progress.step:
            self._picture.console.print(resumed(progress))
        self._picture.draw(self._layout.lines(progress))

    def stepped(self, progress: Progress) -> None:
        if (now := monotonic()) >= self._due:
            self._draw(progress, now)

    def validated(self, progress: Progress) -> None:
        self._layout.validated(progress)
        self._show(progress)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        self._layout.sampled(progress, text)
        self._show(progress)

    def ended(self, progress: Progress, checkpoint: Checkpoint) -> None:
        """Show the last step: the exact validation comes next, which may take a while."""
        self._picture.draw(self._layout.lines(progress))

    def _show(self, progress: Progress) -> None:
        """Show what happened at once, unless a step does so soon."""
        if progress.seconds >= _LONG_STEP_SECONDS * progress.step:
            self._draw(progress, monotonic())

    def _draw(self, progress: Progress, began: float) -> None:
        self._picture.draw(self._layout.lines(progress))
        ended = monotonic()
        wait = (ended - began) / _PICTURE_SHARE
        self._due = ended + min(max(wait, _PICTURE_SECONDS), _MOST_WAIT_SECONDS)


class _Layout:
    """The lines of the picture: a bar, the numbers, the curve, the last sample."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ascii = has_only_ascii(console)
        self._training, self._validation, self._estimates = Curve(), Curve(), False
        self._sample: str | bytes = ""
        self._sample_step = 0
        self._panel_size: tuple[int, int] | None = None
        self._panel_lines: list[Line] = []  # of that size

    def validated(self, progress: Progress) -> None:
        self._estimates |= progress.val_error is not None
        if progress.val_nats is not None:
            self._validation.add(progress.step, progress.val_nats)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        self._sample, self._sample_step = text, progress.step
        self._panel_size = None

    def go_back(self, progress: Progress) -> None:
        """Drop the points after the step that the run has gone back to."""
        self._training.go_back(progress.step)
        self._validation.go_back(progress.step)

    def lines(self, progress: Progress) -> list[Line]:
        """The picture of a run, not larger than the terminal."""
        width, height = self._console.size
        left = f"{clock(progress.elapsed)} elapsed, {clock(progress.seconds_left)} left"
        return self._lines(progress, left, width, height)[:height]

    def last_lines(self, progress: Progress) -> list[Line]:
        """The picture of a run that has ended, of any height."""
        return self._lines(progress, f"{clock(progress.elapsed)} elapsed", self._console.width, sys.maxsize)

    def _lines(self, progress: Progress, time: str, width: int, height: int) -> list[Line]:
        self._training.add(progress.step, progress.train_nats)
        facts = self._facts(progress, time, width)
        columns = width - _FACTS_COLUMNS
        if columns >= _LEAST_CURVE_COLUMNS:
            nothing: Line = []
            drawn = self._curve(columns, max(len(facts), _LEAST_CURVE_LINES))
            facts = [
                [*Segment.adjust_line_length(fact, _FACTS_COLUMNS), *line]
                for fact, line in zip_longest(facts, drawn, fillvalue=nothing)
            ]
        elif height >= _LINES_FOR_CURVE:
            facts += self._curve(width, _LEAST_CURVE_LINES)
        top = [Segment.adjust_line_length(line, width, pad=False) for line in (self._bar(progress, width), *facts)]
        return top + self._panel(width, height - len(top))

    def _bar(self, progress: Progress, width: int) -> Line:
        share = min(progress.step / progress.total, 1.0) if progress.total else 0.0
        before, after = f"step {progress.step:,}/{progress.total:,}  ", f"  {math.floor(100 * share)} %"
        return bar.line(before, share, after, width, self._ascii)

    def _facts(self, progress: Progress, time: str, width: int) -> list[Line]:
        rate = f"{progress.rate:.3g}" if math.isfinite(progress.rate) else "-"
        speed, epoch = f"{progress.chars_per_s:,.0f} characters/s", f"{progress.epoch:.2f}"
        is_narrow = width < _LEAST_FACTS_COLUMNS
        loss = _nats if is_narrow else nats_and_bits

        facts = [_fact("train", loss(progress.train_nats), _TRAINING)]
        if progress.val_nats is not None:
            facts.append(_fact("validation", loss(progress.val_nats, progress.val_error), _VALIDATION))
        if (best := _best_nats(progress, self._estimates)) is not None:
            facts.append(_fact("best", f"{loss(best)}, step {progress.best_step:,}"))
        if is_narrow:
            return [*facts, _fact("rate", rate), _fact("speed", speed), _fact("epoch", epoch), _fact("time", time)]
        return [*facts, _fact("rate", f"{rate:<8} {speed}"), _fact("epoch", f"{epoch:<8} {time}")]

    def _curve(self, columns: int, rows: int) -> list[Line]:
        """The training loss so far, in nats, and the validations; nothing before the second point."""
        points, marks = self._training.points, self._validation.points
        if len(points) < 2:
            return []
        low, high = curve.limits(points, marks)
        characters = curve.ASCII if self._ascii else curve.BRAILLE
        drawn = curve.draw(points, marks, (low, high), max(columns - _LIMIT_COLUMNS, 1), rows, characters)
        labels = [f"{high:#.3g}", *[""] * (rows - 2), f"{low:#.3g}"]
        return [
            [Segment(f"{label:>{_LIMIT_COLUMNS - 1}} ", _DIM), *_marked(line, characters.mark)]
            for label, line in zip(labels, drawn, strict=True)
        ]

    def _panel(self, width: int, room: int) -> list[Line]:
        """The last sample, in at most so many lines; nothing if it does not fit."""
        size = width, room
        if self._panel_size != size:
            self._panel_size, self._panel_lines = size, self._framed(width - 4, room - 2)
        return self._panel_lines

    def _framed(self, columns: int, rows: int) -> list[Line]:
        """The last sample in a frame."""
        if not self._sample or columns < 1 or rows < 1:
            return []
        sample = Text(printable(self._sample).strip("\n"))
        text = [line.plain.rstrip() for line in sample.wrap(self._console, columns)]
        title, more = f" sample at step {self._sample_step:,} ", ""
        if len(text) > rows:
            more = f" {len(text) - rows:,} more lines "
        line, upright, corners = ("-", "|", "++++") if self._ascii else ("─", "│", "╭╮╰╯")
        frame = [
            [
                Segment(corners[0] + line, _DIM),
                Segment(title),
                Segment(line * (columns + 1 - len(title)) + corners[1], _DIM),
            ],
            *(
                [
                    Segment(upright + " ", _DIM),
                    Segment(row + " " * (columns - cell_len(row))),
                    Segment(" " + upright, _DIM),
                ]
                for row in text[:rows]
            ),
            [Segment(corners[2] + line * (columns + 1 - len(more)) + more + line + corners[3], _DIM)],
        ]
        return [Segment.adjust_line_length(line, columns + 4, pad=False) for line in frame]


def _nats(nats: float, error: float | None = None) -> str:
    """A loss without its bits."""
    return nats_and_bits(nats, error).partition(" (")[0]


def _fact(label: str, value: str, style: Style = _DIM) -> Line:
    return [Segment(f"{label:<11}", style), Segment(value)]


def _marked(line: str, mark: str) -> Line:
    """A line of the curve, with the points of the validation in their colour."""
    first, *others = line.split(mark)
    pieces = [Segment(first, _TRAINING)]
    for piece in others:
        pieces += [Segment(mark, _VALIDATION), Segment(piece, _TRAINING)]
    return pieces


def observer(output: TextIO, quiet: bool = False) -> Quiet | Lines | Display:
    """The display for an output: live on a terminal, plain lines elsewhere; with ``quiet`` next to nothing."""
    if quiet:
        return Quiet(output)
    console = terminal(output)
    return Display(console) if is_live(console) else Lines(output)
