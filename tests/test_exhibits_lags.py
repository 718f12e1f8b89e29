"""The gradient by lag is that of the last symbol's loss with respect to every earlier h, by any path."""

import numpy as np
import pytest

from fastlstm import Model
from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError, TextError, VocabularyError
from fastlstm.exhibits.lags import gradient_by_lag
from fastlstm.exhibits.reading import WARM_UP
from fastlstm.params import Parameters
from fastlstm.reference import layer as recurrent
from fastlstm.reference.network import log_softmax

TEXT = "the tide goes out, and the salt road lies open until the tide comes in again. " * 5


def loss_after_a_nudge(parameters, ids, layer, place, nudge):
    """Loss of the last symbol of ``ids`` when ``nudge`` (H,) is added to ``h[place]`` of ``layer``."""
    a = parameters["embedding"][ids[:-1]][:, None]
    for n in range(parameters.config.layers):
        state = np.zeros(parameters.config.state_shape(1), complex)[:, n]
        if n == layer:
            before = recurrent.forward(parameters, n, a[: place + 1], state)
            nudged = before.state[:, -1].copy()
            nudged[0] += nudge
            after = recurrent.forward(parameters, n, a[place + 1 :], nudged)
            a = np.concatenate([before.h[1:-1], nudged[:1], after.h[1:]])
        else:
            a = recurrent.forward(parameters, n, a, state).h[1:]
    return -log_softmax(a[-1, 0] @ parameters["output.W"] + parameters["output.b"])[ids[-1]]


@pytest.mark.parametrize("cell", CELLS)
def test_norms_are_those_of_complex_step_gradients(cell):
    """The nudge is in the recurrence and in what the layer above reads."""
    lags, H = 4, 3
    text = TEXT[: WARM_UP + lags + 2]  # as long as a window, so all windows are this one
    model = Model.for_text(text, cell=cell, layers=2, hidden=H, embedding=4, dtype="float64")
    found = gradient_by_lag(model, text, lags=lags, lanes=2)
    ids = model.encode(text)
    parameters = Parameters(model.config, model.parameters.flat.astype(complex))
    for layer in range(2):
        for lag in range(lags + 1):
            place = len(ids) - 2 - lag
            nudges = 1e-20j * np.eye(H)
            gradient = [loss_after_a_nudge(parameters, ids, layer, place, n).imag / 1e-20 for n in nudges]
            # Complex steps have no truncation error: only rounding is left, in sums of some hundred terms.
            np.testing.assert_allclose(found.norms[layer, lag], np.linalg.norm(gradient), rtol=1e-11)


def test_an_rnn_without_recurrent_weights_has_no_gradient_beyond_lag_0():
    model = Model.for_text(TEXT, cell="rnn", hidden=6, embedding=4)
    model.parameters["layers.0.W"][-6:] = 0
    (norms,) = gradient_by_lag(model, TEXT, lags=5, lanes=3).norms
    assert norms[0] > 0
    assert not norms[1:].any()


@pytest.mark.parametrize(("bias", "kept"), [(40.0, 1.0), (0.0, 0.5)])
def test_the_forget_gate_is_the_factor_by_which_the_gradient_shrinks(bias, kept):
    """Only g reads h, weakly, and little is written: all gradients come by the carry of c."""
    H = 6
    model = Model.for_text(TEXT, cell="lstm", hidden=H, embedding=4, dtype="float64")
    W, b = model.parameters["layers.0.W"], model.parameters["layers.0.b"]
    W[:, : 3 * H] = 0
    W[-H:, 3 * H :] = 1e-4 * np.eye(H)
    b[...] = np.repeat([-10.0, bias, 0.0, 0.0], H)
    (norms,) = gradient_by_lag(model, TEXT, lags=60, lanes=3).norms
    # Beside the carry, a step passes o' i g' W_h < 1e-8 of the gradient. The factors 1 - g**2 differ from step to step.
    average = (norms[60] / norms[10]) ** (1 / 50)
    assert average == pytest.approx(kept, rel=0.03)


def test_the_layers_norms_are_in_their_order(rng):
    """An upper layer that reads nothing passes no gradient down."""
    model = Model.for_text(TEXT, cell="gru", layers=2, hidden=5, embedding=4)
    model.parameters["layers.1.W"][:5] = 0
    norms = gradient_by_lag(model, TEXT, lags=5, lanes=3).norms
    assert not norms[0].any()
    assert norms[1].all()


def test_the_seed_chooses_the_windows():
    model = Model.for_text(TEXT, hidden=6, embedding=4)
    first, same, other = (gradient_by_lag(model, TEXT, lags=8, lanes=3, seed=seed) for seed in (1, 1, 2))
    assert first.lags.tolist() == list(range(9))
    assert first.norms.shape == (1, 9)
    assert np.array_equal(first.norms, same.norms)
    assert not np.array_equal(first.norms, other.norms)


def test_a_gradient_too_small_for_float32_is_measured():
    model = Model.for_text(TEXT, cell="rnn", hidden=6, embedding=4, dtype="float32")
    model.parameters["layers.0.W"][-6:] *= 1e-2
    norms = gradient_by_lag(model, TEXT, lags=60, lanes=3).norms
    assert 0 < norms[0, 60] < np.finfo(np.float32).smallest_subnormal


def test_what_cannot_be_measured_is_refused():
    model = Model.for_text(TEXT, hidden=6, embedding=4, escape=False)
    with pytest.raises(TextError, match="75 characters are needed, but the text has 74"):
        gradient_by_lag(model, TEXT[:74], lags=9)
    with pytest.raises(VocabularyError):
        gradient_by_lag(model, "€" * 200, lags=9)
    with pytest.raises(ConfigError, match="lags"):
        gradient_by_lag(model, TEXT, lags=-1)
    with pytest.raises(ConfigError, match="lanes"):
        gradient_by_lag(model, TEXT, lanes=0)
