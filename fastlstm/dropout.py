"""Dropout (Srivastava et al. 2014): which units are dropped, and how masks are numbered, for both implementations.

Masks come from the counter-based generator Philox4x32-10 (Salmon et al. 2011), which maps a key of two 32-bit words and
a counter of four to four random words, and keeps no state. So a mask depends only on the numbers that name it: it is
the same for any number of workers, in a resumed run, and when the backward pass draws it again.

**Places.** Place l is the input of layer l: for l = 0 the embedding, above it h of the layer below. Place L is the
input of the output layer.

**Counters.** The key is the seed. The counter is ``(place * PLACE + call, lane, time, step)``; `Dropout.held` sets time
to 0. Each word gives two 16-bit numbers, the lower half first, so a call gives ``NUMBERS`` numbers. ``CALLS`` calls in
sequence serve ``CALLS * NUMBERS`` units, of which unit ``number * CALLS + call`` gets that number of that call (so that
vectors of calls give vectors of units). The unit is dropped if it is below the threshold of the place, else multiplied
by ``LEVELS / (LEVELS - threshold)``, rounded to the dtype.
"""

from __future__ import annotations

from typing import NamedTuple

#: Constants of Philox4x32: factors of the words 0 and 2 of the counter, increments of the key, rounds.
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
INCREMENTS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10

#: Numbers from one call, calls for one group of units, and the number of values of a number.
NUMBERS, CALLS, LEVELS = 8, 8, 1 << 16

#: Calls of a place. (More than 2**25 units would repeat the numbers of the next place.)
PLACE = 1 << 22

#: Values of a word. Steps this far apart have the same masks.
WORD = 1 << 32


class Dropout(NamedTuple):
    """Dropout of a network.

    Attributes
    ----------
    embedding, layers, output : probabilities, from 0 to below 1, that a unit of the embedding, of the h between two
        layers, and of the h before the output layer is dropped. They are rounded to multiples of 2**-16.
    held : whether all time steps of a sequence have the same masks (Gal and Ghahramani 2016), else each its own.
    seed : of the masks; its lowest 64 bits count.
    """

    embedding: float = 0.0
    layers: float = 0.0
    output: float = 0.0
    held: bool = False
    seed: int = 0

    def thresholds(self, layers: int) -> tuple[int, ...]:
        """How many of ``LEVELS`` numbers drop a unit, for each of the ``layers + 1`` places.

        Raises
        ------
        ValueError
            When a probability is out of range.
        """
        places = (self.embedding, *(layers - 1) * (self.layers,), self.output)
        for p in (self.embedding, self.layers, self.output):
            if not 0.0 <= p < 1.0:
                raise ValueError(f"a probability of dropout must be at least 0 and below 1, not {p!r}")
        return tuple(min(round(p * LEVELS), LEVELS - 1) for p in places)

    @property
    def key(self) -> tuple[int, int]:
        """The key of Philox: the lower and the upper word of the seed."""
        return self.seed % WORD, self.seed // WORD % WORD
