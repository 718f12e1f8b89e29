"""A small curve of a loss over the steps of a run, as rows of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: The most points of a curve.
MOST_POINTS = 200

#: The losses of the first part of a run fall steeply. They may lie above the curve, so that the later ones can be told
#: apart.
_STEEP_SHARE = 0.05

#: Values that are averaged for each column of dots.
_VALUES_PER_DOT = 4

Point = tuple[float, float]


@dataclass(slots=True)
class _Bucket:
    """The sum of some losses in a row, and of their steps."""

    first: int
    steps: int
    nats: float
    count: int = 1

    def include(self, other: _Bucket) -> None:
        self.steps += other.steps
        self.nats += other.nats
        self.count += other.count


class Curve:
    """Losses over the steps of a run: at most `MOST_POINTS`, evenly spaced means of those that were added."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = []
        self._spacing = 1  # steps between the beginnings of two buckets, at least

    def add(self, step: int, nats: float) -> None:
        """Add a loss, nats per symbol; one that is not finite is left out."""
        if not math.isfinite(nats):
            return
        new = _Bucket(step, step, nats)
        if self._buckets and step < self._buckets[-1].first + self._spacing:
            self._buckets[-1].include(new)
            return
        self._buckets.append(new)
        if len(self._buckets) > MOST_POINTS:
            self._halve()

    def go_back(self, step: int) -> None:
        """Drop what begins after this step."""
        while self._buckets and self._buckets[-1].first > step:
            self._buckets.pop()

    @property
    def points(self) -> list[Point]:
        """The points: a step, and a loss in nats per symbol."""
        return [(bucket.steps / bucket.count, bucket.nats / bucket.count) for bucket in self._buckets]

    def _halve(self) -> None:
        for bucket, after in zip(self._buckets[::2], self._buckets[1::2], strict=False):
            bucket.include(after)
        del self._buckets[1::2]
        self._spacing = math.ceil((self._buckets[-1].first - self._buckets[0].first) / (len(self._buckets) - 1))


@dataclass(frozen=True)
class Characters:
    """How a curve is drawn: each character consists of dots.

    Attributes
    ----------
    weights : of the dots of a character, in rows.
    table : the character for each sum of weights.
    mark : the character of a single point.
    """

    weights: tuple[tuple[int, ...], ...]
    table: str
    mark: str


BRAILLE = Characters(
    ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80)),
    " " + "".join(chr(0x2800 + dots) for dots in range(1, 256)),
    "\N{BULLET}",
)
ASCII = Characters(((1,), (2,)), " '.:", "o")


def limits(curve: Sequence[Point], marks: Sequence[Point] = ()) -> tuple[float, float]:
    """The lowest and the highest loss to be drawn of a curve with at least one point, and of single points."""
    first, last = curve[0][0], curve[-1][0]
    from_step = first + _STEEP_SHARE * (last - first)
    shown = [nats for step, nats in (*curve, *marks) if step >= from_step]
    return min(nats for _, nats in (*curve, *marks)), max(shown)


def draw(
    curve: Sequence[Point],
    marks: Sequence[Point],
    between: tuple[float, float],
    columns: int,
    rows: int,
    characters: Characters = BRAILLE,
) -> list[str]:
    """Draw a curve, and single points above it.

    Parameters
    ----------
    curve : its points, steps ascending; nothing is drawn of fewer than two.
    marks : single points.
    between : the losses at the bottom and at the top.
    columns, rows : size of the drawing, at least 1.
    characters : what it is drawn with.

    Returns
    -------
    list of str : ``rows`` strings of ``columns`` characters.
    """
    if len(curve) < 2:
        return [" " * columns] * rows
    steps, nats = np.array(curve).T
    weights = np.array(characters.weights)
    down, across = weights.shape

    grid = np.linspace(steps[0], steps[-1], columns * across * _VALUES_PER_DOT)
    losses = np.interp(grid, steps, nats).reshape(-1, _VALUES_PER_DOT).mean(axis=1)
    level = _levels(losses, between, rows * down)
    before = np.concatenate((level[:1], level[:-1]))
    top, bottom = np.where(level > before, before + 1, level), np.where(level < before, before - 1, level)
    row = np.arange(rows * down)[:, None]
    dots = ((top <= row) & (row <= bottom) & (losses <= between[1])).reshape(rows, down, columns, across)
    cells = [[characters.table[cell] for cell in line] for line in np.einsum("rdca,da->rc", dots, weights)]

    if marks:
        at, heights = np.array(marks).T
        columns_of_marks = _positions((at - steps[0]) / (steps[-1] - steps[0]), columns)
        for column, line in zip(columns_of_marks, _levels(heights, between, rows * down) // down, strict=True):
            cells[line][column] = characters.mark
    return ["".join(line) for line in cells]


def _levels(nats: NDArray[np.float64], between: tuple[float, float], count: int) -> NDArray[np.intp]:
    """The line of each loss, of so many: 0 is the top."""
    low, high = between
    return _positions((high - nats) / ((high - low) or 1.0), count)


def _positions(shares: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    return np.clip(np.rint(shares * (count - 1)), 0, count - 1).astype(np.intp)
