"""In bf16 the kernels round what the reference rounds, where it rounds it, and keep all other promises.

Both compute from the same rounded operands, so their results differ by the order of float32 sums only: some 1e-7. But
an operand that is itself a result, such as h, may lie so near the middle between two bfloat16 numbers that this decides
to which it is rounded. Such a flip is a difference of one unit, 2**-8 to 2**-7 of the number, which then spreads.

A float32 error of 2 or 3 units, 2**-22 of the number, decides in a part of at most 2**-22 / 2**-8 of all roundings: one
in 16,000. Small problems have some hundred roundings, so most of them have no flip: the median over a few problems is
held to the bound of float32, which shows a missing rounding at once
(`test_a_rounding_that_is_left_out_is_noticed`). Large problems have flips, and are held to a bound in norm
(`flipped_bound`).
"""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from problems import problem, tape_buffers
from runs_to_resume import IDS, VOCAB, run_config, untrained
from test_equivalence import LARGE, bound, campaign, large, shapes

from fastlstm import run_checkpoint
from fastlstm.cells import CELLS
from fastlstm.config import ModelConfig
from fastlstm.drawing import Drawing
from fastlstm.dropout import Dropout
from fastlstm.errors import ConfigError, FastlstmError
from fastlstm.kernels.host import has_bf16
from fastlstm.kernels.network import FastNetwork
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.reference import network as reference
from fastlstm.reference.dropout import factors
from fastlstm.reference.network import ReferenceNetwork
from fastlstm.reference.rounding import exact, to_bf16
from fastlstm.trainer import Trainer

pytestmark = [
    pytest.mark.skipif(not has_bf16(), reason="this processor has no dot products of bfloat16 numbers"),
    pytest.mark.usefixtures("share_every_step"),
]

#: Problems over whose errors the median is taken: with a flip in one of twenty problems, it is that of a problem
#: without a flip but once in 5,000 cases.
PROBLEMS = 7

#: A step for the masks of dropout, and the factor of the loss.
STEP, SCALE = 5, 0.5


def fast_run(p, threads=1, dropout=None):
    """All results of a forward and backward pass of the kernels in bf16, by name."""
    fast = FastNetwork(p.config, p.seq_len, p.batch, threads, dropout=dropout, bf16=True)
    assert fast.workers.count == threads
    state, gradients = p.state.copy(), Parameters(p.config)
    loss = fast.forward(p.parameters, p.x, p.y, state, step=STEP if dropout else None)
    found = fast.activations() | {"loss": np.array(loss), "state": state}
    fast.backward(p.parameters, SCALE, gradients)
    return found | {f"d {name}": value for name, value in gradients.items()}


def reference_run(p, dropout=None, rounded=to_bf16):
    """The same from the reference, with sums in float64."""
    masks = dropout and masks_of(dropout, p)
    p = p.astype("float64")
    tape = reference.forward(p.parameters, p.x, p.y, p.state, masks, rounded)
    gradients = Parameters(p.config)
    reference.backward(p.parameters, tape, SCALE, gradients)
    found = tape_buffers(tape, p.config.structure) | {"loss": tape.nats.sum(), "state": reference.final_state(tape)}
    return found | {f"d {name}": value for name, value in gradients.items()}


def masks_of(dropout, p):
    """The factors of dropout, as float32 numbers, like those of the kernels."""
    config = p.config
    units = [config.embedding, *config.layers * [config.hidden]]
    return [
        factors(dropout, place, config.layers, STEP, (p.seq_len, p.batch, n), np.float32) if threshold else None
        for place, (n, threshold) in enumerate(zip(units, dropout.thresholds(config.layers), strict=True))
    ]


def excess(found, expected, allowed):
    """The largest error of any result, as a multiple of what is allowed relative to the result's largest element."""
    assert set(found) == set(expected)
    return max(
        np.abs(found[name] - ref).max() / (allowed * max(np.abs(ref).max(), 1e-30)) for name, ref in expected.items()
    )


SMALL = {
    "one lane": {"hidden": 7, "embedding": 5, "vocab": 6, "seq_len": 5, "batch": 1},
    "few symbols": {"hidden": 9, "embedding": 3, "vocab": 4, "seq_len": 3, "batch": 5},
    "many symbols": {"hidden": 5, "embedding": 17, "vocab": 37, "seq_len": 3, "batch": 3},
    "two layers": {"layers": 2, "hidden": 7, "embedding": 4, "vocab": 9, "seq_len": 4, "batch": 2},
    "three layers": {"layers": 3, "hidden": 5, "embedding": 2, "vocab": 7, "seq_len": 3, "batch": 3},
    "more than a vector": {"hidden": 17, "embedding": 33, "vocab": 19, "seq_len": 3, "batch": 3},
}
DROPOUTS = {
    "none": None,
    "embedding": Dropout(0.4),
    "layers": Dropout(0.0, 0.4, 0.0),
    "output": Dropout(0.0, 0.0, 0.4),
    "all, held": Dropout(0.2, 0.3, 0.4, held=True),
}


def small(cell, shape, seed):
    return problem(np.random.default_rng(seed), cell, **SMALL[shape], dtype="float32")


@pytest.mark.parametrize("dropout", DROPOUTS)
@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("cell", CELLS)
def test_every_buffer_and_gradient_is_the_references_but_for_rare_flips(cell, shape, dropout):
    errors = []
    for seed in range(PROBLEMS):
        p = small(cell, shape, seed)
        found, expected = fast_run(p, dropout=DROPOUTS[dropout]), reference_run(p, DROPOUTS[dropout])
        errors.append(excess(found, expected, bound(p)))
    assert np.median(errors) <= 1, errors


class Skipping:
    """Rounds at every call but one."""

    def __init__(self, skipped):
        self.calls, self.skipped = 0, skipped

    def __call__(self, x):
        self.calls += 1
        return x if self.calls - 1 == self.skipped else to_bf16(x)


@pytest.mark.parametrize("dropout", ["none", "embedding"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_rounding_that_is_left_out_is_noticed(cell, dropout):
    """Negative control: of the reference, each one in turn; the median error is then at least ten times the bound."""
    count = Skipping(-1)
    reference_run(small(cell, "two layers", 0), DROPOUTS[dropout], count)
    assert count.calls > 25
    problems = [small(cell, "two layers", seed) for seed in range(PROBLEMS)]
    runs = [fast_run(p, dropout=DROPOUTS[dropout]) for p in problems]
    for place in range(count.calls):
        pairs = zip(problems, runs, strict=True)
        errors = [excess(run, reference_run(p, DROPOUTS[dropout], Skipping(place)), bound(p)) for p, run in pairs]
        assert np.median(errors) > 10, place


def flipped_bound(p, ref, unrounded):
    """Largest norm of the difference from a result of the reference, when operands may be rounded the other way.

    A flip changes an operand by one unit; rounding it, by up to half a unit. If every second operand flipped, kernels
    and reference would be two independent roundings of the unrounded computation, sqrt(2) times as far from each other
    as one is from it. The bound is twice that distance. Where it is small by chance, as it may be in a result of few
    elements: twice 2**-8, the largest relative error of one rounding, which is a flip. Beyond this, float32.
    """
    size = np.linalg.norm(ref)
    return 2 * max(np.linalg.norm(ref - unrounded), 2.0**-8 * size) + bound(p) * size


def assert_near(found, p):
    expected, unrounded = reference_run(p), reference_run(p, rounded=exact)

    def together(results):
        """All gradients are one result: in a small one alone, all terms may cancel."""
        gradients = np.concatenate([value.ravel() for name, value in results.items() if name.startswith("d ")])
        return {name: value for name, value in results.items() if not name.startswith("d ")} | {"gradients": gradients}

    found, expected, unrounded = together(found), together(expected), together(unrounded)
    for name, ref in expected.items():
        assert found[name].shape == ref.shape, name
        error, allowed = np.linalg.norm(found[name] - ref), flipped_bound(p, ref, unrounded[name])
        assert error <= allowed, f"{name}: off by {error:.1e}, allowed {allowed:.1e}"


@campaign
@given(shape=shapes, threads=st.sampled_from([1, 2, 3]), seed=st.integers(0, 1000))
@example(shape={"cell": "lstm", "hidden": 33, "seq_len": 40, "batch": 1}, threads=2, seed=0)
@example(shape={"cell": "gru", "layers": 2, "hidden": 32, "embedding": 32, "vocab": 32, "batch": 4}, threads=1, seed=0)
@example(shape={"cell": "rnn", "layers": 3, "hidden": 33, "embedding": 33, "vocab": 33, "batch": 7}, threads=3, seed=0)
def test_any_shape_is_near_the_reference(shape, threads, seed):
    p = problem(np.random.default_rng(seed), **shape, dtype="float32")
    assert_near(fast_run(p, threads), p)


@pytest.mark.parametrize("name", LARGE)
def test_shapes_beyond_every_block_are_near_the_reference(name, rng):
    p = large(name, rng)
    assert_near(fast_run(p, 2), p)


def test_a_kernel_in_float32_is_not_that_of_bf16(rng):
    """The bound of float32 is far below the effect of rounding."""
    p = problem(rng, "lstm", dtype="float32")
    net = FastNetwork(p.config, p.seq_len, p.batch, 1)
    loss = net.forward(p.parameters, p.x, p.y, p.state.copy())
    assert excess({"loss": np.array(loss)}, {"loss": reference_run(p)["loss"]}, bound(p)) > 1
    assert excess({"loss": np.array(loss)}, {"loss": reference_run(p, rounded=exact)["loss"]}, bound(p)) <= 1


CLIPS = {"none": {}, "norm": {"clip_norm": 0.1}}


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("cell", CELLS)
def test_training_steps_are_the_references_but_for_rare_flips(cell, clip):
    """Two steps: losses, parameters, gradients, slots and state; the slots start at 0.1, as after some training."""
    rule, errors = UpdateRule(0.1, **CLIPS[clip]), []
    for seed in range(PROBLEMS):
        p, found = small(cell, "two layers", seed), []
        for backend in (FastNetwork, ReferenceNetwork):
            net = backend(p.config, p.seq_len, p.batch, 1, bf16=True)
            parameters, gradients = Parameters(p.config, p.parameters.flat.copy()), Parameters(p.config)
            slots, state = p.slots(rule, 0.1), p.state.copy()
            losses = [
                net.train_step(parameters, gradients, slots, p.x, p.y, state, 1 / p.x.size, rule).nats for _ in range(2)
            ]
            found.append(
                {"losses": np.array(losses), "p": parameters.flat, "g": gradients.flat, "m": slots, "state": state}
            )
        assert np.linalg.norm(found[0]["g"]) > 1.1 * 0.1  # else this would not test clipping
        errors.append(excess(*found, bound(p)))
    assert np.median(errors) <= 1, errors


@pytest.mark.parametrize("training", [False, True])  # with a table of the distinct symbols, and of all
@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("cell", CELLS)
def test_generated_symbols_follow_the_references_distribution(cell, temperature, training, rng):
    """The reference reads the symbols that were drawn, so that a flip does not end the comparison.

    2**-6 of probability is allowed: four units of bfloat16, in logits of order 1.
    """
    p = problem(rng, cell, layers=2, hidden=21, vocab=37, batch=3, dtype="float32")
    p.parameters.flat *= 2  # large enough that the most probable symbol is not always the same
    uniforms, state = rng.random((60, 3)), p.state.copy()
    net = FastNetwork(p.config, 1, 3, 1, training=training, bf16=True)
    ids = net.generate(p.parameters, p.x[0], state, uniforms, Drawing(temperature))
    followed, read = p.astype("float64").state, p.x[:1]
    for drawn, u in zip(ids, uniforms, strict=True):
        tape = reference.forward(p.parameters.astype("float64"), read, read, followed, rounded=to_bf16)
        followed, read = reference.final_state(tape), drawn[None]
        probabilities = tape.probabilities[0]
        if temperature == 0:
            assert np.all(np.take_along_axis(probabilities, drawn[:, None], 1)[:, 0] > probabilities.max(1) - 2.0**-6)
            continue
        q = probabilities ** (1 / temperature)
        upper = np.cumsum(q / q.sum(1, keepdims=True), axis=1)
        upper = np.concatenate([np.zeros((3, 1)), upper], axis=1)
        lanes = np.arange(3)
        assert np.all((upper[lanes, drawn] - 2.0**-6 < u) & (u < upper[lanes, drawn + 1] + 2.0**-6))
    assert np.linalg.norm(state - followed) <= 2.0**-5 * np.linalg.norm(followed)
    assert len(np.unique(ids)) > 3


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("cell", CELLS)
def test_the_state_after_sampled_symbols_is_the_references_but_for_rare_flips(cell, shape, training):
    errors = []
    for seed in range(PROBLEMS):
        p = small(cell, shape, seed)
        state, net = p.state.copy(), FastNetwork(p.config, 1, p.batch, 1, training=training, bf16=True)
        ids = net.generate(p.parameters, p.x[0], state, np.full((3, p.batch), 0.5), Drawing())
        q, read = p.astype("float64"), np.concatenate([p.x[:1], ids[:-1]])
        tape = reference.forward(q.parameters, read, read, q.state, rounded=to_bf16)
        errors.append(excess({"state": state}, {"state": reference.final_state(tape)}, bound(p)))
    assert np.median(errors) <= 1, errors


RULE = UpdateRule(0.05, clip_norm=0.5)


def trained(p, threads, steps=3, dropout=None):
    """Bytes of everything that a few training steps change."""
    net = FastNetwork(p.config, p.seq_len, p.batch, threads, dropout=dropout, bf16=True)
    assert net.workers.count == threads
    parameters, gradients = Parameters(p.config, p.parameters.flat.copy()), Parameters(p.config)
    slots, state = p.slots(RULE), p.state.copy()
    losses = [
        net.train_step(parameters, gradients, slots, p.x, p.y, state, SCALE, RULE, step).nats for step in range(steps)
    ]
    return np.array(losses).tobytes(), *(a.tobytes() for a in (parameters.flat, gradients.flat, slots, state))


def sampled(p, threads, training):
    """Bytes of the symbols drawn and of the state after them."""
    state, net = p.state.copy(), FastNetwork(p.config, 1, p.batch, threads, training=training, bf16=True)
    assert net.workers.count == threads
    uniforms = np.random.default_rng(0).random((40, p.batch))
    return net.generate(p.parameters, p.x[0], state, uniforms, Drawing(0.8)).tobytes(), state.tobytes()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("batch", [1, 13])
@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_changes_no_sampled_symbol(cell, batch, training, rng):
    p = problem(rng, cell, layers=2, hidden=67, embedding=33, vocab=71, batch=batch, dtype="float32")
    expected = sampled(p, 1, training)
    assert all(sampled(p, threads, training) == expected for threads in (2, 4))


@pytest.mark.parametrize("hidden", [5, 6])
@pytest.mark.parametrize("cell", CELLS)
def test_a_network_that_met_nan_computes_sound_parameters_again(cell, hidden, rng):
    """Also in the padding of the state, which the last pair of an odd number of units reaches into."""
    p = problem(rng, cell, layers=2, hidden=hidden, batch=2, dtype="float32")
    broken, uniforms = Parameters(p.config, p.parameters.flat.copy()), rng.random((4, 2))
    broken["layers.0.b"][:] = math.nan
    fresh, used = (FastNetwork(p.config, 1, 2, 1, training=False, bf16=True) for _ in range(2))
    with pytest.raises(FastlstmError, match="not finite"):
        used.generate(broken, p.x[0], p.state.copy(), uniforms, Drawing())
    ids = [net.generate(p.parameters, p.x[0], p.state.copy(), uniforms, Drawing()) for net in (fresh, used)]
    assert np.array_equal(*ids)


@pytest.mark.parametrize("batch", [1, 13])
@pytest.mark.parametrize("cell", CELLS)
def test_the_number_of_threads_changes_no_bit(cell, batch, rng):
    p = problem(rng, cell, layers=2, hidden=67, embedding=33, vocab=71, seq_len=15, batch=batch, dtype="float32")
    dropout = Dropout(0.0, 0.2, 0.3)
    expected = trained(p, 1, dropout=dropout)
    assert all(trained(p, threads, dropout=dropout) == expected for threads in (2, 4))


@pytest.mark.parametrize("cell", CELLS)
def test_verbs_compose_to_a_training_step_bit_for_bit(cell, rng):
    p = problem(rng, cell, layers=2, hidden=19, vocab=23, seq_len=7, batch=5, dtype="float32")
    net = FastNetwork(p.config, p.seq_len, p.batch, 2, bf16=True)
    parameters, gradients = Parameters(p.config, p.parameters.flat.copy()), Parameters(p.config)
    slots, state = p.slots(RULE), p.state.copy()
    loss = net.forward(parameters, p.x, p.y, state, step=0)
    net.backward(parameters, SCALE, gradients)
    net.update(parameters, gradients, slots, RULE, net.norm(gradients))
    changed = (np.array([loss]), parameters.flat, gradients.flat, slots, state)
    assert trained(p, 2, steps=1) == tuple(array.tobytes() for array in changed)


@pytest.mark.parametrize("at", [1, 137, 299])
def test_a_run_that_is_resumed_ends_with_the_bytes_of_one_that_never_stopped(at, tmp_path):
    config = run_config(precision="bf16")
    whole = Trainer(untrained().content, IDS, config)
    whole.run()
    stopped = Trainer(untrained().content, IDS, config)
    for progress in stopped:
        if progress.step == at:
            break
    run_checkpoint.write(tmp_path / "run", stopped.checkpoint)
    resumed = Trainer.resumed(run_checkpoint.read(tmp_path / "run"), VOCAB, IDS)
    resumed.run()
    assert resumed.content.parameters.flat.tobytes() == whole.content.parameters.flat.tobytes()
    assert resumed.training == whole.training


#: Places of every kind of parameter.
PLACES = ["embedding", "layers.0.W", "layers.0.b", "layers.1.W", "output.W", "output.b"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3.4e38], ids=["nan", "inf", "-inf", "overflow"])
@pytest.mark.parametrize("name", PLACES)
def test_what_is_not_finite_is_seen_by_the_step(name, value, rng):
    """In any parameter. 3.4e38 is finite in float32, but its nearest bfloat16 is infinite: a bias keeps it.

    The loss may be finite with infinite gates, which are 0 or 1; then the gradients show it, or the parameter itself.
    """
    p = problem(rng, "lstm", layers=2, dtype="float32")
    view = p.parameters[name]
    view[(int(p.x[0, 0]), 1) if name == "embedding" else tuple(n // 2 for n in view.shape)] = value
    net = FastNetwork(p.config, p.seq_len, p.batch, 1, bf16=True)
    result = net.train_step(p.parameters, Parameters(p.config), p.slots(RULE), p.x, p.y, p.state.copy(), SCALE, RULE)
    if math.isfinite(value) and name.endswith(".b"):
        return
    assert not (result.finite and math.isfinite(result.nats))


def test_nan_in_the_carried_state_reaches_the_loss(rng):
    for part in (0, 1):
        p = problem(rng, "lstm", dtype="float32")
        p.state[part, 0, 1, 3] = math.nan
        net = FastNetwork(p.config, p.seq_len, p.batch, 1, bf16=True)
        assert math.isnan(net.forward(p.parameters, p.x, p.y, p.state.copy()))


def test_subnormal_operands_count_as_zero(rng):
    """The instruction takes them for 0: with subnormal embeddings, all results are those of zeros, bit for bit."""
    p, results = problem(rng, "lstm", dtype="float32"), []
    for embedding in (1e-40, 0.0):
        p.parameters["embedding"][:] = embedding
        net, state = FastNetwork(p.config, p.seq_len, p.batch, 1, bf16=True), p.state.copy()
        gradients = Parameters(p.config)
        loss = net.forward(p.parameters, p.x, p.y, state)
        net.backward(p.parameters, SCALE, gradients)
        assert np.isfinite(gradients.flat).all()
        results.append((loss, state.tobytes(), gradients.flat.tobytes()))
    assert results[0] == results[1]


def test_only_parameters_of_float32_are_computed_in_bf16(rng):
    with pytest.raises(ConfigError, match="bf16"):
        FastNetwork(ModelConfig(5, dtype="float64"), 1, 1, 1, bf16=True)
