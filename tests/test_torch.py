"""Losses, states and gradients equal PyTorch's, for every cell that it has, on both backends, in float64.

Figures computed by PyTorch 2.13.0 are recorded here, so that the comparison does not need PyTorch. If it is installed,
``python tests/test_torch.py`` prints them, and every entry is compared too.
"""

import numpy as np
import pytest
from problems import Problem

from fastlstm.backend import build
from fastlstm.config import ModelConfig
from fastlstm.params import Parameters

#: The cells that PyTorch has: its order of their gates, by fastlstm's names, and its class.
TORCH = {"lstm": ("ifgo", "LSTM"), "rnn": ("a", "RNN"), "gru": ("rzn", "GRU")}

#: The `figures` of PyTorch's results.
RECORDED = {
    "lstm": {
        "nats": 12.919861536908467,
        "state": 1.3674716536111227,
        "embedding": 0.09374675273421716,
        "layers.0.W": -0.08259738985345935,
        "layers.0.b": -0.044431527331800225,
        "layers.1.W": 0.088153079875544,
        "layers.1.b": 0.4489629174470571,
        "output.W": -0.15921317983178898,
        "output.b": -0.5768855677763828,
    },
    "rnn": {
        "nats": 15.880756476646127,
        "state": 2.2312707268910525,
        "embedding": 0.004693353011013832,
        "layers.0.W": -1.8022534374141528,
        "layers.0.b": -1.312504864551148,
        "layers.1.W": -0.014549658592752923,
        "layers.1.b": 0.5505923932047461,
        "output.W": -2.127859672110329,
        "output.b": -2.7867353525071685,
    },
    "gru": {
        "nats": 15.182605077948402,
        "state": 1.119746129940313,
        "embedding": -0.06218001429946256,
        "layers.0.W": -0.1293372442569354,
        "layers.0.b": 0.5393336958992223,
        "layers.0.b_h": 0.11951595720225487,
        "layers.1.W": -0.614346588335801,
        "layers.1.b": 0.8969243688781934,
        "layers.1.b_h": 0.02868359061592806,
        "output.W": -1.466253494413307,
        "output.b": -3.7988240491311176,
    },
}


def case(cell):
    """Two layers at a point that does not depend on a random number generator."""
    config = ModelConfig(5, cell, layers=2, hidden=4, embedding=3, dtype="float64")
    parameters = Parameters(config, 0.8 * np.sin(1.7 * np.arange(config.parameter_count)))
    x = np.array([[0, 3], [1, 4], [4, 2], [0, 0]], np.int32)
    y = np.array([[1, 4], [4, 2], [0, 0], [2, 1]], np.int32)
    shape = config.state_shape(2)
    return Problem(config, parameters, x, y, 0.5 * np.cos(np.arange(np.prod(shape))).reshape(shape))


def ours(p, backend):
    """Nats, state carried out and gradients."""
    net, state, gradients = build(backend, p.config, p.seq_len, p.batch, 1), p.state.copy(), Parameters(p.config)
    nats = net.forward(p.parameters, p.x, p.y, state)
    net.backward(p.parameters, 1.0, gradients)
    return nats, state, gradients


def pytorchs(p, torch):
    """The same from PyTorch and its automatic differentiation."""
    config, structure, H = p.config, p.config.structure, p.config.hidden
    gates, cell = TORCH[config.cell]
    columns = np.concatenate([structure.gates.index(gate) * H + np.arange(H) for gate in gates])
    net = getattr(torch.nn, cell)(config.embedding, H, config.layers).double()

    def tensor(array):
        return torch.tensor(array, dtype=torch.float64, requires_grad=True)

    with torch.no_grad():
        for layer in range(config.layers):
            X, W = config.inputs(layer), p.parameters[f"layers.{layer}.W"][:, columns]
            getattr(net, f"weight_ih_l{layer}").copy_(torch.tensor(W[:X].T))
            getattr(net, f"weight_hh_l{layer}").copy_(torch.tensor(W[X:].T))
            getattr(net, f"bias_ih_l{layer}").copy_(torch.tensor(p.parameters[f"layers.{layer}.b"][columns]))
            # PyTorch has two biases for every gate; fastlstm has one, except for separate gates, which are the last.
            bias_hh = np.zeros(len(columns))
            if structure.separate:
                bias_hh[-len(structure.separate) * H :] = p.parameters[f"layers.{layer}.b_h"]
            getattr(net, f"bias_hh_l{layer}").copy_(torch.tensor(bias_hh))
    embedding, W, b = (tensor(p.parameters[name]) for name in ("embedding", "output.W", "output.b"))
    carried = tuple(torch.tensor(part) for part in p.state)
    h, carried = net(embedding[torch.tensor(p.x).long()], carried if len(carried) > 1 else carried[0])
    targets = torch.tensor(p.y).long().flatten()
    nats = torch.nn.functional.cross_entropy((h @ W + b).flatten(0, 1), targets, reduction="sum")
    nats.backward()
    gradients = Parameters(config)
    for name, found in (("embedding", embedding), ("output.W", W), ("output.b", b)):
        gradients[name] = found.grad.numpy()
    for layer in range(config.layers):
        dW = [getattr(net, f"weight_{part}_l{layer}").grad.numpy().T for part in ("ih", "hh")]
        gradients[f"layers.{layer}.W"][:, columns] = np.concatenate(dW)
        gradients[f"layers.{layer}.b"][columns] = getattr(net, f"bias_ih_l{layer}").grad.numpy()
        if structure.separate:
            db_h = getattr(net, f"bias_hh_l{layer}").grad.numpy()
            gradients[f"layers.{layer}.b_h"] = db_h[-len(structure.separate) * H :]
    parts = carried if isinstance(carried, tuple) else (carried,)
    return nats.item(), np.stack([part.detach().numpy() for part in parts]), gradients


def figures(nats, state, gradients):
    """A number for each result: the sum of its entries with different weights."""
    return {"nats": nats, "state": weighted(state)} | {name: weighted(value) for name, value in gradients.items()}


def weighted(array):
    return float(array.ravel() @ np.cos(np.arange(array.size)))


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("cell", TORCH)
def test_every_figure_is_the_one_recorded_from_pytorch(cell, backend):
    found = figures(*ours(case(cell), backend))
    assert set(found) == set(RECORDED[cell])
    for name, expected in RECORDED[cell].items():
        # Sums of at most a hundred terms of order 1: some tens of roundings of 1e-16.
        assert found[name] == pytest.approx(expected, rel=0, abs=1e-12), name


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("cell", TORCH)
def test_every_entry_is_pytorchs(cell, backend):
    torch = pytest.importorskip("torch")
    p = case(cell)
    (nats, state, gradients), expected = ours(p, backend), pytorchs(p, torch)
    assert nats == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(state, expected[1], rtol=0, atol=1e-14)
    np.testing.assert_allclose(gradients.flat, expected[2].flat, rtol=0, atol=1e-13)


if __name__ == "__main__":
    import torch

    for name in TORCH:
        print(name, figures(*pytorchs(case(name), torch)))
