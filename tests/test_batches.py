"""Lanes: they cover the text in order, wrap by the assignment's rule, can be resumed, and cost no memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm.batches import Lanes, fit_lanes
from fastlstm.errors import ConfigError


def chunk(lanes):
    x, y = (np.full((lanes.seq_len, lanes.batch), -1, np.int32) for _ in range(2))
    return lanes.next(x, y), x, y


def classic_chunks(data, seq_len, count):
    """The assignment's loop over a text, one lane: (reset, inputs, targets) of each step."""
    p, step = 0, 0
    while step < count:
        reset = step == 0 or p + seq_len + 1 >= len(data)
        if reset:
            p = 0
        yield reset, data[p : p + seq_len], data[p + 1 : p + seq_len + 1]
        p += seq_len
        step += 1


sizes = st.integers(1, 12).flatmap(
    lambda seq_len: st.integers(1, 6).flatmap(
        lambda batch: st.tuples(st.integers(batch * seq_len + 1, 300), st.just(seq_len), st.just(batch))
    )
)


@given(sizes)
def test_one_lane_follows_the_rule_of_the_assignment(size):
    n, seq_len, _ = size
    lanes = Lanes(np.arange(n, dtype=np.uint16), seq_len, 1)
    for reset, inputs, targets in classic_chunks(list(range(n)), seq_len, 3 * lanes.steps_per_epoch + 2):
        comp_reset, x, y = chunk(lanes)
        assert (comp_reset, x[:, 0].tolist(), y[:, 0].tolist()) == (reset, inputs, targets)


@given(sizes)
def test_an_epoch_gives_each_lane_its_part_of_the_text_in_order(size):
    n, seq_len, batch = size
    lanes = Lanes(np.arange(n, dtype=np.uint16), seq_len, batch)
    resets, inputs, targets = zip(*(chunk(lanes) for _ in range(lanes.steps_per_epoch)), strict=True)
    stride, length = (n - 1) // batch, lanes.steps_per_epoch * seq_len
    ref = np.arange(batch) * stride + np.arange(length)[:, None]
    np.testing.assert_array_equal(np.concatenate(inputs), ref)
    np.testing.assert_array_equal(np.concatenate(targets), ref + 1)
    assert list(resets) == [True] + [False] * (lanes.steps_per_epoch - 1)
    # An epoch omits from a lane less than a chunk, and the last symbol, which has no target.
    assert stride - length <= seq_len


@given(sizes)
def test_the_lanes_wrap_after_steps_per_epoch_chunks_and_repeat_themselves(size):
    lanes = Lanes(np.arange(size[0], dtype=np.uint16), *size[1:])
    first, second = ([chunk(lanes) for _ in range(lanes.steps_per_epoch)] for _ in range(2))
    np.testing.assert_equal(second, first)


@given(sizes, st.integers(0, 20))
def test_a_saved_cursor_resumes_at_the_same_chunk(size, steps):
    ids = np.arange(size[0], dtype=np.uint16)
    lanes, resumed = Lanes(ids, *size[1:]), Lanes(ids, *size[1:])
    for _ in range(steps):
        chunk(lanes)
    resumed.cursor = lanes.cursor
    np.testing.assert_equal([chunk(resumed) for _ in range(5)], [chunk(lanes) for _ in range(5)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_ids_of_every_width_are_returned_unchanged(rng, dtype):
    ids = rng.integers(0, min(np.iinfo(dtype).max, 0x10FFFF), 101, endpoint=True, dtype=dtype)
    _, x, y = chunk(Lanes(ids, 25, 4))
    np.testing.assert_array_equal(x.T.ravel(), ids[:100])
    np.testing.assert_array_equal(y.T.ravel(), ids[1:])


def test_a_chunk_allocates_nothing_that_grows_with_its_size_or_the_text():
    ids = np.zeros(1_000_000, np.uint8)
    x, y = (np.empty((256, 64), np.int32) for _ in range(2))
    tracemalloc.start()
    try:
        lanes = Lanes(ids, 256, 64)
        for _ in range(3 * lanes.steps_per_epoch):
            lanes.next(x, y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes // 4


def test_arrays_of_another_shape_are_refused_rather_than_broadcast():
    lanes = Lanes(np.zeros(100, np.uint8), 4, 1)
    with pytest.raises(ValueError, match="shape"):
        lanes.next(np.empty((4, 2), np.int32), np.empty((4, 2), np.int32))
    assert lanes.cursor == 0


@pytest.mark.parametrize(("n", "seq_len", "batch"), [(0, 1, 1), (1, 1, 1), (100, 25, 4), (10, 10, 1)])
def test_a_text_that_is_too_short_is_one_line_with_advice(n, seq_len, batch):
    with pytest.raises(ConfigError, match=rf"{batch * seq_len + 1}: give more text, or lower") as caught:
        Lanes(np.zeros(n, np.uint8), seq_len, batch)
    assert "\n" not in str(caught.value)


def test_the_shortest_text_that_fits_works():
    reset, x, y = chunk(Lanes(np.arange(101, dtype=np.uint8), 25, 4))
    assert reset
    assert (x[0, 0], y[-1, -1]) == (0, 100)


@pytest.mark.parametrize(("seq_len", "batch"), [(0, 1), (1, 0), (-1, 1)])
def test_empty_chunks_are_refused(seq_len, batch):
    with pytest.raises(ConfigError, match="at least 1"):
        Lanes(np.zeros(100, np.uint8), seq_len, batch)


@pytest.mark.parametrize("cursor", [-1, 26])
def test_a_cursor_outside_the_lanes_is_one_line(cursor):
    lanes = Lanes(np.zeros(101, np.uint8), 5, 4)
    lanes.cursor = 25
    with pytest.raises(ConfigError, match="resume with the same text") as caught:
        lanes.cursor = cursor
    assert "\n" not in str(caught.value)
    assert lanes.cursor == 25


@given(st.integers(2, 200), st.integers(1, 40), st.integers(1, 40))
def test_fitted_lanes_fit_and_are_the_largest(n, seq_len, batch):
    def fits(t, b):
        return b * t + 1 <= n

    def largest():
        if fits(seq_len, 1):
            return seq_len, max(b for b in range(1, batch + 1) if fits(seq_len, b))
        return max(t for t in range(1, seq_len + 1) if fits(t, 1)), 1

    assert fit_lanes(n, seq_len, batch) == largest()
    Lanes(np.zeros(n, np.uint8), *fit_lanes(n, seq_len, batch))


@pytest.mark.parametrize("n", [0, 1])
def test_a_text_of_less_than_two_characters_is_one_line(n):
    with pytest.raises(ConfigError, match="at least two characters") as caught:
        fit_lanes(n, 64, 32)
    assert "\n" not in str(caught.value)
