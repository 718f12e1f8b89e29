"""The reference computes the equations: against pure Python, one lane, one unit, one gate at a time."""

import math

import numpy as np
import pytest
from problems import problem, tape_buffers

from fastlstm.reference import network


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


def matrices(p, layer):
    """A layer's weights as separate matrices ``Wx[gate][input][unit]``, ``Wh[gate][unit][unit]``, ``b[gate][unit]``.

    The LSTM's eight matrices are Wxi, Wxf, Wxo, Wxg and Whi, Whf, Who, Whg; the RNN has the one gate "h".
    """
    H, X = p.config.hidden, p.config.inputs(layer)
    W, b = p.parameters[f"layers.{layer}.W"].tolist(), p.parameters[f"layers.{layer}.b"].tolist()
    gates = "ifog" if p.config.cell == "lstm" else "h"
    Wx = {gate: [row[n * H : (n + 1) * H] for row in W[:X]] for n, gate in enumerate(gates)}
    Wh = {gate: [row[n * H : (n + 1) * H] for row in W[X:]] for n, gate in enumerate(gates)}
    return Wx, Wh, {gate: b[n * H : (n + 1) * H] for n, gate in enumerate(gates)}


def naive_layer(p, layer, inputs, b):
    """All time steps of lane ``b``: lists over time of lists over units, by name."""
    Wx, Wh, bias = matrices(p, layer)
    H = p.config.hidden
    found = {"h": [p.state[0, layer, b].tolist()]}
    if p.config.cell == "lstm":
        found |= {"c": [p.state[1, layer, b].tolist()], "i": [], "f": [], "o": [], "g": []}
    for x in inputs:
        h_before = found["h"][-1]

        def before_nonlinearity(gate, unit, x=x, h_before=h_before):
            from_below = sum(x[k] * Wx[gate][k][unit] for k in range(len(x)))
            from_before = sum(h_before[k] * Wh[gate][k][unit] for k in range(H))
            return from_below + from_before + bias[gate][unit]

        if p.config.cell == "rnn":
            found["h"].append([math.tanh(before_nonlinearity("h", unit)) for unit in range(H)])
            continue
        i, f, o = ([sigmoid(before_nonlinearity(gate, unit)) for unit in range(H)] for gate in "ifo")
        g = [math.tanh(before_nonlinearity("g", unit)) for unit in range(H)]
        c = [f[unit] * found["c"][-1][unit] + i[unit] * g[unit] for unit in range(H)]
        h = [o[unit] * math.tanh(c[unit]) for unit in range(H)]
        for name, value in zip("ifogch", (i, f, o, g, c, h), strict=True):
            found[name].append(value)
    return found


def naive_lane(p, b):
    """Everything the forward pass of lane ``b`` computes."""
    embedding, W, bias = (p.parameters[name].tolist() for name in ("embedding", "output.W", "output.b"))
    a, found = [embedding[v] for v in p.x[:, b]], {}
    for layer in range(p.config.layers):
        layer_found = naive_layer(p, layer, a, b)
        found |= {f"{name}.{layer}": value for name, value in layer_found.items()}
        a = layer_found["h"][1:]
    found["probabilities"], found["nats"] = [], []
    for h, target in zip(a, p.y[:, b], strict=True):
        logits = [bias[v] + sum(h[k] * W[k][v] for k in range(len(h))) for v in range(p.config.vocab_size)]
        total = sum(math.exp(logit) for logit in logits)
        found["probabilities"].append([math.exp(logit) / total for logit in logits])
        found["nats"].append(-math.log(found["probabilities"][-1][target]))
    return found


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_reference_is_the_naive_forward_pass(cell, layers, rng):
    p = problem(rng, cell, layers=layers, hidden=6, embedding=4, vocab=7, seq_len=9, batch=3)
    tape = network.forward(p.parameters, p.x, p.y, p.state)
    found = tape_buffers(tape)
    lanes = [naive_lane(p, b) for b in range(p.batch)]
    assert set(found) == set(lanes[0])
    for name, value in found.items():
        expected = np.stack([lane[name] for lane in lanes], axis=1)
        # Sums of ten numbers of order 1 over nine steps: some tens of roundings of 1e-16.
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12, err_msg=name)
    loss = sum(sum(lane["nats"]) for lane in lanes)
    assert tape.nats.sum() == pytest.approx(loss, rel=1e-12)
    carried = [[[lane[f"{part}.{layer}"][-1] for lane in lanes] for layer in range(layers)]
               for part in ("hc" if cell == "lstm" else "h")]  # fmt: skip
    np.testing.assert_allclose(network.final_state(tape), carried, rtol=0, atol=1e-12)


def test_an_overflowing_logit_is_no_overflow(rng):
    """Logits of 1e4 would overflow exp; the shift in softmax keeps them finite, and the loss is their difference."""
    p = problem(rng, "rnn")
    p.parameters["output.b"] = np.where(np.arange(11) == 3, 1e4, 0.0)
    tape = network.forward(p.parameters, p.x, np.full_like(p.y, 5), p.state)
    # The other logits are of order 1, so the nats of symbol 5 are 1e4 to within a few.
    assert np.all(np.abs(tape.nats - 1e4) < 10)
