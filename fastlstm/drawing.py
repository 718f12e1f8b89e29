"""The numbers by which a symbol is drawn from what a network predicts; each backend implements the draw itself."""

from __future__ import annotations

import math
import numbers
from typing import NamedTuple

#: A ``top_k`` that leaves no symbol out: no vocabulary has so many.
EVERY = 2**31


class Drawing(NamedTuple):
    """How a symbol is drawn: from which of the probabilities after temperature. The defaults leave them as they are.

    A symbol that is left out has probability 0; the others keep their proportions. Symbols of equal probability are
    kept or left out together, and the most probable one is always kept. In this order:

    Attributes
    ----------
    temperature : exponent ``1/temperature`` on the probabilities; 0 takes the most probable symbol.
    top_k : the ``top_k`` most probable symbols are kept, and all that are as probable as the last of them.
    top_p : of what is left, the fewest of the most probable symbols are kept whose probabilities add up to at least
        ``top_p`` of all that is left, and all that are as probable as the last of them; 1: every symbol.
    min_p : of what is left, the symbols are kept that are at least ``min_p`` times as probable as the most probable.
    withheld : so many of the last symbols of the vocabulary are never drawn; they are left out before all else.
    """

    temperature: float = 1.0
    top_k: int = EVERY
    top_p: float = 1.0
    min_p: float = 0.0
    withheld: int = 0

    def check(self, vocab_size: int) -> None:
        """Raise `ValueError` unless every number is in its range, and symbols remain to be drawn."""
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be a finite number of at least 0, not {self.temperature}")
        if not (isinstance(self.top_k, numbers.Integral) and self.top_k >= 1):
            raise ValueError(f"top_k must be a whole number of at least 1, not {self.top_k!r}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be a number above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be a number from 0 to 1, not {self.min_p}")
        if not (isinstance(self.withheld, numbers.Integral) and 0 <= self.withheld < vocab_size):
            raise ValueError(f"withheld must be a whole number from 0 to {vocab_size - 1}, not {self.withheld!r}")
