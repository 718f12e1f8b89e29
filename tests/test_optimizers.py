"""Optimizers: kernels against the reference, weight decay and what it spares, values that are not finite."""

import math

import numpy as np
import pytest
from problems import problem

from fastlstm.backend import build
from fastlstm.cells import CELLS
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.kernels.network import FastNetwork
from fastlstm.optimizers import OPTIMIZERS, SLOTS, UpdateRule
from fastlstm.params import Parameters, decay_spans, initialise, table

pytestmark = pytest.mark.usefixtures("share_every_step")

BACKENDS = ["fast", "reference"]
DTYPES = ["float32", "float64"]

#: An optimizer and its settings; all formulas, all kinds of momentum and of weight decay.
CASES = {
    "adagrad": ("adagrad", {}),
    "adagrad, decay": ("adagrad", {"weight_decay": 0.1}),
    "sgd, plain": ("sgd", {"momentum": 0.0, "weight_decay": 0.1}),
    "sgd": ("sgd", {"weight_decay": 0.1}),
    "sgd, nesterov": ("sgd", {"nesterov": True, "weight_decay": 0.1}),
    "rmsprop": ("rmsprop", {"weight_decay": 0.1}),
    "rmsprop, momentum": ("rmsprop", {"momentum": 0.8, "weight_decay": 0.1}),
    "adam": ("adam", {}),
    "adam, decay": ("adam", {"weight_decay": 0.1}),
    "adamw": ("adamw", {"weight_decay": 0.1}),
}
CLIPS = {"none": {}, "value": {"clip_value": 0.5}, "norm": {"clip_norm": 0.5}}

#: Configurations whose spans begin and end within vectors, one that is smaller than a vector, and one of many vectors.
SHAPES = {
    "one of everything": ModelConfig(1, hidden=1, embedding=1, cell="rnn"),
    "odd": ModelConfig(7, hidden=5, embedding=3, layers=2, cell="gru"),
    "large": ModelConfig(65, hidden=37, embedding=19, layers=2),
}


def rule_of(case, step=0, lr=0.01, **clip):
    name, settings = CASES[case]
    return OPTIMIZERS[name].rule(lr, step, **clip, **settings)


def with_dtype(config, dtype):
    return ModelConfig(**config.to_dict() | {"dtype": dtype})


def network(config, backend="fast", threads=1):
    net = build(backend, config, 2, 3, threads)
    if backend == "fast":
        assert net.workers.count == threads
        net.workers.adaptive = False
    return net


def slots_of(config, rule):
    return np.zeros((rule.slots, config.parameter_count), config.dtype)


def updated(net, case, clip="none", steps=7):
    """Parameters and slots after some updates with random gradients, which are the same for every network."""
    config, rng = net.config, np.random.default_rng(3)
    parameters, gradients = initialise(config, rng), Parameters(config)
    slots = slots_of(config, rule_of(case))
    for step in range(steps):
        gradients.flat[:] = rng.standard_normal(gradients.flat.size)
        rule = rule_of(case, step, **CLIPS[clip])
        assert net.update(parameters, gradients, slots, rule, net.norm(gradients)) is True
    return parameters.flat, slots


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_updates_are_the_references(case, dtype, clip, shape):
    config = with_dtype(SHAPES[shape], dtype)
    found, expected = (updated(network(config, backend), case, clip) for backend in BACKENDS)
    # Each of seven steps rounds every value about ten times; RMSprop divides by a root that is 0.1 of the gradient in
    # the first step, which makes roundings ten times larger.
    for values, exact in zip(found, expected, strict=True):
        allowed = 1000 * float(np.finfo(dtype).eps) * np.abs(exact).max(initial=0.0)
        np.testing.assert_allclose(values, exact, rtol=0, atol=allowed)


@pytest.mark.parametrize("shape", ["odd", "large"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_updates_are_the_same_bits_for_any_number_of_workers(case, dtype, shape):
    config = with_dtype(SHAPES[shape], dtype)
    results = [
        [array.tobytes() for array in updated(network(config, threads=threads), case, "norm")] for threads in (1, 2, 4)
    ]
    assert results[1] == results[0]
    assert results[2] == results[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_an_elements_update_does_not_depend_on_its_place(case, dtype):
    """Whether it is in a whole vector or in the part of one at the end of a span; biases, which do not decay."""
    starts, moved = set(), set()
    for embedding in range(1, 18):
        config = ModelConfig(1, hidden=17, embedding=embedding, dtype=dtype)
        parameters, gradients, net = Parameters(config), Parameters(config), network(config)
        slots = slots_of(config, rule_of(case))
        for step in range(3):
            gradients["layers.0.b"] = np.cos(np.arange(4 * 17) + step)
            net.update(parameters, gradients, slots, rule_of(case, step), 0.0)
        (place,) = (entry for entry in table(config) if entry.name == "layers.0.b")
        moved.add(parameters["layers.0.b"].tobytes() + slots[:, place.start : place.stop].tobytes())
        starts.add(place.start % 16)
    assert len(starts) == 16
    assert len(moved) == 1


# Weight decay.


@pytest.mark.parametrize("cell", CELLS)
def test_only_weight_matrices_of_layers_and_output_decay(cell):
    config = ModelConfig(7, cell, layers=2, hidden=5, embedding=3)
    assert [entry.name for entry in table(config) if entry.decays] == ["layers.0.W", "layers.1.W", "output.W"]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 3])
def test_spans_cover_the_parameters_in_turn(cell, layers):
    config = ModelConfig(7, cell, layers, hidden=5, embedding=3)
    spans, at = decay_spans(config), 0
    for number, (start, stop, decays) in enumerate(spans):
        assert (start, decays) == (at, number % 2 == 1)
        at = stop
    assert at == config.parameter_count
    decaying = {k for start, stop, decays in spans if decays for k in range(start, stop)}
    assert decaying == {k for entry in table(config) if entry.decays for k in range(entry.start, entry.stop)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_shrinks_weights_and_spares_biases_and_embeddings(name, cell, backend, rng):
    """Without gradients, decoupled decay takes off lr times it, and that through the gradient acts as a gradient."""
    p, optimizer = problem(rng, cell, layers=2), OPTIMIZERS[name]
    net, gradients = network(p.config, backend), Parameters(p.config)
    moved, expected = (Parameters(p.config, p.parameters.flat.copy()) for _ in range(2))
    rule, plain = (optimizer.rule(0.5, weight_decay=decay) for decay in (0.1, 0.0))
    net.update(moved, gradients, slots_of(p.config, rule), rule)
    for entry in table(p.config):
        if entry.decays and optimizer.decoupled:
            expected[entry.name] *= 1 - 0.5 * 0.1
        elif entry.decays:
            gradients[entry.name] = 0.1 * p.parameters[entry.name]
    net.update(expected, gradients, slots_of(p.config, plain), plain)
    for entry in table(p.config):
        if entry.decays:
            assert ((p.parameters[entry.name] - moved[entry.name]) * p.parameters[entry.name] > 0).all()
            # Some roundings.
            np.testing.assert_allclose(moved[entry.name], expected[entry.name], rtol=0, atol=1e-12)
        else:
            assert moved[entry.name].tobytes() == p.parameters[entry.name].tobytes()


# The first step.

#: The step from slots of zero, as a function of learning rate and gradient.
FIRST = {
    "adagrad": lambda lr, g: -lr * np.sign(g),
    "sgd, plain": lambda lr, g: -lr * g,
    "sgd": lambda lr, g: -lr * g,
    "sgd, nesterov": lambda lr, g: -lr * (1 + 0.9) * g,
    "rmsprop": lambda lr, g: -lr * np.sign(g) / math.sqrt(1 - 0.99),
    "rmsprop, momentum": lambda lr, g: -lr * np.sign(g) / math.sqrt(1 - 0.99),
    "adam": lambda lr, g: -lr * np.sign(g),
    "adamw": lambda lr, g: -lr * np.sign(g),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", FIRST)
def test_the_first_step_has_the_expected_direction_and_size(case, backend, rng):
    name, settings = CASES[case]
    config = with_dtype(SHAPES["odd"], "float64")
    gradients, parameters = Parameters(config), Parameters(config)
    gradients.flat[:] = rng.uniform(0.5, 2.0, gradients.flat.size) * rng.choice([-1, 1], gradients.flat.size)
    rule = OPTIMIZERS[name].rule(0.25, 0, **settings | {"weight_decay": 0.0})
    network(config, backend).update(parameters, gradients, slots_of(config, rule), rule)
    # eps, 1e-8, is up to 2e-8 of the gradient, and up to 2e-7 of what RMSprop divides by.
    np.testing.assert_allclose(parameters.flat, FIRST[case](0.25, gradients.flat), rtol=1e-6)


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_adams_means_are_those_of_a_constant_gradient_at_every_step(beta1):
    """The correction of the bias: with a constant gradient, every step is the learning rate."""
    config = with_dtype(SHAPES["odd"], "float64")
    net, parameters, gradients = network(config), Parameters(config), Parameters(config)
    gradients.flat[:] = -3.0
    slots = slots_of(config, OPTIMIZERS["adam"].rule(0.5))
    for step in range(20):
        before = parameters.flat.copy()
        net.update(parameters, gradients, slots, OPTIMIZERS["adam"].rule(0.5, step, beta1=beta1, beta2=0.99))
        np.testing.assert_allclose(parameters.flat - before, 0.5, rtol=1e-8)  # eps is 3e-9 of the gradient


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", [case for case in CASES if "weight_decay" not in CASES[case][1]])
def test_a_parameter_without_gradients_does_not_move_a_bit(case, backend, rng):
    config = SHAPES["large"]
    parameters, slots = initialise(config, rng), slots_of(config, rule_of(case))
    parameters.flat[::5] = -0.0
    before = parameters.flat.tobytes()
    for step in range(3):
        network(config, backend).update(parameters, Parameters(config), slots, rule_of(case, step))
    assert parameters.flat.tobytes() == before
    assert not slots.any()


# Values that are not finite.

BROKEN = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Update:
    """An update that is finite, to be broken in one place."""

    def __init__(self, config, case, rng):
        self.rule = rule_of(case, clip_value=1.0)  # which hides an infinite gradient from the new parameters
        self.parameters, self.gradients = initialise(config, rng), Parameters(config)
        self.gradients.flat[:] = rng.standard_normal(self.gradients.flat.size)
        self.slots = slots_of(config, self.rule) + 0.5

    def rows(self):
        return [self.parameters.flat, self.gradients.flat, *self.slots]

    def finite(self, net):
        """Whether the network calls it finite; the values stay as they are."""
        parameters = Parameters(net.config, self.parameters.flat.copy())
        return net.update(parameters, self.gradients, self.slots.copy(), self.rule)


@pytest.mark.parametrize(("backend", "threads"), [("fast", 1), ("fast", 2), ("fast", 4), ("reference", 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_one_value_that_is_not_finite_is_reported_wherever_it_is(case, dtype, backend, threads, rng):
    """The first, the middle and the last element of every span, in the gradients, the parameters and each slot."""
    config = with_dtype(SHAPES["odd"], dtype)
    net, update = network(config, backend, threads), Update(config, case, rng)
    places = {k for start, stop, _ in decay_spans(config) for k in (start, (start + stop) // 2, stop - 1)}
    assert update.finite(net) is True
    for row in update.rows():
        for place in sorted(places):
            good = row[place]
            for value in BROKEN.values():
                row[place] = value
                with np.errstate(invalid="ignore"):
                    assert update.finite(net) is False
            row[place] = good
    assert update.finite(net) is True


def test_every_single_element_is_examined(rng):
    config = SHAPES["large"]
    net, update = network(config, threads=2), Update(config, "adam", rng)
    parameters, slots = Parameters(config), slots_of(config, update.rule)
    for place in range(config.parameter_count):
        update.gradients.flat[place] = math.inf
        assert not net.update(parameters, update.gradients, slots, update.rule)
        update.gradients.flat[place] = 1.0
    assert net.update(parameters, update.gradients, slots, update.rule)


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_that_become_infinite_in_the_update_are_reported_and_the_largest_numbers_are_not(backend, rng):
    config = SHAPES["odd"]
    net, largest = network(config, backend), float(np.finfo(np.float32).max)
    for gradient, rule, expected in (
        (1e25, UpdateRule(0.1), False),  # Adagrad's square overflows, and the parameters stay
        (1e25, OPTIMIZERS["sgd"].rule(0.1), True),
        (1e10, OPTIMIZERS["sgd"].rule(1e30), False),  # the parameters overflow
        (largest, OPTIMIZERS["sgd"].rule(0.1), True),
        (largest, OPTIMIZERS["adam"].rule(0.1, clip_norm=1.0), True),
    ):
        parameters, gradients = Parameters(config), Parameters(config)
        gradients.flat[5] = gradient
        with np.errstate(over="ignore"):
            finite = net.update(parameters, gradients, slots_of(config, rule), rule, net.norm(gradients))
        assert finite is expected


def test_a_report_of_more_workers_is_not_that_of_a_later_call_with_fewer(rng):
    config = SHAPES["large"]
    net, update = network(config, threads=4), Update(config, "adagrad", rng)
    update.gradients.flat[:] = math.nan
    assert not update.finite(net)
    update.gradients.flat[:] = 1.0
    net.workers.run = lambda call, kind=0: call(0, 0, 1, 0)
    assert update.finite(net)


@pytest.mark.parametrize(("backend", "threads"), [("fast", 1), ("fast", 2), ("reference", 1)])
@pytest.mark.parametrize("name", ["embedding", "layers.0.W", "layers.1.b", "output.W", "output.b"])
def test_a_training_step_reports_a_broken_parameter_and_the_norm(name, backend, threads, rng):
    p = problem(rng, "lstm", layers=2)
    net = build(backend, p.config, p.seq_len, p.batch, threads)
    for bound in (math.inf, 100.0):
        rule = UpdateRule(0.1, clip_norm=bound)
        parameters, gradients = Parameters(p.config, p.parameters.flat.copy()), Parameters(p.config)
        arguments = (parameters, gradients, p.slots(rule), p.x, p.y)
        result = net.train_step(*arguments, p.state.copy(), 1.0, rule)
        assert result.finite is True
        norm = net.norm(gradients)
        assert result.norm == norm if bound < math.inf else math.isnan(result.norm)
        parameters[name].flat[-1] = math.nan
        assert net.train_step(*arguments, p.state.copy(), 1.0, rule).finite is False


# Declarations and settings.


def test_slots_follow_from_the_optimizer():
    slots = {name: OPTIMIZERS[name].rule(0.1).slots for name in OPTIMIZERS}
    assert slots == {"adagrad": 1, "sgd": 1, "rmsprop": 2, "adam": 2, "adamw": 2}
    assert {rule_of(case).formula for case in CASES} == set(SLOTS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_setting_of_an_optimizer_reaches_its_rule(name):
    usual = TrainConfig(optimizer=name).rule(0.1, 5)
    assert usual == OPTIMIZERS[name].rule(0.1, 5, clip_norm=5.0)
    for setting in OPTIMIZERS[name].defaults:
        value = True if setting == "nesterov" else 0.375
        changed = TrainConfig(optimizer=name, **{setting: value}).rule(0.1, 5)
        assert changed != usual
        assert changed == OPTIMIZERS[name].rule(0.1, 5, clip_norm=5.0, **{setting: value})
    clipped = TrainConfig(optimizer=name, clip_norm=None, clip_value=0.5).rule(0.1)
    assert (clipped.clip_norm, clipped.clip_value) == (math.inf, 0.5)


def test_a_rule_refuses_settings_that_its_optimizer_does_not_have():
    with pytest.raises(TypeError, match="does not have beta1"):
        OPTIMIZERS["sgd"].rule(0.1, beta1=0.9)


def test_one_compiled_step_serves_every_optimizer(rng):
    """Also when the numbers of the first rule are whole numbers."""
    from fastlstm.kernels.step import step

    p = problem(rng, "lstm")
    whole = UpdateRule(1, clip_value=2, eps=1)
    moved = []
    for rule in (whole, UpdateRule(1.0, clip_value=2.0, eps=1.0), rule_of("adam")):
        net, parameters = FastNetwork(p.config, p.seq_len, p.batch, 1), Parameters(p.config, p.parameters.flat.copy())
        gradients = Parameters(p.config)
        net.train_step(parameters, gradients, p.slots(rule), p.x, p.y, p.state.copy(), 0.1, rule)
        net.update(parameters, gradients, p.slots(rule), rule._replace(lr=rule.lr / 2))
        moved.append(parameters.flat.tobytes())
        kinds = len(step.overloads)
    assert moved[0] == moved[1] != moved[2]
    assert len(step.overloads) == kinds
