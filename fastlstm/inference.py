"""Inference: the loss of a text, and sampling of symbols."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.backend import build
from fastlstm.config import BackendName, ModelConfig, SampleConfig
from fastlstm.contract import Ids, Network, Restarts
from fastlstm.errors import FastlstmError, StoppedError, TextError
from fastlstm.params import FloatArray, Parameters
from fastlstm.precision import Precision
from fastlstm.text import IdArray, Vocab

#: Time steps of a forward pass without a backward pass.
_READ_STEPS = 256
#: Most symbols drawn in one call, each of which packs the weights; a stream starts with one and doubles up to this.
_DRAW_STEPS = 256
#: An estimate reads in each lane whole blocks of so many symbols, so many blocks at least, after a warm-up. It has so
#: many lanes at most, and reads about so many symbols in each.
_BLOCK, _FEWEST_BLOCKS, _WARM_UP, _MOST_LANES, _LANE_CHARS = 64, 4, 128, 64, 384
#: Time steps that lanes of a text read at once: so few that what they need stays in the cache. Not more than so many
#: lanes read `_READ_STEPS`.
_LANE_STEPS, _FEW_LANES = 64, 8
#: Number of networks that are cached for further calls of the same size.
_NETWORKS_KEPT = 4
#: Largest exponent whose exponential is finite in float64, rounded down.
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text.

    Attributes
    ----------
    chars : number of symbols predicted: all but the first.
    nats_per_char : mean of ``-log p`` over them, in nats.
    """

    chars: int
    nats_per_char: float

    @property
    def bits_per_char(self) -> float:
        """The mean of ``-log2 p``, in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """``exp(nats_per_char)``: the effective number of choices per symbol."""
        return math.inf if self.nats_per_char >= _LARGEST_EXPONENT else math.exp(self.nats_per_char)


@dataclass(frozen=True)
class Estimate:
    """An estimate of `Evaluation.nats_per_char` from a part of a text.

    Attributes
    ----------
    nats_per_char : mean of ``-log p`` over the symbols of that part, in nats.
    error : its standard error as an estimate for the whole text, in nats; 0 if every symbol was predicted.
    """

    nats_per_char: float
    error: float


class Passage(NamedTuple):
    """Slices of a text that are read in parallel, each as a lane that starts with a zero state.

    Attributes
    ----------
    starts, stops : (B,) the symbols of each lane that are predicted are those from ``starts`` to before ``stops``.
    first : (B,) ids that the lanes read before them.
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    first: Ids


class Predicted(NamedTuple):
    """Symbols that were predicted in parallel, T in each of B lanes or fewer.

    Attributes
    ----------
    lanes : (B,) indices of the lanes in the `Passage`.
    positions : (T, B) places of the symbols in the text.
    valid : (T, B) bool; elsewhere the lane has ended, and the other arrays mean nothing.
    nats : (T, B) float64, ``-log p`` of each symbol, in nats.
    ranks : (T, B) int32, how many symbols are more probable; ``None``: they were not wanted.
    """

    lanes: NDArray[np.int64]
    positions: NDArray[np.int64]
    valid: NDArray[np.bool_]
    nats: NDArray[np.float64]
    ranks: NDArray[np.int32] | None


class Networks:
    """A cache of networks of one configuration: those used last are kept for further calls of the same size.

    Parameters
    ----------
    config : of the networks; their dtype is that of the precision that is asked for.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._kept: dict[tuple[Any, ...], Network] = {}

    @contextlib.contextmanager
    def lend(
        self, backend: BackendName, precision: Precision, T: int, B: int, threads: int | None, *, training: bool
    ) -> Iterator[Network]:
        """A network for exclusive use in this context: a cached one if available, else a new one."""
        key = (backend, precision, T, B, threads, training)
        network = self._kept.pop(key, None)
        if network is None:
            config = precision.applied(self._config)
            network = build(backend, config, T, B, threads, training=training, bf16=precision.bf16)
        try:
            yield network
        finally:
            self._kept[key] = network  # the dictionary is in order of last use
            for oldest in list(self._kept)[:-_NETWORKS_KEPT]:
                self._kept.pop(oldest, None)


@dataclass(frozen=True)
class Inference:
    """Evaluation and sampling with given parameters.

    Attributes
    ----------
    networks : cache of networks of the same configuration as ``parameters``, of any dtype.
    parameters : read in every call, never changed.
    backend, threads : the implementation, and its number of workers; results do not depend on the threads.
    stop : called every few hundred symbols; if it returns true, the computation ends with `StoppedError`.
    bf16 : whether the operands of products are rounded to bfloat16.
    vocab : of the ids. Its escape has the nats of naming a symbol in addition to its own, and is never drawn; ``None``:
        there is no escape.
    """

    networks: Networks
    parameters: Parameters
    backend: BackendName
    threads: int | None
    stop: Callable[[], bool] | None = None
    bf16: bool = False
    vocab: Vocab | None = None

    @property
    def escape_id(self) -> int | None:
        """The id of the escape, the last one; ``None``: there is none."""
        return None if self.vocab is None else self.vocab.escape_id

    @property
    def naming_nats(self) -> float:
        """Nats of naming a symbol for which the escape stands; 0 without an escape."""
        return 0.0 if self.vocab is None else self.vocab.naming_nats

    def evaluate(self, ids: IdArray) -> Evaluation:
        """Predict every symbol of a text but the first, in one pass that carries the state from start to end.

        Parameters
        ----------
        ids : (N,) the text, each id in range.

        Raises
        ------
        TextError
            When the text has fewer than two symbols.
        FastlstmError
            When the loss is not finite.
        """
        check_length(ids)
        nats = self._read(ids, self._zero_state()) + float(self._naming(ids[1:]))
        return Evaluation(len(ids) - 1, finite(nats / (len(ids) - 1)))

    def estimate(self, ids: IdArray, chars: int) -> Estimate:
        """Estimate the loss of a text by reading about ``chars`` of its symbols, in many lanes at once.

        The lanes are in the middle of equal segments of the text. A lane first reads `_WARM_UP` symbols that are not
        counted, so that its state has forgotten that it started inside the text. The error is estimated from the spread
        between blocks of `_BLOCK` symbols, and does not include what the state still lacks: less than a thousandth of a
        nat with models that are trained on sequences of about 100 symbols.

        Raises
        ------
        TextError
            When the text has fewer than two symbols.
        FastlstmError
            When the loss is not finite.
        StoppedError
            When ``stop`` returned true.
        """
        check_length(ids)
        symbols = len(ids) - 1
        lanes = max(1, min(_MOST_LANES, chars // _LANE_CHARS))
        blocks = min(max(chars // lanes - _WARM_UP, _FEWEST_BLOCKS * _BLOCK), symbols // lanes) // _BLOCK
        if blocks < _FEWEST_BLOCKS:  # a short text
            return Estimate(self.evaluate(ids).nats_per_char, 0.0)
        segment = symbols // lanes
        starts = np.arange(lanes) * segment + (segment - blocks * _BLOCK) // 2
        counted = self._read_blocks(ids, starts, blocks)
        unread = 1.0 - counted.size * _BLOCK / symbols
        error = math.sqrt(unread / (counted.size - 1)) * float(counted.std())
        return Estimate(finite(float(counted.mean())), error)

    def read_lanes(
        self,
        ids: IdArray,
        passage: Passage,
        restart: tuple[NDArray[np.bool_], FloatArray] | None = None,
        *,
        ranked: bool = False,
    ) -> Iterator[Predicted]:
        """Predict slices of a text in parallel; a symbol's nats have the same bits as with any other slices.

        Lanes of different length take little more time than their symbols: when half of them have ended, the others go
        on in a smaller network. All lanes of a sequence have read the same number of symbols before it; no sequence has
        symbols both before and after a multiple of 256.

        Parameters
        ----------
        ids : (N,) the text.
        passage : the slices.
        restart : (N,) bool, after which symbols of the text the state of a lane is replaced, and (S, L, H) by what;
            ``None``: nowhere.
        ranked : whether ranks are wanted.

        Raises
        ------
        StoppedError
            When ``stop`` returned true.
        """
        order = np.argsort(passage.starts - passage.stops, kind="stable")  # the longest first: those left are a prefix
        starts, left = passage.starts[order], (passage.stops - passage.starts)[order]
        read = np.asarray(passage.first)[order].astype(np.int32)
        restarted = np.zeros(len(order), np.bool_)
        state = np.repeat(self._zero_state(), len(order), axis=2)
        done = 0
        while len(left) and left[0] > 0:
            self._check_stop()
            B = _kept(left)
            starts, left = starts[:B], left[:B]
            T, state = _lane_steps(left, done), np.ascontiguousarray(state[:, :, :B])
            # Row 0 is what has been read before; a lane that has ended reads anything.
            places = starts + np.arange(-1, T)[:, None]
            symbols = ids.take(places, mode="clip").astype(np.int32)
            symbols[0] = read[:B]
            restarts = None
            if restart is not None:
                after = restart[0].take(places, mode="clip")
                after[0] = restarted[:B]
                restarts, restarted = Restarts(after[:-1], restart[1]), after[-1]
            x, y, nats = symbols[:-1], symbols[1:], np.empty((T, B))
            ranks = np.empty((T, B), np.int32) if ranked else None
            with self._network(T, B) as network:
                network.read(self.parameters, x, y, state, nats, restarts=restarts, ranks=ranks)
            if self.escape_id is not None:
                nats[y == self.escape_id] += self.naming_nats
            yield Predicted(order[:B], places[1:], np.arange(T)[:, None] < left, nats, ranks)
            starts, left, read, done = starts + T, left - T, y[-1], done + T

    def state_after(self, first: int) -> FloatArray:
        """The state (S, L, H) after a symbol that is read from the zero state, as at the start of a text."""
        state, ids = self._zero_state(), np.full((1, 1), first, np.int32)
        with self._network(1, 1) as network:
            network.read(self.parameters, ids, ids, state, np.empty((1, 1)))
        return np.ascontiguousarray(state[:, :, 0])

    def draw(self, start: IdArray, sampling: SampleConfig) -> IdArray:
        """Continue a text ``sampling.num`` times, as lanes of one network; returns the sampled ids, (length, num).

        Parameters
        ----------
        start : (N,) ids that are read first, at least one; see `beginning`.
        sampling : settings; the same seed gives the same symbols.

        Raises
        ------
        FastlstmError
            When the logits are not finite.
        """
        return np.concatenate([np.zeros((0, sampling.num), start.dtype), *self.pieces(start, sampling)])

    def pieces(self, start: IdArray, sampling: SampleConfig) -> Iterator[IdArray]:
        """What `draw` returns in pieces (n, num), of up to 256 symbols, as they are drawn."""
        return self._pieces(start, sampling, count=_DRAW_STEPS)

    def stream(self, start: IdArray, sampling: SampleConfig) -> Iterator[IdArray]:
        """The first continuation as `draw` samples one, in pieces (n,): one symbol first, then up to 256 at a time."""
        return (ids[:, 0] for ids in self._pieces(start, dataclasses.replace(sampling, num=1), count=1))

    def _pieces(self, start: IdArray, sampling: SampleConfig, count: int) -> Iterator[IdArray]:
        """Ids in pieces (n, num): ``n`` is ``count`` at first, then doubles up to `_DRAW_STEPS`."""
        num, length, drawing = sampling.num, sampling.length, sampling.drawing(int(self.escape_id is not None))
        rng, read = np.random.default_rng(sampling.seed), self._zero_state()
        self._read(start, read)
        state = np.repeat(read, num, axis=2)
        last: Ids = np.repeat(start[-1:], num).astype(np.int32)
        while length > 0:
            self._check_stop()
            count = min(count, length)
            with self._network(1, num) as network:
                ids = network.generate(self.parameters, last, state, rng.random((count, num)), drawing)
            yield smallest_ids(ids, self.parameters.config.vocab_size)
            last, length, count = np.ascontiguousarray(ids[-1]), length - count, min(2 * count, _DRAW_STEPS)

    def _read(self, ids: IdArray, state: FloatArray) -> float:
        """Read all symbols but the last, in one lane; returns the nats of all but the first. Updates ``state``."""
        nats, last = 0.0, len(ids) - 1
        for start in range(0, last, _READ_STEPS):
            self._check_stop()
            chunk = ids[start : min(start + _READ_STEPS, last) + 1].astype(np.int32)[:, None]
            with self._network(len(chunk) - 1, 1) as network:
                nats += network.forward(self.parameters, chunk[:-1], chunk[1:], state)
        return nats

    def _naming(self, ids: Ids) -> NDArray[np.float64]:
        """Nats that name the symbols for which the escape stands, among predicted ones (T, ...): (...)."""
        if self.escape_id is None:
            return np.zeros(ids.shape[1:])
        nats: NDArray[np.float64] = self.naming_nats * np.sum(ids == self.escape_id, axis=0)
        return nats

    def _read_blocks(self, ids: IdArray, starts: NDArray[np.integer], blocks: int) -> FloatArray:
        """The mean nats (blocks, lanes) of each block of `_BLOCK` symbols after ``starts``, one for each lane."""
        lanes, means = len(starts), np.zeros((blocks, len(starts)))
        nats = np.zeros((_BLOCK, lanes))
        state = np.repeat(self._zero_state(), lanes, axis=2)
        within = np.arange(_BLOCK + 1)[:, None]
        with self._network(_BLOCK, lanes) as network:
            for block in range(-_WARM_UP // _BLOCK, blocks):
                self._check_stop()
                if block == 0:  # there is nothing before the start of the text
                    state[:, :, starts < _WARM_UP] = 0
                chunk = ids[np.maximum(starts + block * _BLOCK, 0) + within].astype(np.int32)
                network.forward(self.parameters, chunk[:-1], chunk[1:], state, nats)
                if block >= 0:
                    means[block] = nats.mean(axis=0) + self._naming(chunk[1:]) / _BLOCK
        return means

    def _network(self, T: int, B: int) -> contextlib.AbstractContextManager[Network]:
        """A network without a backward pass, lent for a context."""
        precision = Precision(self.parameters.config.dtype, self.bf16)
        return self.networks.lend(self.backend, precision, T, B, self.threads, training=False)

    def _zero_state(self) -> FloatArray:
        """The carried state of one lane at the start of a text."""
        config = self.parameters.config
        return np.zeros(config.state_shape(1), config.dtype)

    def _check_stop(self) -> None:
        if self.stop is not None and self.stop():
            raise StoppedError


def _kept(left: NDArray[np.int64]) -> int:
    """How many lanes are read further, given what is left of each, the longest first: fewer once half have ended."""
    reading = int(np.count_nonzero(left > 0))
    return reading if 2 * reading <= len(left) else len(left)


def _lane_steps(left: NDArray[np.int64], done: int) -> int:
    """Time steps that lanes read at once, after so many, given what is left of each, the longest first.

    It is about as many as half of the lanes have left, a power of 2 that divides ``done``.
    """
    if len(left) <= _FEW_LANES and done % _READ_STEPS == 0 and left[0] >= _READ_STEPS:
        return _READ_STEPS
    half = max(1, int(left[len(left) // 2]))
    steps = min(_LANE_STEPS, 1 << (half - 1).bit_length())
    return math.gcd(steps, done)  # that of 0 is the other number


def finite(nats: float) -> float:
    """The loss of a text, if it is finite; raises `FastlstmError` otherwise."""
    if not math.isfinite(nats):
        raise FastlstmError(
            f"the model's loss on this text is not a finite number ({nats}): its training diverged, so train it"
            " again with a lower learning rate"
        )
    return nats


def beginning(vocab: Vocab) -> IdArray:
    """The id (1,) that is read first when there is no prompt: a newline, else the vocabulary's first symbol."""
    newline = np.flatnonzero(vocab.symbols == ord("\n"))
    return smallest_ids(newline[:1] if len(newline) else np.zeros(1, np.int64), len(vocab))


def smallest_ids(ids: Ids, vocab_size: int) -> IdArray:
    """Ids in the smallest unsigned type that holds all ids of the vocabulary; copied only if the type differs."""
    return ids.astype(np.min_scalar_type(vocab_size - 1), copy=False)


def check_length(ids: Ids) -> None:
    """Raise `TextError` when a text has fewer than two symbols, so that there is nothing to predict."""
    if len(ids) < 2:
        raise TextError(f"at least two characters are needed, but the text has {len(ids)}: give more text")
