"""Make ``docs/derivation.html`` from ``docs/derivation.md``: one file, with MathML, no scripts and nothing to load.

usage: python docs/render.py

GitHub renders the Markdown page itself. The HTML page is for reading without it: in a browser, on paper, offline.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

DOCS = Path(__file__).parent
SOURCE, PAGE = DOCS / "derivation.md", DOCS / "derivation.html"

#: The number of an equation in its LaTeX, and in text.
_TAG = re.compile(r"\\tag\{([A-Z]\d+)\}")
_NUMBER = re.compile(r"\(([A-Z]\d+)\)")

#: A name of several letters, as latex2mathml writes it: an element for each character.
_NAME = re.compile(r'<mrow>((?:<m[io] mathvariant="italic">(?:\w|&#x0002E;)</m[io]>){2,})</mrow>')

_DOCUMENT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""


def page(markdown: str, style: str) -> str:
    """The HTML page of a Markdown text, whose first line is its title."""
    title = markdown.splitlines()[0].removeprefix("# ")
    return _DOCUMENT.format(title=escape(title), style=style, body=_parser().render(markdown))


def _parser() -> MarkdownIt:
    """CommonMark with tables, ids of headings as on GitHub, and mathematics: ``$...$``, and fences named ``math``."""
    parser = MarkdownIt("commonmark").enable("table")
    parser.use(anchors_plugin, max_level=3)
    parser.use(dollarmath_plugin, allow_space=False, renderer=lambda latex, _: mathml(latex, "inline"))
    parser.add_render_rule("text", _text)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return parser


def mathml(latex: str, display: str) -> str:
    """MathML of a formula; ``display`` is ``"inline"`` or ``"block"``."""
    # latex2mathml knows the same environment by its other name.
    latex = latex.replace("{aligned}", "{split}")
    return _NAME.sub(_name, convert(latex, display=display))


def _name(found: re.Match[str]) -> str:
    """One element for a name, which is read as a word and set without gaps between its letters."""
    return f'<mi class="name">{re.sub("<[^>]*>", "", found[1])}</mi>'


def _text(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """A text in which numbers of equations are links to them."""
    return _NUMBER.sub(r'<a href="#\1">(\1)</a>', escape(tokens[index].content, quote=False))


def _fence(_: Any, tokens: Sequence[Token], index: int, *__: Any) -> str:
    """A numbered equation, or a piece of code."""
    token = tokens[index]
    if token.info != "math":
        return f"<pre><code>{escape(token.content, quote=False)}</code></pre>\n"
    (number,) = _TAG.findall(token.content)
    formula = mathml(_TAG.sub("", token.content).strip(), "block")
    link = f'<a class="number" href="#{number}">({number})</a>'
    return f'<div class="equation" id="{number}"><div class="wide">{formula}</div>{link}</div>\n'


def main() -> None:
    """Write the page."""
    style = (DOCS / "derivation.css").read_text(encoding="utf-8")
    PAGE.write_text(page(SOURCE.read_text(encoding="utf-8"), style), encoding="utf-8")


if __name__ == "__main__":
    main()
