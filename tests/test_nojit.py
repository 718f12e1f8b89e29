"""The kernels also run as plain Python: with ``NUMBA_DISABLE_JIT=1`` they give the results of the reference.

So coverage of the kernels can be measured, which is not possible for compiled code::

    NUMBA_DISABLE_JIT=1 coverage run -m pytest tests/test_nojit.py

runs the same comparison without a subprocess.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from problems import problem

from fastlstm.cells import CELLS
from fastlstm.drawing import Drawing
from fastlstm.dropout import Dropout
from fastlstm.kernels import jit
from fastlstm.kernels.network import FastNetwork
from fastlstm.optimizers import OPTIMIZERS, UpdateRule
from fastlstm.params import Parameters
from fastlstm.reference.network import ReferenceNetwork

# float64: eight digits below its precision; float32: see `test_equivalence.bound`, for sums of six products.
TOLERANCES = {"float64": 1e-10, "float32": 1e-5}


def one_of_everything(net, p):
    """A training step for each kind of clipping and each optimizer, an accumulated gradient, and symbols drawn."""
    rules = [UpdateRule(0.1), UpdateRule(0.1, clip_value=0.05), UpdateRule(0.1, clip_norm=0.1)]
    rules += [optimizer.rule(0.01, weight_decay=0.1) for optimizer in OPTIMIZERS.values()]
    rules += [OPTIMIZERS[name].rule(0.01, momentum=momentum) for name, momentum in (("sgd", 0.0), ("rmsprop", 0.5))]
    parameters, slots = Parameters(p.config, p.parameters.flat.copy()), [p.slots(rule, 0.1) for rule in rules]
    gradients, state, losses = Parameters(p.config), p.state.copy(), []
    for step, (rule, kept) in enumerate(zip(rules, slots, strict=True)):
        result = net.train_step(parameters, gradients, kept, p.x, p.y, state, 0.1, rule, step)
        assert result.finite
        losses.append(result.nats)
    net.forward(parameters, p.x, p.y, state)
    net.backward(parameters, 0.1, gradients)
    return {
        "losses": np.array(losses),
        "p": parameters.flat,
        "g": gradients.flat,
        "m": np.concatenate(slots),
        "state": state,
    }


def drawn(net, p, drawing):
    uniforms = np.random.default_rng(0).random((6, p.batch))
    return net.generate(p.parameters, p.x[0], p.state.copy(), uniforms, drawing)


@pytest.mark.skipif(not jit.DISABLED, reason="runs in the process below")
@pytest.mark.parametrize("dropout", [None, Dropout(0.2, 0.3, 0.4)])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("cell", CELLS)
def test_kernels_in_plain_python_are_the_reference(cell, dtype, dropout, rng):
    p = problem(rng, cell, layers=2, hidden=5, embedding=3, vocab=6, seq_len=4, batch=2, dtype=dtype)
    nets = (net(p.config, 4, 2, dropout=dropout) for net in (FastNetwork, ReferenceNetwork))
    found, expected = (one_of_everything(net, p) for net in nets)
    for name, exact in expected.items():
        np.testing.assert_allclose(
            found[name], exact, rtol=0, atol=TOLERANCES[dtype] * np.abs(exact).max(), err_msg=name
        )
    for drawing in (Drawing(0), Drawing(), Drawing(1.5, 4, 0.8, 0.1, 1)):
        ids = [drawn(net(p.config, 1, 2), p, drawing) for net in (FastNetwork, ReferenceNetwork)]
        ids.append(drawn(FastNetwork(p.config, 1, 2, training=False), p, drawing))
        assert np.array_equal(ids[0], ids[1])
        assert np.array_equal(ids[2], ids[1])


@pytest.mark.skipif(jit.DISABLED, reason="this is the process without compilation")
def test_the_suite_without_compilation():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    result = subprocess.run(
        command, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout
    assert f"{2 * len(CELLS) * len(TOLERANCES)} passed" in result.stdout
