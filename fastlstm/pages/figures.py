"""Figures of a page, drawn by matplotlib: as SVG in the colours of the page, and as PNG.

A figure is drawn once, in the light colours of `fastlstm.pages.page.THEME`. In its SVG, each of these colours is then
replaced by the page's variable of that name, so that the figure is dark where the page is, and light on paper.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastlstm import extras
from fastlstm.cells import CellName
from fastlstm.pages.page import THEME, Figure

#: Width and height in inches: at the width of a phone, the text of a figure is still of about 9 pixels.
SIZE = (5.2, 3.4)

#: The colours to draw in, by name.
COLOURS = {name: shade.light for name, shade in THEME.items()}

#: The line of each cell in all figures, so that they can be told apart without colours too.
LINE_STYLES: dict[CellName, str] = {"lstm": "-", "gru": "--", "rnn": "-."}

#: The program that images name as theirs, and among how many of their first bytes they do.
_SOFTWARE, _FIRST_BYTES = "fastlstm", 1000

_FONT, _FONT_SIZE, _DPI = "DejaVu Sans", 10.5, 160

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw(
    name: str,
    title: str,
    alt: str,
    caption: str,
    paint: Callable[[Any], None],
    size: tuple[float, float] = SIZE,
) -> Figure:
    """Draw a figure. The same calls of ``paint`` give the same bytes.

    Parameters
    ----------
    name, title, alt, caption : as in `Figure`.
    paint : draws on the ``matplotlib.axes.Axes`` that it is called with, in the colours of `COLOURS`.
    size : width and height in inches.

    Raises
    ------
    FastlstmError
        When matplotlib is missing.
    """
    with _matplotlib().rc_context(_style(name)):
        figure = _matplotlib(".figure").Figure(size, layout="constrained")
        paint(figure.subplots())
        svg = _encoded(figure, "svg", metadata={"Date": None}, transparent=True).decode()
        png = _encoded(figure, "png", metadata={"Software": _SOFTWARE}, facecolor="white", dpi=_DPI)
    return Figure(name, title, alt, caption, _for_page(svg, name, alt), png)


def is_figure(path: Path) -> bool:
    """Whether a file is an image that `draw` made; false for what cannot be read."""
    try:
        with open(path, "rb") as file:
            return f"Software\0{_SOFTWARE}".encode() in file.read(_FIRST_BYTES)
    except OSError:
        return False


def power_of_ten(value: float, position: int | None = None) -> str:
    """The label of a tick on a logarithmic axis, in plain text; to be given to ``set_major_formatter``."""
    return "10" + str(round(math.log10(value))).translate(_SUPERSCRIPTS) if value > 0 else "0"


def check_libraries() -> None:
    """Raise `FastlstmError` if a library of a page with figures is missing: before the work that the page shows."""
    _matplotlib(".figure")
    for module in ("jinja2", "markupsafe"):
        extras.load(module, extra="plot", purpose="a page")


def _matplotlib(module: str = "") -> Any:
    """The library, or a module of it."""
    return extras.load(f"matplotlib{module}", extra="plot", purpose="a figure")


def _style(name: str) -> dict[str, Any]:
    """Settings of matplotlib for the figure of this name."""
    ink, muted, line = COLOURS["ink"], COLOURS["muted"], COLOURS["line"]
    return {
        "font.family": "sans-serif", "font.sans-serif": [_FONT], "font.size": _FONT_SIZE,
        "text.color": ink, "text.parse_math": False, "axes.labelcolor": ink, "xtick.labelcolor": ink,
        "ytick.labelcolor": ink, "xtick.color": muted, "ytick.color": muted, "axes.edgecolor": muted,
        "axes.facecolor": "none", "axes.grid": True, "axes.axisbelow": True, "grid.color": line, "grid.linewidth": 0.7,
        "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "lines.linewidth": 1.8,
        "legend.frameon": False, "legend.fontsize": _FONT_SIZE - 1, "legend.handlelength": 2.4,
        "svg.fonttype": "none", "svg.hashsalt": name,
    }  # fmt: skip


def _encoded(figure: Any, format: str, **how: Any) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=format, **how)
    return file.getvalue()


def _for_page(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: its colours and font are those of the page, and its ids its own."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    for colour, shade in THEME.items():
        svg = svg.replace(shade.light, f"var(--{colour})")
    svg = svg.replace(f"'{_FONT}', sans-serif", "var(--sans)").replace(f"'{_FONT}'", "var(--sans)")
    box = re.search(r'viewBox="[^"]+"', svg)
    assert box is not None  # matplotlib writes one
    label = extras.load("markupsafe", extra="plot", purpose="a figure").escape(alt)
    opening = f'<svg {box[0]} xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{label}">'
    return re.sub(r"<svg\b[^>]*>", lambda _: opening, svg, count=1).strip()
