"""Contiguous lanes over a text: time-major chunks of inputs and targets, with a cursor that can be saved."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastlstm.errors import ConfigError
from fastlstm.text import IdArray


class Lanes:
    """B contiguous lanes over a text, read in chunks of T steps.

    Lane b starts at ``b * stride``, where ``stride = (N - 1) // B``. All lanes advance together, so each chunk
    continues the previous one in every lane, and so does the carried state, until the cursor wraps to 0. It wraps
    when the next chunk would reach or pass the end of a lane: for one lane this is the assignment's rule,
    ``if p + T + 1 >= N: p = 0``.

    Parameters
    ----------
    ids : (N,) the ids of the text, N at least ``batch * seq_len + 1``; not copied.
    seq_len : T.
    batch : B.

    Attributes
    ----------
    ids, seq_len, batch : as given.

    Raises
    ------
    ConfigError
        When the text is too short, or ``seq_len`` or ``batch`` is below 1.
    """

    def __init__(self, ids: IdArray, seq_len: int, batch: int) -> None:
        if seq_len < 1 or batch < 1:
            raise ConfigError(f"seq_len and batch must be at least 1, not {seq_len} and {batch}")
        if len(ids) < batch * seq_len + 1:
            raise ConfigError(
                f"the text of {len(ids)} symbols is too short for seq_len {seq_len} and batch {batch}, which need"
                f" {batch * seq_len + 1}: give more text, or lower batch or seq_len"
            )
        self.ids = ids
        self.seq_len = seq_len
        self.batch = batch
        self._stride = (len(ids) - 1) // batch
        covered = batch * self._stride
        # (stride, B) views: row p holds the symbols of all lanes at cursor p, and the symbols after them.
        self._inputs = ids[:covered].reshape(batch, self._stride).T
        self._targets = ids[1 : covered + 1].reshape(batch, self._stride).T
        self._cursor = 0

    @property
    def steps_per_epoch(self) -> int:
        """Chunks from the start of the lanes to the wrap, at least 1."""
        return max(1, (self._stride - 1) // self.seq_len)

    @property
    def cursor(self) -> int:
        """Position of the next chunk in the lanes, 0 to ``stride``; set it to resume a run."""
        return self._cursor

    @cursor.setter
    def cursor(self, position: int) -> None:
        if not 0 <= position <= self._stride:
            raise ConfigError(
                f"position {position} is outside lanes of {self._stride} symbols: resume with the same text,"
                " seq_len and batch"
            )
        self._cursor = position

    def next(self, x: NDArray[np.int32], y: NDArray[np.int32]) -> bool:
        """Copy the next chunk into ``x`` and ``y``, and advance the cursor by T.

        Parameters
        ----------
        x : (T, B) out, the inputs.
        y : (T, B) out, the targets: the symbol after each input.

        Returns
        -------
        Whether this chunk is at the start of the lanes, so that the carried state must be reset.

        Raises
        ------
        ValueError
            When ``x`` or ``y`` has another shape.
        """
        if not x.shape == y.shape == (self.seq_len, self.batch):
            raise ValueError(f"chunks of shape {x.shape} and {y.shape} instead of {(self.seq_len, self.batch)}")
        if self._cursor + self.seq_len >= self._stride:
            self._cursor = 0
        start, stop = self._cursor, self._cursor + self.seq_len
        x[...] = self._inputs[start:stop]
        y[...] = self._targets[start:stop]
        self._cursor = stop
        return start == 0

    def places(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where positions of the text (M,) are inputs: the cursor at which each is, and its lane.

        Those that are no input, before the text and after the last lane, are left out.
        """
        inside = positions[(positions >= 0) & (positions < self.batch * self._stride)]
        return inside % self._stride, inside // self._stride


def fit_lanes(n: int, seq_len: int, batch: int) -> tuple[int, int]:
    """Reduce T and B to what a short text can fill: ``batch`` first, then ``seq_len``.

    Parameters
    ----------
    n : symbols in the text.
    seq_len, batch : the requested T and B, each at least 1.

    Returns
    -------
    seq_len, batch : at most the requested ones, with ``batch * seq_len + 1 <= n``.

    Raises
    ------
    ConfigError
        When the text has fewer than two symbols.
    """
    if n < 2:
        raise ConfigError(f"at least two characters are needed, but the text has {n}: give more text")
    batch = max(1, min(batch, (n - 1) // seq_len))
    return min(seq_len, (n - 1) // batch), batch
