"""A figure of how often the gates of a network are saturated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastlstm.cells import CellName
from fastlstm.exhibits.saturation import GateSaturation
from fastlstm.pages.figures import COLOURS, SIZE, draw
from fastlstm.pages.page import Figure

#: Height of a bar and of what is around all bars, in inches.
_BAR, _AROUND = 0.34, 1.5


def saturation(networks: Mapping[CellName, GateSaturation]) -> Figure:
    """A bar for each gate of each layer: the shares of its values that are saturated at either end.

    Parameters
    ----------
    networks : one network, or several, by their cells.
    """
    names = [
        f"{cell.upper()} {name}" if len(networks) > 1 else name
        for cell, one in networks.items()
        for name in _names(one)
    ]
    low, high = (
        100 * np.concatenate([getattr(one, end).ravel() for one in networks.values()]) for end in ("low", "high")
    )

    def paint(axes: Any) -> None:
        axes.barh(names, low, color=COLOURS["low"], label="lower end")
        axes.barh(names, 100 - low - high, left=low, color=COLOURS["line"], label="between")
        axes.barh(names, high, left=100 - high, color=COLOURS["high"], label="upper end")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of values, %")
        axes.figure.legend(loc="outside upper center", ncols=3)

    return draw(
        "saturation",
        "Where the values of the gates are",
        "For each gate, the shares of its values near its lower and its upper end.",
        "Gates with a sigmoid are saturated below 0.1, closed, and above 0.9, open; values of a tanh (of h, or of a"
        " candidate g or n) below \N{MINUS SIGN}0.9 and above 0.9.",
        paint,
        size=(SIZE[0], max(SIZE[1], _AROUND + _BAR * len(names))),
    )


def _names(found: GateSaturation) -> list[str]:
    """Names of the bars of a network, layer by layer."""
    layers = len(found.low)
    return [f"layer {layer}: {gate}" if layers > 1 else gate for layer in range(layers) for gate in found.names]
