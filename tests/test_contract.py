"""Both implementations fulfil the contract of a network: verbs compose to a training step, misuse is refused."""

import math
import re
import threading

import numpy as np
import pytest
from problems import problem

from fastlstm.backend import build
from fastlstm.cells import CELLS
from fastlstm.config import ModelConfig
from fastlstm.drawing import Drawing
from fastlstm.errors import FastlstmError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters

pytestmark = pytest.mark.usefixtures("share_every_step")

BACKENDS = ["fast", "reference"]
DTYPES = ["float32", "float64"]
RULES = {
    "no bound": UpdateRule(0.1),
    "entries": UpdateRule(0.1, clip_value=0.02),
    "norm": UpdateRule(0.1, clip_norm=0.1),
}


def network(p, backend="fast", threads=1, **settings):
    """A network for a problem, in which all workers take part in every call."""
    net = build(backend, p.config, p.seq_len, p.batch, threads, **settings)
    if backend == "fast":
        assert net.workers.count == threads
        net.workers.adaptive = False
    return net


def composed_step(net, parameters, gradients, slots, x, y, state, scale, rule):
    """A training step composed of the small verbs."""
    nats = np.full(x.shape, math.nan)
    total = net.forward(parameters, x, y, state, nats)
    # The order of summation is free: a few hundred roundings of float64.
    assert total == pytest.approx(nats.sum(), rel=1e-6 if net.config.dtype == "float32" else 1e-13)
    gradients.flat[:] = 0
    net.backward(parameters, scale, gradients)
    net.update(parameters, gradients, slots, rule, net.norm(gradients))
    return total


def learned_step(net, parameters, gradients, slots, x, y, state, scale, rule):
    """A training step of the forward pass and the rest."""
    total = net.forward(parameters, x, y, state)
    assert net.learn(parameters, gradients, slots, scale, rule)
    return total


def whole_step(net, *arguments):
    return net.train_step(*arguments).nats


def trained(p, net, step, rule):
    """The results of three training steps, as bytes."""
    parameters = Parameters(p.config, p.parameters.flat.copy())
    gradients, slots, state = Parameters(p.config), p.slots(rule), p.state.copy()
    gradients.flat[:] = math.nan  # they are replaced
    losses = [step(net, parameters, gradients, slots, p.x, p.y, state, 0.01, rule) for _ in range(3)]
    assert losses[2] != losses[0]
    return {
        "losses": np.array(losses).tobytes(), "parameters": parameters.flat.tobytes(),
        "gradients": gradients.flat.tobytes(), "slots": slots.tobytes(), "state": state.tobytes(),
    }  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("backend", "threads"), [("fast", 1), ("fast", 3), ("reference", 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_verbs_compose_to_a_training_step_bit_for_bit(cell, dtype, backend, threads, rule, rng):
    p = problem(rng, cell, layers=2, hidden=19, vocab=23, seq_len=7, batch=5, dtype=dtype)
    whole = trained(p, network(p, backend, threads), whole_step, RULES[rule])
    composed = trained(p, network(p, backend, threads), composed_step, RULES[rule])
    assert trained(p, network(p, backend, threads), learned_step, RULES[rule]) == whole
    assert [name for name in whole if composed[name] != whole[name]] == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_steps_whole_and_composed_can_alternate_in_one_network(backend, rng):
    p = problem(rng, "lstm", layers=2)
    rule, nets = RULES["norm"], [network(p, backend) for _ in range(2)]

    def alternating(net, *arguments):
        alternating.count += 1
        return (whole_step if alternating.count % 2 else composed_step)(net, *arguments)

    alternating.count = 0
    assert trained(p, nets[0], alternating, rule) == trained(p, nets[1], whole_step, rule)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_gives_the_nats_of_each_symbol(dtype, backend, rng):
    """They equal those of a network that reads and predicts one symbol of one lane at a time."""
    p = problem(rng, "lstm", dtype=dtype)
    nats = np.full((p.seq_len, p.batch), math.nan)
    network(p, backend).forward(p.parameters, p.x, p.y, p.state.copy(), nats)
    single = build(backend, p.config, 1, 1, 1)
    for b in range(p.batch):
        state = p.state[:, :, b : b + 1].copy()
        for t in range(p.seq_len):
            x, y = p.x[t : t + 1, b : b + 1].copy(), p.y[t : t + 1, b : b + 1].copy()
            # Some tens of roundings.
            allowed = 100 * float(np.finfo(dtype).eps)
            assert nats[t, b] == pytest.approx(single.forward(p.parameters, x, y, state), rel=allowed, abs=allowed)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_norm_is_that_of_all_gradients_even_beyond_float32(dtype, backend, rng):
    p = problem(rng, "rnn", hidden=90, dtype=dtype)  # several blocks of the fast backend's sum
    net, gradients = network(p, backend), Parameters(p.config)
    for size in (1.0, 1e25):
        gradients.flat[:] = size * rng.standard_normal(gradients.flat.size)
        expected = float(np.linalg.norm(gradients.flat.astype(np.float64)))
        # Ten thousand squares are summed in different orders; each element of a vector first sums some hundred of them
        # in the gradients' dtype.
        assert net.norm(gradients) == pytest.approx(expected, rel=100 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_update_bounds_the_norm_it_is_given(backend, rng):
    """The norm may include other gradients: these are then scaled by the same factor as all of them."""
    p = problem(rng, "rnn")
    net, gradients, rule = network(p, backend), Parameters(p.config), UpdateRule(0.1, clip_norm=1.0)
    gradients.flat[:] = rng.standard_normal(gradients.flat.size)
    for norm, factor in ((0.5, 1.0), (4.0, 0.25)):
        parameters, slots = Parameters(p.config, p.parameters.flat.copy()), p.slots(rule, 0.1)
        net.update(parameters, gradients, slots, rule, norm)
        scaled = factor * gradients.flat
        np.testing.assert_allclose(slots[0], 0.1 + scaled**2, rtol=1e-15)
        moved = p.parameters.flat - 0.1 * scaled / np.sqrt(0.1 + scaled**2 + rule.eps)
        np.testing.assert_allclose(parameters.flat, moved, rtol=0, atol=1e-14)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", ["no bound", "norm"])
def test_a_norm_that_is_no_number_scales_nothing(rule, backend, rng):
    """One bad gradient spoils its own parameter; nor does a norm that was computed before get into another step."""
    p = problem(rng, "rnn")
    net, gradients = network(p, backend), Parameters(p.config)
    gradients.flat[3] = math.nan
    parameters, slots = Parameters(p.config, p.parameters.flat.copy()), p.slots(RULES[rule])
    net.update(parameters, gradients, slots, RULES[rule], net.norm(gradients))
    assert np.flatnonzero(np.isnan(parameters.flat)).tolist() == [3]
    net.train_step(p.parameters, gradients, p.slots(RULES[rule]), p.x, p.y, p.state, 0.01, RULES[rule])
    assert np.isfinite(p.parameters.flat).all()


# Refused arguments. Each case changes one argument of a valid call, and has the message of both backends.


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


def strided(array):
    return np.repeat(array, 2, axis=-1)[..., ::2]


def spoiled_parameters(change):
    """`Parameters` with an invalid flat array: the attribute can be replaced after the class has validated it."""

    def spoil(parameters):
        other = Parameters(parameters.config, parameters.flat.copy())
        other.flat = change(parameters.flat)
        return other

    return spoil


def of_another_shape(parameters):
    """As many parameters, of a model with fewer units and more symbols."""
    other = ModelConfig(vocab_size=15, hidden=8, embedding=6, dtype="float64")
    return Parameters(other, parameters.flat.copy())


def longer(array):
    return np.concatenate([array, array])


def with_entry(value):
    def spoil(ids):
        ids = ids.copy()
        ids.flat[-1] = value
        return ids

    return spoil


def in_single(array):
    return array.astype(np.float32)


#: Argument, change, message, for every verb that has the argument.
WRONG = [
    *(
        (name, *rest)
        for name in ("x", "y", "first")
        for rest in (
            (with_entry(11), "x, y and first must be ids from 0 to 10"),
            (with_entry(-1), "x, y and first must be ids from 0 to 10"),
            (longer, r"must be a C-contiguous array of shape \S+.* and dtype int32, not \(\d+,"),
            (lambda ids: ids.astype(np.int64), "dtype int32, not .* and int64"),
            (strided, "must be a C-contiguous array"),
        )
    ),
    (
        "state",
        longer,
        r"state must be .* of shape \(2, 1, 2, 9\) and dtype float64, not \(4, 1, 2, 9\)",
    ),
    ("state", in_single, "dtype float64, not .* and float32"),
    ("state", strided, "state must be a C-contiguous array"),
    ("state", read_only, "state would be written to, but the array is read-only"),
    ("nats", in_single, "nats must be .* dtype float64, not .* and float32"),
    ("nats", np.transpose, r"nats must be .* shape \(8, 2\) .*, not \(2, 8\)"),
    ("nats", read_only, "nats would be written to"),
    *(
        (name, spoiled_parameters(change), f"{name} must be a C-contiguous array of shape")
        for name in ("parameters", "gradients")
        for change in (longer, in_single, strided)
    ),
    *(
        (name, of_another_shape, f"{name} must be of the network's configuration, not of ModelConfig")
        for name in ("parameters", "gradients")
    ),
    ("slots", longer, r"slots must be a C-contiguous array of shape \(1, \d+\)"),
    ("slots", lambda slots: slots[0], "slots must be a C-contiguous array of shape"),
    ("slots", in_single, "slots must be .* dtype float64, not .* and float32"),
    ("slots", strided, "slots must be a C-contiguous array"),
    ("slots", read_only, "slots would be written to"),
    ("uniforms", in_single, "uniforms must be .* dtype float64, not .* and float32"),
    ("uniforms", lambda uniforms: longer(uniforms.T).T.copy(), r"uniforms must be .* shape \(3, 2\) .*, not \(3, 4\)"),
    ("uniforms", strided, "uniforms must be a C-contiguous array"),
]

#: The arguments of each verb, in order.
VERBS = {
    "forward": ("parameters", "x", "y", "state", "nats"),
    "backward": ("parameters", "scale", "gradients"),
    "norm": ("gradients",),
    "update": ("parameters", "gradients", "slots", "rule", "norm"),
    "learn": ("parameters", "gradients", "slots", "scale", "rule"),
    "train_step": ("parameters", "gradients", "slots", "x", "y", "state", "scale", "rule"),
    "generate": ("parameters", "first", "state", "uniforms", "drawing"),
}
#: Arguments of type `Parameters` that a verb writes to, including gradients.
WRITTEN = {
    "backward": ("gradients",),
    "update": ("parameters",),
    "learn": ("parameters", "gradients"),
    "train_step": ("parameters", "gradients"),
}
WRITTEN_CASES = [(verb, name) for verb, names in WRITTEN.items() for name in names]
CASES = [(verb, *case) for verb, names in VERBS.items() for case in WRONG if case[0] in names]


def good_arguments(verb):
    """A problem and arguments that a verb accepts."""
    p = problem(np.random.default_rng(0), "lstm", seq_len=1 if verb == "generate" else 8)
    rule, gradients = UpdateRule(0.1, clip_norm=1.0), Parameters(p.config)
    gradients.flat[:] = 0.5
    arguments = {
        "parameters": p.parameters, "gradients": gradients, "slots": p.slots(rule), "x": p.x, "y": p.y, "first": p.x[0],
        "state": p.state, "nats": np.zeros(p.x.shape), "scale": 1.0, "rule": rule, "norm": 2.0,
        "uniforms": np.full((3, p.batch), 0.5), "drawing": Drawing(),
    }  # fmt: skip
    return p, {name: arguments[name] for name in VERBS[verb]}


def arrays(arguments):
    """The arrays among arguments, by name."""
    flat = {name: value.flat if isinstance(value, Parameters) else value for name, value in arguments.items()}
    return {name: value for name, value in flat.items() if isinstance(value, np.ndarray)}


def ready(p, verb, backend):
    """A network on which a verb can be called."""
    net = network(p, backend)
    if verb in ("backward", "learn"):
        net.forward(p.parameters, p.x, p.y, p.state.copy())
    return net


def refusal(backend, verb, name, change):
    """The message of a backend for a verb with one argument changed; it must not modify any argument."""
    p, arguments = good_arguments(verb)
    net = ready(p, verb, backend)
    arguments[name] = change(arguments[name])
    before = {name: array.tobytes() for name, array in arrays(arguments).items()}
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        getattr(net, verb)(*arguments.values())
    assert {name: array.tobytes() for name, array in arrays(arguments).items()} == before
    return str(caught.value)


@pytest.mark.parametrize(("verb", "name", "change", "message"), CASES)
def test_both_backends_refuse_wrong_arrays_in_the_same_words(verb, name, change, message):
    said = [refusal(backend, verb, name, change) for backend in BACKENDS]
    assert said[0] == said[1]
    assert re.search(message, said[0])


@pytest.mark.parametrize(("verb", "name"), WRITTEN_CASES)
def test_parameters_that_would_be_written_to_are_refused_if_read_only(verb, name):
    for backend in BACKENDS:
        message = refusal(backend, verb, name, spoiled_parameters(read_only))
        assert message == f"{name} would be written to, but the array is read-only"


@pytest.mark.parametrize("verb", VERBS)
def test_arguments_that_are_only_read_may_be_read_only(verb):
    """Control of the refused cases: without the one changed argument, the call is accepted."""
    written = {"state", "nats", "slots", *WRITTEN.get(verb, ())}
    for backend in BACKENDS:
        p, arguments = good_arguments(verb)
        net = ready(p, verb, backend)
        for name, array in arrays(arguments).items():
            array.setflags(write=name in written)
        getattr(net, verb)(*arguments.values())


def stepwise(net, p, steps):
    """The probabilities of reading symbol by symbol."""
    net.begin(p.parameters, p.state)
    return np.stack([net.advance(p.x[t].copy()) for t in range(steps)])


@pytest.mark.parametrize("table", ["of all symbols", "of the symbols of a step"])
@pytest.mark.parametrize(("backend", "threads"), [("fast", 1), ("fast", 3), ("reference", 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_symbol_by_symbol_the_probabilities_are_those_of_a_forward_pass(
    cell, dtype, backend, threads, table, rng, monkeypatch
):
    if table != "of all symbols":
        monkeypatch.setattr("fastlstm.kernels.workspace.LARGEST_TABLE", 0)
    p = problem(rng, cell, layers=2, hidden=19, vocab=23, seq_len=7, batch=5, dtype=dtype)
    whole, state = network(p, backend, threads), p.state.copy()
    whole.forward(p.parameters, p.x, p.y, p.state)
    p = p._replace(state=state)
    expected, single = whole.probabilities(), build(backend, p.config, 1, p.batch, threads, training=False)
    found = [stepwise(single, p, p.seq_len) for _ in range(2)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(p.state, state)
    if backend == "fast":
        assert np.array_equal(found[0], expected)
    else:  # BLAS may sum products of other shapes in another order
        np.testing.assert_allclose(found[0], expected, rtol=1000 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("backend", BACKENDS)
def test_probabilities_and_steps_need_their_calls_before_them(backend, rng):
    p = problem(rng, "lstm", seq_len=1)
    net = network(p, backend)
    with pytest.raises(RuntimeError, match=r"^probabilities needs a forward pass before it, in the same thread$"):
        net.probabilities()
    stepwise(net, p, 1)
    with pytest.raises(RuntimeError, match=r"^probabilities needs"):
        net.probabilities()
    forward(net, p)
    with pytest.raises(RuntimeError, match=r"^advance needs a call of begin before it, in the same thread$"):
        net.advance(p.x[0])
    backward(net, p)
    with pytest.raises(RuntimeError, match=r"^probabilities needs"):
        net.probabilities()
    with pytest.raises(ValueError, match=r"^begin needs a network that reads one symbol at a time: T = 1, not 2$"):
        build(backend, p.config, 2, p.batch, 1).begin(p.parameters, p.state)
    net.begin(p.parameters, p.state)
    with pytest.raises(ValueError, match="must be ids"):
        net.advance(p.x[0] + 100)


BACKWARD = "backward needs a forward pass before it, in the same thread: it overwrites the activations"


def backward(net, p):
    net.backward(p.parameters, 1.0, Parameters(p.config))


def step(net, p):
    """A training step with other parameters."""
    copy, rule = Parameters(p.config, p.parameters.flat.copy()), UpdateRule(0.1)
    net.train_step(copy, Parameters(p.config), p.slots(rule), p.x, p.y, p.state.copy(), 1.0, rule)


def forward(net, p):
    net.forward(p.parameters, p.x, p.y, p.state.copy())


def refused_forward(net, p):
    with pytest.raises(ValueError, match="must be ids"):
        net.forward(p.parameters, p.x + 100, p.y, p.state.copy())


def forward_of_another_thread(net, p):
    thread = threading.Thread(target=forward, args=(net, p))
    thread.start()
    thread.join()


def generated(net, p):
    net.generate(p.parameters, p.x[0], p.state.copy(), np.full((3, p.batch), 0.5), Drawing())


def read(net, p):
    net.read(p.parameters, p.x, p.y, p.state.copy(), np.empty(p.x.shape))


def begun(net, p):
    net.begin(p.parameters, p.state)


def updated(net, p):
    copy, rule = Parameters(p.config, p.parameters.flat.copy()), UpdateRule(0.1)
    net.update(copy, Parameters(p.config), p.slots(rule), rule)


#: The calls before a backward pass that is refused, because there is no forward pass for it.
BEFORE = {
    "nothing": [],
    "a backward pass": [forward, backward],
    "a training step": [forward, step],
    "a forward pass that was refused": [forward, refused_forward],
    "drawing symbols": [forward, generated],
    "reading": [forward, read],
    "the beginning of reading symbol by symbol": [forward, begun],
    "an update": [forward, updated],
    "another thread's forward pass": [forward, forward_of_another_thread],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("before", BEFORE)
def test_every_backward_pass_needs_a_forward_pass_before_it(before, backend, rng):
    p = problem(rng, "lstm", seq_len=1)
    net = network(p, backend)
    for use in BEFORE[before]:
        use(net, p)
    with pytest.raises(RuntimeError, match=f"^{BACKWARD}$"):
        backward(net, p)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("between", [forward, read, step, generated, updated])
def test_nothing_else_may_be_called_between_steps_of_reading_symbol_by_symbol(between, backend, rng):
    p = problem(rng, "lstm", seq_len=1)
    net = network(p, backend)
    expected = stepwise(net, p, 1)
    between(net, p)
    with pytest.raises(RuntimeError, match=r"^advance needs a call of begin"):
        net.advance(p.x[0])
    assert np.array_equal(stepwise(net, p, 1), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_id_that_is_refused_between_steps_of_reading_changes_nothing(backend, rng):
    p = problem(rng, "lstm", seq_len=2)
    net = build(backend, p.config, 1, p.batch, 1, training=False)
    expected = stepwise(net, p, 2)
    net.begin(p.parameters, p.state)
    net.advance(p.x[0].copy())
    with pytest.raises(ValueError, match="must be ids"):
        net.advance(p.x[1] + 100)
    assert np.array_equal(net.advance(p.x[1].copy()), expected[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_of_a_forward_pass_may_be_filled_anew_before_the_backward_pass(backend, rng):
    p = problem(rng, "lstm")
    net, expected, gradients = network(p, backend), Parameters(p.config), Parameters(p.config)
    forward(net, p)
    net.backward(p.parameters, 1.0, expected)
    x, y, state = p.x.copy(), p.y.copy(), p.state.copy()
    net.forward(p.parameters, x, y, state)
    for array in (x, y, state):
        array[...] = 0
    net.backward(p.parameters, 1.0, gradients)
    assert np.array_equal(gradients.flat, expected.flat)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_without_training_has_no_backward_pass(backend, rng):
    p = problem(rng, "lstm")
    net = network(p, backend, training=False)
    forward(net, p)
    with pytest.raises(RuntimeError, match=f"^{BACKWARD}$"):
        backward(net, p)
    with pytest.raises(RuntimeError, match=r"^a network built without training has no buffers for a backward pass$"):
        step(net, p)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_a_network_of_one_time_step_draws_symbols(backend, rng):
    p = problem(rng, "lstm", seq_len=8)
    with pytest.raises(ValueError, match=r"^generate needs a network that reads one symbol at a time: T = 1, not 8$"):
        generated(network(p, backend), p)


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_temperature_that_is_none_is_refused(backend, temperature, rng):
    p = problem(rng, "lstm", seq_len=1)
    state = p.state.copy()
    with pytest.raises(ValueError, match=r"^temperature must be a finite number of at least 0, not "):
        network(p, backend).generate(p.parameters, p.x[0], state, np.full((3, p.batch), 0.5), Drawing(temperature))
    assert np.array_equal(state, p.state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_drawing_no_symbol_changes_nothing(backend, rng):
    p = problem(rng, "lstm", seq_len=1)
    state = p.state.copy()
    ids = network(p, backend).generate(p.parameters, p.x[0], state, np.empty((0, p.batch)), Drawing())
    assert (ids.shape, ids.dtype) == ((0, p.batch), np.int32)
    assert np.array_equal(state, p.state)


@pytest.mark.parametrize("temperature", [0, 1.0])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_drawn_from_logits_that_are_not_finite(backend, temperature, rng):
    p = problem(rng, "lstm", seq_len=1)
    p.parameters["output.b"][...] = math.nan
    with pytest.raises(FastlstmError, match=r"^the model's logits are not finite numbers, so no symbol can be drawn"):
        network(p, backend).generate(p.parameters, p.x[0], p.state, np.full((3, p.batch), 0.5), Drawing(temperature))
