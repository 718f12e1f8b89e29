"""A hundred steps of every optimizer are PyTorch's, on both backends, in float64.

Figures computed by PyTorch 2.14.1 are recorded here, so that the comparison does not need PyTorch. If it is installed,
``python tests/test_torch_optimizers.py`` prints them, and every parameter is compared too.
"""

import numpy as np
import pytest

from fastlstm.backend import build
from fastlstm.config import ModelConfig
from fastlstm.optimizers import OPTIMIZERS
from fastlstm.params import Parameters, table

#: Name, settings of ours, PyTorch's class and its settings, for each case.
CASES = {
    # PyTorch adds eps to the root, fastlstm under it: here it is next to nothing.
    "adagrad": ("adagrad", {"eps": 1e-30}, "Adagrad", {"eps": 0.0}),
    "adagrad, decay": ("adagrad", {"eps": 1e-30, "weight_decay": 0.3}, "Adagrad", {"eps": 0.0, "weight_decay": 0.3}),
    "sgd": ("sgd", {"momentum": 0.0}, "SGD", {}),
    "sgd, decay": ("sgd", {"momentum": 0.0, "weight_decay": 0.3}, "SGD", {"weight_decay": 0.3}),
    "sgd, momentum": ("sgd", {"weight_decay": 0.3}, "SGD", {"momentum": 0.9, "weight_decay": 0.3}),
    "sgd, nesterov": (
        "sgd", {"nesterov": True, "weight_decay": 0.3}, "SGD",
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3},
    ),
    "rmsprop": ("rmsprop", {"beta2": 0.95, "eps": 1e-3}, "RMSprop", {"alpha": 0.95, "eps": 1e-3}),
    "rmsprop, momentum": (
        "rmsprop", {"momentum": 0.8, "weight_decay": 0.3}, "RMSprop",
        {"alpha": 0.99, "eps": 1e-8, "momentum": 0.8, "weight_decay": 0.3},
    ),
    "adam": ("adam", {}, "Adam", {}),
    "adam, decay": (
        "adam", {"beta1": 0.8, "beta2": 0.99, "eps": 1e-3, "weight_decay": 0.3}, "Adam",
        {"betas": (0.8, 0.99), "eps": 1e-3, "weight_decay": 0.3},
    ),
    "adamw": ("adamw", {}, "AdamW", {}),
    "adamw, decay": (
        "adamw", {"beta2": 0.99, "weight_decay": 0.3}, "AdamW",
        {"betas": (0.9, 0.99), "weight_decay": 0.3},
    ),
}  # fmt: skip

#: The `figures` of PyTorch's results.
RECORDED = {
    "adagrad": {
        "embedding": 0.7683687484927306,
        "layers.0.W": -1.4553739185775718,
        "layers.0.b": -0.20462550715344816,
        "layers.0.b_h": 0.5690603274300622,
        "layers.1.W": -1.2715758781210336,
        "layers.1.b": 0.23877847588516385,
        "layers.1.b_h": -0.05590920275660079,
        "output.W": 0.16451600863595114,
        "output.b": -0.07275049409945154,
    },
    "adagrad, decay": {
        "embedding": 0.7683687484927306,
        "layers.0.W": -0.3560372698254424,
        "layers.0.b": -0.20462550715344816,
        "layers.0.b_h": 0.5690603274300622,
        "layers.1.W": -1.2615567559782712,
        "layers.1.b": 0.23877847588516385,
        "layers.1.b_h": -0.05590920275660079,
        "output.W": -0.22707650987903064,
        "output.b": -0.07275049409945154,
    },
    "sgd": {
        "embedding": 0.6488524703339333,
        "layers.0.W": -0.5043467713481269,
        "layers.0.b": 0.24715645147004334,
        "layers.0.b_h": 0.3770364092896616,
        "layers.1.W": -1.071192194049223,
        "layers.1.b": 0.07812704102252854,
        "layers.1.b_h": 0.27037429298801097,
        "output.W": -0.06061166740125124,
        "output.b": -0.12434085151025559,
    },
    "sgd, decay": {
        "embedding": 0.6488524703339333,
        "layers.0.W": -0.4219198845300177,
        "layers.0.b": 0.24715645147004334,
        "layers.0.b_h": 0.3770364092896616,
        "layers.1.W": -1.004725684319537,
        "layers.1.b": 0.07812704102252854,
        "layers.1.b_h": 0.27037429298801097,
        "output.W": -0.19692678734892566,
        "output.b": -0.12434085151025559,
    },
    "sgd, momentum": {
        "embedding": 0.5162615856344239,
        "layers.0.W": -4.1990510847548865,
        "layers.0.b": 0.42529255271156097,
        "layers.0.b_h": 0.040957521322275564,
        "layers.1.W": -4.462319224676643,
        "layers.1.b": -0.1450641890437838,
        "layers.1.b_h": -0.20447046877720135,
        "output.W": -0.06444833759220198,
        "output.b": -0.26662901687299506,
    },
    "sgd, nesterov": {
        "embedding": 0.34784699146442166,
        "layers.0.W": -4.079188121794633,
        "layers.0.b": 0.5488442959329977,
        "layers.0.b_h": 0.117865170585393,
        "layers.1.W": -5.14251689404761,
        "layers.1.b": 0.016741368095604572,
        "layers.1.b_h": -0.16849772072817615,
        "output.W": -0.43008883850535407,
        "output.b": -0.2838584071064563,
    },
    "rmsprop": {
        "embedding": -0.3940105523801994,
        "layers.0.W": -1.4562133144451028,
        "layers.0.b": 0.6301448125140244,
        "layers.0.b_h": 0.2888737183260388,
        "layers.1.W": -4.250381109900208,
        "layers.1.b": 0.5896820511721121,
        "layers.1.b_h": 0.09295638461285916,
        "output.W": -1.1776994358680934,
        "output.b": -0.20566363153619677,
    },
    "rmsprop, momentum": {
        "embedding": -1.2890220514487547,
        "layers.0.W": 11.55690092853336,
        "layers.0.b": 2.937646687074415,
        "layers.0.b_h": 0.5912669969074332,
        "layers.1.W": -0.03093872903272965,
        "layers.1.b": 1.103889777590864,
        "layers.1.b_h": -0.4024026378515109,
        "output.W": -5.122570925422966,
        "output.b": -1.4279837797412342,
    },
    "adam": {
        "embedding": 0.16447759173086585,
        "layers.0.W": -1.487661244013674,
        "layers.0.b": 0.1762307022328727,
        "layers.0.b_h": 0.016516886087281614,
        "layers.1.W": -1.5966717824611392,
        "layers.1.b": -0.04157013210588605,
        "layers.1.b_h": -0.06401489657609906,
        "output.W": -0.030399874232728556,
        "output.b": -0.10122846322600589,
    },
    "adam, decay": {
        "embedding": 0.2282767273908536,
        "layers.0.W": -2.5038160165121557,
        "layers.0.b": 0.37742124567453517,
        "layers.0.b_h": 0.08909328304418526,
        "layers.1.W": -3.1917376214272903,
        "layers.1.b": 0.03281129881901506,
        "layers.1.b_h": -0.08958727604158837,
        "output.W": -0.2608909629063987,
        "output.b": -0.20001661155316897,
    },
    "adamw": {
        "embedding": 0.16447759173086585,
        "layers.0.W": -1.4901326916531408,
        "layers.0.b": 0.1762307022328727,
        "layers.0.b_h": 0.016516886087281614,
        "layers.1.W": -1.598124096151316,
        "layers.1.b": -0.04157013210588605,
        "layers.1.b_h": -0.06401489657609906,
        "output.W": -0.029918541005951513,
        "output.b": -0.10122846322600589,
    },
    "adamw, decay": {
        "embedding": 0.1655067635880034,
        "layers.0.W": -1.5683857441506674,
        "layers.0.b": 0.1772510971515665,
        "layers.0.b_h": 0.01666804890130403,
        "layers.1.W": -1.6559716641776432,
        "layers.1.b": -0.04180915860591746,
        "layers.1.b_h": -0.06458014782861361,
        "output.W": -0.01999557740615183,
        "output.b": -0.10218453348677994,
    },
}

CONFIG = ModelConfig(5, "gru", layers=2, hidden=4, embedding=3, dtype="float64")
STEPS = 100


def start():
    """Parameters that are written down rather than drawn, so that no generator is part of the figures."""
    return 0.8 * np.sin(1.7 * np.arange(CONFIG.parameter_count))


def gradient(p, step):
    """Of a bowl, with different curvatures, that moves."""
    numbers = np.arange(p.size)
    return (0.3 + 0.2 * np.cos(numbers)) * (p - np.sin(0.3 * (step + 1) + numbers))


def rate(step):
    return 0.05 * (1 - step / (2 * STEPS))


def ours(case, backend):
    name, settings, _, _ = CASES[case]
    net, parameters, gradients = build(backend, CONFIG, 1, 1, 1), Parameters(CONFIG, start()), Parameters(CONFIG)
    slots = np.zeros((OPTIMIZERS[name].rule(0.0, **settings).slots, CONFIG.parameter_count))
    for step in range(STEPS):
        gradients.flat[:] = gradient(parameters.flat, step)
        assert net.update(parameters, gradients, slots, OPTIMIZERS[name].rule(rate(step), step, **settings))
    return parameters


def pytorchs(case, torch):
    """The same from PyTorch; its weight decay is switched off for what fastlstm spares."""
    _, _, kind, settings = CASES[case]
    parameters = Parameters(CONFIG, start())
    tensors = {name: torch.tensor(view, requires_grad=True) for name, view in parameters.items()}
    decaying = {entry.name for entry in table(CONFIG) if entry.decays}
    groups = [
        {"params": [tensors[name] for name in tensors if name in decaying]},
        {"params": [tensors[name] for name in tensors if name not in decaying], "weight_decay": 0.0},
    ]
    optimizer = getattr(torch.optim, kind)(groups, lr=0.05, **settings)
    for step in range(STEPS):
        gradients = Parameters(CONFIG, gradient(parameters.flat, step))
        for name, value in tensors.items():
            value.grad = torch.tensor(gradients[name])
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        for name, value in tensors.items():
            parameters[name] = value.detach().numpy()
    return parameters


def figures(parameters):
    """A number for each parameter: the sum of its entries with different weights."""
    return {name: float(view.ravel() @ np.cos(np.arange(view.size))) for name, view in parameters.items()}


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_every_figure_is_the_one_recorded_from_pytorch(case, backend):
    found = figures(ours(case, backend))
    assert set(found) == set(RECORDED[case])
    for name, expected in RECORDED[case].items():
        # Sums of at most a hundred terms of order 1, after a hundred steps: some hundred roundings of 1e-16.
        assert found[name] == pytest.approx(expected, rel=0, abs=1e-12), name


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_every_parameter_is_pytorchs(case, backend):
    torch = pytest.importorskip("torch")
    np.testing.assert_allclose(ours(case, backend).flat, pytorchs(case, torch).flat, rtol=0, atol=1e-13)


def test_the_cases_tell_optimizers_and_settings_apart():
    """Every two of them end at different parameters."""
    assert {name for name, *_ in CASES.values()} == set(OPTIMIZERS)
    ends = [ours(case, "reference").flat for case in CASES]
    for number, end in enumerate(ends):
        # The closest are Adam and AdamW with its own decay of 0.01; what is compared differs by 1e-12 at most.
        assert all(np.abs(end - other).max() > 1e-4 for other in ends[:number])


if __name__ == "__main__":
    import torch

    for case in CASES:
        print(case, figures(pytorchs(case, torch)))
