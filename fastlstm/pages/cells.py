"""A component of a page: a text whose symbols are coloured by the values of one unit, which the reader chooses.

Values are stored as 8-bit numbers, so that 500 symbols and 128 units of an LSTM with its gates take 0.5 MB. Without
JavaScript, and on paper, a page has the panels: the units that follow a property of the text most closely.
"""

from __future__ import annotations

import base64
import codecs
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.cells import CELLS, CellName
from fastlstm.exhibits.activations import Activations
from fastlstm.exhibits.features import explained, features
from fastlstm.pages.page import fill
from fastlstm.terminal import printable

#: Levels of colour on each side of 0, and how much of it the strongest has, in percent: text on it stays legible.
LEVELS, STRONGEST = 8, 42

#: Most bytes of the values of all networks, in base64; where it does not suffice, the first units are shown.
_MOST_BYTES = 900_000

#: Number of panels of a single network, and of each of several.
_PANELS, _PANELS_EACH = 4, 2

#: Surprise that has the strongest colour, in bits: more than uniform guessing among 200 symbols.
_MOST_BITS = 8.0

#: The largest of the 8-bit numbers that values from -1 to 1 become.
_SCALE = 127

#: What is shown for symbols that would not be seen, or that change how others are shown.
_SHOWN = {"\n": "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}\n", "\r": "\N{SYMBOL FOR CARRIAGE RETURN}"}

#: What is shown for a byte that ends no character of UTF-8.
_PART = "\N{MIDDLE DOT}"


@dataclass(frozen=True)
class _Panel:
    """A text coloured by one unit: its title, what is said of it, and pieces of the text with their level's class."""

    title: str
    about: str
    pieces: list[tuple[str, str]]


@dataclass(frozen=True, eq=False)
class _Network:
    """A network over the text.

    Attributes
    ----------
    cell : its name.
    values : (L, N, H) by label, from -1 to 1, in the order in which they are offered; the first are ranked.
    ranges : the values that -1 and 1 stand for, by label.
    bits : (N,) surprise of each symbol.
    follows : (F, L, H), see `fastlstm.exhibits.features.explained`.
    """

    cell: CellName
    values: dict[str, NDArray[np.float32]]
    ranges: dict[str, tuple[int, int]]
    bits: NDArray[np.float64]
    follows: NDArray[np.float64]

    def ranked(self, count: int) -> NDArray[np.intp]:
        """(L, count) units of each layer, those first that follow some property most closely."""
        closest = self.follows.max(axis=0, initial=0.0)
        return np.argsort(-closest, axis=1, kind="stable")[:, :count]


def cells(networks: Mapping[CellName, Activations]) -> str:
    """The component, as ``markupsafe.Markup``.

    Parameters
    ----------
    networks : the activations of one network, or of several over the same text of N symbols, by their cells.

    Raises
    ------
    FastlstmError
        When jinja2 is missing.
    ValueError
        When the texts differ.
    """
    texts = {one.text for one in networks.values()}
    if len(texts) != 1:
        raise ValueError(f"the networks must have read the same text, not {len(texts)} different ones")
    symbols = _symbols(texts.pop())
    properties = features(symbols)
    found = [_network(cell, one, properties) for cell, one in networks.items()]
    shown = [_SHOWN.get(symbol) or printable(symbol) for symbol in symbols]
    each = _PANELS if len(found) == 1 else _PANELS_EACH
    return fill(
        "cells.html",
        levels=LEVELS,
        strongest=STRONGEST,
        about=_about(found),
        panels=[panel for one in found for panel in _panels(one, list(properties), shown, each, len(found) > 1)],
        data=_data(found, shown),
    )


def _symbols(text: str | bytes) -> list[str]:
    """A character for each symbol; of bytes, where the character ends, and a dot for its other bytes."""
    if isinstance(text, str):
        return list(text)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    return [decode(text[n : n + 1])[-1:] or _PART for n in range(len(text))]


def _network(cell: CellName, given: Activations, properties: Mapping[str, NDArray[np.float64]]) -> _Network:
    structure = CELLS[cell]
    values, ranges = {}, {}
    for part in reversed(structure.state):  # first the one that carries most
        label, bounded = ("h", given.values["h"]) if part == "h" else (f"tanh({part})", np.tanh(given.values[part]))
        values[label], ranges[label] = bounded, (-1, 1)
    for gate in structure.gates:
        if gate in given.values:
            is_tanh = gate in structure.tanh_gates
            label = f"candidate {gate}" if is_tanh else f"gate {gate}"
            values[label] = given.values[gate] if is_tanh else 2 * given.values[gate] - 1
            ranges[label] = (-1, 1) if is_tanh else (0, 1)
    carried = next(iter(values.values()))
    return _Network(cell, values, ranges, given.nats / math.log(2), explained(carried, properties))


def _about(networks: list[_Network]) -> str:
    """What the panels are, and which units are offered."""
    carried = " or ".join(dict.fromkeys(next(iter(one.values)) for one in networks))
    words = (
        f"Some units follow a property of the text. Shown are those whose {carried} follows one most closely, by the"
        " share of its variance that a linear function of the property explains. Purple is negative, yellow positive."
    )
    for one in networks:
        H, count = one.follows.shape[2], _units(one, len(networks))
        if count < H:
            words += f" Of the {H:,} units of each layer of the {one.cell.upper()}, {count:,} can be chosen."
    return words


def _panels(one: _Network, properties: list[str], shown: list[str], count: int, named: bool) -> Iterator[_Panel]:
    """Panels of the units that follow some property most closely, at most one for a property or a unit."""
    L, H = one.follows.shape[1:]
    label, carried = next(iter(one.values.items()))
    used: set[tuple[int, int]] = set()
    for property_ in np.argsort(-one.follows.max(axis=(1, 2)), kind="stable").tolist():
        layer, unit = divmod(int(one.follows[property_].argmax()), H)
        if (layer, unit) in used or len(used) == count:
            continue
        used.add((layer, unit))
        share = one.follows[property_, layer, unit]
        where = f"unit {unit}" + (f" of layer {layer}" if L > 1 else "")
        yield _Panel(
            f"{one.cell.upper()}, {where}" if named else where.capitalize(),
            f"{label}; {properties[property_]} explains {100 * share:.0f}\N{NO-BREAK SPACE}% of it",
            list(_pieces(_eight_bits(carried[layer, :, unit]), shown)),
        )


def _pieces(values: NDArray[np.int8], shown: list[str]) -> Iterator[tuple[str, str]]:
    """Stretches of the text of one level, each after the class of that level."""
    levels = np.rint(values / _SCALE * LEVELS).astype(int).tolist()
    for level, group in itertools.groupby(zip(levels, shown, strict=True), key=lambda pair: pair[0]):
        yield (f"{'n' if level < 0 else 'p'}{abs(level)}" if level else ""), "".join(symbol for _, symbol in group)


def _data(networks: list[_Network], shown: list[str]) -> dict[str, Any]:
    """What the script of the component reads."""
    return {"symbols": shown, "levels": LEVELS, "networks": [_stored(one, len(networks)) for one in networks]}


def _stored(one: _Network, networks: int) -> dict[str, Any]:
    units = one.ranked(_units(one, networks))
    quantities = [_quantity(label, values, one.ranges[label], units) for label, values in one.values.items()]
    bits = _eight_bits(np.minimum(np.nan_to_num(one.bits) / _MOST_BITS, 1.0))
    surprise = {
        "label": "surprise in bits", "values": _text(bits), "range": (-_MOST_BITS, _MOST_BITS),
        "ends": ("0 bits", f"{_MOST_BITS:g} bits or more"),
    }  # fmt: skip
    return {"name": one.cell.upper(), "units": units.tolist(), "quantities": [*quantities, surprise]}


def _quantity(
    label: str, values: NDArray[np.float32], range: tuple[int, int], units: NDArray[np.intp]
) -> dict[str, Any]:
    """A quantity of the chosen units (L, U): for each layer, the values of one unit after the other."""
    layers = [_text(_eight_bits(of_layer[:, chosen].T)) for of_layer, chosen in zip(values, units, strict=True)]
    ends = [f"{end:+d}".replace("-", "\N{MINUS SIGN}") if end and range[0] else str(end) for end in range]
    return {"label": label, "layers": layers, "range": range, "ends": ends}


def _units(one: _Network, networks: int) -> int:
    """How many units of each layer are stored."""
    L, N, H = next(iter(one.values.values())).shape
    values = int(_MOST_BYTES / networks * 3 / 4)  # base64 has 4 characters for 3 bytes
    count: int = min(H, values // (len(one.values) * L * N))
    return max(1, count)


def _eight_bits(values: NDArray[Any]) -> NDArray[np.int8]:
    """Values from -1 to 1 as whole numbers from -127 to 127."""
    rounded: NDArray[np.int8] = np.rint(_SCALE * np.clip(values, -1, 1)).astype(np.int8)
    return rounded


def _text(values: NDArray[np.int8]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
