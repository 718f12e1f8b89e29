"""Recovery measures how a model goes on after a disturbance of its state, and tells garbage from text."""

import numpy as np
import pytest

from fastlstm import Model, TrainConfig
from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError, TextError
from fastlstm.exhibits.recovery import recovery
from fastlstm.pages.recovery import Course, sentence

TEXT = "the salt road lies open until the tide comes in. " * 40
SIZES = {"lanes": 6, "after": 150}


@pytest.fixture(scope="module")
def trained():
    """A model that writes words of the text and, read from any state, soon finds back."""
    model = Model.for_text(TEXT, cell="lstm", hidden=32, embedding=16)
    model.fit(TEXT, TrainConfig(steps=300, batch=4, seq_len=32, lr=0.01, optimizer="adam", sample_length=0, threads=1))
    return model


def stateless(text, next_symbol):
    """A model without a memory, which follows every symbol with ``next_symbol`` of it, almost surely."""
    model = Model.for_text(text, cell="rnn", hidden=64, embedding=64, escape=False)
    V = len(model.vocab)
    for name in model.parameters:
        model.parameters[name] = 0
    model.parameters["embedding"][:, :V] = np.eye(V)
    model.parameters["layers.0.W"][:64] = 5 * np.eye(64)
    for symbol in range(V):
        model.parameters["output.W"][symbol, next_symbol(symbol)] = 40
    return model


@pytest.mark.parametrize("cell", CELLS)
def test_the_shapes_are_those_of_disturbances_symbols_and_blocks(cell):
    found = recovery(Model.for_text(TEXT, cell=cell, layers=2, hidden=8), TEXT, lanes=3, after=250)
    assert found.disturbances == ("none", "new text", "random state", "random symbols")
    assert found.extra_nats.shape == (4, 250)
    assert found.places.tolist() == [0, 100, 200]
    assert found.word_share.shape == (4, 3)
    assert found.astray.shape == (4,)


def test_a_trained_model_recovers(trained):
    found = recovery(trained, TEXT, **SIZES)
    assert not found.extra_nats[0].any()
    # The first symbol after a disturbance is a surprise. After 100 symbols, two periods of the text, it is forgotten.
    assert found.extra_nats[1:, 0].min() > 0.5
    assert np.abs(found.extra_nats[1:, 100:].mean(axis=1)).max() < 0.05
    assert found.word_share[:, -1].min() > 0.6
    assert not found.astray.any()


def test_a_second_attractor_is_seen():
    """After a newline, with which a new text begins, the model writes newlines for ever, else a known word."""
    text = "\nab " + "ab " * 300
    newline, space, a, b = (Model.for_text(text).encode(c).item() for c in "\n ab")
    follows = {newline: newline, a: b, b: space, space: a}
    found = recovery(stateless(text, follows.__getitem__), text, lanes=8, after=120)
    shares = dict(zip(found.disturbances, found.word_share, strict=True))
    # A block may end in the middle of a word, and "a" is none of the text's: one word in 7 of the last block.
    assert shares["none"].min() > 0.8
    assert shares["random state"].min() > 0.8
    assert np.isnan(shares["new text"]).all()
    assert found.astray.tolist() == [0, 1, 0, 0]


def test_a_model_without_memory_is_not_disturbed_by_a_state():
    text = "ab " * 300
    space, a, b = (Model.for_text(text).encode(c).item() for c in " ab")
    found = recovery(stateless(text, {a: b, b: space, space: a}.__getitem__), text, **SIZES)
    for kind in ("random state", "random symbols"):
        assert not found.extra_nats[found.disturbances.index(kind)].any()


def test_the_seed_determines_the_result(trained):
    first, same, other = (recovery(trained, TEXT, lanes=3, after=60, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.extra_nats, same.extra_nats)
    assert np.array_equal(first.word_share, same.word_share)
    assert not np.array_equal(first.extra_nats, other.extra_nats)


def test_a_model_of_bytes_is_measured_too():
    text = TEXT.encode()
    found = recovery(Model.for_text(text, hidden=8), text, lanes=2, after=50)
    assert np.isfinite(found.extra_nats).all()


def test_a_network_that_has_not_learned_the_order_of_symbols_writes_garbage_undisturbed():
    """Garbage is told without words: here all symbols are frequent, and only their order is usual or not."""
    text = "0123456789 " * 200
    found = recovery(Model.for_text(text, hidden=4, embedding=2), text, lanes=4, after=100)
    assert found.astray.tolist() == [1, 1, 1, 1]
    assert "100 % for the LSTM" in sentence([Course("LSTM", "black", "-", found)])


def test_what_cannot_be_measured_is_refused(trained):
    with pytest.raises(TextError, match="215 characters are needed"):
        recovery(trained, TEXT[:200], after=150)
    with pytest.raises(ConfigError, match="after"):
        recovery(trained, TEXT, after=0)
    with pytest.raises(ConfigError, match="lanes"):
        recovery(trained, TEXT, lanes=0)
