"""How surprising each line of a text is to a model: its bits, read as if the line were alone."""

from __future__ import annotations

import dataclasses
import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import AnyStr, Literal

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import Unknown
from fastlstm.inference import Inference, Passage, beginning, finite
from fastlstm.lines import LONGEST, Block, line_starts, whole_lines
from fastlstm.text import Encoder, IdArray, Vocab, codes_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: Symbols that `score` gathers from pieces, which may be lines, before it reads them.
_GATHERED = 1 << 18
#: Lanes in which a block is read, and the fewest symbols of one: with fewer, the ends of lanes would be a large part.
_MOST_LANES, _FEWEST_SYMBOLS = 128, 256

_NEWLINE = ord("\n")


@dataclass(frozen=True, eq=False)
class ScoredLine:
    """A line and the nats of its symbols.

    Attributes
    ----------
    number : of the line in its text, from 1.
    text : with its newline, if it has one.
    nats : (len(text),) of each symbol, given those before it in the line; NaN for those that were left out.
    """

    number: int
    text: str | bytes
    nats: Floats

    def copy(self) -> ScoredLine:
        """The same line with its own array."""
        return dataclasses.replace(self, nats=self.nats.copy())

    @property
    def bits(self) -> float:
        """All bits of the line."""
        return float(np.nansum(self.nats)) / math.log(2)

    @property
    def bits_per_char(self) -> float:
        """The mean over its symbols that were not left out; 0 if there are none."""
        return self.bits / max(1, int(np.count_nonzero(~np.isnan(self.nats))))

    @property
    def place(self) -> int | None:
        """The index of the symbol with the most bits, the first one of several; ``None``: there is no symbol."""
        return None if np.isnan(self.nats).all() else int(np.nanargmax(self.nats))


@dataclass(frozen=True, eq=False)
class Scored:
    """The lines of a block and the nats of their symbols.

    Attributes
    ----------
    block : as it was read.
    starts : (n+1,), the start of each line in the block, and the block's length.
    numbers : (n,), of the lines in their text, from 1. The parts of one line that was cut have the same number.
    nats : (N,), of each symbol of the block; NaN for those that were left out.
    counted : (n,), symbols of each line that were not left out.
    line_nats : (n,), of all of them.
    """

    block: Block
    starts: Integers
    numbers: Integers
    nats: Floats
    counted: Integers
    line_nats: Floats

    def __len__(self) -> int:
        """The number of lines."""
        return len(self.numbers)

    def line(self, i: int) -> ScoredLine:
        """One of the lines, from 0; its nats are a view."""
        start, stop = int(self.starts[i]), int(self.starts[i + 1])
        return ScoredLine(int(self.numbers[i]), self.block.text[start:stop], self.nats[start:stop])

    @property
    def mean_nats(self) -> Floats:
        """(n,): nats per symbol of each line; 0 for a line without symbols."""
        return self.line_nats / np.maximum(self.counted, 1)

    @property
    def most_nats(self) -> Floats:
        """(n,): those of the most surprising symbol of each line; 0 for a line without symbols."""
        return np.nan_to_num(_by_line(np.fmax, self.nats, self.starts))

    @property
    def is_cut(self) -> bool:
        """Whether a line is only a part of one that was too long."""
        is_open = self.block.text[-1:] not in ("\n", b"\n") and self.starts[-1] - self.starts[-2] == LONGEST
        return bool(is_open or np.any(self.numbers[1:] == self.numbers[:-1]))


By = Literal["mean", "total", "max"]

#: What the most surprising lines have most of.
MEASURES: Mapping[By, Callable[[Scored], Floats]] = MappingProxyType(
    {
        "mean": lambda scored: scored.mean_nats,
        "total": lambda scored: scored.line_nats,
        "max": lambda scored: scored.most_nats,
    }
)


def lenient(vocab: Vocab) -> Unknown:
    """What becomes of unknown symbols in lines unless something else is wanted: they are no reason to stop."""
    return "escape" if vocab.escape else "skip"


class Scorer:
    """Scores blocks of lines, which are read side by side as lanes, each line from the state at its start.

    The first symbol of a line is predicted after the one that is read before a text, see `beginning`. A newline
    belongs to its line if the vocabulary has it; else it is left out.

    Parameters
    ----------
    inference : reads.
    encoder : counts unknown symbols; those that it skips are left out.
    """

    def __init__(self, inference: Inference, encoder: Encoder) -> None:
        self._inference, self._encoder = inference, encoder
        self._first = beginning(encoder.vocab)
        self._start = inference.state_after(int(self._first[0]))
        self._has_newline = _NEWLINE in encoder.vocab.symbols

    def score(self, block: Block) -> Scored:
        """Score the lines of a block; their bits do not depend on the other lines.

        Raises
        ------
        VocabularyError
            When a symbol is unknown, and the encoder makes that an error.
        FastlstmError
            When the loss is not finite.
        StoppedError
            When ``stop`` of the inference returned true.
        TypeError
            When the text is not ``bytes`` for a vocabulary of bytes, or not ``str`` for one of characters.
        """
        if isinstance(block.text, bytes) != self._encoder.vocab.is_bytes:
            kind = "bytes" if self._encoder.vocab.is_bytes else "str"
            raise TypeError(f"the lines for this model are {kind}, not {type(block.text).__name__}")
        codes = codes_of(block.text)
        starts = line_starts(codes)
        nats, counted = self._nats(block.text, codes, starts)
        ends_line = codes[starts[1:] - 1] == _NEWLINE
        numbers = block.number + np.cumsum(ends_line) - ends_line
        line_nats = _by_line(np.add, nats if counted.sum() == len(nats) else np.nan_to_num(nats), starts)
        return Scored(block, starts, numbers, nats, counted, line_nats)

    def _nats(self, text: str | bytes, codes: NDArray[np.unsignedinteger], starts: Integers) -> tuple[Floats, Integers]:
        """Nats (N,) and counted symbols (n,) of lines, as in `Scored`."""
        ids, is_counted = self._encoded(text, codes)
        if is_counted is None:
            return self._read(ids, starts), np.diff(starts)
        before = np.append(0, np.cumsum(is_counted))[starts]
        nats = np.full(len(codes), np.nan)
        nats[is_counted] = self._read(ids, before)
        return nats, np.diff(before)

    def _encoded(
        self, text: str | bytes, codes: NDArray[np.unsignedinteger]
    ) -> tuple[IdArray, NDArray[np.bool_] | None]:
        """The ids of a block, and which of its symbols (N,) they are; ``None``: all of them."""
        left_out = None
        if not self._has_newline:
            left_out = codes == _NEWLINE
            text = text.replace(b"\n", b"") if isinstance(text, bytes) else text.replace("\n", "")
        size = len(text)
        ids = self._encoder.encode_piece(text)
        if len(ids) < size:
            unknown = np.isin(codes, list(self._encoder.lacking))
            left_out = unknown if left_out is None else left_out | unknown
        return ids, None if left_out is None else ~left_out

    def _read(self, ids: IdArray, starts: Integers) -> Floats:
        """The nats (N,) of the ids of lines; ``starts`` (n+1,) as in `Scored`, but with lines that may be empty."""
        nats = np.empty(len(ids))
        is_last = np.zeros(len(ids), np.bool_)
        is_last[starts[1:][np.diff(starts) > 0] - 1] = True
        bounds = _lane_bounds(starts)
        passage = Passage(bounds[:-1], bounds[1:], np.repeat(self._first, len(bounds) - 1))
        for predicted in self._inference.read_lanes(ids, passage, (is_last, self._start)):
            nats[predicted.positions[predicted.valid]] = predicted.nats[predicted.valid]
        finite(float(nats.sum()))
        return nats


def score(scorer: Scorer, text: AnyStr | Iterable[AnyStr]) -> Iterator[ScoredLine]:
    """The lines of a text one by one, in order; the text may be given in pieces, such as the lines of an open file."""
    for block in whole_lines(_gathered([text] if isinstance(text, str | bytes) else text)):
        scored = scorer.score(block)
        yield from map(scored.line, range(len(scored)))


def _gathered(pieces: Iterable[AnyStr]) -> Iterator[AnyStr]:
    """Pieces of a text joined to fewer."""
    gathered: list[AnyStr] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= _GATHERED:
            yield piece[:0].join(gathered)
            gathered, size = [], 0
    if gathered:
        yield gathered[0][:0].join(gathered)


def _lane_bounds(starts: Integers) -> Integers:
    """Cut lines into lanes of about equal length: (B+1,), increasing, the starts of lanes and the end of the last."""
    symbols = int(starts[-1])
    wanted = max(1, min(_MOST_LANES, symbols // _FEWEST_SYMBOLS))
    ideal = np.arange(wanted + 1) * symbols // wanted
    return np.unique(np.append(starts[np.searchsorted(starts, ideal)], [0, symbols]))


def _by_line(reduction: np.ufunc, values: Floats, starts: Integers) -> Floats:
    """The sums, or maxima, of the values (N,) of each line (n,)."""
    return reduction.reduceat(values, starts[:-1])


class Ranking:
    """The most surprising lines so far.

    Parameters
    ----------
    size : how many to keep.
    by : what they have most of.
    """

    def __init__(self, size: int, by: By) -> None:
        self._size, self._measure = size, MEASURES[by]
        self._seen = 0
        self._heap: list[tuple[float, int, str, ScoredLine]] = []

    def add(self, scored: Scored, which: Integers, source: str = "") -> None:
        """Consider some of the lines of a block, given by their indices; ``source`` is the name of their text."""
        values = self._measure(scored)[which]
        for k in np.argsort(-values, kind="stable")[: self._size].tolist():
            order = -(self._seen + k)  # of equal lines, the first one is more surprising
            if len(self._heap) == self._size and (values[k], order) < self._heap[0][:2]:
                break
            entry = (float(values[k]), order, source, scored.line(int(which[k])).copy())
            (heapq.heappush if len(self._heap) < self._size else heapq.heapreplace)(self._heap, entry)
        self._seen += len(which)

    def lines(self) -> list[tuple[str, ScoredLine]]:
        """The lines with the names of their sources, the most surprising first; of equal ones the first."""
        return [(source, line) for _, _, source, line in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)]
