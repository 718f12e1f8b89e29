"""The reference computes the equations: comparison with pure Python, one lane, one unit, one gate at a time."""

import math

import numpy as np
import pytest
from problems import problem, tape_buffers

from fastlstm.cells import CELLS
from fastlstm.reference import network


def sigmoid(a):
    return 1 / (1 + math.exp(-a))


# All values that one unit computes in one time step, by name. For each gate, `below` is the product of its Wx and the
# layer's input, `before` that of its Wh and the previous h, and `bias` its bias; `state` is the unit's previous state.


def lstm(below, before, bias, state):
    i, f, o = (sigmoid(below[gate] + before[gate] + bias[gate]) for gate in "ifo")
    g = math.tanh(below["g"] + before["g"] + bias["g"])
    c = f * state["c"] + i * g
    return {"i": i, "f": f, "o": o, "g": g, "c": c, "h": o * math.tanh(c)}


def rnn(below, before, bias, state):
    return {"h": math.tanh(below["a"] + before["a"] + bias["a"])}


def gru(below, before, bias, state):
    """As in PyTorch's documentation; ``n_h`` is ``W_hn h + b_hn``."""
    r, z = (sigmoid(below[gate] + before[gate] + bias[gate]) for gate in "rz")
    n_h = before["n"] + bias["n_h"]
    n = math.tanh(below["n"] + bias["n"] + r * n_h)
    return {"r": r, "z": z, "n": n, "n_h": n_h, "h": (1 - z) * n + z * state["h"]}


#: The equations of each cell, its gates in the order of their columns, the parts of its state, and the biases in b_h.
ORACLES = {"lstm": (lstm, "ifog", "hc", ()), "rnn": (rnn, "a", "h", ()), "gru": (gru, "rzn", "h", ("n_h",))}


def blocks(row, names):
    """The blocks of a row, by name."""
    size = len(row) // len(names)
    return {name: row[n * size : (n + 1) * size] for n, name in enumerate(names)}


def dot(vector, weights, unit):
    return sum(a * row[unit] for a, row in zip(vector, weights, strict=True))


def naive_layer(p, layer, inputs, b):
    """All time steps of lane ``b``: lists over time of lists over units, by name."""
    equations, gates, parts, separate = ORACLES[p.config.cell]
    X = p.config.inputs(layer)
    rows = [blocks(row, gates) for row in p.parameters[f"layers.{layer}.W"].tolist()]
    Wx, Wh = ({gate: [row[gate] for row in side] for gate in gates} for side in (rows[:X], rows[X:]))
    bias = blocks(p.parameters[f"layers.{layer}.b"].tolist(), gates)
    if separate:
        bias |= blocks(p.parameters[f"layers.{layer}.b_h"].tolist(), separate)
    found = {part: [p.state[n, layer, b].tolist()] for n, part in enumerate(parts)}
    for x in inputs:
        state = {part: found[part][-1] for part in parts}
        units = [
            equations(
                {gate: dot(x, Wx[gate], unit) for gate in gates},
                {gate: dot(state["h"], Wh[gate], unit) for gate in gates},
                {name: values[unit] for name, values in bias.items()},
                {part: values[unit] for part, values in state.items()},
            )
            for unit in range(p.config.hidden)
        ]
        for name in units[0]:
            found.setdefault(name, []).append([unit[name] for unit in units])
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
@pytest.mark.parametrize("cell", CELLS)
def test_the_reference_is_the_naive_forward_pass(cell, layers, rng):
    p = problem(rng, cell, layers=layers, hidden=6, embedding=4, vocab=7, seq_len=9, batch=3)
    tape = network.forward(p.parameters, p.x, p.y, p.state)
    found = tape_buffers(tape, p.config.structure)
    lanes = [naive_lane(p, b) for b in range(p.batch)]
    assert set(found) == set(lanes[0])
    for name, value in found.items():
        expected = np.stack([lane[name] for lane in lanes], axis=1)
        # Sums of ten numbers of order 1 over nine steps: some tens of roundings of 1e-16.
        np.testing.assert_allclose(value, expected, rtol=0, atol=1e-12, err_msg=name)
    loss = sum(sum(lane["nats"]) for lane in lanes)
    assert tape.nats.sum() == pytest.approx(loss, rel=1e-12)
    parts = p.config.structure.state
    carried = [[[lane[f"{part}.{layer}"][-1] for lane in lanes] for layer in range(layers)] for part in parts]
    np.testing.assert_allclose(network.final_state(tape), carried, rtol=0, atol=1e-12)


def test_large_logits_do_not_overflow(rng):
    """Logits of 1e4 would overflow exp; the shift in softmax keeps results finite, and the loss is their difference."""
    p = problem(rng, "rnn")
    p.parameters["output.b"] = np.where(np.arange(11) == 3, 1e4, 0.0)
    tape = network.forward(p.parameters, p.x, np.full_like(p.y, 5), p.state)
    # The other logits are of order 1, so the nats of symbol 5 are 1e4 to within a few.
    assert np.all(np.abs(tape.nats - 1e4) < 10)
