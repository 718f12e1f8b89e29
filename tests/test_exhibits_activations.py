"""The activations over a text are those of one pass over it, whatever its length."""

import numpy as np
import pytest

from fastlstm import Model
from fastlstm.cells import CELLS
from fastlstm.errors import TextError
from fastlstm.exhibits.activations import activations
from fastlstm.reference.network import forward

TEXT = "the tide goes out, and the salt road lies open until the tide comes in again. " * 5
NAMES = {"lstm": ["h", "c", "i", "f", "o", "g"], "gru": ["h", "r", "z", "n"], "rnn": ["h"]}


@pytest.mark.parametrize("cell", CELLS)
def test_a_text_in_chunks_gives_the_activations_of_one_pass(cell):
    model = Model.for_text(TEXT, cell=cell, layers=2, hidden=5, embedding=4)
    found = activations(model, TEXT)
    x = model.encode(TEXT).astype(np.int32)[:, None]
    tape = forward(model.parameters, x, x, model.zero_state(1))
    assert list(found.values) == NAMES[cell]
    for layer in range(2):
        saved = [*tape.layers[layer].state[:, 1:, 0], *tape.layers[layer].gates[:, :, 0]]
        for name, expected in zip(NAMES[cell], saved, strict=False):
            assert found.values[name].dtype == np.float32
            # Products of other sizes may sum in another order: a few units in the last place of float32.
            np.testing.assert_allclose(found.values[name][layer], expected, rtol=0, atol=2e-6)


def test_nats_are_those_of_each_symbol_given_the_ones_before():
    model = Model.for_text(TEXT, hidden=5, embedding=4)
    found = activations(model, TEXT)
    assert np.isnan(found.nats[0])
    # Single precision, averaged over 395 symbols.
    assert found.nats[1:].mean() == pytest.approx(model.evaluate(TEXT).nats_per_char, rel=1e-5)
    shorter = activations(model, TEXT[:130])
    np.testing.assert_allclose(shorter.nats[1:], found.nats[1:130], rtol=1e-5)


@pytest.mark.parametrize("text", [TEXT, TEXT.encode()])
def test_text_and_ids_are_those_that_were_read(text):
    model = Model.for_text(text, hidden=5, embedding=4)
    for found in (activations(model, text), activations(model, model.encode(text))):
        assert found.text == text
        assert np.array_equal(found.ids, model.encode(text))
        assert found.nats.shape == found.ids.shape == (len(text),)


def test_one_symbol_is_refused():
    with pytest.raises(TextError, match="at least two"):
        activations(Model.for_text(TEXT, hidden=5), TEXT[:1])
