"""Gradients in bf16 and float32 are checked against those in float64: correct ones pass, wrong ones do not."""

import json

import numpy as np
import pytest

from fastlstm import gradcheck
from fastlstm.cells import CELLS
from fastlstm.checking.precision import compare_gradients
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.kernels.host import has_bf16
from fastlstm.params import initialise, table
from fastlstm.precision import Precision

needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no dot products of bfloat16 numbers")
COMPUTED = [("float32", "fast"), ("float32", "reference"), ("bf16", "reference")]
COMPUTED.append(pytest.param("bf16", "fast", marks=needs_bf16))
CONFIG = ModelConfig(7, "lstm", 2, 5, 3)


def in_precision(name):
    return Precision("float32", bf16=name == "bf16")


@pytest.mark.parametrize(("name", "backend"), COMPUTED)
@pytest.mark.parametrize("cell", CELLS)
def test_all_cells_pass_from_the_command_line(cell, name, backend, capsys):
    arguments = ["--precision", name, "--backend", backend, "--cell", cell, "--layers", "2"]
    assert gradcheck.main([*arguments, "--json"]) == 0
    *lines, verdict, last = capsys.readouterr().out.splitlines()
    assert verdict == "PASS"
    names = [entry.name for entry in table(ModelConfig(11, cell, 2, 9, 5))]
    assert [line.split()[0] for line in lines if line.endswith(" ok")] == names
    (result,) = json.loads(last)["checks"]
    assert (result["precision"], result["backend"], result["passed"]) == (name, backend, True)
    # The two losses are of the same network. Errors of operands, up to 2**-8, have either sign: in a sum less is left.
    assert 0 < abs(result["loss"] - result["exact_loss"]) < 2**-8 * result["exact_loss"]


@pytest.mark.parametrize(("name", "factor"), [("bf16", 1.05), ("float32", 1 + 5e-5)])
@pytest.mark.parametrize("entry", table(CONFIG), ids=lambda entry: entry.name)
def test_one_wrong_parameter_is_detected(entry, name, factor):
    """An error of a few times what rounding may cost, of every kind of parameter."""

    def spoil(gradients):
        gradients[entry.name] *= factor

    report = compare_gradients(CONFIG, in_precision(name), backend="reference", gradient=spoil)
    assert [p.name for p in report.parameters if not p.passed] == [entry.name]


@pytest.mark.parametrize("name", ["bf16", "float32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_gradients_that_are_wrong_everywhere_fail(value, name):
    def spoil(gradients):
        gradients.flat[:] = value

    report = compare_gradients(CONFIG, in_precision(name), backend="reference", gradient=spoil)
    assert not any(p.passed for p in report.parameters)


@needs_bf16
def test_a_gradient_in_float32_is_none_in_bf16(rng):
    """It is near enough to float64, but not to the rounded one: it fails where no rounding cancels by chance."""
    exact = []

    def keep(gradients):
        exact.append(gradients.flat.copy())

    def replace(gradients):
        gradients.flat[:] = exact[0]

    compare_gradients(CONFIG, in_precision("float32"), gradient=keep)
    right = compare_gradients(CONFIG, in_precision("bf16"))
    wrong = compare_gradients(CONFIG, in_precision("bf16"), gradient=replace)
    for p, q in zip(right.parameters, wrong.parameters, strict=True):
        assert p.same_error < q.same_error / 100
        assert q.error < p.allowed / 1000


@pytest.mark.parametrize(("name", "backend"), COMPUTED)
def test_chaotic_networks_pass_because_the_bound_is_measured(name, backend):
    """Weights of std 0.6 in 60 units: gradients explode, and in bf16 even their signs are lost."""
    config = ModelConfig(20, "rnn", 2, 60, 7)
    parameters = initialise(config, np.random.default_rng(3))
    parameters.flat *= 4
    report = compare_gradients(parameters, in_precision(name), seq_len=30, batch=5, backend=backend)
    assert report.passed, f"\n{report}"
    assert max(p.error for p in report.parameters) > (0.5 if name == "bf16" else 1e-5)


def test_parameters_are_not_modified():
    parameters = initialise(ModelConfig(7, "gru", 1, 5, 3, "float64"), np.random.default_rng(0))
    before = parameters.flat.copy()
    assert compare_gradients(parameters, in_precision("bf16"), backend="reference").passed
    assert np.array_equal(parameters.flat, before)


def test_a_processor_without_bf16_is_refused(monkeypatch):
    monkeypatch.setattr("fastlstm.kernels.host.has_bf16", lambda: False)
    with pytest.raises(ConfigError, match="no instructions for bf16"):
        gradcheck.main(["--precision", "bf16"])


def test_both_backends_are_compared_by_default(capsys):
    assert gradcheck.main(["--precision", "float32", "--hidden", "3", "--json"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [check["backend"] for check in json.loads(last)["checks"]] == ["fast", "reference"]
    assert max(map(len, lines)) <= 79


@pytest.mark.parametrize("setting", [{"seq_len": 0}, {"batch": 0}, {"seed": -1}, {"threads": 0}])
def test_sizes_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        compare_gradients(CONFIG, in_precision("float32"), **setting)
