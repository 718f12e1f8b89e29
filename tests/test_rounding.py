"""The reference's bf16 mode: numbers are rounded to bfloat16 correctly, and exactly where operands of products are."""

import math
from fractions import Fraction

import numpy as np
import pytest
from problems import problem

from fastlstm.cells import CELLS
from fastlstm.drawing import Drawing
from fastlstm.dropout import Dropout
from fastlstm.params import Parameters
from fastlstm.reference import layer, network
from fastlstm.reference.network import ReferenceNetwork
from fastlstm.reference.rounding import exact, to_bf16

#: The 65,536 bfloat16 numbers: the upper halves of float32.
EVERY_BITS = np.arange(2**16, dtype=np.uint32)
EVERY = (EVERY_BITS << 16).view(np.float32)

#: Half a unit above the largest finite number; from here on the nearest is infinity.
OVERFLOW = Fraction(2**9 - 1, 2) * Fraction(2) ** 120


def nearest(x, positive):
    """The nearest bfloat16 to a number, by definition: search among all positive ones, ascending, as fractions."""
    size = abs(Fraction(x))
    if size >= OVERFLOW:
        return math.copysign(math.inf, x)
    low, high = 0, len(positive) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if positive[middle] <= size else (low, middle)
    below, above = size - positive[low], positive[high] - size
    place = low if below < above or (below == above and low % 2 == 0) else high
    return math.copysign(float(positive[place]), x)


def assert_same_bits(found, expected):
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected, equal_nan=True)
    numbers = ~np.isnan(expected)
    assert np.array_equal(np.signbit(found)[numbers], np.signbit(expected)[numbers])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_bfloat16_is_a_fixed_point(dtype):
    with np.errstate(invalid="ignore"):  # some are signalling NaN
        every = EVERY.astype(dtype)
    assert_same_bits(to_bf16(every), every)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ties_go_to_the_even_number_and_others_to_the_nearest(dtype):
    """Between every two neighbours: the middle, and the numbers of the dtype next to it."""
    below, above = EVERY[:0x7F7F].astype(dtype), EVERY[1:0x7F80].astype(dtype)
    middle = below + (above - below) / 2  # exact, in float32 too
    even = np.where(EVERY_BITS[:0x7F7F] % 2 == 0, below, above)
    for sign in (1, -1):
        assert_same_bits(to_bf16(sign * middle), sign * even)
        assert_same_bits(to_bf16(sign * np.nextafter(middle, below)), sign * below)
        assert_same_bits(to_bf16(sign * np.nextafter(middle, above)), sign * above)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_numbers_are_rounded_as_exact_arithmetic_defines_it(dtype, rng):
    x = (rng.standard_normal(300) * 2.0 ** rng.integers(-140, 128, 300)).astype(dtype)
    positive = [Fraction(float(value)) for value in EVERY[:0x7F80]]
    expected = np.array([nearest(float(value), positive) for value in x]).astype(dtype)
    assert_same_bits(to_bf16(x), expected)
    assert len(np.unique(expected)) > 250


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_infinities_and_nan_stay_and_what_is_too_large_becomes_infinite(dtype):
    largest = float(EVERY[0x7F7F])
    x = np.array([np.inf, -np.inf, np.nan, largest, -largest, float(OVERFLOW), -float(OVERFLOW)], dtype)
    expected = np.array([np.inf, -np.inf, np.nan, largest, -largest, np.inf, -np.inf], dtype)
    assert_same_bits(to_bf16(x), expected)
    below = np.nextafter(np.array([float(OVERFLOW)], dtype), np.array([0], dtype))
    assert_same_bits(to_bf16(below), np.array([largest], dtype))


def test_float64_is_rounded_once():
    """A number just above a tie, by less than float32 shows: rounded to float32 first, it would become the tie."""
    x = np.array([1 + 2.0**-8 + 2.0**-40])
    assert to_bf16(x)[0] == 1 + 2.0**-7
    assert to_bf16(x.astype(np.float32))[0] == 1


def in_bf16(array):
    return np.array_equal(to_bf16(array), array)


def passed(p, masks=None, rounded=to_bf16):
    """Tape and gradients of a pass."""
    gradients = Parameters(p.config)
    tape = network.forward(p.parameters, p.x, p.y, p.state, masks, rounded)
    network.backward(p.parameters, tape, 0.5, gradients)
    return tape, gradients


def test_the_mode_rounds_all_operands_and_nothing_else(rng):
    p = problem(rng, "lstm", layers=2, dtype="float32")
    tape, gradients = passed(p)
    for of_layer in tape.layers:
        assert in_bf16(of_layer.x)
        assert not in_bf16(of_layer.state)
        assert not in_bf16(of_layer.gates)
    assert in_bf16(tape.top)
    assert not any(in_bf16(array) for array in (tape.probabilities, tape.nats, network.final_state(tape)))
    assert not any(in_bf16(gradient) for gradient in gradients.values())


def test_the_usual_mode_rounds_nothing(rng):
    p = problem(rng, "gru", layers=2)
    usual, explicit = passed(p, rounded=exact), passed(p, rounded=lambda x: x)
    assert usual[1].flat.tobytes() == explicit[1].flat.tobytes()
    assert not any(in_bf16(of_layer.x) for of_layer in usual[0].layers)


def test_biases_and_the_elementwise_state_are_not_rounded(rng):
    """With weights of 0 a GRU is its biases and its state: the mode changes nothing."""
    p = problem(rng, "gru", layers=2, dtype="float32")
    for view in p.parameters.values():
        if view.ndim == 2:
            view[...] = 0
    rounded, usual = (passed(p, rounded=rounding)[0] for rounding in (to_bf16, exact))
    assert rounded.nats.tobytes() == usual.nats.tobytes()
    assert network.final_state(rounded).tobytes() == network.final_state(usual).tobytes()


@pytest.mark.parametrize("cell", CELLS)
def test_rounded_parameters_and_symbols_give_the_same_forward_pass_of_one_step(cell, rng):
    """Weights, embeddings and carried h that are bfloat16 already: only what they give rise to is rounded."""
    p = problem(rng, cell, seq_len=1, dtype="float32")
    for view in p.parameters.values():
        if view.ndim == 2:
            view[...] = to_bf16(view)
    p.state[0] = to_bf16(p.state[0])
    rounded, usual = (passed(p, rounded=rounding)[0] for rounding in (to_bf16, exact))
    assert rounded.layers[0].state.tobytes() == usual.layers[0].state.tobytes()
    assert rounded.nats.tobytes() != usual.nats.tobytes()  # the new h


def equations(p, rounded):
    """Gradients of an Elman RNN of one layer, written out: every product with its operands rounded by hand."""
    E, W, b, Wy, by = (p.parameters[name] for name in ("embedding", "layers.0.W", "layers.0.b", "output.W", "output.b"))
    X = E.shape[1]
    E, Wx, Wh, Wy = rounded(E), rounded(W[:X]), rounded(W[X:]), rounded(Wy)
    h, table = [p.state[0, 0]], E @ Wx
    for x in p.x:
        h.append(np.tanh(table[x] + rounded(h[-1]) @ Wh + b))
    found = {name: np.zeros_like(view) for name, view in p.parameters.items()}
    dtable, dh_next = np.zeros_like(table), np.zeros_like(h[0])
    for t in reversed(range(len(p.x))):
        logits = rounded(h[t + 1]) @ Wy + by
        q = np.exp(logits - logits.max(axis=1, keepdims=True))
        q /= q.sum(axis=1, keepdims=True)
        q[np.arange(len(q)), p.y[t]] -= 1
        dlogits = rounded(0.5 * q)
        found["output.W"] += rounded(h[t + 1]).T @ dlogits
        found["output.b"] += dlogits.sum(axis=0)
        da = rounded((dlogits @ Wy.T + dh_next) * (1 - h[t + 1] ** 2))
        found["layers.0.W"][X:] += rounded(h[t]).T @ da
        found["layers.0.b"] += da.sum(axis=0)
        np.add.at(dtable, p.x[t], da)
        dh_next = da @ Wh.T
    found["layers.0.W"][:X] = E.T @ rounded(dtable)
    found["embedding"] = rounded(dtable) @ Wx.T
    return found


def test_gradients_are_those_of_the_equations_with_rounded_operands(rng):
    """In float64, so that the order of sums does not matter; symbols occur several times.

    The allowed error is a thousand roundings of float64; leaving out a single rounding changes results by some 2**-9,
    the usual error of one.
    """
    p = problem(rng, "rnn", vocab=5, seq_len=12, batch=3)
    _, gradients = passed(p)
    for name, expected in equations(p, to_bf16).items():
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=1e-13 * np.abs(expected).max(), err_msg=name)
    usual = equations(p, exact)
    for name, view in gradients.items():
        assert np.abs(view - usual[name]).max() > 1e-5 * np.abs(view).max()


def test_with_dropout_on_the_embedding_there_is_no_sum_by_symbol(rng, monkeypatch):
    """What the first layer reads then depends on the position too."""
    p = problem(rng, "lstm", dtype="float32")
    monkeypatch.delattr(layer, "summed_by_symbol")
    net, gradients = (
        ReferenceNetwork(p.config, p.seq_len, p.batch, dropout=Dropout(0.5), bf16=True),
        Parameters(p.config),
    )
    net.forward(p.parameters, p.x, p.y, p.state.copy(), step=3)
    net.backward(p.parameters, 1.0, gradients)
    assert np.abs(gradients["embedding"]).max() > 0


@pytest.mark.parametrize("cell", CELLS)
def test_the_rounded_gradient_is_near_the_exact_one(cell, rng):
    """Operands have relative errors of at most 2**-8; of all gradients together less than five times that is left."""
    p = problem(rng, cell, layers=2, hidden=33, embedding=20, vocab=41, seq_len=20, batch=7, dtype="float32")
    rounded, usual = (passed(p, rounded=rounding)[1].flat for rounding in (to_bf16, exact))
    assert 2**-12 < np.linalg.norm(rounded - usual) / np.linalg.norm(usual) < 5 * 2**-8


def test_nan_and_infinity_reach_the_loss_and_the_gradients(rng):
    for value in (math.nan, math.inf):
        p = problem(rng, "lstm", dtype="float32")
        p.parameters["output.b"][2] = value
        with np.errstate(invalid="ignore"):
            tape, gradients = passed(p)
        assert not math.isfinite(tape.nats.sum())
        assert not np.isfinite(gradients.flat).all()


def test_a_reference_network_in_bf16_trains_and_samples_with_rounded_operands(rng):
    p = problem(rng, "lstm", dtype="float32")
    losses = []
    for bf16 in (True, False):
        net = ReferenceNetwork(p.config, p.seq_len, p.batch, bf16=bf16)
        losses.append(net.forward(p.parameters, p.x, p.y, p.state.copy()))
    assert losses[0] == network.forward(p.parameters, p.x, p.y, p.state, rounded=to_bf16).nats.sum()
    assert losses[0] != losses[1]
    states = []
    for bf16 in (True, False):
        state = p.state.copy()
        net = ReferenceNetwork(p.config, 1, p.batch, bf16=bf16, training=False)
        net.generate(p.parameters, p.x[0], state, np.full((1, p.batch), 0.5), Drawing())
        states.append(state)
    assert not np.array_equal(*states)
