"""Lossless compression of any bytes: arithmetic coding under the probabilities of a network.

The network is a given model, fixed or learning as it reads, or a new one of the file's own bytes, which has to learn
all it knows from them (`fastlstm.dynamic`). The decoder computes the same probabilities as the encoder, bit for bit, on
any machine and with any number of threads. Files are described in `fastlstm.archive_file`.

**Order.** The text is cut into lanes (`fastlstm.dynamic.Cut`). The code is that of the first symbols of all lanes, then
of their second ones, and so on. The model reads the vocabulary's first symbol, id 0, before each lane.

**Symbols.** A model of characters reads the bytes as UTF-8, and each byte that is not UTF-8 as a lone surrogate, which
loses nothing. A symbol without an entry in the vocabulary is coded as its escape. A vocabulary without one has one more
choice in its place, of as little probability as the coder gives any, and the model reads id 0 instead. The code of all
symbols is followed by that of those without an entry, in the order of the text, each as probable as another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm import archive_file
from fastlstm.archive_file import SHAPE, Archive, Coding, GivenModel, LearningModel, NewModel, Stored
from fastlstm.backend import warm_up
from fastlstm.checkpoint import Content
from fastlstm.config import ModelConfig
from fastlstm.contract import no_distribution
from fastlstm.dynamic import Cut, Learner, Reader
from fastlstm.errors import ArchiveError, ConfigError, DivergenceError
from fastlstm.learning import Learning
from fastlstm.params import Parameters, initialise
from fastlstm.range_coder import RangeDecoder, RangeEncoder
from fastlstm.spelling import Spelled, Spelling
from fastlstm.text import IdArray, Vocab

#: What is added to the name of a compressed file.
SUFFIX = ".flstm"

#: Symbols that a fixed model reads at once, in all lanes together.
_READ_SYMBOLS = 256

#: Files below this length in bytes are stored without a try: what else an archive has takes more than coding can save.
_SHORTEST = 256

#: Called with the number of symbols that are done, and that of all.
Progress = Callable[[int, int], None]


class Choice(NamedTuple):
    """What is chosen for a file: settings of `ModelConfig`, and how the model learns."""

    shape: Mapping[str, Any]
    learning: Learning


def chosen(length: int) -> Choice:
    """The new model for a file of ``length`` bytes, and how it learns: a larger one for a longer file."""
    if length < 20_000:
        return Choice({"hidden": 96, "embedding": 32}, Learning(seq_len=8, lanes=1, replay=1, lr=6e-3, final_rate=0.5))
    if length < 100_000:
        return Choice(
            {"hidden": 160, "embedding": 48}, Learning(seq_len=12, lanes=1, replay=1, lr=5e-3, final_rate=0.5)
        )
    if length < 500_000:
        return Choice(
            {"hidden": 256, "embedding": 64}, Learning(seq_len=16, lanes=2, replay=2, lr=3e-3, final_rate=0.5)
        )
    return Choice(
        {"hidden": 320, "embedding": 32}, Learning(seq_len=20, lanes=4, replay=4, lr=4e-3, final_rate=0.03, beta1=0.7)
    )


def chosen_with_model(length: int) -> Learning:
    """How a given model reads a file of ``length`` bytes, and learns if it does."""
    return Learning(seq_len=20, lanes=max(1, min(8, length // 30_000)), lr=1e-3)


def compress(
    data: bytes, model: Content | None = None, *, dynamic: bool = False, shape: Mapping[str, Any] | None = None,
    learning: Mapping[str, Any] | None = None, threads: int | None = None, progress: Progress | None = None,
    compiling: Callable[[], None] | None = None,
) -> bytes:  # fmt: skip
    """Compress bytes. The result is at most 66 bytes longer: what cannot be compressed is stored.

    Parameters
    ----------
    data : the bytes.
    model : a model to code them with; ``None``: a new one, which learns as it reads.
    dynamic : whether a given model learns as it reads.
    shape : settings of a new model, some of `archive_file.SHAPE`; others are `chosen`.
    learning : settings of `Learning`; others are `chosen`. A fixed model has the lanes alone.
    threads : workers; the result does not depend on them.
    progress : called with the number of symbols that are done, and that of all.
    compiling : called before kernels are compiled.

    Raises
    ------
    ConfigError
        When settings are out of range, or contradict each other.
    DivergenceError
        When the model diverges: its learning rate is too high.
    FastlstmError
        When the library for the range coder is not installed.
    """
    stored = _archive(data, Stored(), data)
    if not data:
        return stored
    vocab = _own_vocab(data) if model is None else model.vocab
    spelling = Spelling(vocab)
    text = spelling.spell(data)
    if model is None:
        coding: Coding = _new(vocab, len(data), dynamic, shape or {}, learning or {})
    else:
        coding = _given(model, len(text.symbols), dynamic, shape or {}, learning or {})
    if model is None and len(data) < _SHORTEST:
        return stored
    coder = RangeEncoder(spelling.choices)
    cut, reader = _reading(coding, model, len(text.symbols), threads, compiling)
    try:
        _encode(coder, text, spelling, cut, reader, progress)
    except ValueError:  # of the coder
        raise no_distribution() from None
    coder.encode_uniform(text.numbers, vocab.others)
    return min(_archive(data, coding, coder.code()), stored, key=len)


def decompress(
    raw: bytes, model: Content | None = None, *, threads: int | None = None, progress: Progress | None = None,
    compiling: Callable[[], None] | None = None,
) -> bytes:  # fmt: skip
    """The bytes that were compressed.

    Parameters
    ----------
    raw : the archive.
    model : that with which it was compressed, if one was given.
    threads, progress, compiling : as for `compress`.

    Raises
    ------
    ArchiveError
        When it is no archive, is damaged, was written by a later version, or with another model.
    ConfigError
        When a model is given, and the archive was compressed without one.
    FastlstmError
        When the library for the range coder is not installed.
    """
    archive = archive_file.decode(raw)
    _check_model(archive.coding, model)
    data = archive.code
    if not isinstance(archive.coding, Stored):
        try:
            data = _decoded(archive, model, threads, progress, compiling)
        except (ValueError, DivergenceError) as error:  # of wrong code, or of malicious settings
            raise archive_file.damaged(str(error)) from None
    if len(data) != archive.length or hashlib.sha256(data).digest() != archive.sha256:
        raise archive_file.damaged("the decompressed file does not have the recorded SHA-256")
    return data


def identity(model: Content) -> bytes:
    """The SHA-256 by which an archive knows its model: of its shape, its vocabulary, and its parameters in float32."""
    config = model.config
    shape = [config.cell, config.layers, config.hidden, config.embedding]
    digest = hashlib.sha256(json.dumps([shape, model.vocab.to_json()]).encode("ascii"))
    digest.update(model.parameters.astype("float32", copy=False).flat.astype("<f4", copy=False).data)
    return digest.digest()


class _Numbers:
    """Nearly normal numbers for a new model, which are the same for ever: NumPy may change how it draws its own.

    Each is the sum of the four 16-bit parts of a number from a bit generator, centred and scaled to variance 1.
    """

    _MEAN, _STD = 4 * (2.0**16 - 1) / 2, math.sqrt(4 * (2.0**32 - 1) / 12)

    def __init__(self, seed: int) -> None:
        self._draw = np.random.PCG64(seed).random_raw

    def standard_normal(self, size: tuple[int, ...], /) -> NDArray[np.float64]:
        """An array of numbers."""
        raw = self._draw(math.prod(size))
        total = sum((raw >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
        found: NDArray[np.float64] = (np.asarray(total, np.float64) - self._MEAN) / self._STD
        return found.reshape(size)


def _archive(data: bytes, coding: Coding, code: bytes) -> bytes:
    return archive_file.encode(Archive(len(data), hashlib.sha256(data).digest(), coding, code))


def _own_vocab(data: bytes) -> Vocab:
    """The vocabulary of the bytes that occur in a file."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    return Vocab(np.flatnonzero(counts).astype(np.uint32), is_bytes=True)


def _new(vocab: Vocab, length: int, dynamic: bool, shape: Mapping[str, Any], learning: Mapping[str, Any]) -> NewModel:
    if dynamic:
        raise ConfigError("a new model always learns while it reads: give a model, or leave dynamic out")
    usual = chosen(length)
    learn = dataclasses.replace(usual.learning, **learning)
    config = ModelConfig(len(vocab), **{**usual.shape, **shape})
    archive_file.check_sizes(config, learn.symbols)
    return NewModel(vocab.symbols, {name: getattr(config, name) for name in SHAPE}, learn)


def _given(
    model: Content, symbols: int, dynamic: bool, shape: Mapping[str, Any], learning: Mapping[str, Any]
) -> GivenModel | LearningModel:
    if shape:
        raise ConfigError(f"{next(iter(shape))} cannot be set for a given model: leave it out")
    if not dynamic and (unused := sorted(learning.keys() - {"lanes"})):
        raise ConfigError(f"{unused[0]} is for a model that learns while it reads: leave it out, or set dynamic")
    learn = dataclasses.replace(chosen_with_model(symbols), **learning)
    coding = (
        LearningModel(identity(model), symbols, learn)
        if dynamic
        else GivenModel(identity(model), symbols, min(learn.lanes, symbols))
    )
    _check_step(coding, model)
    return coding


def _check_step(coding: GivenModel | LearningModel, model: Content) -> None:
    """Raise `ConfigError` when a step takes too much memory."""
    rows = max(_READ_SYMBOLS, coding.lanes) if isinstance(coding, GivenModel) else coding.learning.symbols
    archive_file.check_sizes(model.config, rows, is_new=False)


def _check_model(coding: Coding, model: Content | None) -> None:
    """Raise unless the model is the one that an archive needs."""
    if isinstance(coding, NewModel) and model is not None:
        raise ConfigError("the archive was compressed without a model: leave out --model")
    if isinstance(coding, Stored | NewModel):
        return
    if model is None:
        raise ArchiveError(
            f"the archive was compressed with a given model ({coding.model.hex()[:16]}): give it with --model"
        )
    if identity(model) != coding.model:
        raise ArchiveError(
            f"the archive was compressed with another model ({coding.model.hex()[:16]}, not"
            f" {identity(model).hex()[:16]}): give that one with --model"
        )
    _check_step(coding, model)


def _reading(
    coding: Coding, model: Content | None, symbols: int, threads: int | None, compiling: Callable[[], None] | None
) -> tuple[Cut, Reader]:
    """How a text of so many symbols is cut, and what reads it: the same for encoder and decoder."""
    parameters = _parameters(coding, model)
    warm_up("fast", parameters.config, compiling or (lambda: None))
    if isinstance(coding, GivenModel):
        cut = Cut(symbols, coding.lanes, max(1, _READ_SYMBOLS // coding.lanes))
        return cut, Reader(parameters, cut.seq_len, cut.lanes, threads)
    assert isinstance(coding, NewModel | LearningModel)
    learning = coding.learning
    cut = Cut(symbols, learning.lanes, learning.seq_len)
    return cut, Learner(parameters, learning, cut.lanes, cut.steps, _before(cut)[0], threads)


def _parameters(coding: Coding, model: Content | None) -> Parameters:
    """The parameters with which the reading begins, in float32; they may be changed."""
    if isinstance(coding, NewModel):
        return initialise(coding.config, _Numbers(coding.learning.seed))
    assert model is not None
    return model.parameters.astype("float32")


def _before(cut: Cut) -> NDArray[np.int32]:
    """(1, B): the ids that the model reads before the lanes."""
    return np.zeros((1, cut.lanes), np.int32)


def _encode(
    coder: RangeEncoder, text: Spelled, spelling: Spelling, cut: Cut, reader: Reader, progress: Progress | None
) -> None:
    """Encode the symbols of a text."""
    before = _before(cut)
    for first, count in cut.chunks():
        places = cut.places(first)
        real = places < cut.length
        symbols = text.symbols.take(places, mode="clip")
        y = spelling.read_as(symbols)
        x = np.concatenate([before, y[:-1]])
        coder.encode(symbols[real], reader.read(x, y)[real])
        if first + count < cut.steps:
            reader.learn(x, y)
        before = y[-1:]
        _report(progress, cut, first + count)


def _decoded(
    archive: Archive, model: Content | None, threads: int | None, progress: Progress | None,
    compiling: Callable[[], None] | None,
) -> bytes:  # fmt: skip
    """The bytes of an archive's code; raises `ValueError` when it is not that of any bytes."""
    coding = archive.coding
    if isinstance(coding, NewModel):
        length, vocab = archive.length, Vocab(coding.alphabet, is_bytes=True)
    else:
        assert isinstance(coding, GivenModel | LearningModel)
        assert model is not None
        length, vocab = coding.symbols, model.vocab
    spelling = Spelling(vocab)
    coder = RangeDecoder(archive.code, spelling.choices)
    cut, reader = _reading(coding, model, length, threads, compiling)
    symbols = _decode(coder, spelling, cut, reader, progress)
    numbers = coder.decode_uniform(spelling.count_unknown(symbols), vocab.others)
    return spelling.unspell(Spelled(symbols, numbers.astype(np.int64)))


def _decode(coder: RangeDecoder, spelling: Spelling, cut: Cut, reader: Reader, progress: Progress | None) -> IdArray:
    """Decode the symbols of a text, in step with `_encode`."""
    text = np.zeros(cut.length, spelling.dtype)
    last = _before(cut)[0]
    symbols, x = np.zeros((cut.seq_len, cut.lanes), np.int32), np.zeros((cut.seq_len, cut.lanes), np.int32)
    for first, count in cut.chunks():
        for t in range(count):
            x[t] = last
            lanes = cut.lanes_at(first + t)
            symbols[t, :lanes] = coder.decode(reader.advance(x[t])[:lanes])
            last = spelling.read_as(symbols[t])
        places = cut.places(first)
        real = places < cut.length
        text[places[real]] = symbols[real]
        if first + count < cut.steps:
            reader.learn(x, spelling.read_as(symbols))
        _report(progress, cut, first + count)
    return text


def _report(progress: Progress | None, cut: Cut, step: int) -> None:
    if progress is not None:
        progress(min(step * cut.lanes, cut.length), cut.length)
