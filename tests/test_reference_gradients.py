"""The reference's backward pass is the derivative of its forward pass, and the checks of that can fail."""

import inspect

import numpy as np
import pytest
from problems import problem

from fastlstm.cells import CELLS
from fastlstm.checking.centred import check_gradients
from fastlstm.config import ModelConfig
from fastlstm.params import Parameters
from fastlstm.reference import cells, layer, network

SHAPES = [(cell, layers) for cell in CELLS for layers in (1, 2)]

# A complex step has no subtraction, so its error is that of a few hundred roundings: 1e-12 is at least ten times the
# errors observed. Entries are sums over T*B terms whose rounding errors are absolute, hence the second part: 1e-12 of a
# gradient that is a hundredth of the largest of its parameter.
RTOL, ATOL_OF_LARGEST = 1e-12, 1e-14


def complex_step(p):
    """dJ/dp of every parameter as Im J(p + ih) / h (Squire and Trapp 1998)."""
    h = 1e-25
    at = p.astype("complex128")
    found = np.empty(len(p.parameters.flat))
    for n in range(len(found)):
        at.parameters.flat[n] += 1j * h
        found[n] = network.forward(at.parameters, at.x, at.y, at.state).nats.sum().imag / h
        at.parameters.flat[n] = p.parameters.flat[n]
    return Parameters(p.config, found)


def analytic(p):
    gradients = Parameters(p.config)
    network.backward(p.parameters, network.forward(p.parameters, p.x, p.y, p.state), 1.0, gradients)
    return gradients


def small(rng, cell, layers):
    return problem(rng, cell, layers=layers, hidden=5, embedding=3, vocab=6, seq_len=6, batch=2)


def worst_excess(found, expected):
    """Largest error of any parameter, as a multiple of the error allowed."""
    excess = 0.0
    for name, exact in expected.items():
        allowed = RTOL * np.abs(exact) + ATOL_OF_LARGEST * np.abs(exact).max()
        excess = max(excess, (np.abs(found[name] - exact) / np.maximum(allowed, np.finfo(float).tiny)).max())
    return excess


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
def test_every_parameter_agrees_with_centred_differences(cell, layers):
    config = ModelConfig(6, cell, layers, 5, 4)
    report = check_gradients(config, seq_len=5, batch=3, backend="reference")
    assert report.passed, f"\n{report}"
    assert sum(p.entries for p in report.parameters) == Parameters(config).flat.size


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
def test_every_parameter_agrees_with_a_complex_step(cell, layers, rng):
    p = small(rng, cell, layers)
    assert worst_excess(analytic(p), complex_step(p)) <= 1


#: Mutations in the time loop of every cell: a part of a line, and its replacement.
BUGS_OF_TIME = [
    ("dh[t] = dy[t] + dh_next", "dh[t] = dy[t]"),
    ("tape.state[:, t], tape.state[:, t + 1]", "tape.state[:, t + 1], tape.state[:, t]"),
    ("da[t] @ W_h.T", "-da[t] @ W_h.T"),
]
#: Mutations in the sums after it.
BUGS = [
    ("dW[:X] +=", "dW[:X] -="),
    ("dW[X:] +=", "dW[X:] -="),
    ("db += _rows(da).sum(axis=0)", "db -= _rows(da).sum(axis=0)"),
    ("tape.h[:-1]", "tape.h[1:]"),
    ("da_x @ W[:X].T", "-da_x @ W[:X].T"),
]
#: Mutations where the gradients of a symbol's positions are summed.
BUGS_OF_SYMBOLS = [("[first] = sums", "[first - 1] = sums"), ("[first] = sums", "[first] = -sums")]
#: Mutations in the equations of a cell: a sign, a dropped term, a wrong factor, a broken carry.
BUGS_OF_CELLS = [
    ("lstm", "dc = carry + dh * o", "dc = carry - dh * o"),
    ("lstm", "dc = carry + dh * o", "dc = dh * o"),
    ("lstm", "dc * f\n", "dc\n"),
    ("lstm", "daf = dc * c_before *", "daf = dc * c *"),
    ("lstm", "dag = dc * i * (1 - g**2)", "dag = dc * i * (1 + g**2)"),
    ("lstm", "dao = dh * tanh_c", "dao = dh * c"),
    ("rnn", "(1 - h**2)", "(1 - before[0] ** 2)"),
    ("rnn", "(1 - h**2)", "(1 - h)"),
    ("gru", "dh = dh + carry", "dh = dh - carry"),
    ("gru", "dh * z\n", "dh\n"),
    ("gru", "dan = dh * (1 - z)", "dan = dh * z"),
    ("gru", "daz = dh * (h_before - n)", "daz = dh * h_before"),
    ("gru", "dar = dan * n_h", "dar = dan * (n_h + r)"),
    ("gru", "(dar, daz, dan, dan * r)", "(dar, daz, dan, dan)"),
]
#: Mutations where the gradients of both parts of separate gates are combined.
BUGS_OF_SEPARATE_GATES = [
    ("dW[X:, width - columns : width] = dW[X:, width:]", "dW[X:, width - columns : width] += dW[X:, width:]"),
    ("+= db[width:]", "-= db[width:]"),
]


def break_function(monkeypatch, module, name, right, wrong):
    """Replace a function by a copy with one line changed."""
    source = inspect.getsource(getattr(module, name))
    assert source.count(right) == 1
    namespace = dict(vars(module))
    exec(source.replace(right, wrong), namespace)
    monkeypatch.setattr(module, name, namespace[name])


def assert_caught(cell, rng):
    """Both checks detect that the gradients are wrong."""
    p = small(rng, cell, 1)
    # A bug is not a rounding error: its error is a hundred thousand times the error allowed.
    assert worst_excess(analytic(p), complex_step(p)) > 1e5
    assert not check_gradients(p.config, seq_len=6, batch=2, backend="reference", per_param=20).passed


@pytest.mark.parametrize(("right", "wrong"), BUGS_OF_TIME)
@pytest.mark.parametrize("cell", CELLS)
def test_a_broken_time_loop_is_detected(cell, right, wrong, rng, monkeypatch):
    """Negative control: a line of the real backward pass is changed."""
    break_function(monkeypatch, layer, "through_time", right, wrong)
    assert_caught(cell, rng)


@pytest.mark.parametrize(("right", "wrong"), BUGS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_broken_sum_over_time_is_detected(cell, right, wrong, rng, monkeypatch):
    break_function(monkeypatch, layer, "backward", right, wrong)
    assert_caught(cell, rng)


@pytest.mark.parametrize(("right", "wrong"), BUGS_OF_SYMBOLS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_broken_sum_over_the_positions_of_a_symbol_is_detected(cell, right, wrong, rng, monkeypatch):
    break_function(monkeypatch, layer, "summed_by_symbol", right, wrong)
    assert_caught(cell, rng)


@pytest.mark.parametrize(("cell", "right", "wrong"), BUGS_OF_CELLS)
def test_a_broken_equation_of_a_cell_is_detected(cell, right, wrong, rng, monkeypatch):
    break_function(monkeypatch, cells.CELLS[cell], "backward", right, wrong)
    assert_caught(cell, rng)


@pytest.mark.parametrize(("right", "wrong"), BUGS_OF_SEPARATE_GATES)
@pytest.mark.parametrize("cell", [name for name, cell in CELLS.items() if cell.separate])
def test_a_broken_sum_of_the_parts_of_separate_gates_is_detected(cell, right, wrong, rng, monkeypatch):
    break_function(monkeypatch, layer, "_add_separate", right, wrong)
    assert_caught(cell, rng)


def test_every_cell_has_negative_controls():
    assert {cell for cell, *_ in BUGS_OF_CELLS} == set(CELLS)


def test_a_flipped_sign_of_the_loss_is_detected(rng):
    """Negative control of the output layer: a gradient of -J."""
    p = small(rng, "lstm", 1)
    gradients = analytic(p)
    gradients.flat *= -1
    assert worst_excess(gradients, complex_step(p)) > 1e5
