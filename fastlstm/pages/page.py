"""A self-contained HTML page: sections of text and figures, which a browser shows without a network.

The page's theme is declared here, once: `THEME` has the colours of the page and of its figures, for screens that are
light and for those that are dark; paper gets the light ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fastlstm import extras

_TEMPLATE = "page.html"

#: What every page contains near its beginning: it tells the pages of fastlstm from other files.
MARK = '<meta name="generator" content="fastlstm">'


class Shade(NamedTuple):
    """A colour as ``#rrggbb``: on a light ground, and on a dark one."""

    light: str
    dark: str


#: The colours by name; ``var(--NAME)`` in a page. The light ones are all different: `fastlstm.pages.figures` relies on
#: that. Those of the cells, and ``low``, ``mid`` and ``high``, can be told apart by people who are colour-blind.
THEME: dict[str, Shade] = {
    "ground": Shade("#fdfdfc", "#15181c"),
    "raised": Shade("#f4f4f1", "#1e2227"),
    "ink": Shade("#1b1f24", "#e4e6e8"),
    "muted": Shade("#5a626b", "#a2abb4"),
    "line": Shade("#d4d6d8", "#3a4149"),
    "link": Shade("#0b62a4", "#7cc0f2"),
    "lstm": Shade("#0072b2", "#56b4e9"),
    "gru": Shade("#00855f", "#35c99b"),
    "rnn": Shade("#d15a00", "#f79a4b"),
    "low": Shade("#7a5195", "#c39be0"),
    "mid": Shade("#8b9096", "#7d858d"),
    "high": Shade("#b8860b", "#e6c04c"),
}


@dataclass(frozen=True)
class Figure:
    """One drawing.

    Attributes
    ----------
    name : unique in its page, of letters, digits and hyphens; also the name of its image file.
    title, caption : shown above and below it.
    alt : what the drawing shows, for those who cannot see it.
    svg : an ``<svg>`` element whose colours are those of the page; its ids begin with ``name``.
    png : an image file of the drawing, on white.
    """

    name: str
    title: str
    alt: str
    caption: str
    svg: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes
    ----------
    title : its heading.
    anchor : its id in the page.
    paragraphs : of text. Like all text of a page, they are escaped, unless they are of ``markupsafe.Markup``.
    figures : shown in a grid below the paragraphs.
    html : shown below the figures: tables, samples, components, as ``markupsafe.Markup``.
    """

    title: str
    anchor: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    html: str = ""


def render(title: str, lead: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """A page as one HTML document, which refers to nothing outside of it.

    Parameters
    ----------
    title, lead : its heading, and the paragraph below it.
    sections : in the order of the page; their anchors and the names of their figures differ.
    facts : how the numbers of the page came about, shown as a table at its end; empty: no table.

    Raises
    ------
    FastlstmError
        When jinja2 is missing.
    ValueError
        When two elements of the page would have the same id.
    """
    document = fill(_TEMPLATE, title=title, lead=lead, sections=sections, facts=facts, theme=THEME, mark=MARK)
    _check_ids(document)
    return document


def fill(template: str, **values: Any) -> str:
    """Fill a template of this package, as ``markupsafe.Markup``; values that are text are escaped.

    Raises
    ------
    FastlstmError
        When jinja2 is missing.
    """
    jinja2 = extras.load("jinja2", extra="plot", purpose="a page")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastlstm.pages", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    text: str = extras.load("markupsafe", extra="plot", purpose="a page").Markup(
        environment.get_template(template).render(values)
    )
    return text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, as ``markupsafe.Markup``: its first column is text, the others are numbers."""
    return fill("table.html", header=header, rows=rows)


def _check_ids(document: str) -> None:
    ids = re.findall(r'<[^<>]*\sid="([^"]*)"', document)
    if twice := {name for name in ids if ids.count(name) > 1}:
        raise ValueError(f"these ids occur more than once in the page: {', '.join(sorted(twice))}")
