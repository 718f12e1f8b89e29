"""A figure of how often the gates of a network are saturated."""

from __future__ import annotations

from typing import Any

from fastlstm.exhibits.saturation import GateSaturation
from fastlstm.pages.figures import COLOURS, SIZE, draw
from fastlstm.pages.page import Figure

#: Height of a bar and of what is around all bars, in inches.
_BAR, _AROUND = 0.34, 1.5


def saturation(found: GateSaturation) -> Figure:
    """A bar for each gate of each layer: the shares of its values that are saturated at either end."""
    layers, gates = found.low.shape
    names = [_name(found.names[gate], layer, layers) for layer in range(layers) for gate in range(gates)]
    low, high = 100 * found.low.ravel(), 100 * found.high.ravel()

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


def _name(gate: str, layer: int, layers: int) -> str:
    return f"layer {layer}: {gate}" if layers > 1 else gate
