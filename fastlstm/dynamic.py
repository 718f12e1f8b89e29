"""Dynamic evaluation: a network that reads a text in lanes, and takes a step of training on each chunk it has read.

A chunk is predicted before the network learns from it, so its probabilities are those of a decoder, too, which learns
from the chunk when it has decoded it. All probabilities have the same bits whether a chunk is read at once (`read`) or
symbol by symbol (`advance`).

**Replay.** A step may also train on earlier parts of the text, in lanes of their own. Their positions come from a
seeded generator, so they are the same on both sides.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from fastlstm.backend import build
from fastlstm.config import BackendName
from fastlstm.contract import Ids, Network
from fastlstm.errors import DivergenceError
from fastlstm.learning import Learning
from fastlstm.params import FloatArray, Parameters
from fastlstm.text import IdArray


class Cut:
    """A text of N symbols, cut into B contiguous lanes, the first of which may be one symbol longer than the others.

    Attributes
    ----------
    length, lanes, seq_len : N, B and T; there are no more lanes than symbols.
    starts : (B,) int64, the first position of each lane.
    steps : time steps of the longest lane.
    """

    def __init__(self, length: int, lanes: int, seq_len: int) -> None:
        self.length, self.lanes, self.seq_len = length, max(1, min(lanes, length)), seq_len
        self._whole, self._longer = divmod(length, self.lanes)
        number = np.arange(self.lanes, dtype=np.int64)
        self.starts: NDArray[np.int64] = number * self._whole + np.minimum(number, self._longer)
        self.steps = self._whole + (self._longer > 0)

    def chunks(self) -> Iterator[tuple[int, int]]:
        """The first time step of each chunk of T, and how many of its time steps there are in the longest lane."""
        for first in range(0, self.steps, self.seq_len):
            yield first, min(self.seq_len, self.steps - first)

    def lanes_at(self, step: int) -> int:
        """How many lanes, the first ones, have a symbol at a time step."""
        return self.lanes if step < self._whole else self._longer

    def places(self, first: int) -> NDArray[np.int64]:
        """(T, B) positions in the text of the chunk from time step ``first`` on; N where a lane has ended."""
        step = first + np.arange(self.seq_len)[:, None]
        ended = np.arange(self.lanes) >= np.where(step < self._whole, self.lanes, self._longer)
        return np.where(ended | (step >= self.steps), self.length, self.starts + step)


class Reader:
    """Reads the lanes of a text with fixed parameters, chunk by chunk or symbol by symbol, from zero states.

    Parameters
    ----------
    parameters : of the model; not changed.
    seq_len, lanes : T and B.
    threads, backend : see `fastlstm.backend.build`; results do not depend on the threads.

    Attributes
    ----------
    nats : (T, B) float64, those of each symbol of the last chunk that was read at once.
    """

    def __init__(
        self, parameters: Parameters, seq_len: int, lanes: int, threads: int | None = None,
        backend: BackendName = "fast",
    ) -> None:  # fmt: skip
        self.nats = np.zeros((seq_len, lanes))
        self._parameters, self._lanes = parameters, lanes
        self._threads, self._backend = threads, backend
        self._state = np.zeros(parameters.config.state_shape(lanes), parameters.config.dtype)
        self._has_begun = False  # whether the network of single symbols has the parameters and goes on from the state

    @functools.cached_property
    def _whole(self) -> Network:
        """The network that reads chunks at once."""
        return self._network(len(self.nats), self._lanes)

    @functools.cached_property
    def _single(self) -> Network:
        """The network that reads symbol by symbol."""
        return self._network(1, self._lanes)

    def _network(self, seq_len: int, lanes: int, *, training: bool = False) -> Network:
        config = self._parameters.config
        return build(self._backend, config, seq_len, lanes, self._threads, training=training)

    def read(self, x: Ids, y: Ids) -> FloatArray:
        """Read a chunk at once; returns the probabilities (T, B, V) of all symbols after each of ``x``.

        ``x, y`` are (T, B) int32; ``y``, the symbols that follow, matter to `nats` and `Learner.learn` alone.
        """
        self._whole.forward(self._parameters, x, y, self._state, self.nats)
        return self._whole.probabilities()

    def advance(self, x: Ids) -> FloatArray:
        """Read the next symbol (B,) int32 of each lane; returns the probabilities (B, V) of those after them."""
        if not self._has_begun:
            self._single.begin(self._parameters, self._state)
            self._has_begun = True
        return self._single.advance(x)

    def learn(self, x: Ids, y: Ids) -> None:
        """Nothing: see `Learner`."""


class Learner(Reader):
    """Reads the lanes of a text, and learns from every chunk; the parameters change in place.

    For each chunk, either call `read` and then `learn`, or `advance` for each of its time steps and then `learn`: the
    parameters and all probabilities are the same.

    Parameters
    ----------
    parameters : of the model, changed in place.
    learning : how it learns; the number of lanes is ``lanes``.
    lanes, steps : B, and the time steps of a lane.
    first : (B,) the ids that precede the lanes.
    threads, backend : see `Reader`.
    """

    def __init__(
        self, parameters: Parameters, learning: Learning, lanes: int, steps: int, first: Ids,
        threads: int | None = None, backend: BackendName = "fast",
    ) -> None:  # fmt: skip
        super().__init__(parameters, learning.seq_len, lanes, threads, backend)
        config, rows = parameters.config, lanes + learning.replay
        self._learning, self._steps = learning, steps
        self._gradients = Parameters(config)
        self._slots = np.zeros((learning.rule(0, 0.0).slots, config.parameter_count), config.dtype)
        self._all_state = np.zeros(config.state_shape(rows), config.dtype)
        self._x, self._y = np.zeros((2, learning.seq_len, rows), np.int32)
        self._all_nats = np.zeros((learning.seq_len, rows))
        self._replay = _Replay(learning, lanes, steps, first, config.vocab_size)
        self._chunk, self._has_read = 0, False

    @functools.cached_property
    def _whole(self) -> Network:
        """The network that reads chunks at once, together with replayed ones, and learns from them."""
        return self._network(*self._x.shape, training=True)

    def read(self, x: Ids, y: Ids) -> FloatArray:
        B = self._lanes
        self._x[:, :B], self._y[:, :B] = x, y
        self._replay.fill(y, self._x[:, B:], self._y[:, B:], self._all_state[:, :, B:])
        self._whole.forward(self._parameters, self._x, self._y, self._all_state, self._all_nats)
        self.nats[...] = self._all_nats[:, :B]
        self._has_read = True
        return self._whole.probabilities()[:, :B]

    def learn(self, x: Ids, y: Ids) -> None:
        """Take a step of training on a chunk, and on replayed ones.

        Raises
        ------
        DivergenceError
            When a gradient or a parameter is not finite.
        """
        if not self._has_read:
            self.read(x, y)
        learning, step = self._learning, self._chunk
        rule = learning.rule(step, step * learning.seq_len / self._steps)
        if not self._whole.learn(self._parameters, self._gradients, self._slots, 1.0 / self._y.size, rule):
            raise DivergenceError(
                f"the model diverged while it read chunk {step + 1:,} of the text: choose a lower learning rate"
            )
        self._chunk, self._has_read, self._has_begun = step + 1, False, False
        self._state[...] = self._all_state[:, :, : self._lanes]


class _Replay:
    """The lanes that read earlier parts of the text again.

    Each reads a few chunks in a row, from any time step of any lane of the text on, as far as it has been read; then it
    goes on elsewhere, with a zero state.
    """

    def __init__(self, learning: Learning, lanes: int, steps: int, first: Ids, vocab_size: int) -> None:
        self._learning, self._lanes, self._seen = learning, lanes, 0
        T, R = learning.seq_len, learning.replay
        rows = math.ceil(steps / T) * T + 1 if R else 0
        # Row 0 is the symbol before the text, row t + 1 the symbols of time step t.
        # It is zeros, so that memory is taken as the text is read: an archive may claim to have a much longer one.
        self._text = np.zeros((rows, lanes), np.min_scalar_type(vocab_size - 1))
        self._text[:1] = first
        # Raw numbers of a bit generator stay the same in all versions of NumPy.
        self._draw = np.random.PCG64([learning.seed, 1]).random_raw
        self._left, self._lane, self._at = ([0] * R for _ in range(3))

    def fill(self, new: Ids, x: Ids, y: Ids, state: FloatArray) -> None:
        """Note the chunk ``new`` (T, B), and write the replayed symbols (T, R) and, at a new part, their states."""
        T, R = self._learning.seq_len, self._learning.replay
        if not R:
            return
        self._text[self._seen + 1 : self._seen + 1 + T] = new
        self._seen += T
        for r in range(R):
            if self._left[r] == 0:
                self._choose(r)
                state[:, :, r] = 0
            at, lane = self._at[r], self._lane[r]
            x[:, r], y[:, r] = self._text[at : at + T, lane], self._text[at + 1 : at + T + 1, lane]
            self._at[r], self._left[r] = at + T, self._left[r] - 1

    def _choose(self, r: int) -> None:
        """Choose the next part for a lane of replay."""
        T = self._learning.seq_len
        chunks = min(self._learning.replay_chunks, self._seen // T)
        self._left[r] = chunks
        self._lane[r] = self._draw() % self._lanes
        self._at[r] = self._draw() % (self._seen - chunks * T + 1)


def evaluate(
    parameters: Parameters, ids: IdArray, learning: Learning, *, threads: int | None = None,
    backend: BackendName = "fast", advance: Callable[[int], object] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """The nats of each symbol of a text but the first, predicted by a model that learns while it reads.

    Parameters
    ----------
    parameters : of the model; not changed.
    ids : (N,) the text, each id in range. Every lane first reads the symbol before its own ones, with a zero state.
    learning : how the model learns.
    threads, backend : see `Reader`.
    advance : called with numbers of symbols that have been predicted, which add up to that of all.

    Returns
    -------
    nats : (N-1,), those of ``ids[1:]``.

    Raises
    ------
    DivergenceError
        When the model diverges.
    """
    text = ids[1:]
    cut = Cut(len(text), learning.lanes, learning.seq_len)
    own = Parameters(parameters.config, parameters.flat.copy())
    learner = Learner(own, learning, cut.lanes, cut.steps, ids[cut.starts], threads, backend)
    nats = np.zeros(len(text))
    for first, count in cut.chunks():
        places = cut.places(first)
        y = text.take(places, mode="clip").astype(np.int32)
        x = ids.take(places, mode="clip").astype(np.int32)  # the symbols before them
        learner.read(x, y)
        real = places < cut.length
        nats[places[real]] = learner.nats[real]
        if advance is not None:
            advance(int(np.count_nonzero(real)))
        if first + count < cut.steps:
            learner.learn(x, y)
    return nats
