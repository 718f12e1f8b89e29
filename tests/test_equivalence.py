"""The fast backend gives the results of the reference, buffer by buffer and gradient by gradient, for any shape."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from problems import problem, tape_buffers

from fastlstm.cells import CELLS
from fastlstm.config import ModelConfig
from fastlstm.drawing import Drawing
from fastlstm.kernels import workspace
from fastlstm.kernels.network import FastNetwork
from fastlstm.kernels.step import step
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.reference import network as reference
from fastlstm.reference.network import ReferenceNetwork

pytestmark = pytest.mark.usefixtures("share_every_step")


def bound(p):
    """Maximum error, relative to the largest element of a buffer.

    float64: a fixed bound; a few thousand roundings are a thousand times smaller.
    float32: an element is a sum of K products with K roundings, which as a random walk amount to sqrt(K) roundings; the
    functions add about 5 units in the last place; and the errors of T*L such steps in sequence are again a random walk.
    The bound is eight standard deviations of that, with K the longest of all sums.
    """
    if p.config.dtype == "float64":
        return 1e-10
    config = p.config
    K = max(config.embedding + config.hidden, config.vocab_size, p.seq_len * p.batch)
    return 8 * float(np.finfo(np.float32).eps) * (math.sqrt(K) + 5) * math.sqrt(p.seq_len * config.layers)


def fast_run(p, threads):
    """All results of one forward and backward pass of the fast backend, by name."""
    fast = FastNetwork(p.config, p.seq_len, p.batch, threads)
    assert fast.workers.count == threads
    state, gradients = p.state.copy(), Parameters(p.config)
    loss = fast.forward(p.parameters, p.x, p.y, state)
    found = fast.activations() | {"loss": np.array(loss), "state": state}
    fast.backward(p.parameters, 0.5, gradients)
    return found | {f"d {name}": value for name, value in gradients.items()}


def reference_run(p):
    """The same from the reference, in float64."""
    p = p.astype("float64")
    tape = reference.forward(p.parameters, p.x, p.y, p.state)
    gradients = Parameters(p.config)
    reference.backward(p.parameters, tape, 0.5, gradients)
    found = tape_buffers(tape, p.config.structure) | {"loss": tape.nats.sum(), "state": reference.final_state(tape)}
    return found | {f"d {name}": value for name, value in gradients.items()}


def assert_same(found, expected, allowed):
    assert set(found) == set(expected)
    for name, exact in expected.items():
        assert found[name].shape == exact.shape, name
        error, largest = np.abs(found[name] - exact).max(), np.abs(exact).max()
        assert error <= allowed * largest, f"{name}: off by {error:.1e}, allowed {allowed:.1e} of {largest:.1e}"


shapes = st.fixed_dictionaries(
    {
        "cell": st.sampled_from(list(CELLS)),
        "layers": st.integers(1, 3),
        "hidden": st.integers(1, 45),
        "embedding": st.integers(1, 40),
        "vocab": st.integers(1, 300),
        "seq_len": st.integers(1, 40),
        "batch": st.integers(1, 13),
        "symbols": st.none() | st.integers(1, 20),
    }
)
campaign = settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@campaign
@given(shape=shapes, threads=st.sampled_from([1, 2, 3]), seed=st.integers(0, 1000))
# One lane; exactly one vector and one tile in every dimension; one more than that.
@example(shape={"cell": "lstm", "hidden": 33, "seq_len": 40, "batch": 1}, threads=2, seed=0)
@example(shape={"cell": "lstm", "hidden": 8, "embedding": 8, "vocab": 8, "batch": 3}, threads=1, seed=0)
@example(shape={"cell": "gru", "hidden": 33, "seq_len": 40, "batch": 1}, threads=2, seed=0)
@example(shape={"cell": "gru", "layers": 2, "hidden": 8, "embedding": 8, "vocab": 8, "batch": 3}, threads=1, seed=0)
@example(shape={"cell": "rnn", "layers": 3, "hidden": 17, "embedding": 17, "vocab": 17, "batch": 7}, threads=3, seed=0)
def test_every_buffer_and_gradient_is_the_references(dtype, shape, threads, seed):
    p = problem(np.random.default_rng(seed), **shape, dtype=dtype)
    assert_same(fast_run(p, threads), reference_run(p), bound(p))


#: More than one block in the kernels: rows of a weight gradient (128), rows of the output layer (24 or 48), depth of a
#: product (512; in the backward pass that is N = G H), and elements of the norm (4096).
LARGE = {
    "reduction": ("lstm", 2, 130, 31, 65, 70, 50),
    "reduction-rnn": ("rnn", 2, 131, 33, 97, 45, 19),
    "depth": ("lstm", 2, 523, 7, 29, 3, 4),
    "depth-rnn": ("rnn", 2, 1033, 530, 1031, 2, 2),
    "embedding": ("lstm", 1, 7, 519, 601, 5, 9),
    "reduction-gru": ("gru", 2, 130, 31, 65, 70, 50),
    "depth-gru": ("gru", 2, 523, 7, 29, 3, 4),
}


def large(name, rng):
    """The problem of `LARGE` with a name, in float32."""
    cell, layers, hidden, embedding, vocab, seq_len, batch = LARGE[name]
    return problem(
        rng, cell, layers=layers, hidden=hidden, embedding=embedding, vocab=vocab, seq_len=seq_len, batch=batch,
        dtype="float32",
    )  # fmt: skip


@pytest.mark.parametrize("name", LARGE)
def test_shapes_beyond_every_block_are_the_references(name, rng):
    p = large(name, rng)
    expected = reference_run(p)
    for precise in (p, p.astype("float64")):
        assert_same(fast_run(precise, 2), expected, bound(precise))


@pytest.mark.parametrize("symbols", [1, 3, None])
def test_symbols_that_do_not_occur_have_no_gradient(symbols, rng):
    p = problem(rng, "lstm", vocab=40, seq_len=90, symbols=symbols)
    gradient = fast_run(p, 1)["d embedding"]
    assert set(np.flatnonzero(np.any(gradient != 0, axis=1))) == set(p.x.flat)
    assert_same(fast_run(p, 1), reference_run(p), bound(p))


def test_a_workspace_forgets_the_symbols_of_the_last_sequence(rng):
    """The second sequence has other symbols than the first; the first leaves nothing in its gradient."""
    p = problem(rng, "lstm", vocab=30, symbols=5)
    q = p._replace(x=(p.x + 7) % 30)
    fast, gradients = FastNetwork(p.config, p.seq_len, p.batch, 1), Parameters(p.config)
    for sequence in (p, q):
        gradients.flat[:] = 0
        fast.forward(p.parameters, sequence.x, p.y, p.state.copy())
        fast.backward(p.parameters, 0.5, gradients)
    expected = reference_run(q)
    assert_same(dict(gradients), {name: expected[f"d {name}"] for name in gradients}, bound(p))


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("cell", CELLS)
def test_backward_accumulates(cell, backend, rng):
    """Two passes give twice the gradient of one, and the scale multiplies it."""
    p = problem(rng, cell, layers=2)
    net, once, twice = backend(p.config, p.seq_len, p.batch, 1), Parameters(p.config), Parameters(p.config)
    for gradients, scale in ((once, 1.0), (twice, 0.5), (twice, 1.5)):
        net.forward(p.parameters, p.x, p.y, p.state.copy())
        net.backward(p.parameters, scale, gradients)
    # The difference is a few roundings.
    np.testing.assert_allclose(twice.flat, 2 * once.flat, rtol=0, atol=1e-13 * np.abs(once.flat).max())


CLIPS = {"none": {}, "value": {"clip_value": 0.02}, "norm": {"clip_norm": 0.1}}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("cell", CELLS)
def test_training_steps_are_the_references(cell, clip, dtype, threads, rng):
    """Three steps: losses, parameters, gradients, slots and state.

    The slots start at 0.1, as after some training. From zero, Adagrad's first step divides a gradient by itself, so
    that the rounding error of a gradient near 0 would become a step of any size.
    """
    p = problem(rng, cell, layers=2, hidden=37, vocab=41, seq_len=20, batch=7, dtype=dtype)
    rule = UpdateRule(0.1, **CLIPS[clip])
    nets = FastNetwork(p.config, p.seq_len, p.batch, threads), ReferenceNetwork(p.config, p.seq_len, p.batch)
    found, sizes = [], []
    for net in nets:
        parameters = Parameters(p.config, p.parameters.flat.copy())
        gradients, slots = Parameters(p.config), p.slots(rule, 0.1)
        gradients.flat[:] = math.nan  # a step clears them first
        state = p.state.copy()
        scale = 1 / p.x.size
        steps = [net.train_step(parameters, gradients, slots, p.x, p.y, state, scale, rule) for _ in range(3)]
        losses = [step.nats for step in steps]
        size = np.abs(gradients.flat).max() if clip == "value" else np.linalg.norm(gradients.flat)
        sizes.append(size)
        found.append(
            {"losses": np.array(losses), "p": parameters.flat, "g": gradients.flat, "m": slots, "state": state}
        )
    # Both sides round in `dtype` here; a bound of eight standard deviations is large enough for that.
    assert_same(found[0], found[1], bound(p))
    for limit in CLIPS[clip].values():
        # The gradients before clipping exceed the bound; else this would not test clipping.
        assert min(sizes) > 1.1 * limit


def test_a_norm_beyond_float32_still_clips(rng):
    """Squares of finite gradients may overflow float32: the norm is a float64, as in the reference."""
    p = problem(rng, "lstm", dtype="float32")
    rule, moved = UpdateRule(lr=0.1, clip_norm=1.0), []
    for backend in (FastNetwork, ReferenceNetwork):
        net, parameters = backend(p.config, p.seq_len, p.batch, 1), Parameters(p.config, p.parameters.flat.copy())
        gradients = Parameters(p.config)
        net.train_step(parameters, gradients, p.slots(rule), p.x, p.y, p.state.copy(), 1e25, rule)
        assert np.isfinite(gradients.flat).all()
        assert np.abs(gradients.flat).max() > 1e20
        moved.append(parameters.flat - p.parameters.flat)
    assert np.abs(moved[0]).max() > 0.01
    np.testing.assert_allclose(moved[0], moved[1], rtol=0, atol=1e-5)  # some hundred roundings of float32


def test_read_only_arguments_are_not_written_and_need_no_further_compilation(rng):
    p = problem(rng, "lstm")
    net = FastNetwork(p.config, p.seq_len, p.batch, 1)
    expected, kinds = net.forward(p.parameters, p.x, p.y, p.state.copy()), len(step.overloads)
    fresh = FastNetwork(p.config, p.seq_len, p.batch, 1)
    for array in (p.x, p.y, p.parameters.flat):
        array.setflags(write=False)
    assert fresh.forward(p.parameters, p.x, p.y, p.state.copy()) == expected
    assert len(step.overloads) == kinds


@pytest.mark.parametrize("training", [False, True])  # with a table of the distinct symbols, and of all
@pytest.mark.parametrize("temperature", [0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("cell", CELLS)
def test_generated_symbols_are_the_references(cell, temperature, training, rng):
    p = problem(rng, cell, layers=2, hidden=21, vocab=37, batch=3)
    p.parameters.flat *= 2  # large enough that the most probable symbol is not always the same
    uniforms = rng.random((80, 3))
    drawn = []
    for net in (FastNetwork(p.config, 1, 3, 1, training=training), ReferenceNetwork(p.config, 1, 3)):
        state = p.state.copy()
        drawn.append((net.generate(p.parameters, p.x[0], state, uniforms, Drawing(temperature)), state))
    (fast_ids, fast_state), (ids, state) = drawn
    assert np.array_equal(fast_ids, ids)
    np.testing.assert_allclose(fast_state, state, rtol=0, atol=1e-10)
    assert len(np.unique(ids)) > 3  # not always the same symbol


def test_a_vocabulary_too_large_for_a_table_gives_the_same_samples(rng, monkeypatch):
    p = problem(rng, "lstm", batch=2)
    uniforms = rng.random((40, 2))
    drawn = []
    for largest in (workspace.LARGEST_TABLE, 0):
        monkeypatch.setattr(workspace, "LARGEST_TABLE", largest)
        net = FastNetwork(p.config, 1, 2, 1, training=False)
        assert net.plan.all_symbols == (largest > 0)
        drawn.append(net.generate(p.parameters, p.x[0], p.state.copy(), uniforms, Drawing()))
    assert np.array_equal(*drawn)


def test_float32_samples_follow_the_distribution(rng):
    """One step from one state in 20,000 lanes: frequencies equal probabilities within five standard deviations."""
    p = problem(rng, "rnn", vocab=7, batch=1, seq_len=1, dtype="float32")
    lanes = 20_000
    state = np.repeat(p.state, lanes, axis=2)
    net = FastNetwork(p.config, 1, lanes, 1, training=False)
    ids = net.generate(p.parameters, np.repeat(p.x[0], lanes), state, rng.random((1, lanes)), Drawing(0.7))
    q = reference.forward(p.parameters, p.x, p.y, p.state).probabilities[0, 0].astype(float) ** (1 / 0.7)
    q /= q.sum()
    frequency = np.bincount(ids[0], minlength=7) / lanes
    assert np.all(np.abs(frequency - q) < 5 * np.sqrt(q * (1 - q) / lanes))


def test_nan_in_the_parameters_propagates_to_the_loss(rng):
    """On the fast backend too: no clamp removes it."""
    for dtype in ("float32", "float64"):
        p = problem(rng, "lstm", dtype=dtype)
        p.parameters["layers.0.W"][3, 2] = math.nan
        net = FastNetwork(p.config, p.seq_len, p.batch, 1)
        assert math.isnan(net.forward(p.parameters, p.x, p.y, p.state.copy()))


def test_a_network_for_sampling_has_no_buffers_of_a_backward_pass():
    config = ModelConfig(50, "lstm", 2, 64, 32)
    sizes = [FastNetwork(config, 1, 1, 1, training=training).buffers.arena.size for training in (True, False)]
    assert sizes[1] < sizes[0]
