"""Which symbols are drawn: top-k, top-p and min-p, alike in the reference and in the kernels."""

import math
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from problems import problem

from fastlstm import Model, ModelConfig, TrainConfig, Vocab
from fastlstm.cells import CELLS
from fastlstm.drawing import Drawing
from fastlstm.errors import FastlstmError
from fastlstm.kernels import draw as kernel
from fastlstm.kernels import jit
from fastlstm.kernels.draw import least_of
from fastlstm.kernels.host import has_bf16
from fastlstm.kernels.network import FastNetwork
from fastlstm.observers import Observer
from fastlstm.reference import network as reference
from fastlstm.reference.network import ReferenceNetwork, draw, kept
from fastlstm.reference.rounding import to_bf16

pytestmark = pytest.mark.usefixtures("share_every_step")

#: Sixteenths, so that sums of probabilities are exact.
ROW = np.array([[1, 4, 2, 1, 5, 2, 0, 1]]) / 16


@pytest.mark.parametrize(
    ("limits", "symbols"),
    [
        ({}, {0, 1, 2, 3, 4, 5, 7}),
        ({"top_k": 1}, {4}),
        ({"top_k": 2}, {4, 1}),
        ({"top_k": 3}, {4, 1, 2, 5}),  # as probable as the third
        ({"top_k": 100}, {0, 1, 2, 3, 4, 5, 7}),
        ({"top_p": 1e-9}, {4}),
        ({"top_p": 5 / 16}, {4}),
        ({"top_p": 9 / 16}, {4, 1}),
        ({"top_p": 0.6}, {4, 1, 2, 5}),
        ({"top_p": 1.0}, {0, 1, 2, 3, 4, 5, 7}),
        ({"min_p": 0.0}, {0, 1, 2, 3, 4, 5, 7}),
        ({"min_p": 0.4}, {4, 1, 2, 5}),
        ({"min_p": 1.0}, {4}),
        ({"top_k": 2, "top_p": 0.5}, {4}),  # 5 of the 9 sixteenths that are left
        ({"top_k": 4, "top_p": 0.75}, {4, 1, 2, 5}),
        ({"top_p": 0.9, "min_p": 0.8}, {4, 1}),
    ],
)
def test_the_symbols_kept_are_those_of_the_definition(limits, symbols):
    assert set(np.flatnonzero(kept(ROW, Drawing(**limits)))) == symbols


limits = st.builds(
    Drawing,
    temperature=st.floats(0.3, 3.0),
    top_k=st.integers(1, 12),
    top_p=st.floats(1e-3, 1.0),
    min_p=st.floats(0.0, 1.0),
)


@given(
    weights=st.lists(st.sampled_from([0.0, 0.125, 0.25, 1.0, 3.0]), min_size=1, max_size=8),
    u=st.floats(0, 1, exclude_max=True),
    drawing=limits,
)
def test_a_draw_of_the_reference_follows_the_definition_word_by_word(weights, u, drawing):
    """Symbol by symbol, in plain Python. Cases that a rounding decides are left out: sums closer than 1e-9."""
    weights = [*weights, 2.0]
    p = np.array(weights) / sum(weights)
    q = [x ** (1 / drawing.temperature) for x in p]
    descending = sorted(q, reverse=True)
    left = [x for x in descending if x >= descending[min(drawing.top_k, len(q)) - 1]]
    if drawing.top_p < 1:
        count = next(n for n in range(1, len(left) + 1) if sum(left[:n]) > drawing.top_p * sum(left) - 1e-9)
        if abs(sum(left[:count]) - drawing.top_p * sum(left)) < 1e-9:
            return
        left = [x for x in left if x >= left[count - 1]]
    if any(abs(x - drawing.min_p * left[0]) < 1e-9 for x in left if x > 0 and drawing.min_p < 1):
        return
    left = [x for x in left if x >= drawing.min_p * left[0] * (1 - 1e-9)]
    shares = [x if x >= left[-1] * (1 - 1e-9) else 0.0 for x in q]
    upper = np.cumsum(shares)
    if np.min(np.abs(upper - u * upper[-1])) < 1e-9:
        return
    expected = int(np.searchsorted(upper, u * upper[-1], side="right"))
    with np.errstate(divide="ignore"):
        assert draw(np.log(p)[None], np.array([u]), drawing)[0] == expected


values = st.one_of(
    st.sampled_from([0.0, 1e-45, 1e-38, 0.25, 0.5, 1.0]), st.floats(0.0, 1.0, width=32), st.floats(-80, 0).map(math.exp)
)


@jit.kernel
def search(array, at, symbols, floor, enough, counted):
    return least_of(array, at, symbols, floor, enough, counted)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(row=st.lists(values, max_size=40), count=st.integers(1, 50), share=st.floats(1e-6, 1.0))
def test_the_kernels_search_finds_what_sorting_finds(dtype, row, count, share):
    """Shares of values whose sum is within 1e-12 of the one sought are left out: there, the order of sums decides."""
    array = np.array([0.5, *row, 1.0, 0.5], dtype)  # the row is within a larger array
    row = np.sort(array[1:-1].astype(np.float64))[::-1]
    assert search(array, 1, len(row), 0.0, float(min(count, len(row))), True) == row[min(count, len(row)) - 1]
    for floor in (0.0, row[len(row) // 2]):
        sums = np.cumsum(row[row >= floor])
        enough = share * sums[-1]
        if np.min(np.abs(sums - enough)) > 1e-12:
            assert search(array, 1, len(row), floor, enough, False) == row[np.argmax(sums >= enough)]


def test_the_search_takes_few_passes_over_a_long_row(rng, monkeypatch):
    """Over one in increasing order too, or with values that are close to each other, or far apart."""
    passes = []

    def counting(function):
        return lambda *arguments: passes.append(1) or function(*arguments)

    for name in ("number_from", "sum_from", "smallest_from", "largest_below"):
        monkeypatch.setattr(kernel, name, counting(getattr(kernel, name).py_func))
    for spread in (1e-3, 12, 600):
        row = np.exp(-spread * rng.random(300))
        row[-1] = 1.0
        for array in (row, np.sort(row)):
            passes.clear()
            assert least_of.py_func(array, 0, 300, 0.0, 150.0, True) == np.sort(row)[150]
            assert len(passes) < 60  # two for each halving: 8 are the log2 of 300, 10 that of the range of exponents


def random_drawing(rng, vocab):
    """All limits, some of them at or beyond the end of their range."""
    return Drawing(
        float(rng.choice([0.0, 0.3, 1.0, 2.5], p=[0.1, 0.3, 0.3, 0.3])),
        int(rng.choice([1, 2, 5, vocab // 2, vocab - 1, vocab, 10 * vocab, 2**31])),
        float(rng.choice([1e-12, 0.3, 0.8, 0.95, 0.999, 1.0])),
        float(rng.choice([0.0, 0.01, 0.2, 1.0])),
        int(rng.integers(2)),
    )


def drawn(net, p, uniforms, drawing):
    state = p.state.copy()
    return net.generate(p.parameters, p.x[0], state, uniforms, drawing), state


@pytest.mark.parametrize("training", [False, True])  # with a table of the distinct symbols, and of all
@pytest.mark.parametrize("cell", CELLS)
def test_both_backends_draw_the_same_symbols_from_the_same_numbers(cell, training, rng):
    """In float64. A draw differs if a number is within some 1e-12 of a bound between symbols: never, in 10,000."""
    p = problem(rng, cell, layers=2, hidden=21, vocab=37, batch=3)
    p.parameters.flat *= 2  # large enough that the most probable symbol is not always the same
    different = 0
    for _ in range(25):
        drawing, uniforms = random_drawing(rng, 37), rng.random((20, 3))
        (fast, fast_state), (ids, state) = (
            drawn(net, p, uniforms, drawing)
            for net in (FastNetwork(p.config, 1, 3, 1, training=training), ReferenceNetwork(p.config, 1, 3))
        )
        assert np.array_equal(fast, ids), drawing
        np.testing.assert_allclose(fast_state, state, rtol=0, atol=1e-10)
        different += not np.array_equal(ids, drawn(ReferenceNetwork(p.config, 1, 3), p, uniforms, Drawing())[0])
    assert different > 15  # the limits were felt


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_symbols_of_equal_probability_are_kept_together(dtype, rng):
    """The logits are biases, each of which several symbols have, so ties are exact; all of them are drawn, no other."""
    p = problem(rng, "rnn", vocab=9, batch=64, seq_len=1, dtype=dtype)
    p.parameters["output.W"][:] = 0
    p.parameters["output.b"][:] = [0, 1, -1, 1, 0, -1, -2, 1, 0]
    for limits, symbols in (
        ({"top_k": 1}, {1, 3, 7}),
        ({"top_k": 4}, {0, 1, 3, 4, 7, 8}),
        ({"top_p": 0.1}, {1, 3, 7}),
        ({"top_p": 0.7}, {0, 1, 3, 4, 7, 8}),
        ({"min_p": 0.3}, {0, 1, 3, 4, 7, 8}),
        ({"top_k": 9, "top_p": 0.9999, "min_p": 0.1}, {0, 1, 2, 3, 4, 5, 7, 8}),
        ({"top_k": 4, "withheld": 2}, {0, 1, 3, 4}),
    ):
        for net in (FastNetwork(p.config, 1, 64, 1), ReferenceNetwork(p.config, 1, 64)):
            assert set(drawn(net, p, rng.random((10, 64)), Drawing(**limits))[0].flat) == symbols, limits


def test_float32_draws_follow_the_distribution_that_is_left(rng):
    """One step from one state in 20,000 lanes: frequencies equal probabilities within five standard deviations."""
    p, lanes = problem(rng, "rnn", vocab=12, batch=1, seq_len=1, dtype="float32"), 20_000
    state, net = np.repeat(p.state, lanes, axis=2), FastNetwork(p.config, 1, lanes, 1, training=False)
    predicted = reference.forward(p.parameters, p.x, p.y, p.state).probabilities[0].astype(float)[:, :-1]
    for limits in (Drawing(0.7, 6), Drawing(1.3, top_p=0.8), Drawing(min_p=0.3), Drawing(1.0, 9, 0.9, 0.1)):
        drawing = limits._replace(withheld=1)
        ids = net.generate(p.parameters, np.repeat(p.x[0], lanes), state.copy(), rng.random((1, lanes)), drawing)
        q = kept(predicted ** (1 / drawing.temperature), drawing)[0]
        q /= q.sum()
        assert 1 < np.count_nonzero(q) < 11
        frequency = np.bincount(ids[0], minlength=12)[:-1] / lanes
        assert np.all(np.abs(frequency - q) <= 5 * np.sqrt(q * (1 - q) / lanes))


@pytest.mark.skipif(not has_bf16(), reason="needs a processor with AVX-512 BF16")
def test_bf16_draws_only_symbols_that_the_reference_keeps(rng):
    """The reference reads the symbols that were drawn, so that a flip does not end the comparison.

    A symbol may be as much less probable than the least of those kept as `test_bf16` allows: 2**-6 of probability,
    also in the sum that top-p compares, and in the probability that min-p refers to.
    """
    p = problem(rng, "lstm", layers=2, hidden=21, vocab=37, batch=3, dtype="float32")
    p.parameters.flat *= 2
    for drawing in (Drawing(1.0, 5), Drawing(1.0, top_p=0.6), Drawing(1.0, min_p=0.3), Drawing(1.0, 9, 0.7, 0.1, 1)):
        wider = drawing._replace(top_p=min(drawing.top_p + 2.0**-6, 1.0), min_p=max(drawing.min_p - 2.0**-6, 0.0))
        ids, _ = drawn(FastNetwork(p.config, 1, 3, 1, bf16=True), p, rng.random((60, 3)), drawing)
        exact, read = p.astype("float64"), p.x[:1]
        followed = exact.state
        for row in ids:
            tape = reference.forward(exact.parameters, read, read, followed, rounded=to_bf16)
            followed, read = reference.final_state(tape), row[None]
            probabilities = tape.probabilities[0, :, : 37 - drawing.withheld]
            left = kept(probabilities, wider)
            least = np.where(left > 0, left, np.inf).min(axis=1)
            assert np.all(np.take_along_axis(probabilities, row[:, None], 1)[:, 0] > least - 2.0**-6)
        assert len(np.unique(ids)) > 3


@pytest.mark.parametrize(("dtype", "bf16"), [("float32", False), ("float64", False), ("float32", True)])
def test_threads_and_lanes_change_no_symbol_that_limits_leave(dtype, bf16, rng):
    if bf16 and not has_bf16():
        pytest.skip("needs a processor with AVX-512 BF16")
    p = problem(rng, "gru", layers=2, hidden=37, vocab=71, batch=5, dtype=dtype)
    uniforms, drawing = rng.random((40, 5)), Drawing(0.9, 20, 0.9, 0.02, 1)
    expected, state = drawn(FastNetwork(p.config, 1, 5, 1, bf16=bf16), p, uniforms, drawing)
    net = FastNetwork(p.config, 1, 5, 2, bf16=bf16)
    net.workers.adaptive = False
    found, its = drawn(net, p, uniforms, drawing)
    assert (found.tobytes(), its.tobytes()) == (expected.tobytes(), state.tobytes())
    alone = FastNetwork(p.config, 1, 1, 1, bf16=bf16)
    lane = p._replace(x=p.x[:, 2:3].copy(), state=p.state[:, :, 2:3].copy())
    assert np.array_equal(drawn(alone, lane, uniforms[:, 2:3].copy(), drawing)[0], expected[:, 2:3])


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("limits", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"temperature": 0}])
def test_a_withheld_symbol_is_never_drawn_and_the_others_keep_their_proportions(limits, backend, rng):
    """Also if it is by far the most probable. The same biases without it, and the same numbers, give the same."""
    p, q = (problem(np.random.default_rng(1), "rnn", vocab=vocab, batch=8, seq_len=1) for vocab in (6, 5))
    for one in (p, q):
        one.parameters["output.W"][:] = 0
        one.parameters["output.b"][:] = [0.2, 1.1, -0.4, 0.9, 0.3, 30.0][: one.config.vocab_size]
        one.x[:] = 0
    uniforms = rng.random((50, 8))
    found, expected = (
        drawn(backend(one.config, 1, 8, 1), one, uniforms, Drawing(**limits, withheld=withheld))[0]
        for one, withheld in ((p, 1), (q, 0))
    )
    assert np.array_equal(found, expected)
    assert set(drawn(backend(p.config, 1, 8, 1), p, uniforms, Drawing())[0].flat) == {5}


def with_biases(rng, biases, dtype):
    """A network that predicts the same from every state: its logits are the biases."""
    p = problem(rng, "rnn", vocab=len(biases), batch=16, seq_len=1, dtype=dtype)
    p.parameters["output.W"][:] = 0
    p.parameters["output.b"][:] = biases
    return p


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_beside_a_withheld_symbol_that_has_all_probability_the_others_keep_their_proportions(backend, dtype, rng):
    """Their own probabilities are 0 in the dtype; without the withheld symbol, the same numbers draw the same."""
    uniforms = rng.random((20, 16))
    for drawing in (Drawing(), Drawing(0), Drawing(0.5, 3), Drawing(1.5, top_p=0.7)):
        found, expected = (
            drawn(
                backend(p.config, 1, 16, 1), p, uniforms, drawing._replace(withheld=len(p.parameters["output.b"]) - 4)
            )
            for p in (with_biases(rng, [0.2, 1.1, -0.4, 0.9, *last], dtype) for last in ([2000.0], []))
        )
        assert np.array_equal(found[0], expected[0])
        assert found[0].max() < 4
        assert drawing.temperature == 0 or len(np.unique(found[0])) > 1


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "biases",
    [[0.0, math.nan, 1.0], [0.0, 1.0, math.nan], [0.0, math.inf, 1.0], [0.0, 1.0, math.inf], [-math.inf] * 2 + [0.0]],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_logits_that_leave_no_distribution_are_an_error_also_of_a_withheld_symbol(biases, temperature, backend, rng):
    p = with_biases(rng, biases, "float32")
    with pytest.raises(FastlstmError, match="the model's logits are not finite"):
        drawn(backend(p.config, 1, 16, 1), p, rng.random((3, 16)), Drawing(temperature, withheld=1))


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_temperature_that_is_allowed_draws(backend, dtype, rng):
    """Near 0 the most probable symbols only, and with a huge one all alike."""
    p = with_biases(rng, [0.0, 1.0, 1.0, -1.0, 5.0], dtype)
    for temperature, symbols in ((5e-324, {1, 2}), (1e-40, {1, 2}), (1e60, {0, 1, 2, 3}), (1e308, {0, 1, 2, 3})):
        found, _ = drawn(backend(p.config, 1, 16, 1), p, rng.random((20, 16)), Drawing(temperature, withheld=1))
        assert set(found.flat) == symbols


@pytest.mark.parametrize("backend", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize(
    "wrong",
    [{"top_k": 0}, {"top_k": 2.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"top_p": math.nan}, {"min_p": -0.1}, {"min_p": 1.1},
     {"min_p": math.nan}, {"withheld": -1}, {"withheld": 11}],
    ids=str,
)  # fmt: skip
def test_numbers_out_of_range_are_refused(wrong, backend, rng):
    p = problem(rng, "rnn", seq_len=1)
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be a "):
        drawn(backend(p.config, 1, p.batch, 1), p, rng.random((1, p.batch)), Drawing(**wrong))


def test_a_sample_within_a_run_never_has_the_escape():
    class Watcher(Observer):
        texts: ClassVar = []

        def sampled(self, progress, text):
            self.texts.append(text)

    model = Model(ModelConfig(4, hidden=3, embedding=2), Vocab.from_text("ab\n", escape=True))
    model.parameters["output.b"][-1] = 30  # by far the most probable
    model.fit("ab\n" * 50, TrainConfig(seq_len=4, batch=2, steps=1, sample_length=60), observer=Watcher())
    assert [len(text) for text in Watcher.texts] == [60]
    assert set(Watcher.texts[0]) <= set("ab\n")
