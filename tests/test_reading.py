"""Reading without a backward pass: ranks, restarts of lanes, and bits that depend on what a lane has read alone."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from problems import problem

from fastlstm import Model, ModelConfig, Vocab
from fastlstm.cells import CELLS
from fastlstm.contract import Restarts
from fastlstm.inference import Passage, beginning
from fastlstm.kernels.network import FastNetwork
from fastlstm.reference.network import ReferenceNetwork

pytestmark = pytest.mark.usefixtures("share_every_step")


def restarts_of(p, rng, share=0.3):
    parts, layers, _, units = p.state.shape
    state = rng.standard_normal((parts, layers, units)).astype(p.state.dtype)
    return Restarts(rng.random(p.x.shape) < share, state)


def read(network, p, restarts=None):
    """State, nats and ranks of one sequence."""
    state, nats, ranks = p.state.copy(), np.full(p.x.shape, np.nan), np.full(p.x.shape, -1, np.int32)
    network.read(p.parameters, p.x, p.y, state, nats, restarts=restarts, ranks=ranks)
    return state, nats, ranks


@given(seed=st.integers(0, 2**32 - 1), cell=st.sampled_from(tuple(CELLS)), threads=st.integers(1, 3), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_kernels_restart_and_rank_as_the_reference_does(seed, cell, threads, data):
    rng = np.random.default_rng(seed)
    sizes = {
        name: data.draw(st.integers(1, most), name) for name, most in (("layers", 3), ("hidden", 40), ("vocab", 30))
    }
    p = problem(rng, cell, seq_len=data.draw(st.integers(1, 9)), batch=data.draw(st.integers(1, 15)), **sizes)
    restarts = restarts_of(p, rng, data.draw(st.sampled_from([0.0, 0.3, 1.0])))
    training = data.draw(st.booleans())
    fast = FastNetwork(p.config, p.seq_len, p.batch, threads, training=training)
    found = read(fast, p, restarts)
    expected = read(ReferenceNetwork(p.config, p.seq_len, p.batch), p, restarts)
    for comp, ref in zip(found[:2], expected[:2], strict=True):
        np.testing.assert_allclose(comp, ref, rtol=1e-10, atol=1e-10)  # some thousand roundings of float64
    np.testing.assert_array_equal(found[2], expected[2])


@pytest.mark.parametrize("make", [FastNetwork, ReferenceNetwork])
@pytest.mark.parametrize("cell", CELLS)
def test_a_lane_that_restarts_goes_on_as_one_that_starts_there(make, cell, rng):
    p = problem(rng, cell, layers=2, seq_len=9, batch=3, dtype="float32")
    restarts = restarts_of(p, rng)
    state, nats, ranks = read(make(p.config, 9, 3), p, restarts)
    one = make(p.config, 1, 1)
    for b in range(3):
        lane = p.state[:, :, b : b + 1].copy()
        for t in range(9):
            step = p._replace(x=p.x[t : t + 1, b : b + 1].copy(), y=p.y[t : t + 1, b : b + 1].copy(), state=lane)
            lane, one_nats, one_rank = read(
                one, step, Restarts(restarts.after[t : t + 1, b : b + 1].copy(), restarts.state)
            )
            if make is FastNetwork:  # NumPy's products do not have the same bits for other shapes
                assert (one_nats[0, 0], one_rank[0, 0]) == (nats[t, b], ranks[t, b])
            else:
                assert one_nats[0, 0] == pytest.approx(nats[t, b], rel=1e-4)
        np.testing.assert_allclose(lane[:, :, 0], state[:, :, b], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_nats_of_a_text_have_the_same_bits_in_any_lane_sequence_and_number_of_threads(dtype, rng):
    p = problem(rng, "lstm", layers=2, hidden=37, vocab=19, seq_len=12, batch=14, dtype=dtype)
    state, nats, ranks = read(FastNetwork(p.config, 12, 14, 1), p)
    for threads, seq_len, batch in [(2, 12, 14), (2, 4, 7), (1, 3, 1), (3, 6, 2)]:
        network = FastNetwork(p.config, seq_len, batch, threads, training=False)
        for first in range(0, 14, batch):
            lanes, carried = slice(first, first + batch), p.state[:, :, first : first + batch].copy()
            for t in range(0, 12, seq_len):
                x, y = (np.ascontiguousarray(ids[t : t + seq_len, lanes]) for ids in (p.x, p.y))
                carried, comp, found = read(network, p._replace(x=x, y=y, state=carried))
                np.testing.assert_array_equal(comp, nats[t : t + seq_len, lanes])
                np.testing.assert_array_equal(found, ranks[t : t + seq_len, lanes])
            np.testing.assert_array_equal(carried, state[:, :, lanes])


@pytest.mark.parametrize("make", [FastNetwork, ReferenceNetwork])
def test_a_symbol_as_probable_as_another_does_not_rank_below_it(make, rng):
    p = problem(rng, "lstm", vocab=4, seq_len=1, batch=4)
    p.parameters["output.W"][...] = 0
    p.parameters["output.b"][...] = [0, 1, 1, -1]
    p = p._replace(y=np.arange(4, dtype=np.int32)[None])
    assert read(make(p.config, 1, 4), p)[2].tolist() == [[2, 0, 0, 3]]


@pytest.mark.parametrize("make", [FastNetwork, ReferenceNetwork])
def test_reading_leaves_nothing_behind_for_other_calls(make, rng):
    p = problem(rng, "gru")
    network = make(p.config, p.seq_len, p.batch)
    before = p.state.copy()
    loss = network.forward(p.parameters, p.x, p.y, before)
    read(network, p, restarts_of(p, rng, 1.0))
    after = p.state.copy()
    assert network.forward(p.parameters, p.x, p.y, after) == loss
    np.testing.assert_array_equal(after, before)
    read(network, p)
    with pytest.raises(RuntimeError, match="needs a forward pass"):
        network.backward(p.parameters, 1.0, p.parameters)


def test_wrong_restarts_and_ranks_are_refused(rng):
    p = problem(rng, "lstm")
    network, nats = FastNetwork(p.config, p.seq_len, p.batch), np.zeros(p.x.shape)
    good = restarts_of(p, rng)
    for name, restarts in [
        ("restarts.after", good._replace(after=good.after[:-1])),
        ("restarts.state", good._replace(state=good.state.astype(np.float32))),
    ]:
        with pytest.raises(ValueError, match=name):
            network.read(p.parameters, p.x, p.y, p.state, nats, restarts=restarts)
    with pytest.raises(ValueError, match="ranks"):
        network.read(p.parameters, p.x, p.y, p.state, nats, ranks=np.zeros(p.x.shape, np.int64))


def lanes_of(model, ids, bounds, first, restart=None, backend="fast"):
    """Nats of all symbols of a text that is read in slices between bounds, and how many arrays that took."""
    bounds = np.array(bounds)
    passage = Passage(bounds[:-1], bounds[1:], np.full(len(bounds) - 1, first))
    found, arrays = np.full(len(ids), np.nan), 0
    for predicted in model._inference(backend, None, "auto").read_lanes(ids, passage, restart):
        found[predicted.positions[predicted.valid]] = predicted.nats[predicted.valid]
        arrays += predicted.nats.size
    return found, arrays


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_slices_of_a_text_have_the_bits_of_each_alone_in_lanes_of_any_length(data):
    text = data.draw(st.text("abc\n", min_size=1, max_size=400))
    model = Model.for_text("abc\n", hidden=9, embedding=3)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    bounds = sorted([0, *cuts, len(text)])
    found, _ = lanes_of(model, model.encode(text), bounds, beginning(model.vocab)[0])
    alone = [-model.log_probs(text[start:stop]) for start, stop in pairwise(bounds)]
    np.testing.assert_array_equal(found, np.concatenate(alone))


def test_lines_in_one_lane_have_the_bits_of_lines_read_alone(rng):
    text = "".join("".join(rng.choice(list("abc"), size=n)) + "\n" for n in rng.integers(0, 90, 40))
    model = Model.for_text(text, hidden=20, embedding=5)
    ids, newline = model.encode(text), int(beginning(model.vocab)[0])
    inference = model._inference("fast", None, "auto")
    start = inference.state_after(newline)
    bounds = [0, text.index("\n", 500) + 1, text.index("\n", 900) + 1, len(text)]
    found, _ = lanes_of(model, ids, bounds, newline, (ids == newline, start))
    alone = [-model.log_probs(line) for line in text.splitlines(keepends=True)]
    np.testing.assert_array_equal(found, np.concatenate(alone))


def test_a_long_lane_among_short_ones_does_not_cost_what_all_of_its_length_would(rng):
    text = "ab" * 4000
    model = Model.for_text(text, hidden=5, embedding=3)
    bounds = [*range(0, 640, 10), len(text)]
    found, arrays = lanes_of(model, model.encode(text), bounds, 0)
    assert np.isfinite(found).all()
    assert arrays < 1.2 * len(text)  # 64 lanes of that length would be 64 times as much


def test_an_unknown_character_costs_the_escape_and_its_name():
    vocab = Vocab.from_text("ab\n", escape=True)
    model = Model(ModelConfig(4, hidden=5, embedding=3), vocab)
    log_p = model.log_probs("aéb")
    escape = model.log_probs(np.array(model.encode("a\ufffd")))[1] + vocab.naming_nats
    assert log_p[1] == pytest.approx(escape - math.log(0x110000 - 3), rel=1e-12)
    nats, _ = lanes_of(model, model.encode("aéb"), [1, 3], model.encode("a")[0])
    assert model.evaluate("aéb").nats_per_char == pytest.approx(nats[1:].mean(), rel=1e-12)
