"""Progress output of a training run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import io
import math
import os
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fastlstm import signals
from fastlstm.observers import Observer, Progress
from fastlstm.terminal import COMPILING, printable

#: Seconds between updates of the live display, and between plain lines.
_PICTURE_SECONDS, _LINE_SECONDS = 0.1, 10.0

_SHOW_CURSOR = b"\x1b[?25h"


def nats_and_bits(nats: float, error: float | None = None) -> str:
    """A loss in nats and bits: ``1.234 nats (1.780 bits)``, or with its error ``1.234 +- 0.012 nats (1.780 bits)``."""
    around = f" +- {error:.2g}" if error else ""
    return f"{nats:#.4g}{around} nats ({nats / math.log(2):#.4g} bits)"


def plan(progress: Progress, chars_per_s: float) -> str:
    """The plan of a run of so many minutes."""
    steps = "one step fits" if progress.total == 1 else f"{progress.total:,} steps fit"
    return f"{steps} at {chars_per_s:,.0f} characters/s"


def recovery(progress: Progress, reason: str) -> str:
    """What a run does after a divergence."""
    return f"{reason}; going on from step {progress.step:,} with a lower rate"


def clock(seconds: float) -> str:
    """A duration as ``m:ss`` or ``h:mm:ss``."""
    if not math.isfinite(seconds):
        return "-:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Lines(Observer):
    """Plain lines: one after each validation and sample, and otherwise one every ten seconds.

    Parameters
    ----------
    output : the stream to print to.
    """

    def __init__(self, output: TextIO) -> None:
        self.output = output
        self._printed = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def compiling(self) -> None:
        self._print(COMPILING)

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        self._print(plan(progress, chars_per_s))

    def recovered(self, progress: Progress, reason: str) -> None:
        self._print(recovery(progress, reason))

    def stepped(self, progress: Progress) -> None:
        if time.monotonic() - self._printed >= _LINE_SECONDS:
            self._line(progress)

    def validated(self, progress: Progress) -> None:
        self._line(progress)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        if progress.val_step != progress.step:
            self._line(progress)
        body = printable(text).rstrip("\n")
        self._print(f"--- sample at step {progress.step:,}\n{body}\n---")

    def _line(self, progress: Progress) -> None:
        parts = [f"step {progress.step:,}/{progress.total:,}", f"train {nats_and_bits(progress.train_nats)}"]
        if progress.val_nats is not None:
            parts.append(f"validation {nats_and_bits(progress.val_nats, progress.val_error)}")
        parts += [f"{progress.chars_per_s:,.0f} characters/s", f"{clock(progress.seconds_left)} left"]
        self._print("  ".join(parts))

    def _print(self, line: str) -> None:
        print(line, file=self.output, flush=True)
        self._printed = time.monotonic()


class Display(Observer):
    """A live panel on a terminal; use it as a context manager.

    Parameters
    ----------
    console : the terminal.
    """

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")
        self._shown = -math.inf
        self._sample = Text()
        self._sample_step = 0
        self._context = contextlib.ExitStack()

    def __enter__(self) -> Display:
        self._context.enter_context(signals.cleanup(self._show_cursor))
        self._context.enter_context(self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()

    def _show_cursor(self) -> None:
        """Show the cursor again, which the live display hides; safe at any point of its work."""
        os.write(self._live.console.file.fileno(), _SHOW_CURSOR)

    def compiling(self) -> None:
        self._live.update(Text(COMPILING), refresh=True)

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        self._live.console.print(plan(progress, chars_per_s))

    def recovered(self, progress: Progress, reason: str) -> None:
        self._live.console.print(recovery(progress, reason), style="yellow")

    def started(self, progress: Progress) -> None:
        self._show(progress)

    def stepped(self, progress: Progress) -> None:
        if time.monotonic() - self._shown >= _PICTURE_SECONDS:
            self._show(progress)

    def validated(self, progress: Progress) -> None:
        self._show(progress)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        self._sample, self._sample_step = Text(printable(text).strip("\n")), progress.step
        self._show(progress)

    def _show(self, progress: Progress) -> None:
        self._live.update(self._picture(progress), refresh=True)
        self._shown = time.monotonic()

    def _picture(self, progress: Progress) -> RenderableType:
        facts = Table.grid(padding=(0, 3))
        facts.add_row("train", nats_and_bits(progress.train_nats), f"{progress.chars_per_s:,.0f} characters/s")
        validation = "" if progress.val_nats is None else nats_and_bits(progress.val_nats, progress.val_error)
        facts.add_row("validation" if validation else "", validation, f"{clock(progress.seconds_left)} left")
        bar = Table.grid(padding=(0, 3), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_row(
            f"step {progress.step:,}/{progress.total:,}",
            Padding(ProgressBar(total=max(progress.total, 1), completed=progress.step), (0, 1)),
        )
        parts: list[RenderableType] = [bar, facts]
        if self._sample:
            title = f"sample at step {self._sample_step:,}"
            parts.append(Panel(self._sample, title=title, title_align="left", border_style="dim"))
        return Group(*parts)


def observer(output: TextIO, quiet: bool = False) -> Lines | Display:
    """The display for an output: live on a terminal, plain lines elsewhere."""
    if quiet:
        output = io.StringIO()
    console = Console(file=output, highlight=False)
    return Display(console) if console.is_terminal and not console.is_dumb_terminal else Lines(output)
