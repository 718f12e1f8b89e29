"""Figures, a table and a sentence of how networks recover from a disturbance of their state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.exhibits.recovery import Recovery
from fastlstm.pages.figures import draw
from fastlstm.pages.page import Figure
from fastlstm.pages.page import table as table_of
from fastlstm.pages.phrases import listed, percent

#: The disturbance whose course is drawn, and the characters whose extra losses are averaged.
_DISTURBANCE, _SMOOTHED = "new text", 20


@dataclass(frozen=True, eq=False)
class Course:
    """The recovery of one network, and how its line is drawn."""

    label: str
    colour: str
    style: str
    recovery: Recovery


def figures(name: str, whose: str, symbol: str, courses: Sequence[Course]) -> tuple[Figure, Figure]:
    """The extra loss on the text, and the share of real words in what is written, against the characters since.

    Parameters
    ----------
    name : ends the names of the figures.
    whose : of the networks, for the titles.
    symbol : "character" or "byte".
    courses : at least one.
    """
    return (
        draw(
            f"extra-loss-{name}", f"Extra loss on the text: {whose}",
            f"Extra loss against the number of {symbol}s since the disturbance, for {whose}.",
            f"After '{_DISTURBANCE}', against undisturbed; means of {_SMOOTHED} {symbol}s and of all texts.",
            _painter(courses, _extra, f"extra nats per {symbol}", symbol),
        ),
        draw(
            f"words-after-{name}", f"Real words in what is written: {whose}",
            f"Share of real words against the number of {symbol}s since the disturbance, for {whose}.",
            f"After '{_DISTURBANCE}'; a point for each block of {symbol}s.",
            _painter(courses, _words, "real words (%)", symbol),
        ),
    )  # fmt: skip


def sentence(courses: Sequence[Course]) -> str:
    """How many texts of each network end in garbage, after the disturbance that is the worst for it."""
    return f"At worst, the share of texts that end in garbage is {listed([_worst(one) for one in courses])}."


def _worst(course: Course) -> str:
    astray = course.recovery.astray
    place = int(np.argmax(astray))
    disturbance = course.recovery.disturbances[place]
    after = "undisturbed" if disturbance == "none" else f"after {disturbance}"
    return f"{percent(float(astray[place]))} for the {course.label}" + (f" ({after})" if astray[place] else "")


def table(courses: Sequence[Course]) -> str:
    """The share of texts that end in garbage, by network and disturbance."""
    header = ("texts that end in garbage, after:", *courses[0].recovery.disturbances)
    return table_of(header, [(one.label, *(percent(float(share)) for share in one.recovery.astray)) for one in courses])


def _painter(
    courses: Sequence[Course], values: Callable[[Recovery], tuple[Any, Any]], label: str, symbol: str
) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        for one in courses:
            axes.plot(*values(one.recovery), color=one.colour, linestyle=one.style, label=one.label)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.set_xlabel(f"{symbol}s since the disturbance")
        axes.set_ylabel(label)
        axes.legend()

    return paint


def _extra(found: Recovery) -> tuple[Any, Any]:
    """The middle of each block of characters, and the mean extra loss in it."""
    extra = found.extra_nats[found.disturbances.index(_DISTURBANCE)]
    blocks = extra[: len(extra) // _SMOOTHED * _SMOOTHED].reshape(-1, _SMOOTHED).mean(axis=1)
    return _SMOOTHED * (np.arange(len(blocks)) + 0.5), blocks


def _words(found: Recovery) -> tuple[Any, Any]:
    return found.places, 100 * found.word_share[found.disturbances.index(_DISTURBANCE)]
