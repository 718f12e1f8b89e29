"""Numbers and lists as they are written in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence


def count(number: int, noun: str) -> str:
    """A number of things: ``one seed``, ``3 seeds``."""
    return f"one {noun}" if number == 1 else f"{number} {noun}s"


def listed(items: Sequence[str]) -> str:
    """Items as a list in a sentence."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def percent(share: float) -> str:
    """A share from 0 to 1 in percent; NaN, of nothing, is ``no``."""
    return "no" if math.isnan(share) else f"{100 * share:.0f} %"


def large(number: float) -> str:
    """A positive number, how many times something is as large: with its digits up to a million."""
    return f"{number:,.0f}" if 100 <= number < 1e6 else f"{number:.2g}" if number < 100 else scientific(number)


def scientific(number: float) -> str:
    """A number with two digits: ``0.058``, ``6.0e-4``."""
    if number == 0 or 0.01 <= abs(number) < 100:
        return f"{number:.2g}"
    digits, _, exponent = f"{number:.1e}".partition("e")
    return f"{digits}e{int(exponent)}"
