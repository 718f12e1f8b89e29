"""Masking: once in a pass over a text each symbol is the escape, at random, reproducibly, and with little memory."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs_to_resume import IDS, TEXT, VOCAB, model_config, run_config, steps_of, untrained

from fastlstm import masking, steps
from fastlstm.batches import Lanes
from fastlstm.masking import Masking
from fastlstm.run_state import RunState

#: The escape of the texts below, whose other symbols are 0 to 6.
ESCAPE = 7


def text(symbols):
    """Ids that nothing can write to."""
    ids = np.array(symbols, np.uint8)
    ids.flags.writeable = False
    return ids


texts = st.tuples(st.lists(st.integers(0, 6), min_size=13, max_size=200), st.integers(1, 4), st.integers(1, 3))


@given(texts, st.integers(0, 9))
def test_in_every_pass_each_symbol_is_masked_once_and_one_that_occurs_once_in_every_other_pass(case, seed):
    ids = text(case[0])
    chosen = [Masking(Lanes(ids, *case[1:]), ESCAPE, seed).positions(epoch) for epoch in range(4)]
    counts = np.bincount(ids, minlength=ESCAPE)
    for even, odd in zip(chosen[::2], chosen[1::2], strict=True):
        assert len(set(ids[even])) == len(even)
        masked = np.bincount(ids[np.concatenate([even, odd])], minlength=ESCAPE)
        assert masked.tolist() == np.minimum(counts, 2).tolist()


@given(texts)
def test_the_chunks_of_a_pass_are_those_of_a_text_with_the_escape_in_it(case):
    symbols, seq_len, batch = case
    ids = text(symbols)
    lanes = Lanes(ids, seq_len, batch)
    masks = Masking(lanes, ESCAPE, seed=3)
    x, y, ref_x, ref_y = np.zeros((4, seq_len, batch), np.int32)
    for epoch in range(3):
        masked = ids.copy()
        masked[masks.positions(epoch)] = ESCAPE
        ref = Lanes(masked, seq_len, batch)
        for step in range(epoch * lanes.steps_per_epoch, (epoch + 1) * lanes.steps_per_epoch):
            lanes.next(x, y)
            masks.apply(x, y, step)
            ref.next(ref_x, ref_y)
            np.testing.assert_array_equal(x, ref_x)
            np.testing.assert_array_equal(y, ref_y)
    assert ids.tolist() == symbols


def test_every_occurrence_is_masked_equally_often():
    ids = text([0, 0, 1, 0, 1, 0, 2, 0, 0, 0, 0, 0])
    masks, epochs = Masking(Lanes(ids, 2, 1), ESCAPE, seed=0), 3000
    hits = np.bincount(np.concatenate([masks.positions(epoch) for epoch in range(epochs)]), minlength=len(ids))
    share = 1 / np.bincount(ids)[ids]
    share[6] = 1 / 2
    # 4.5 standard deviations of a binomial count: one in ten thousand seeds would exceed them.
    np.testing.assert_array_less(np.abs(hits - epochs * share), 4.5 * np.sqrt(epochs * share * (1 - share)) + 1e-9)
    assert hits[6] == epochs / 2


def test_what_is_masked_is_the_same_on_every_machine():
    found = Masking(Lanes(IDS, 8, 3), VOCAB.escape_id, seed=5).positions(2)
    assert sorted(found.tolist()) == PINNED


#: Positions in `TEXT` that the test above chooses.
PINNED = [99, 152, 204, 356, 467, 855, 870, 974, 1008, 1058, 1131, 1191, 1374, 1410, 1567, 1636, 1691]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 14])
def test_the_choice_depends_neither_on_the_type_of_the_ids_nor_on_how_many_are_counted_at_a_time(
    dtype, chunk, monkeypatch
):
    ref = Masking(Lanes(IDS, 8, 3), VOCAB.escape_id, 1).positions(4)
    monkeypatch.setattr(masking, "_CHUNK", chunk)
    comp = Masking(Lanes(IDS.astype(dtype), 8, 3), VOCAB.escape_id, 1).positions(4)
    assert sorted(comp.tolist()) == sorted(ref.tolist())


def test_it_differs_between_passes_and_seeds():
    lanes = Lanes(IDS, 8, 3)
    chosen = [Masking(lanes, VOCAB.escape_id, seed).positions(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(sorted(positions.tolist())) for positions in chosen}) == 4


def test_an_escape_in_the_text_is_an_escape_already():
    masks = Masking(Lanes(text([0, ESCAPE, ESCAPE, 0, ESCAPE]), 2, 1), ESCAPE, 0)
    for epoch in range(4):
        (position,) = masks.positions(epoch)
        assert position in (0, 3)


def test_a_text_of_one_symbol_and_one_of_none_but_single_symbols_can_be_masked():
    assert len(Masking(Lanes(text([0] * 9), 2, 1), 1, 0).positions(0)) == 1
    single = Masking(Lanes(text(range(7)), 2, 1), ESCAPE, 0)
    assert sorted(np.concatenate([single.positions(0), single.positions(1)])) == list(range(7))


def test_memory_does_not_grow_with_the_text(rng):
    lanes = Lanes(rng.integers(0, 200, 4_000_000).astype(np.uint8), 64, 8)
    tracemalloc.start()
    try:
        Masking(lanes, 200, 0).positions(0)
        # The counted chunks of `text.occurrences`, 1 << 18 symbols, are widened to 8 bytes a symbol.
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_a_step_reads_and_predicts_the_escape_where_the_text_is_masked(backend):
    """Two ways to the same step: masking, and a text with the escape in it."""
    config = run_config(backend=backend, steps=73)
    taken, masked = steps_of(model_config(), config), IDS[: len(IDS) - len(IDS) // 10].copy()
    lanes = Lanes(masked, config.seq_len, config.batch)
    masked[Masking(lanes, VOCAB.escape_id, config.seed).positions(0)] = VOCAB.escape_id
    plain = steps.Steps(model_config(), lanes, config, taken.total)
    one, other = (RunState.start(untrained().parameters, config.batch, config.rule(0.0).slots) for _ in range(2))
    for _ in range(73):  # one pass
        taken.take(one)
        plain.take(other)
    one.seconds = other.seconds
    assert one == other


def test_measuring_the_speed_changes_no_later_step(monkeypatch):
    """As in a run of so many minutes: the measured steps, of a copy, go on into later passes over the text."""
    config = run_config(backend="reference")
    monkeypatch.setattr(steps, "_SETTLING_STEPS", 100)  # an epoch has 73
    monkeypatch.setattr(steps, "_MEASURED_SECONDS", 1e9)
    measured, ref = (steps_of(model_config(), config) for _ in range(2))
    one, other = (RunState.start(untrained().parameters, config.batch, config.rule(0.0).slots) for _ in range(2))
    stop = iter([False] * 100)
    measured.seconds_per_step(one, lambda: next(stop, True))
    for _ in range(5):
        measured.take(one)
        ref.take(other)
    one.seconds = other.seconds
    assert one == other


def test_without_an_escape_nothing_is_masked(monkeypatch):
    monkeypatch.setattr(Masking, "apply", None)  # calling it would fail
    lanes = Lanes(VOCAB.encode(TEXT), 8, 3)
    config = run_config(backend="reference")
    state = RunState.start(untrained().parameters, config.batch, config.rule(0.0).slots)
    steps.Steps(model_config(), lanes, config, 10).take(state)
    assert state.step == 1
