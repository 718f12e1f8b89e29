"""Parts of a page that show what a sample has copied from a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, AnyStr

import numpy as np

from fastlstm.exhibits.copies import Copies
from fastlstm.pages.figures import COLOURS, draw
from fastlstm.pages.page import Figure, fill
from fastlstm.terminal import printable

#: Symbols of a passage that are quoted in the table.
_QUOTED = 100

#: Colours and lines of the curves of the first and the second text.
_LINES = (("high", "-"), ("mid", "--"))


def passages(sample: AnyStr, text: AnyStr, found: Copies, symbol: str, about: str) -> str:
    """The sample with its passages marked, and a table of them, as ``markupsafe.Markup``.

    Parameters
    ----------
    sample, text : that were compared.
    found : what they share.
    symbol : "character" or "byte".
    about : what is said of the sample.
    """
    rows = [
        (
            f"{one.length:,}",
            _quoted(sample[one.start : one.start + one.length]),
            f"{_line_number(text, one.place):,}",
        )
        for one in found.passages
    ]
    return fill("passages.html", about=about, pieces=list(_pieces(sample, found)), rows=rows, symbol=symbol)


def _pieces(sample: AnyStr, found: Copies) -> Iterator[tuple[bool, str]]:
    """The sample in pieces, each with whether it is a passage."""
    done = 0
    for one in sorted(found.passages):
        yield False, printable(sample[done : one.start])
        done = one.start + one.length
        yield True, printable(sample[one.start : done])
    yield False, printable(sample[done:])


def _quoted(passage: AnyStr) -> str:
    more = "\N{HORIZONTAL ELLIPSIS}" if len(passage) > _QUOTED else ""
    return printable(passage[:_QUOTED]).replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}") + more


def _line_number(text: AnyStr, place: int) -> int:
    """The number of the line, from 1, in which a place of the text is."""
    return 1 + (text.count("\n", 0, place) if isinstance(text, str) else text.count(b"\n", 0, place))


def lengths(found: Mapping[str, Copies], symbol: str) -> Figure:
    """For each length, the share of positions at which a match of at least that length begins.

    Parameters
    ----------
    found : for one or two texts of some symbols, what they share with the training text, by their description.
    symbol : "character" or "byte".
    """

    def paint(axes: Any) -> None:
        for (name, one), (colour, style) in zip(found.items(), _LINES, strict=False):
            length = np.arange(1, one.lengths.max(initial=0) + 2)
            share = 100 * (one.lengths >= length[:, None]).mean(axis=1)
            axes.plot(length, share, color=COLOURS[colour], linestyle=style, label=name)
        axes.set_xlim(left=1)
        axes.set_ylim(0, 102)
        axes.set_xlabel(f"length of the match, {symbol}s")
        axes.set_ylabel("share of positions, %")
        axes.legend(loc="upper right")

    return draw(
        "matches",
        "Matches with the training text",
        "The share of positions at which a match of at least some length begins, against the length.",
        f"Share of the positions at which a match with the training text of at least so many {symbol}s begins.",
        paint,
    )
