"""Recovery after a disturbance of the state: does a model find back to its text?

A recurrent network is a dynamical system. When it generates a text, it reads its own symbols, and from some states it
may never come back to states that occur in a text: it has a second attractor, and writes garbage for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.backend import build
from fastlstm.contract import Ids
from fastlstm.drawing import Drawing
from fastlstm.exhibits.reading import WARM_UP, check_at_least, drawn_windows, state_after
from fastlstm.exhibits.words import as_characters, known_words, word_share
from fastlstm.inference import beginning
from fastlstm.model import Model, Text
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference.network import final_state, forward
from fastlstm.text import IdArray, Vocab

#: Random symbols that are read as a disturbance.
_NOISE = 50

#: Symbols of a block in which words are counted, and of a lane's end, which tells whether it has gone astray.
_BLOCK, _END = 100, 300


@dataclass(frozen=True, eq=False)
class Recovery:
    """A model after disturbances of its state in the middle of a text.

    Attributes
    ----------
    disturbances : the D kinds. ``"none"``; ``"new text"``: the state is zero, and a newline (or the vocabulary's first
        symbol) is read in place of the text's symbol, as where a sample begins; ``"random state"``: h is uniform from
        -1 to 1, other parts normal with the standard deviation that they have in the text; ``"random symbols"``: 50
        symbols have been read, each drawn uniformly.
    extra_nats : (D, N) float64: how many nats more than undisturbed the model needs for each of the next N symbols of
        the text, mean over the lanes.
    places : (P,) int64: the number of symbols that were generated before each block of 100.
    word_share : (D, P) float64: share of the words in that block, of all lanes, that occur in the text; NaN where there
        is no word. A word that a block's border cuts counts as two.
    astray : (D,) float64: share of the lanes that end in garbage: by the pairs of neighbouring symbols in their last
        300, they are nearer to the text with its symbols in random order than to the text, see `_Pairs`.
    """

    disturbances: tuple[str, ...]
    extra_nats: NDArray[np.float64]
    places: NDArray[np.int64]
    word_share: NDArray[np.float64]
    astray: NDArray[np.float64]


def recovery(model: Model, text: Text, *, lanes: int = 64, after: int = 600, seed: int = 0) -> Recovery:
    """Disturb a model's state, then let it read on in the text, and, from the same state, write a text.

    It reads with the reference, and writes with the fast backend, at temperature 1. Every kind of disturbance has the
    same places in the text and the same random numbers.

    Parameters
    ----------
    model : trained.
    text : of the training; the states that are disturbed are those after windows of it, and its words are known ones.
    lanes : number of windows, at random places.
    after : N, the number of symbols that are read and that are generated after the disturbance.
    seed : of all random numbers.

    Raises
    ------
    ConfigError
        When ``lanes`` or ``after`` is below 1.
    TextError
        When the text is shorter than a window.
    VocabularyError
        When the text has a symbol that is not in the vocabulary, and there is no escape.
    FastlstmError
        When the model's logits are not finite.
    """
    check_at_least("after", after, 1)
    ids, rng, parameters = model.encode(text), np.random.default_rng(seed), model.parameters
    symbols = drawn_windows(ids, WARM_UP + after, lanes, rng)
    undisturbed = _Start(state_after(parameters, symbols[:WARM_UP]), symbols[WARM_UP])
    uniforms = rng.random((after, lanes))
    words = known_words(model.vocab.decode(ids))
    pairs = _Pairs(ids, len(model.vocab), rng)
    nats, shares, astray = [], [], []
    for disturb in _DISTURBANCES.values():
        start = disturb(model, undisturbed, rng)
        nats.append(_read(parameters, start, symbols[WARM_UP + 1 :]))
        written = _write(parameters, start, uniforms)
        shares.append([_share(model.vocab, written[n : n + _BLOCK], words) for n in range(0, after, _BLOCK)])
        astray.append(np.mean([pairs.are_garbage(lane) for lane in written[-_END:].T]))
    return Recovery(
        disturbances=tuple(_DISTURBANCES),
        extra_nats=np.array(nats) - nats[0],
        places=np.arange(0, after, _BLOCK),
        word_share=np.array(shares),
        astray=np.array(astray),
    )


class _Pairs:
    """Tells garbage from a text by how usual its pairs of neighbouring symbols are.

    A pair is as surprising as it is rare in the text (frequencies, 1 added to each). The mean surprises of a natural
    text and of its symbols in random order are more than a nat apart, and by chance that of 300 symbols of the text
    differs from the first by some 0.2 nats.

    Parameters
    ----------
    ids : (N,) the text.
    vocab_size : V.
    rng : for the random order.
    """

    def __init__(self, ids: IdArray, vocab_size: int, rng: np.random.Generator) -> None:
        counts = np.ones((vocab_size, vocab_size))
        np.add.at(counts, (ids[:-1], ids[1:]), 1)
        self._nats = np.log(counts.sum() / counts)
        self._limit = (self._surprise(ids) + self._surprise(rng.permutation(ids))) / 2

    def _surprise(self, ids: Ids) -> float:
        """The mean over the pairs of ids (n,), in nats."""
        return float(self._nats[ids[:-1], ids[1:]].mean())

    def are_garbage(self, ids: Ids) -> bool:
        """Whether ids (n,) are nearer to the text in random order than to the text."""
        return self._surprise(ids) > self._limit


class _Start(NamedTuple):
    """Where B lanes go on: ``state`` (S, L, B, H), and ``first`` (B,) int32, the symbol that each reads next."""

    state: FloatArray
    first: Ids


def _none(model: Model, start: _Start, rng: np.random.Generator) -> _Start:
    return start


def _new_text(model: Model, start: _Start, rng: np.random.Generator) -> _Start:
    return _Start(np.zeros_like(start.state), np.full_like(start.first, beginning(model.vocab)))


def _random_state(model: Model, start: _Start, rng: np.random.Generator) -> _Start:
    shape = start.state.shape
    state = start.state.std(axis=(2, 3), keepdims=True) * rng.standard_normal(shape)
    state[0] = rng.uniform(-1.0, 1.0, shape[1:])
    return start._replace(state=state.astype(start.state.dtype))


def _random_symbols(model: Model, start: _Start, rng: np.random.Generator) -> _Start:
    x = rng.integers(model.config.vocab_size, size=(_NOISE, len(start.first)))
    return start._replace(state=final_state(forward(model.parameters, x, x, start.state)))


#: Each kind of disturbance: from where the lanes are in the text to where they go on.
_DISTURBANCES: dict[str, Callable[[Model, _Start, np.random.Generator], _Start]] = {
    "none": _none,
    "new text": _new_text,
    "random state": _random_state,
    "random symbols": _random_symbols,
}


def _read(parameters: Parameters, start: _Start, following: Ids) -> NDArray[np.float64]:
    """Read a text from a start; returns the nats (N,) of the N symbols ``following`` (N, B), mean over the lanes."""
    x = np.concatenate([start.first[None], following[:-1]])
    nats: NDArray[np.float64] = forward(parameters, x, following, start.state).nats.mean(axis=1, dtype=np.float64)
    return nats


def _write(parameters: Parameters, start: _Start, uniforms: NDArray[np.float64]) -> Ids:
    """Generate symbols (N, B) from a start, which is not changed."""
    network = build("fast", parameters.config, 1, len(start.first), 1, training=False)
    return network.generate(parameters, start.first, start.state.copy(), uniforms, Drawing())


def _share(vocab: Vocab, written: Ids, words: frozenset[str]) -> float:
    """`word_share` of generated ids (n, B), all lanes together."""
    return word_share("\n".join(as_characters(vocab.decode(lane)) for lane in written.T), words)
