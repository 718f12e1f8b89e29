"""Each of the checks accepts a correct network and detects a wrong one, whose mistake another may not see."""

import dataclasses
import math

import numpy as np
import pytest

from fastlstm import checking
from fastlstm.cells import CELLS
from fastlstm.checking import complex_step, directional, equivalence, sweep, sweep_chart
from fastlstm.checking.bugs import injected
from fastlstm.checking.centred import OneStepReport
from fastlstm.checking.differences import Loss, four_losses, random_direction, two_losses
from fastlstm.checking.points import float32_unit, point
from fastlstm.checking.rows import ParameterCheck, lines, rows
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.kernels.network import FastNetwork
from fastlstm.params import Parameters, initialise
from fastlstm.reference import network as reference

CONFIG = ModelConfig(7, "lstm", 2, 5, 3)

BACKENDS = ("fast", "reference")


@pytest.fixture
def at(rng):
    return point(CONFIG, 6, 3, rng)


@pytest.fixture
def direction(at, rng):
    return random_direction(at.parameters, rng)


def spoil_gradients(monkeypatch, spoil):
    """Change the gradients of both backends in place."""
    right_reference, right_fast = reference.backward, FastNetwork._backward

    def wrong_reference(parameters, tape, scale, gradients):
        right_reference(parameters, tape, scale, gradients)
        spoil(gradients)

    def wrong_fast(self, parameters, scale, gradients):
        right_fast(self, parameters, scale, gradients)
        spoil(gradients)

    monkeypatch.setattr(reference, "backward", wrong_reference)
    monkeypatch.setattr(FastNetwork, "_backward", wrong_fast)


def slightly_wrong(gradients):
    """An error of 1e-4 in the recurrent weights of one gate of the upper layer."""
    gradients["layers.1.W"][5:, :5] *= 1.0001


# Numerical derivatives.


def test_the_formulas_are_exact_for_the_polynomials_that_they_fit():
    """Two losses for degree 2, four for degree 4: any h gives the derivative at 0, up to some roundings."""
    coefficients = np.array([0.3, -1.2, 0.7, 0.4, -0.5])
    for formula, degree in ((two_losses, 2), (four_losses, 4)):
        fitted = np.polynomial.Polynomial(coefficients[: degree + 1])
        assert formula(fitted, 0.5) == pytest.approx(-1.2, rel=1e-14)
        beyond = fitted + np.polynomial.Polynomial([0] * (degree + 1) + [1])
        assert abs(formula(beyond, 0.5) + 1.2) > 0.01


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mistake", ["overwrites", "drops the scale", "clips at 5"])
def test_a_gradient_is_wrong_if_it_is_not_accumulated_not_scaled_or_clipped(mistake, backend, at, monkeypatch):
    """With one pass of scale 1, and gradients below 5, all three would be right."""

    def broken(right):
        def wrong(*arguments):
            *others, scale, gradients = arguments
            added = Parameters(gradients.config)
            right(*others, 1.0 if mistake == "drops the scale" else scale, added)
            if mistake == "clips at 5":
                np.clip(added.flat, -5, 5, out=added.flat)
            gradients.flat[:] = added.flat + (0 if mistake == "overwrites" else gradients.flat)

        return wrong

    exact = Loss(backend, at).gradient().flat
    assert np.abs(exact).max() < 5
    monkeypatch.setattr(reference, "backward", broken(reference.backward))
    monkeypatch.setattr(FastNetwork, "_backward", broken(FastNetwork._backward))
    assert np.abs(Loss(backend, at).gradient().flat - exact).max() > 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_along_a_line_leave_the_point_as_it_was(backend, at, direction):
    before = at.parameters.flat.copy()
    loss = Loss(backend, at)
    assert loss.along(direction)(0.0) == loss.nats == loss.along_entry(3)(0.0)
    assert loss.along(direction)(0.1) != loss.nats
    assert loss.along_entry(3)(0.1) != loss.nats
    assert loss.along_entry(4)(0.0) == loss.nats
    assert np.array_equal(at.parameters.flat, before)


# The directional check.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("spoil", [slightly_wrong, lambda g: g.flat.fill(np.nan), lambda g: g.flat.fill(0)])
def test_the_directional_check_detects_a_wrong_gradient(backend, spoil, at, direction, monkeypatch):
    assert directional.check_at(at, direction, backend).passed
    spoil_gradients(monkeypatch, spoil)
    report = directional.check_at(at, direction, backend)
    assert not report.passed
    assert report.wrong == ("all parameters",)


# The complex step.


@pytest.mark.parametrize("cell", CELLS)
def test_complex_steps_find_errors_that_centred_differences_cannot(cell, rng, monkeypatch):
    """An error of 1e-10 is below the tolerance of differences, and a hundred times that of complex steps."""
    at = point(ModelConfig(7, cell, 2, 5, 3), 6, 3, rng)
    found = rows(at.parameters.config)
    report = complex_step.check_at(at, found)
    assert report.passed, f"\n{report}"
    gate = at.parameters.config.structure.gates[0]

    def spoil(gradients):
        gradients["layers.1.b"][:5] *= 1 + 1e-10

    spoil_gradients(monkeypatch, spoil)
    assert complex_step.check_at(at, found).wrong == (f"layers.1.b {gate}",)
    assert checking.check(at.parameters, backends=["reference"], per_param=3).reports[0].passed


@pytest.mark.parametrize("cell", CELLS)
def test_complex_steps_accept_layers_that_are_saturated(cell):
    """Their gradients cancel to rounding errors; with a floor relative to each parameter, half of these fail."""
    config = ModelConfig(3, cell, 2, 1, 3)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        parameters = initialise(config, rng)
        parameters.flat *= 4
        report = complex_step.check_at(point(parameters, 1, 1, rng), rows(config))
        assert report.passed, f"\n{report}"


def test_complex_steps_accept_a_gradient_that_is_zero_up_to_rounding(rng):
    """With all parameters 0, and every symbol as often as any other, all terms of the only gradient cancel."""
    config = ModelConfig(3, "lstm", 1, 2, 2)
    at = point(Parameters(config), 3, 5, rng)
    at.y[:] = np.arange(15).reshape(3, 5) % 3
    assert complex_step.check_at(at, rows(config)).passed
    assert sweep.check_at(at, random_direction(at.parameters, rng), "reference").passed


def test_a_gradient_of_nan_fails_the_complex_step(at, monkeypatch):
    spoil_gradients(monkeypatch, lambda gradients: gradients.flat.fill(np.nan))
    report = complex_step.check_at(at, rows(CONFIG))
    assert len(report.wrong) == len(rows(CONFIG))
    assert math.isnan(report.worst)


# The sweep.


def test_the_error_falls_with_the_power_of_each_formula_and_then_rises(at, direction):
    """The order of each method, from the two largest steps of a sweep where rounding does not count yet.

    Truncation errors of the next order, a few percent at h = 0.1, change the slope by less than half.
    """
    errors = {method.name: method.errors for method in sweep.check_at(at, direction, "reference").methods}
    for name, order in (("two losses", 2), ("complex step", 2), ("four losses", 4)):
        assert math.log10(errors[name][0] / errors[name][1]) == pytest.approx(order, abs=0.5)
    for name in ("two losses", "four losses", "float32"):
        assert errors[name][-1] > 100 * min(errors[name])
    # Nothing cancels in a complex step: for the smallest h the error is still some roundings.
    assert errors["complex step"][-1] < 1e-13


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bug_is_a_flat_line_that_fails_the_sweep(backend, at, direction, monkeypatch):
    assert sweep.check_at(at, direction, backend).passed
    spoil_gradients(monkeypatch, slightly_wrong)
    report = sweep.check_at(at, direction, backend)
    judged = {method.name: method.errors for method in report.methods if method.allowed is not None}
    assert report.wrong == tuple(judged)
    four = judged["four losses"][:6]  # with h from 0.1 to 1e-6
    # The truncation of 0.1 and the rounding of 1e-6 are small beside the mistake.
    assert max(four) / min(four) < 1.5
    assert "the gradient is wrong" in str(report)


def test_a_gradient_of_nan_fails_the_sweep(at, direction, monkeypatch):
    spoil_gradients(monkeypatch, lambda gradients: gradients.flat.fill(np.nan))
    assert sweep.check_at(at, direction, "reference").wrong == ("two losses", "four losses", "complex step")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_float32_is_shown_but_not_judged_and_could_not_pass(cell, backend, rng):
    at = point(ModelConfig(7, cell, 2, 5, 3), 6, 3, rng)
    report = sweep.check_at(at, random_direction(at.parameters, rng), backend)
    single = report.methods[-1]
    assert (single.name, single.allowed) == ("float32", None)
    assert single.lowest > 1e-6
    assert "float32 cannot check gradients" in str(report)


def test_the_chart_has_a_panel_for_each_backend_and_names_its_axes(at, direction):
    sweeps = [sweep.check_at(at, direction, backend) for backend in BACKENDS]
    panels = sweep_chart.figure(sweeps).axes
    assert [axes.get_title().split(":")[0] for axes in panels] == list(BACKENDS)
    for axes, one in zip(panels, sweeps, strict=True):
        assert (axes.get_xscale(), axes.get_yscale(), axes.get_xlabel()) == ("log", "log", "step h")
        drawn = {line.get_label(): line.get_ydata() for line in axes.lines}
        assert list(drawn)[:-1] == [method.name for method in one.methods]
        # Errors of 0 and above 10 are moved into the chart.
        assert np.array_equal(drawn["two losses"], np.clip(one.methods[0].errors, 2.0**-52, 10))
    assert panels[0].get_ylabel() == "relative error"


# Fast against reference.


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_backends_agree_and_the_bound_has_room(cell, dtype, rng):
    at = point(ModelConfig(7, cell, 2, 5, 3), 6, 3, rng)
    report = equivalence.check_backends(at, dtype)
    assert report.passed, f"\n{report}"
    assert [one.name for one in report.agreements] == ["nats", "state", *at.parameters]
    # Both are roundings: not 0, and the error allowed is several times the largest.
    assert 0 < report.worst < min(one.allowed for one in report.agreements) / 3


@pytest.mark.parametrize(("dtype", "factor"), [("float64", 1 + 1e-9), ("float32", 1 + 1e-4)])
@pytest.mark.parametrize("name", list(Parameters(CONFIG)))
def test_a_gradient_in_which_the_backends_differ_is_named(name, dtype, factor, at, monkeypatch):
    right = FastNetwork._backward

    def wrong(self, parameters, scale, gradients):
        right(self, parameters, scale, gradients)
        gradients[name] *= gradients[name].dtype.type(factor)

    monkeypatch.setattr(FastNetwork, "_backward", wrong)
    report = equivalence.check_backends(at, dtype)
    assert report.wrong == (name,)
    assert f"WRONG: {name}" in str(report)


def test_a_mistake_in_the_forward_pass_of_one_backend_is_detected(at):
    """Its gradients are right for the wrong loss, so that numerical ones agree."""
    with injected("state-not-carried", CONFIG):
        assert complex_step.check_at(at, rows(CONFIG)).passed
        assert {"nats", "state"} <= set(equivalence.check_backends(at, "float64").wrong)


def test_networks_that_amplify_rounding_errors_agree_because_the_bound_is_measured(rng):
    """Weights of deviation 0.6 in 60 units, over 30 steps: errors are larger than a tame network's may be."""
    config = ModelConfig(20, "rnn", 2, 60, 7)
    parameters = initialise(config, rng)
    parameters.flat *= 4
    at = point(parameters, 30, 5, rng)
    for dtype in ("float64", "float32"):
        report = equivalence.check_backends(at, dtype)
        assert report.passed, f"\n{report}"
    assert report.worst > equivalence.SHARE * float32_unit(at) * math.sqrt(30 * 2)


# Chunks and lanes.


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
def test_chunks_and_lanes_agree_with_the_whole(cell, backend, rng):
    at = point(ModelConfig(7, cell, 2, 5, 3), 3 * 4, 3, rng)
    chunks, lanes = equivalence.check_chunks(at, backend), equivalence.check_lanes(at, backend)
    assert chunks.passed, f"\n{chunks}"
    assert lanes.passed, f"\n{lanes}"
    assert [one.name for one in chunks.agreements] == ["nats", "state"]
    assert [one.name for one in lanes.agreements] == ["nats", "state", *at.parameters]


def test_a_state_that_is_not_carried_fails_the_chunks_and_nothing_else(at):
    with injected("state-not-carried", CONFIG):
        assert equivalence.check_chunks(at, "reference").wrong == ("nats", "state")
        assert equivalence.check_lanes(at, "reference").passed


def test_lanes_that_are_mixed_fail_the_lanes(at):
    with injected("lanes-mixed", CONFIG):
        assert {"nats", "state"} <= set(equivalence.check_lanes(at, "reference").wrong)


@pytest.mark.parametrize("kind", ["chunks", "lanes"])
def test_kernels_whose_carried_state_is_wrong_fail(kind, at, monkeypatch):
    """The fast backend carries out the state of lane 0 for all lanes."""
    right = FastNetwork._forward

    def wrong(self, parameters, x, y, state, nats, step):
        total = right(self, parameters, x, y, state, nats, step)
        state[...] = state[:, :, :1]
        return total

    monkeypatch.setattr(FastNetwork, "_forward", wrong)
    check = {"chunks": equivalence.check_chunks, "lanes": equivalence.check_lanes}[kind]
    assert check(at, "fast").wrong == {"chunks": ("nats",), "lanes": ("state",)}[kind]


def test_a_gradient_that_is_the_mean_over_lanes_fails_the_lanes(at, monkeypatch):
    right = reference.backward

    def mean(parameters, tape, scale, gradients):
        right(parameters, tape, scale / tape.y.shape[1], gradients)

    monkeypatch.setattr(reference, "backward", mean)
    assert equivalence.check_lanes(at, "reference").wrong == tuple(at.parameters)


@pytest.mark.parametrize("check", [equivalence.check_lanes, equivalence.check_chunks])
def test_losses_of_nan_fail(check, at):
    at.parameters.flat[:] = np.nan
    report = check(at, "reference")
    assert {"nats", "state"} <= set(report.wrong)
    assert math.isnan(report.worst)


# All together.


def test_all_checks_run_from_python_and_their_result_is_plain_values():
    report = checking.check(ModelConfig(5, "gru", 1, 3, 2), seq_len=3)
    assert report.passed, f"\n{report}"
    result = report.to_dict()
    assert (result["backends"], result["seq_len"], result["batch"], result["seed"]) == (BACKENDS, 3, 2, 0)
    assert len(result["checks"]) == len(report.reports) == 13
    for values, one in zip(result["checks"], report.reports, strict=True):
        assert (values["check"], values["backend"], values["worst"]) == (one.title, one.backend, one.worst)
        assert values["passed"]


@pytest.mark.parametrize("cell", CELLS)
def test_the_smallest_network_passes(cell):
    """With one symbol the loss and all gradients are 0, and nothing is divided by 0."""
    report = checking.check(ModelConfig(1, cell, 1, 1, 1), seq_len=1, batch=1)
    assert report.passed, f"\n{report}"


def test_parameters_are_not_modified():
    parameters = initialise(ModelConfig(7, "gru", 1, 5, 3), np.random.default_rng(0))
    before = parameters.flat.copy()
    assert checking.check(parameters, per_param=2).passed
    assert np.array_equal(parameters.flat, before)


@pytest.mark.parametrize("setting", [{"seq_len": 0}, {"batch": 0}, {"per_param": 0}, {"seed": -1}, {"threads": 0}])
def test_sizes_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        checking.check(CONFIG, **setting)


def test_what_is_wrong_is_named_once_in_a_few_lines():
    """Two checks that find the same do not repeat it."""
    with injected("transposed-weight", CONFIG):
        report = checking.check(CONFIG, backends=["reference"], per_param=2)
    text = str(report)
    summary = " ".join(text[text.index("\nwrong: ") :].split())
    assert summary.startswith("wrong: centred differences, reference (layers.1.b g, layers.1.b o,")
    assert "complex steps, reference;" in summary
    assert len(text[text.index("\nwrong: ") :].splitlines()) <= 8


@pytest.mark.parametrize(
    ("bug", "wrong"),
    [
        ("gates-swapped", {"layers.0.W[x] o", "layers.0.W[h] o", "layers.0.b o"}),
        ("carry-dropped", set()),
    ],
)
def test_one_time_step_alone_tells_a_gate_from_the_loop_over_time(bug, wrong):
    """In the sequence either makes nearly everything wrong; a right network is not checked again."""
    with injected(bug, ModelConfig(5, "lstm", 1, 3, 2)):
        report = checking.check(ModelConfig(5, "lstm", 1, 3, 2), backends=["reference"], per_param=2)
    (step,) = [one for one in report.reports if isinstance(one, OneStepReport)]
    assert wrong <= set(step.wrong)
    assert step.passed == (not wrong)
    assert not {"layers.0.b i", "layers.0.b f", "output.W"} & set(step.wrong)
    assert (step.to_dict()["check"], step.to_dict()["backend"]) == ("one time step", "reference")
    assert not any(isinstance(one, OneStepReport) for one in checking.check(CONFIG, per_param=1).reports)


def test_a_table_of_nine_layers_of_hundreds_of_units_fits_79_columns():
    row = ParameterCheck("layers.8.W[h]", "f", 250_000, 1.25e-7, 1.2e-10, (999, 1999), -1.2345e-5, -1.2345e-5, False)
    assert max(map(len, lines([row, dataclasses.replace(row, worst=math.nan)]))) <= 79
