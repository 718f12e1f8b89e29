"""Scored lines as text: rows of a table, colours on a terminal, and the most surprising lines with the place marked."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fastlstm.scoring import Floats, Scored, ScoredLine
from fastlstm.terminal import spelled, visible

_LN2 = math.log(2)
#: Bits from which a symbol is shown in the next colour, and these colours: of 256, as foreground.
_BOUNDS = np.array([4.0, 7.0, 10.0, 14.0])
_COLOURS = ("", "\x1b[38;5;229m", "\x1b[38;5;220m", "\x1b[38;5;208m", "\x1b[1;38;5;196m")
_PLAIN, _INVERSE = "\x1b[0m", "\x1b[7m"
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_INDENT = "    "


def rows(scored: Scored, which: Iterable[int], source: str) -> Iterator[str]:
    """Rows of a table, separated by tabs: number, bits, bits per character, line; before them the source, if named."""
    text, prefix = scored.block.text, _prefix(source)
    if isinstance(text, str):
        text = _encodable(text)
    starts, numbers = scored.starts.tolist(), scored.numbers.tolist()
    bits, means = (scored.line_nats / _LN2).tolist(), (scored.mean_nats / _LN2).tolist()
    for i in which:
        line = _content(text[starts[i] : starts[i + 1]])
        yield f"{prefix}{numbers[i]}\t{bits[i]:.2f}\t{means[i]:.3f}\t{line}\n"


def rows_of_symbols(scored: Scored, which: Iterable[int], source: str) -> Iterator[str]:
    """Rows of a table, one for each symbol: number of the line, column from 1, symbol, bits.

    Symbols that are not printable, and the backslash, are escaped as in Python. Those left out have no bits.
    """
    prefix = _prefix(source)
    for i in which:
        line = scored.line(i)
        bits = (line.nats / _LN2).tolist()
        for column, (symbol, cost) in enumerate(zip(line.text, bits, strict=True), start=1):
            shown = "" if math.isnan(cost) else f"{cost:.3f}"
            yield f"{prefix}{line.number}\t{column}\t{_escaped(symbol)}\t{shown}\n"


def coloured_rows(scored: Scored, which: Iterable[int], source: str) -> Iterator[str]:
    """As `rows`, for a terminal: in columns, each character coloured by its bits."""
    prefix = f"{visible(source)}:" if source else ""
    for i in which:
        line = scored.line(i)
        text, nats = _characters(line)
        yield (f"{prefix}{line.number:>6} {line.bits:>8.1f} {line.bits_per_char:>6.2f}  {_painted(text, nats, None)}\n")


def ranked(lines: Iterable[tuple[str, ScoredLine]], *, columns: int, colour: bool) -> Iterator[str]:
    """The most surprising lines, with their sources: where and how many bits, then the line with its place marked.

    Parameters
    ----------
    columns : of the terminal; longer lines are cut, so that the place is seen.
    colour : whether to mark it in inverse colours, and to colour all characters; else with a caret below.
    """
    for rank, (source, line) in enumerate(lines, start=1):
        where = f"{visible(source)}:{line.number}" if source else f"line {line.number}"
        text, nats = _characters(line)
        place = None if np.isnan(nats).all() else int(np.nanargmax(nats))
        most = "" if place is None else f", {nats[place] / _LN2:.1f} of them for {_quoted(text[place])}"
        yield f"{rank}. {where}: {line.bits:.1f} bits{most}; {line.bits_per_char:.2f} per character\n"
        text, nats, place = _clipped(text, nats, place, max(20, columns - len(_INDENT)))
        if colour:
            yield f"{_INDENT}{_painted(text, nats, place)}\n"
        else:
            yield f"{_INDENT}{text}\n"
            if place is not None:
                yield f"{_INDENT}{' ' * _width(text[:place])}^\n"


def as_json(source: str, line: ScoredLine) -> dict[str, Any]:
    """A line as an object of JSON; ``column`` is that of its most surprising symbol, from 1."""
    place = line.place
    return {
        "file": source or None,
        "line": line.number,
        "bits": line.bits,
        "bits_per_char": line.bits_per_char,
        "column": None if place is None else place + 1,
        "column_bits": None if place is None else float(line.nats[place]) / _LN2,
        "text": _encodable(_content(line.text)),
    }


def _prefix(source: str) -> str:
    """The first column of a table, if sources have names."""
    return f"{visible(source)}\t" if source else ""


def _content(text: str | bytes) -> str:
    """The characters of a line without its newline."""
    if isinstance(text, str):
        return text.removesuffix("\n")
    return text.removesuffix(b"\n").decode("utf-8", "replace")


def _encodable(text: str) -> str:
    """A text of the same length without surrogates, which no encoding has."""
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


@functools.lru_cache(4096)
def _escaped(symbol: str | int) -> str:
    """As `spelled`, but a space is a space: it has a column of its own."""
    is_byte = isinstance(symbol, int)
    code = symbol if isinstance(symbol, int) else ord(symbol)
    return " " if code == 0x20 else spelled(code, is_byte)


def _quoted(symbol: str) -> str:
    return f"'{symbol}'"


def _characters(line: ScoredLine) -> tuple[str, Floats]:
    """A line as characters that a terminal shows, with their nats; its newline is one of them if it surprises.

    The nats of the bytes of a character are added up.
    """
    text, nats = line.text, line.nats
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
        sizes = [len(character.encode("utf-8", "surrogateescape")) for character in text]
        nats = np.add.reduceat(nats, np.cumsum([0, *sizes[:-1]]))
    if text.endswith("\n") and not nats[-1] >= _BOUNDS[0] * _LN2:
        text, nats = text[:-1], nats[:-1]
    return visible(text), nats


def _painted(text: str, nats: Floats, place: int | None) -> str:
    """A text with a colour for each run of characters with about as many bits, and one place inverse."""
    levels = np.searchsorted(_BOUNDS, np.nan_to_num(nats) / _LN2, side="right")
    changes = np.flatnonzero(np.diff(levels)) + 1
    if place is not None:
        changes = np.union1d(changes, [place, place + 1])
    bounds = np.unique(np.concatenate([[0], changes, [len(text)]])).tolist()
    painted = [
        _run(text[start:stop], _COLOURS[levels[start]] + (_INVERSE if start == place else ""))
        for start, stop in itertools.pairwise(bounds)
    ]
    return "".join(painted)


def _run(text: str, style: str) -> str:
    return f"{style}{text}{_PLAIN}" if style else text


def _clipped(text: str, nats: Floats, place: int | None, width: int) -> tuple[str, Floats, int | None]:
    """As much of a line around a place as fits into so many columns, at least 20, with ``…`` where it goes on."""
    ends = np.cumsum([0, *([1] * len(text) if text.isascii() else map(_width, text))])
    if ends[-1] <= width:
        return text, nats, place
    start = int(np.searchsorted(ends, min(max(0, ends[place or 0] - width // 2), ends[-1] - width)))
    stop = int(np.searchsorted(ends, ends[start] + width, side="right")) - 1
    shown = list(text[start:stop])
    if start > 0:
        shown[0] = "…"
    if stop < len(text):
        shown[-1] = "…"
    return "".join(shown), nats[start:stop], None if place is None else place - start


def _width(text: str) -> int:
    """Columns of a text on a terminal."""
    from rich.cells import cell_len

    return cell_len(text)
