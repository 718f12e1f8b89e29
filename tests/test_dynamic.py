"""A model that learns while it reads: fast and reference agree, and a decoder is in step with the encoder."""

import dataclasses
import math
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from problems import problem

from fastlstm import Model
from fastlstm.config import ModelConfig
from fastlstm.dynamic import Cut, Learner, Reader, _Replay, evaluate
from fastlstm.errors import ConfigError, DivergenceError
from fastlstm.learning import Learning
from fastlstm.params import Parameters

pytestmark = pytest.mark.usefixtures("share_every_step")

#: Learning with every part in use.
FULL = Learning(seq_len=4, lanes=3, replay=2, replay_chunks=3, lr=0.02, final_rate=0.5, clip_norm=0.5, seed=1)


def some_text(rng, p, length=50):
    return rng.integers(p.config.vocab_size, size=length, dtype=np.uint8)


@hypothesis.given(
    length=strategies.integers(0, 60), lanes=strategies.integers(1, 20), seq_len=strategies.integers(1, 9)
)
def test_every_symbol_is_in_one_lane_once(length, lanes, seq_len):
    cut = Cut(length, lanes, seq_len)
    chunks = list(cut.chunks())
    places = [cut.places(first) for first, _ in chunks]
    assert sorted(place for chunk in places for place in chunk.flat if place < length) == list(range(length))
    for (first, count), chunk in zip(chunks, places, strict=True):
        for t in range(seq_len):
            here = cut.lanes_at(first + t) if t < count else 0
            assert (chunk[t, :here] == cut.starts[:here] + first + t).all()
            assert (chunk[t, here:] == length).all()
    assert sum(count for _, count in chunks) == cut.steps


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("learning", [FULL, Learning(seq_len=5, lr=0.01)], ids=["full", "simple"])
def test_fast_and_reference_learn_the_same(learning, cell, rng):
    p = problem(rng, cell, layers=2)
    ids = some_text(rng, p)
    found, expected = (evaluate(p.parameters, ids, learning, threads=2, backend=name) for name in ("fast", "reference"))
    # Some ten steps of Adam: each multiplies roundings of 1e-16 by at most a few.
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("learning", [FULL, Learning(seq_len=5, lr=0.01)], ids=["full", "simple"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_decoder_has_the_probabilities_of_the_encoder_bit_for_bit(threads, learning, rng):
    p = problem(rng, "lstm", hidden=40, vocab=30, dtype="float32")
    text = some_text(rng, p)
    cut = Cut(len(text), learning.lanes, learning.seq_len)
    before = np.zeros((1, cut.lanes), np.int32)
    one, other = (
        Learner(Parameters(p.config, p.parameters.flat.copy()), learning, cut.lanes, cut.steps, before[0], count)
        for count in (1, threads)
    )
    for first, count in cut.chunks():
        y = text.take(cut.places(first), mode="clip").astype(np.int32)
        x = np.concatenate([before, y[:-1]])
        whole = one.read(x, y)
        for t in range(count):
            assert np.array_equal(other.advance(x[t]), whole[t])
        one.learn(x, y)
        other.learn(x, y)
        before = y[-1:]


def test_without_learning_the_nats_are_those_of_the_model(rng):
    text = "so it goes, and so it went; " * 3
    model = Model.for_text(text, hidden=8, embedding=4, dtype="float64")
    ids = model.vocab.encode(text)
    found = evaluate(model.parameters, ids, Learning(seq_len=5, lr=0.0))
    assert found.sum() / len(found) == pytest.approx(model.evaluate(text).nats_per_char, rel=1e-12)
    assert evaluate(model.parameters, ids, Learning(seq_len=5, lr=0.0, lanes=4)).shape == found.shape


def test_learning_lowers_the_loss_and_leaves_the_model_as_it_was(rng):
    text = "so it goes, and so it went; " * 40
    model = Model.for_text(text, hidden=16, embedding=8)
    ids, before = model.vocab.encode(text), model.parameters.flat.copy()
    nats = evaluate(model.parameters, ids, Learning(seq_len=5, lr=0.01))
    # A line of 28 symbols is soon known by heart; a model that does not learn stays near the log of its symbols.
    assert nats[-200:].mean() < 0.5 * nats[:50].mean()
    assert np.array_equal(model.parameters.flat, before)


def test_the_rate_falls_linearly():
    learning = Learning(lr=0.1, final_rate=0.5)
    assert [learning.rule(0, done).lr for done in (0.0, 0.5, 1.0)] == pytest.approx([0.1, 0.075, 0.05])


def test_the_rate_is_that_of_the_part_of_the_text_that_has_been_read(rng, monkeypatch):
    """50 symbols in chunks of 10: nothing follows the last one, so that nothing is learnt from it."""
    asked, rule = [], Learning.rule
    monkeypatch.setattr(Learning, "rule", lambda *those: asked.append(those[1:]) or rule(*those))
    p = problem(rng, "lstm")
    evaluate(p.parameters, some_text(rng, p, 51), Learning(seq_len=10))
    assert asked[-4:] == [(0, 0.0), (1, 0.2), (2, 0.4), (3, 0.6)]


def test_a_model_that_diverges_is_an_error(rng):
    p = problem(rng, "lstm", dtype="float32")
    with pytest.raises(DivergenceError, match="diverged while it read chunk 1 of the text: choose a lower"):
        evaluate(p.parameters, some_text(rng, p), Learning(seq_len=4, lr=1e300))


def test_replay_reads_again_what_has_been_read(rng):
    """Every replayed symbol follows the one before it in the text, and parts of all lanes occur."""
    learning, lanes, steps = dataclasses.replace(FULL, replay=3), 3, 80
    cut = Cut(lanes * steps, lanes, learning.seq_len)
    text = np.arange(1, cut.length + 1)  # distinct symbols
    replay = _Replay(learning, lanes, steps, np.zeros(lanes, np.int32), cut.length + 1)
    x, y = np.zeros((2, learning.seq_len, 3), np.int32)
    state, kept, lanes_seen = np.ones((2, 1, 3, 5)), 0, set()
    for first, _ in cut.chunks():
        new = text[cut.places(first)]
        seen = first + learning.seq_len
        last = y[-1].copy()
        state[...] = 1
        replay.fill(new, x, y, state)
        assert (y[:-1] == x[1:]).all()
        assert ((y == x + 1) | (x == 0)).all()
        assert ((y - 1) % steps < seen).all()
        goes_on = x[0] == last
        assert (state[:, :, ~goes_on] == 0).all()
        kept += int((state[:, :, goes_on] == 1).all(axis=(0, 1, 3)).sum())
        lanes_seen |= {*((y - 1) // steps).flat}
    assert lanes_seen == {0, 1, 2}
    assert kept > cut.steps // learning.seq_len  # of three lanes, whose parts are up to three chunks long


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the memory of a process as Linux shows it")
def test_a_text_that_is_said_to_be_long_takes_memory_only_as_it_is_read():
    """As an archive made with malice says; 1 GB here."""

    def pages():
        return int(Path("/proc/self/statm").read_text().split()[1])

    before = pages()
    replay = _Replay(FULL, 1, 1 << 30, np.ones(1, np.int32), 256)
    assert pages() - before < 10_000  # of 4 KB: 40 MB
    x, y = np.zeros((2, FULL.seq_len, FULL.replay), np.int32)
    replay.fill(np.full((FULL.seq_len, 1), 7, np.int32), x, y, np.zeros((2, 1, FULL.replay, 5), np.float32))
    assert (x[0] == 1).all()
    assert (y == 7).all()


def test_a_reader_does_not_learn(rng):
    p = problem(rng, "lstm", seq_len=6)
    reader, single = Reader(p.parameters, 6, 2, 1), Reader(p.parameters, 6, 2, 1)
    before = p.parameters.flat.copy()
    whole = reader.read(p.x, p.y)
    reader.learn(p.x, p.y)
    assert np.array_equal(whole, np.stack([single.advance(row) for row in p.x]))
    assert np.array_equal(p.parameters.flat, before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lanes": 0}, "lanes must be a whole number of at least 1"),
        ({"lr": math.nan}, "lr must be a finite number"),
        ({"seq_len": 4096, "lanes": 17}, "seq_len times lanes and replay must be at most 65,536, not 4,096 times 17"),
    ],
)
def test_learning_out_of_bounds_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Learning(**values)


def test_learning_works_with_one_symbol_in_the_vocabulary():
    config = ModelConfig(1, hidden=4, embedding=2)
    assert evaluate(Parameters(config), np.zeros(20, np.uint8), Learning(seq_len=4)) == pytest.approx(np.zeros(19))
