"""The reference's backward pass is the derivative of its forward pass, and the checks that say so can fail."""

import inspect

import numpy as np
import pytest
from problems import problem

import fastlstm.reference.cells
from fastlstm import gradcheck
from fastlstm.config import ModelConfig
from fastlstm.params import Parameters
from fastlstm.reference import network

SHAPES = [(cell, layers) for cell in ("rnn", "lstm") for layers in (1, 2)]

# A complex step has no subtraction, so its error is that of a few hundred roundings: 1e-12 leaves a factor of ten
# and more above what is seen. Entries are sums over T*B terms whose own rounding is absolute, hence the second part:
# 1e-12 of a gradient that is a hundredth of the largest of its parameter.
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
    """Largest error of any parameter, in units of what is allowed."""
    excess = 0.0
    for name, exact in expected.items():
        allowed = RTOL * np.abs(exact) + ATOL_OF_LARGEST * np.abs(exact).max()
        excess = max(excess, (np.abs(found[name] - exact) / np.maximum(allowed, np.finfo(float).tiny)).max())
    return excess


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
def test_every_parameter_agrees_with_centred_differences(cell, layers):
    config = ModelConfig(6, cell, layers, 5, 4)
    report = gradcheck.check(config, seq_len=5, batch=3, backend="reference")
    assert report.passed, f"\n{report}"
    assert sum(p.entries for p in report.parameters) == Parameters(config).flat.size


@pytest.mark.parametrize(("cell", "layers"), SHAPES)
def test_every_parameter_agrees_with_a_complex_step(cell, layers, rng):
    p = small(rng, cell, layers)
    assert worst_excess(analytic(p), complex_step(p)) <= 1


#: (cell, what the line is, what it becomes): a sign, a dropped term, a wrong factor, a broken carry.
BUGS = [
    ("lstm", "dc = dc_next + dh * o", "dc = dc_next - dh * o"),
    ("lstm", "dc = dc_next + dh * o", "dc = dh * o"),
    ("lstm", "dh = dy[t] + dh_next", "dh = dy[t]"),
    ("lstm", "dc_next = dc * f", "dc_next = dc"),
    ("lstm", "daf = dc * tape.c[t] *", "daf = dc * tape.c[t + 1] *"),
    ("lstm", "dag = dc * i * (1 - g**2)", "dag = dc * i * (1 + g**2)"),
    ("lstm", "dao = dh * tanh_c", "dao = dh * tape.c[t + 1]"),
    ("lstm", "db += da[t]", "db -= da[t]"),
    ("rnn", "dh = dy[t] + dh_next", "dh = dy[t]"),
    ("rnn", "dh * (1 - tape.h[t + 1] ** 2)", "dh * (1 - tape.h[t] ** 2)"),
    ("rnn", "dW += z.T @ da[t]", "dW -= z.T @ da[t]"),
]


@pytest.mark.parametrize(("cell", "right", "wrong"), BUGS)
def test_a_broken_backward_pass_is_caught(cell, right, wrong, rng, monkeypatch):
    """Negative control: a line of the real backward pass is changed, and both checks notice."""
    name = f"{cell}_backward"
    source = inspect.getsource(getattr(network, name))
    assert source.count(right) == 1
    namespace = dict(vars(fastlstm.reference.cells))
    exec(source.replace(right, wrong), namespace)
    monkeypatch.setattr(network, name, namespace[name])
    p = small(rng, cell, 1)
    # A bug is not a rounding error: it is off by a hundred thousand times what is allowed.
    assert worst_excess(analytic(p), complex_step(p)) > 1e5
    assert not gradcheck.check(p.config, seq_len=6, batch=2, backend="reference", entries=20).passed


def test_a_flipped_sign_of_the_loss_is_caught(rng):
    """Negative control of the output layer: a gradient of -J."""
    p = small(rng, "lstm", 1)
    gradients = analytic(p)
    gradients.flat *= -1
    assert worst_excess(gradients, complex_step(p)) > 1e5
