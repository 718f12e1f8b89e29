"""Masking: a model learns its escape from symbols of the training text that are replaced by it.

In every pass over the text, one occurrence of each symbol, drawn at random, is the escape, as an input and as a target;
a symbol that occurs once is masked in every other pass only. The escape is then about as frequent as symbols are that
occur for the first time, which tells how probable a new one is (escape method C of PPM: Moffat, 1990), and rare symbols
are masked more often than frequent ones (word dropout: Kiperwasser and Goldberg, 2016).

What is masked follows from the text, the seed and the step, by integers alone: it is the same on every machine, and in
a run that was interrupted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastlstm.batches import Lanes
from fastlstm.text import occurrences

#: Symbols counted at a time: so few that they are sorted in the processor's caches.
_CHUNK = 1 << 14

IntArray = NDArray[np.int64]


class Masking:
    """Masks symbols in the chunks of a run; the text itself is not changed.

    Parameters
    ----------
    lanes : the training text.
    escape_id : id of the escape; it may occur in the text, and is not masked there.
    seed : of the random choice, at least 0.
    """

    def __init__(self, lanes: Lanes, escape_id: int, seed: int) -> None:
        self._lanes, self._escape_id, self._seed = lanes, escape_id, seed
        self._steps_per_epoch = lanes.steps_per_epoch
        self._counts = occurrences(lanes.ids, escape_id + 1)
        self._counts[escape_id] = 0
        self._epoch = -1
        # What is masked in each chunk of this epoch: whether it is a target, its row and its lane.
        self._places: dict[int, list[tuple[bool, int, int]]] = {}

    def apply(self, x: NDArray[np.int32], y: NDArray[np.int32], step: int) -> None:
        """Mask the chunk of a step.

        Parameters
        ----------
        x, y : (T, B) in/out, the inputs and targets, as `Lanes.next` has filled them.
        step : counted from 0, from the start of the run.
        """
        epoch, chunk = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._choose(epoch)
        for is_target, row, lane in self._places.get(chunk, ()):
            (y if is_target else x)[row, lane] = self._escape_id

    def _choose(self, epoch: int) -> None:
        """Choose what is masked in an epoch."""
        positions = self.positions(epoch)
        self._epoch, self._places = epoch, {}
        for is_target in (False, True):  # a symbol is the target at the position before its own
            cursors, lanes = self._lanes.places(positions - is_target)
            for cursor, lane in zip(cursors.tolist(), lanes.tolist(), strict=True):
                chunk, row = divmod(cursor, self._lanes.seq_len)
                self._places.setdefault(chunk, []).append((is_target, row, lane))

    def positions(self, epoch: int) -> IntArray:
        """Positions in the text (M,), in no order, of what is masked in an epoch: at most one for each symbol."""
        ids, counts = self._lanes.ids, self._counts
        # How many more occurrences of each symbol come before the one that is masked; below 0: it has been passed.
        left = np.random.default_rng([self._seed, epoch]).integers(np.maximum(counts, 1))
        rests = (counts == 1) & ((np.arange(len(counts)) + epoch) % 2 == 1)
        left[rests | (counts == 0)] = len(ids)  # so many do not come: nothing is masked
        found = [np.empty(0, np.int64)]
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            here = np.bincount(chunk, minlength=len(counts))
            due = np.flatnonzero((left >= 0) & (left < here))
            if len(due):
                first = np.cumsum(here) - here  # of each symbol, in the order of the sorted chunk
                found.append(start + np.argsort(chunk, kind="stable")[first[due] + left[due]])
            left -= here
        return np.concatenate(found)
