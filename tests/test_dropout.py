"""Dropout: its random numbers, where masks are applied, their gradients, and the kernels against the reference."""

import itertools

import numpy as np
import pytest
from problems import problem
from test_equivalence import assert_same, bound
from test_reference_gradients import worst_excess

from fastlstm.backend import build
from fastlstm.cells import CELLS
from fastlstm.checking.centred import check_gradients
from fastlstm.drawing import Drawing
from fastlstm.dropout import LEVELS, Dropout
from fastlstm.kernels import jit
from fastlstm.kernels.dropout import draw_factors
from fastlstm.kernels.dropout import philox as kernel_philox
from fastlstm.kernels.network import FastNetwork
from fastlstm.kernels.simd.memory import load, store
from fastlstm.kernels.simd.words import WORDS
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.reference import network as reference
from fastlstm.reference.dropout import factors, numbers, philox
from fastlstm.reference.network import ReferenceNetwork

pytestmark = pytest.mark.usefixtures("share_every_step")

#: Counter, key and words of Philox4x32-10, from ``kat_vectors`` of Random123, the library of its authors.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]

PLACES = {
    "embedding": {"embedding": 0.3},
    "layers": {"layers": 0.4},
    "output": {"output": 0.5},
    "all": {"embedding": 0.1, "layers": 0.2, "output": 0.5},
}
KINDS = [(name, held) for name in PLACES for held in (False, True)]


@jit.kernel
def words(counters, key, found):
    """`philox` of the kernels, from Python: ``counters`` are four vectors of words, ``found`` is for as many."""
    drawn = kernel_philox(
        load(counters, 0), load(counters, WORDS), load(counters, 2 * WORDS), load(counters, 3 * WORDS), key[0], key[1]
    )
    for n in range(4):
        store(found, n * WORDS, drawn[n])


@jit.kernel
def drawn(found, units, threshold, first, lane, time, masks):
    """`draw_factors` of the kernels, from Python."""
    draw_factors(found, 0, units, threshold, first, lane, time, masks)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_both_generators_give_the_known_answers(counter, key, expected):
    counters = np.array(counter, np.uint64)
    assert [int(word) for word in philox(counters, tuple(key))] == expected
    found = np.zeros(4 * WORDS, np.uint64)
    words(np.repeat(counters, WORDS), np.array(key, np.uint64), found)
    assert np.array_equal(found % 2**32, np.repeat(np.array(expected, np.uint64), WORDS))


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [1, 63, 64, 65, 300])
def test_the_kernels_masks_are_the_references_bit_for_bit(units, dtype, held):
    dropout = Dropout(0.1, 0.7, 0.4, held, seed=2**63 + 2**40 + 12345)
    T, B, step, found = 5, 3, 2**32 + 7, np.empty(-(-units // 64) * 64, dtype)
    masks = np.array([*dropout.key, step % 2**32, 0], np.int64)
    for place, threshold in enumerate(dropout.thresholds(3)):
        expected = factors(dropout, place, 3, step, (T, B, units), dtype)
        assert expected.dtype == dtype
        for t, b in itertools.product(range(T), range(B)):
            drawn(found, units, threshold, place << 22, b, 0 if held else t, masks)
            assert np.array_equal(found[:units], expected[t, b])


def test_a_kept_unit_is_scaled_by_the_inverse_of_the_fraction_kept():
    for p in (0.1, 0.5, 0.9, 0.99999):
        threshold = Dropout(output=p).thresholds(1)[1]
        assert abs(threshold / LEVELS - p) <= 2**-16
        for number in (np.float32, np.float64):
            found = factors(Dropout(output=p), 1, 1, 0, (20, 20, 200), number)
            assert set(found.flat) == {0, number(LEVELS / (LEVELS - threshold))}


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("place", ["embedding", "layers", "output"])
@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_a_network_refuses_probabilities_out_of_range(backend, place, p, rng):
    config = problem(rng, "lstm").config
    with pytest.raises(ValueError, match="probability of dropout must be at least 0 and below 1, not"):
        build(backend, config, 2, 2, 1, dropout=Dropout(**{place: p}))


def correlation(a, b):
    return np.corrcoef(a.ravel() > 0, b.ravel() > 0)[0, 1]


def test_units_are_dropped_at_the_given_rate_and_independently():
    """Bounds of five standard deviations: 1/sqrt(n) of a correlation, sqrt(p (1-p) / n) of a rate."""
    dropout, shape = Dropout(0.3, 0.3, 0.3), (40, 20, 128)
    n = np.prod(shape)
    masks = {(place, step): factors(dropout, place, 2, step, shape, "float64") for place in range(3) for step in (0, 1)}
    other = dropout._replace(seed=1)
    masks["seed"] = factors(other, 0, 2, 0, shape, "float64")
    for mask in masks.values():
        assert abs(np.mean(mask == 0) - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
        assert abs(mask.mean() - 1) < 5 * np.sqrt(0.3 / 0.7 / n)
        for axis in range(3):  # neighbours in time, lanes and units
            ahead, behind = (np.take(mask, range(k, mask.shape[axis] - 1 + k), axis) for k in (0, 1))
            assert abs(correlation(ahead, behind)) < 5 / np.sqrt(ahead.size)
    for a, b in itertools.combinations(masks.values(), 2):
        assert abs(correlation(a, b)) < 5 / np.sqrt(n)


def test_numbers_are_uniform():
    """Each of 256 bins of the upper byte, and each bit of the lower one, within five standard deviations."""
    found = numbers(Dropout(), 1, 3, (50, 40, 128))
    n = found.size
    bins = np.bincount((found >> np.uint64(8)).ravel().astype(int), minlength=256)
    assert np.all(np.abs(bins - n / 256) < 5 * np.sqrt(n / 256))
    for bit in range(8):
        ones = np.count_nonzero(found >> np.uint64(bit) & np.uint64(1))
        assert abs(ones - n / 2) < 5 * np.sqrt(n / 4)


def test_held_masks_are_those_of_the_first_time_step_at_all_of_them():
    shape = (7, 3, 90)
    held, fresh = (factors(Dropout(0.5, held=held), 0, 1, 4, shape, "float64") for held in (True, False))
    assert np.array_equal(held, np.repeat(fresh[:1], 7, axis=0))
    assert not any(np.array_equal(fresh[0], fresh[t]) for t in range(1, 7))


def loss_and_gradients(net, p, step):
    state, gradients = p.state.copy(), Parameters(p.config)
    loss = net.forward(p.parameters, p.x, p.y, state, step=step)
    net.backward(p.parameters, 0.5, gradients)
    return {"loss": np.array(loss), "state": state} | {f"d {name}": value for name, value in gradients.items()}


@pytest.mark.parametrize(("place", "held"), KINDS)
@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_with_fixed_masks_agree_with_centred_differences(cell, backend, place, held, rng):
    config = problem(rng, cell, layers=2, hidden=5, embedding=4, vocab=6).config
    dropout = Dropout(**PLACES[place], held=held, seed=1)
    report = check_gradients(config, seq_len=5, batch=3, backend=backend, per_param=25, dropout=dropout)
    assert report.passed, f"\n{report}"


@pytest.mark.parametrize(("place", "held"), KINDS)
def test_gradients_with_fixed_masks_agree_with_a_complex_step(place, held, rng):
    p = problem(rng, "lstm", layers=2, hidden=5, embedding=3, vocab=6, seq_len=6, batch=2)
    dropout, h = Dropout(**PLACES[place], held=held), 1e-25
    masks = [factors(dropout, n, 2, 9, (6, 2, units), "float64") for n, units in enumerate((3, 5, 5))]
    gradients, found, at = Parameters(p.config), Parameters(p.config), p.astype("complex128")
    reference.backward(p.parameters, reference.forward(p.parameters, p.x, p.y, p.state, masks), 1.0, gradients)
    for n in range(len(found.flat)):
        at.parameters.flat[n] += 1j * h
        found.flat[n] = reference.forward(at.parameters, p.x, p.y, at.state, masks).nats.sum().imag / h
        at.parameters.flat[n] = p.parameters.flat[n]
    assert worst_excess(gradients, found) <= 1


SHAPES = [
    {"layers": 1, "hidden": 37, "embedding": 9, "vocab": 41, "seq_len": 20, "batch": 7},
    {"layers": 3, "hidden": 16, "embedding": 33, "vocab": 11, "seq_len": 9, "batch": 1},
    {"layers": 2, "hidden": 70, "embedding": 16, "vocab": 29, "seq_len": 19, "batch": 12},
]


@pytest.mark.parametrize(("place", "held"), KINDS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("cell", CELLS)
def test_kernels_with_dropout_are_the_reference_with_the_same_masks(cell, shape, dtype, place, held, rng):
    p = problem(rng, cell, **SHAPES[shape], dtype=dtype)
    exact = p.astype("float64")
    dropout = Dropout(**PLACES[place], held=held, seed=5)
    expected = loss_and_gradients(ReferenceNetwork(exact.config, p.seq_len, p.batch, dropout=dropout), exact, 3)
    runs = [
        loss_and_gradients(FastNetwork(p.config, p.seq_len, p.batch, threads, dropout=dropout), p, 3)
        for threads in (1, 2, 4)
    ]
    assert_same(runs[0], expected, bound(p))
    for run, name in itertools.product(runs[1:], expected):
        assert run[name].tobytes() == runs[0][name].tobytes(), name


@pytest.mark.parametrize("held", [False, True])
def test_what_kernels_read_after_dropout_is_h_times_the_references_masks(held, rng):
    p = problem(rng, "gru", layers=2, hidden=21, embedding=30, dtype="float32")
    dropout = Dropout(0.2, 0.3, 0.4, held)
    net = FastNetwork(p.config, p.seq_len, p.batch, 1, dropout=dropout)
    net.forward(p.parameters, p.x, p.y, p.state.copy(), step=6)
    sources = [p.parameters["embedding"][p.x], *(net.activations()[f"h.{layer}"][1:] for layer in (0, 1))]
    for place, source in enumerate(sources):
        found = net.workspace.view("masked", place).reshape(p.seq_len, p.batch, -1)[..., : source.shape[-1]]
        assert np.array_equal(found, source * factors(dropout, place, 2, 6, source.shape, "float32"))


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
def test_step_and_seed_select_the_masks(backend, rng):
    p = problem(rng, "lstm", hidden=30)
    losses = {}
    for seed, step in itertools.product((0, 1, 2**32), (0, 1, 2)):
        net = backend(p.config, p.seq_len, p.batch, 1, dropout=Dropout(output=0.5, seed=seed))
        losses[seed, step] = [net.forward(p.parameters, p.x, p.y, p.state.copy(), step=step) for _ in range(2)]
    assert all(once == again for once, again in losses.values())
    assert len({once for once, _ in losses.values()}) == len(losses)


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("place", PLACES)
def test_passes_without_a_step_are_those_of_a_network_without_dropout(place, backend, rng):
    """Even directly after a pass with dropout, in the same network."""
    p = problem(rng, "lstm", layers=2)
    plain = loss_and_gradients(backend(p.config, p.seq_len, p.batch, 1), p, None)
    net = backend(p.config, p.seq_len, p.batch, 1, dropout=Dropout(**PLACES[place]))
    dropped = loss_and_gradients(net, p, 0)
    found = loss_and_gradients(net, p, None)
    assert dropped["loss"] != plain["loss"]
    assert all(found[name].tobytes() == plain[name].tobytes() for name in plain)


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
def test_a_step_without_dropout_changes_no_bit(backend, rng):
    p = problem(rng, "lstm", layers=2)
    plain = loss_and_gradients(backend(p.config, p.seq_len, p.batch, 1), p, None)
    found = loss_and_gradients(backend(p.config, p.seq_len, p.batch, 1, dropout=Dropout()), p, 5)
    assert all(found[name].tobytes() == plain[name].tobytes() for name in plain)


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
def test_sampling_is_without_dropout(backend, rng):
    p = problem(rng, "lstm", layers=2, seq_len=1)
    uniforms, drawn = rng.random((30, 2)), []
    for dropout in (None, Dropout(0.5, 0.5, 0.5)):
        net = backend(p.config, 1, 2, 1, dropout=dropout)
        net.forward(p.parameters, p.x, p.y, p.state.copy(), step=0)
        drawn.append(net.generate(p.parameters, p.x[0], p.state.copy(), uniforms, Drawing()))
    assert np.array_equal(*drawn)


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
def test_a_training_step_is_the_small_verbs_with_the_same_step(backend, rng):
    p = problem(rng, "lstm", layers=2)
    rule, dropout = UpdateRule(0.1, clip_norm=0.1), Dropout(0.2, 0.3, 0.4)
    whole, parts = (Parameters(p.config, p.parameters.flat.copy()) for _ in range(2))
    net, gradients = backend(p.config, p.seq_len, p.batch, 1, dropout=dropout), Parameters(p.config)
    slots = [p.slots(rule, 0.1), p.slots(rule, 0.1)]
    for step in range(3):
        nats = net.train_step(whole, gradients, slots[0], p.x, p.y, p.state.copy(), 0.1, rule, step).nats
        gradients.flat[:] = 0
        assert net.forward(parts, p.x, p.y, p.state.copy(), step=step) == nats
        net.backward(parts, 0.1, gradients)
        net.update(parts, gradients, slots[1], rule, net.norm(gradients))
    assert whole.flat.tobytes() == parts.flat.tobytes()


@pytest.mark.parametrize("step", [-1, 1.5, "3"])
@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
def test_a_step_must_be_a_whole_number(backend, step, rng):
    p = problem(rng, "lstm")
    net = backend(p.config, p.seq_len, p.batch, 1)
    with pytest.raises(ValueError, match="step must be None or a whole number of at least 0, not"):
        net.forward(p.parameters, p.x, p.y, p.state, step=step)


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
def test_nan_in_a_dropped_unit_is_not_hidden(backend, rng):
    p = problem(rng, "lstm", hidden=3)
    net = backend(p.config, p.seq_len, p.batch, 1, dropout=Dropout(0.99, 0.99, 0.99))
    p.parameters["embedding"][:] = np.nan
    assert np.isnan(net.forward(p.parameters, p.x, p.y, p.state.copy(), step=0))


def test_dropout_needs_no_further_compilation(rng):
    from fastlstm.kernels.step import step

    p = problem(rng, "lstm", layers=2)
    loss_and_gradients(FastNetwork(p.config, p.seq_len, p.batch, 1), p, None)
    kinds = len(step.overloads)
    loss_and_gradients(FastNetwork(p.config, p.seq_len, p.batch, 1, dropout=Dropout(0.5, 0.5, 0.5)), p, 1)
    assert len(step.overloads) == kinds
