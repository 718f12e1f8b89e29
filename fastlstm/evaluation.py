"""How well a model predicts texts: losses, accuracies, and the symbols and contexts that cost the most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm import dynamic
from fastlstm.config import EvaluationConfig
from fastlstm.contract import Ids
from fastlstm.errors import ConfigError
from fastlstm.inference import Evaluation, Inference, Passage, Predicted, check_length, finite
from fastlstm.learning import Learning
from fastlstm.text import IdArray

#: Symbols that a lane inside of a text reads before those that it counts. Over the last of them, its nats are compared
#: with those of the lane before.
WARM_UP, _COMPARED = 256, 128
#: A text has at most one lane for so many symbols, so that warm-ups are at most a quarter of what is read.
_LEAST_PART = 4 * WARM_UP
#: Lanes that are read at once: with more, what a time step needs no longer fits into the cache.
_LANES_AT_ONCE = 128
#: Nats are added up over so many symbols, and then these sums: the same additions as those of `Inference.evaluate`, but
#: that one adds the nats that name unknown symbols at the end.
_SUMMED = 256
#: Places of the table of contexts: all pairs of symbols have their own if there are at most 512 symbols.
_CONTEXTS = 1 << 18
#: A context that occurs fewer times has no mean to speak of; in a long text, less than this share of it.
_FEWEST, _FEWEST_SHARE = 20, 1e-4

Places = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Assessment(Evaluation):
    """How well a model predicts a text, or several together.

    Attributes
    ----------
    top1, top5 : share of the symbols that are the most probable one, or among the five most probable. One that is as
        probable as others counts as if it came before them; one that the model does not know is never a hit.
    unknown : number of predicted symbols that the model does not know, for which the escape stands.
    error : what lanes change, in nats per symbol, see `assess`; 0: the text was read in one pass.
    """

    top1: float
    top5: float
    unknown: int
    error: float


@dataclass(frozen=True)
class Cost:
    """What predicting a symbol, or the symbol after a context, takes.

    Attributes
    ----------
    ids : of the symbol, or of the two symbols of the context.
    count : how often it was predicted.
    nats_per_char : the mean of ``-log p``, in nats.
    share : of the nats of all texts.
    top1 : share of the predictions in which the symbol was the most probable one.
    """

    ids: tuple[int, ...]
    count: int
    nats_per_char: float
    share: float
    top1: float

    @property
    def bits_per_char(self) -> float:
        """The mean of ``-log2 p``, in bits."""
        return self.nats_per_char / math.log(2)


@dataclass(frozen=True)
class Report:
    """The result of `assess`.

    Attributes
    ----------
    total : of all texts together, each symbol with the same weight.
    texts : of each text.
    symbols : those that take the largest share of all nats, the largest first.
    contexts : pairs of symbols after which the next one takes the most nats in the mean, the most first; only of those
        that occur 20 times, and once in 10,000 symbols.
    """

    total: Assessment
    texts: tuple[Assessment, ...]
    symbols: tuple[Cost, ...]
    contexts: tuple[Cost, ...]


def assess(
    inference: Inference,
    texts: Sequence[IdArray],
    settings: EvaluationConfig,
    *,
    advance: Callable[[int], object] | None = None,
) -> Report:
    """Predict every symbol of each text but its first; each text starts with a zero state.

    With one lane a text is read in one pass that carries the state from start to end: its assessment is exact, and
    the same whatever texts are read with it. With more, long texts are cut into parts of equal length, which are read
    in parallel. A part inside of a text is entered after `WARM_UP` symbols that are read from a zero state and not
    counted.

    What the short histories change is measured where both are known: the last 128 symbols of each warm-up are also
    predicted by the lane before, with its longer history. ``error`` is the mean of the absolute differences of their
    nats, times the share of symbols that are in other parts than the first. The loss differs from the exact one by less
    if the symbols that count, whose histories are longer, differ less in the mean than those measured. That is no
    bound: it does not hold if a model uses what was more than 256 symbols ago, and not before.

    Parameters
    ----------
    inference : its model, and how to compute.
    texts : (N,) ids of each, at least one text.
    settings : lanes of all texts together, each of which reads at least 1,024 symbols; and how many symbols and
        contexts to list.
    advance : called with numbers of symbols that have been predicted, which add up to that of all.

    Raises
    ------
    TextError
        When a text has fewer than two symbols.
    FastlstmError
        When a loss is not finite.
    StoppedError
        When the inference was stopped.
    """
    for ids in texts:
        check_length(ids)
    ids = texts[0] if len(texts) == 1 else np.concatenate(texts)
    parts = _parts([len(text) for text in texts], settings.lanes)
    sums, overlaps = _Sums(len(parts.text)), _Overlaps(parts)
    costs = _Costs(ids, inference.parameters.config.vocab_size, parts) if settings.hardest else None
    for group in parts.groups():
        for found in inference.read_lanes(ids, parts.passage(ids, group), ranked=True):
            read = _Read.of(found, group[found.lanes], parts, ids, inference.escape_id)
            sums.add(read)
            overlaps.add(read)
            if costs is not None:
                costs.add(read)
            if advance is not None:
                advance(int(np.count_nonzero(read.counted)))
        sums.end_group()
    assessments = sums.assessments(parts.text, overlaps.errors(len(texts)))
    nats = sum(one.chars * one.nats_per_char for one in assessments)
    symbols, contexts = ((), ()) if costs is None else costs.hardest(settings.hardest, nats)
    return Report(_together(assessments), assessments, symbols, contexts)


def evaluate_dynamic(
    inference: Inference, ids: IdArray, learning: Learning, *, advance: Callable[[int], object] | None = None
) -> Evaluation:
    """Predict every symbol of a text but the first with a model that learns while it reads.

    Parameters
    ----------
    inference : its model, of which a copy learns, and how to compute.
    ids : (N,) the text.
    learning, advance : see `fastlstm.dynamic.evaluate`.

    Raises
    ------
    TextError
        When the text has fewer than two symbols.
    ConfigError
        When the inference is in bf16, in which it cannot learn.
    DivergenceError
        When the model diverges.
    FastlstmError
        When the loss is not finite.
    """
    check_length(ids)
    if inference.bf16:
        raise ConfigError("a model that learns while it reads computes in float32 or float64: give no precision bf16")
    nats = dynamic.evaluate(
        inference.parameters, ids, learning, threads=inference.threads, backend=inference.backend, advance=advance
    )
    unknown = 0 if inference.escape_id is None else int(np.count_nonzero(ids[1:] == inference.escape_id))
    return Evaluation(len(nats), finite((float(nats.sum()) + unknown * inference.naming_nats) / len(nats)))


def _together(assessments: Sequence[Assessment]) -> Assessment:
    """The assessment of several texts together."""
    if len(assessments) == 1:
        return assessments[0]
    chars = sum(one.chars for one in assessments)

    def mean(name: str) -> float:
        return math.fsum(one.chars * getattr(one, name) for one in assessments) / chars

    unknown = sum(one.unknown for one in assessments)
    return Assessment(chars, mean("nats_per_char"), mean("top1"), mean("top5"), unknown, mean("error"))


@dataclass(frozen=True)
class _Parts:
    """The parts of texts, in their order; each is read by a lane. Positions are those in all texts, one after another.

    Attributes
    ----------
    text : (P,) index of the text of each part.
    start, begin, stop : (P,) a lane predicts the symbols from ``start`` to before ``stop``, and counts those from
        ``begin`` on; before these it warms up.
    origin : (P,) position of the first symbol of the part's text, which is not predicted.
    """

    text: Places
    start: Places
    begin: Places
    stop: Places
    origin: Places

    def groups(self) -> Iterator[Places]:
        """Indices of parts that are read at once, parts of similar length together."""
        longest_first = np.argsort(self.start - self.stop, kind="stable")
        for first in range(0, len(longest_first), _LANES_AT_ONCE):
            yield longest_first[first : first + _LANES_AT_ONCE]

    def passage(self, ids: IdArray, group: Places) -> Passage:
        """A group, to be read."""
        starts = self.start[group]
        return Passage(starts, self.stop[group], ids[starts - 1])


def _parts(lengths: Sequence[int], lanes: int) -> _Parts:
    """Cut texts of these lengths into parts, ``lanes`` in total if every text is long enough for its share of them."""
    total = sum(lengths) - len(lengths)
    rows: list[Places] = []
    origin = 0
    for text, length in enumerate(lengths):
        symbols = length - 1
        parts = max(1, min(round(lanes * symbols / total), symbols // _LEAST_PART))
        warm_ups = np.arange(parts) * WARM_UP  # read by the lanes before each
        read = np.arange(parts + 1) * (symbols + (parts - 1) * WARM_UP) // parts  # by lanes of equal length
        start, stop = origin + 1 + read[:-1] - warm_ups, origin + 1 + read[1:] - warm_ups
        begin = start + np.where(warm_ups > 0, WARM_UP, 0)
        rows.append(np.stack([np.full(parts, text), start, begin, stop, np.full(parts, origin)]))
        origin += length
    return _Parts(*np.concatenate(rows, axis=1))


@dataclass(frozen=True)
class _Read:
    """What has been read at once: T symbols, each (T, B), of the parts of B lanes.

    Attributes
    ----------
    part : (B,) index of the part of each lane.
    positions, y, nats : of the symbols.
    valid, counted : whether it is a symbol of the part, and whether it counts.
    top1, top5 : whether a symbol that counts is the most probable one, or among the five most probable.
    unknown : whether a symbol that counts is the escape.
    """

    part: Places
    positions: Places
    y: IdArray
    nats: NDArray[np.float64]
    valid: Flags
    counted: Flags
    top1: Flags
    top5: Flags
    unknown: Flags

    @classmethod
    def of(cls, found: Predicted, part: Places, parts: _Parts, ids: IdArray, escape_id: int | None) -> _Read:
        """Make one of symbols that were predicted."""
        counted = found.valid & (found.positions >= parts.begin[part])
        y = ids.take(found.positions, mode="clip")
        unknown = counted & (y == escape_id) if escape_id is not None else np.zeros_like(counted)
        known = counted & ~unknown
        assert found.ranks is not None
        top1, top5 = known & (found.ranks < 1), known & (found.ranks < 5)
        return cls(part, found.positions, y, found.nats, found.valid, counted, top1, top5, unknown)


class _Sums:
    """Sums for each of so many parts."""

    def __init__(self, parts: int) -> None:
        self._nats, self._partial = np.zeros(parts), np.zeros(parts)
        self._counts = np.zeros((4, parts), np.int64)  # symbols, hits, hits among five, unknown ones
        self._steps = 0

    def add(self, read: _Read) -> None:
        """Add up what has been read."""
        part = read.part
        # Additions one after the other in every lane, whose sum does not depend on how many lanes there are.
        addends = np.concatenate([self._partial[None, part], np.where(read.counted, read.nats, 0.0)])
        self._partial[part] = np.add.accumulate(addends)[-1]
        for counts, flags in zip(self._counts, (read.counted, read.top1, read.top5, read.unknown), strict=True):
            counts[part] += np.count_nonzero(flags, axis=0)
        self._steps += len(read.nats)
        if self._steps % _SUMMED == 0:
            self._add_partial()

    def end_group(self) -> None:
        """End the lanes that have been read."""
        self._add_partial()
        self._steps = 0

    def _add_partial(self) -> None:
        self._nats += self._partial
        self._partial[:] = 0

    def assessments(self, text: Places, errors: NDArray[np.float64]) -> tuple[Assessment, ...]:
        """The assessment of each text, given the text of each part, and the nats that lanes may change in each text."""
        texts = len(errors)
        nats = np.bincount(text, self._nats, texts)
        counts = np.zeros((texts, 4), np.int64)
        np.add.at(counts, text, self._counts.T)
        return tuple(
            Assessment(chars, finite(total / chars), hits / chars, hits5 / chars, unknown, error / chars)
            for total, error, (chars, hits, hits5, unknown) in zip(
                nats.tolist(), errors.tolist(), counts.tolist(), strict=True
            )
        )


class _Overlaps:
    """The nats of the symbols that two lanes predict: the last ones of a warm-up, which end the part before."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._short, self._long = np.zeros((2, len(parts.text), _COMPARED))

    def add(self, read: _Read) -> None:
        """Note what has been read of them."""
        if len(self._short) > 1:
            self._note(self._short, read, self._parts.begin)
            self._note(self._long, read, self._parts.stop)

    def _note(self, nats: NDArray[np.float64], read: _Read, ends: Places) -> None:
        """Keep the nats of the last symbols before ``ends`` (P,)."""
        start, end = ends[read.part] - _COMPARED, ends[read.part]
        if not np.any((read.positions[-1] >= start) & (read.positions[0] < end)):
            return
        place = read.positions - start
        step, lane = np.nonzero(read.valid & (place >= 0) & (place < _COMPARED))
        nats[read.part[lane], place[step, lane]] = read.nats[step, lane]

    def errors(self, texts: int) -> NDArray[np.float64]:
        """(texts,) the mean absolute difference in each text, times its symbols that were entered with a warm-up."""
        text, sizes = self._parts.text, self._parts.stop - self._parts.begin
        entered = np.flatnonzero(self._parts.start < self._parts.begin)
        differences = np.abs(self._short[entered] - self._long[entered - 1]).mean(axis=1)
        parts = np.bincount(text[entered], minlength=texts)
        sums = np.bincount(text[entered], differences, texts) * np.bincount(text[entered], sizes[entered], texts)
        return sums / np.maximum(parts, 1)


class _Table:
    """Counts, nats and hits by place."""

    def __init__(self, places: int) -> None:
        self.count, self.hits = np.zeros((2, places), np.int64)
        self.nats = np.zeros(places)

    def add(self, places: Ids, nats: NDArray[np.float64], hits: Flags) -> None:
        """Add predictions, each (n,)."""
        np.add.at(self.count, places, 1)
        np.add.at(self.hits, places, hits.astype(np.int64))
        np.add.at(self.nats, places, nats)

    def cost(self, place: int, ids: tuple[int, ...], all_nats: float) -> Cost:
        """What is at a place."""
        count, nats = int(self.count[place]), float(self.nats[place])
        return Cost(ids, count, nats / count, nats / all_nats, int(self.hits[place]) / count)


class _Costs:
    """What each symbol costs, and the symbol after each context of two.

    Contexts have places in a table of limited size. A place belongs to the first context that needs it; others with the
    same place, which exist only if there are more than 512 symbols, are left out.
    """

    def __init__(self, ids: IdArray, vocab_size: int, parts: _Parts) -> None:
        self._ids, self._vocab_size, self._origin = ids, vocab_size, parts.origin
        places = min(vocab_size**2, _CONTEXTS)
        self._symbols, self._contexts = _Table(vocab_size), _Table(places)
        self._owner = np.full(places, -1, np.int64)

    def add(self, read: _Read) -> None:
        """Add what has been read."""
        self._symbols.add(read.y[read.counted], read.nats[read.counted], read.top1[read.counted])
        self._add_contexts(read, read.counted & (read.positions > self._origin[read.part] + 1))

    def _add_contexts(self, read: _Read, chosen: Flags) -> None:
        """Add the chosen symbols, which have two symbols before them."""
        positions = read.positions[chosen]
        context = self._ids[positions - 2].astype(np.int64) * self._vocab_size + self._ids[positions - 1]
        place = context % len(self._owner)
        new = self._owner[place] < 0
        self._owner[place[new]] = context[new]
        own = self._owner[place] == context
        self._contexts.add(place[own], read.nats[chosen][own], read.top1[chosen][own])

    def hardest(self, number: int, nats: float) -> tuple[tuple[Cost, ...], tuple[Cost, ...]]:
        """So many symbols and contexts, as in `Report`; ``nats`` are those of all texts."""
        symbols, contexts = self._symbols, self._contexts
        occurring = np.flatnonzero(symbols.count)
        largest = occurring[np.argsort(-symbols.nats[occurring], kind="stable")[:number]]
        frequent = np.flatnonzero(contexts.count >= max(_FEWEST, _FEWEST_SHARE * symbols.count.sum()))
        mean = contexts.nats[frequent] / contexts.count[frequent]
        highest = frequent[np.argsort(-mean, kind="stable")[:number]]
        return (
            tuple(symbols.cost(place, (place,), nats) for place in largest.tolist()),
            tuple(
                contexts.cost(place, divmod(int(self._owner[place]), self._vocab_size), nats)
                for place in highest.tolist()
            ),
        )
