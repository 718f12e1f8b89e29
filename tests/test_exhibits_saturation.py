"""The shares of saturated gates are those of the gates' values over the text."""

import numpy as np
import pytest

from fastlstm import Model
from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError
from fastlstm.exhibits.activations import activations
from fastlstm.exhibits.saturation import gate_saturation

TEXT = "the tide goes out, and the salt road lies open until the tide comes in again. " * 5

#: Gates that are saturated low, high, or not at all by their biases: of a sigmoid at +-3, of a tanh at +-2.
BIASES = {"lstm": [3.0, -3.0, 0.0, -2.0], "gru": [-3.0, 3.0, 2.0], "rnn": [2.0]}
LOW = {"lstm": [0, 1, 0, 1], "gru": [1, 0, 0], "rnn": [0]}
HIGH = {"lstm": [1, 0, 0, 0], "gru": [0, 1, 1], "rnn": [1]}


@pytest.mark.parametrize("cell", CELLS)
def test_constant_gates_have_the_shares_of_their_biases(cell):
    H = 4
    model = Model.for_text(TEXT, cell=cell, layers=2, hidden=H, embedding=3)
    for layer in range(2):
        model.parameters[f"layers.{layer}.W"] = 0
        model.parameters[f"layers.{layer}.b"] = np.repeat(BIASES[cell], H)
    found = gate_saturation(model, TEXT)
    assert found.names == {"lstm": ("i", "f", "o", "g"), "gru": ("r", "z", "n"), "rnn": ("h",)}[cell]
    assert found.low.tolist() == 2 * [LOW[cell]]
    assert found.high.tolist() == 2 * [HIGH[cell]]


def test_a_share_is_over_units():
    model = Model.for_text(TEXT, cell="rnn", hidden=4, embedding=3)
    model.parameters["layers.0.W"] = 0
    model.parameters["layers.0.b"] = [-2.0, 0.0, 2.0, 2.0]
    found = gate_saturation(model, TEXT)
    assert (found.low.item(), found.high.item()) == (0.25, 0.5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_single_window_has_the_distribution_of_the_activations(cell):
    """Parameters are large, so that every kind of saturation occurs."""
    model = Model.for_text(TEXT, cell=cell, layers=2, hidden=5, embedding=3)
    model.parameters.flat *= 3
    found = gate_saturation(model, TEXT, chars=len(TEXT) - 1, lanes=1)
    values = activations(model, TEXT).values
    for n, name in enumerate(found.names):
        gate = values[name][:, :-1].reshape(2, -1)
        floor = -0.9 if name in "gnh" else 0.1
        assert found.low[:, n].any()
        assert found.high[:, n].any()
        np.testing.assert_array_equal(found.low[:, n], (gate < floor).mean(axis=1))
        np.testing.assert_array_equal(found.high[:, n], (gate > 0.9).mean(axis=1))
        for layer in range(2):
            density = np.histogram(gate[layer], found.edges, density=True)[0]
            np.testing.assert_allclose(found.density[layer, n], density)  # the same counts, divided in another order


def test_a_long_text_is_read_in_part_and_a_short_one_as_a_whole(monkeypatch):
    lengths = []
    original = gate_saturation.__globals__["tapes"]

    def counting(parameters, symbols):
        lengths.append((len(symbols) - 1, symbols.shape[1]))
        return original(parameters, symbols)

    monkeypatch.setattr("fastlstm.exhibits.saturation.tapes", counting)
    model = Model.for_text(TEXT, hidden=4, embedding=3)
    gate_saturation(model, TEXT, chars=60, lanes=3)
    gate_saturation(model, TEXT[:10])
    assert lengths == [(20, 3), (9, 1)]


@pytest.mark.parametrize("sizes", [{"lanes": 0}, {"chars": 5, "lanes": 6}, {"chars": 2.5}])
def test_sizes_out_of_range_are_refused(sizes):
    with pytest.raises(ConfigError, match=next(iter(sizes))):
        gate_saturation(Model.for_text(TEXT, hidden=4), TEXT, **sizes)
