"""What all reports on gradients offer."""

from __future__ import annotations

import abc
import dataclasses
import textwrap
from typing import Any, ClassVar, Protocol, cast

import numpy as np

#: Columns that a report fills.
WIDTH = 79


class Item(Protocol):
    """One of the things that a check judges."""

    @property
    def label(self) -> str:
        """What it is, in a few characters."""

    @property
    def passed(self) -> bool:
        """Whether it is right."""


class Report(abc.ABC):
    """What all reports on gradients offer: frozen dataclasses, of which ``str`` makes a section of the output.

    Attributes
    ----------
    title : of the check.
    backend : that was checked, or both.
    """

    title: ClassVar[str]
    backend: str

    @property
    @abc.abstractmethod
    def items(self) -> tuple[Item, ...]:
        """All that was judged."""

    @property
    @abc.abstractmethod
    def worst(self) -> float:
        """The largest relative error of all that was judged; NaN if any is NaN."""

    @property
    def passed(self) -> bool:
        """Whether all that was judged is right."""
        return not self.wrong

    @property
    def judged(self) -> int:
        """Number of entries, or of other numbers, that were judged."""
        return len(self.items)

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is wrong, in a few characters each."""
        return tuple(item.label for item in self.items if not item.passed)

    @property
    def heading(self) -> str:
        """The check and the backend."""
        return f"{self.title}, {self.backend}"

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        values = dataclasses.asdict(cast(Any, self))
        return {"check": self.title, "passed": self.passed, "worst": self.worst, **values}


def verdict(passed: bool) -> str:
    """How a verdict is shown."""
    return "ok" if passed else "WRONG"


def with_names(line: str, wrong: tuple[str, ...]) -> str:
    """A line, and below it the names of what is wrong, if anything is."""
    indent = " " * 4
    names = textwrap.fill(f"WRONG: {', '.join(wrong)}", WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{line}\n{names}" if wrong else line


def largest(errors: list[float]) -> float:
    """The largest error; NaN if any is NaN."""
    return float(np.max(errors))


def aligned(rows: list[list[str]], *, left: int) -> list[str]:
    """Rows of a table as lines: the first ``left`` columns and the last one flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1

    def line(row: list[str]) -> str:
        cells = [
            cell.ljust(width) if n < left or n == last else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return " ".join(cells).rstrip()

    return [line(row) for row in rows]
