"""The bits of a line are those of the line alone, whatever is read beside it; the most surprising lines are found."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from fastlstm import Model, ModelConfig, Vocab, lines, scoring
from fastlstm.backend import has_bf16
from fastlstm.cells import CELLS
from fastlstm.errors import FastlstmError, StoppedError, VocabularyError
from fastlstm.lines import Block
from fastlstm.scoring import MEASURES, Ranking, lenient
from fastlstm.text import Encoder

CHARACTERS = "abcdefgh \n"
#: Relative: some hundred times the precision of the dtype, as errors of 90 steps add up.
TOLERANCES = {"float32": 1e-4, "float64": 1e-12}


def model_of(vocab, **settings):
    """A model whose probabilities differ much."""
    config = ModelConfig(len(vocab), **({"hidden": 12, "embedding": 5} | settings))
    model = Model(config, vocab, seed=1)
    model.parameters.flat[:] *= 5
    return model


@pytest.fixture
def model():
    return model_of(Vocab.from_text(CHARACTERS, escape=True))


def random_lines(rng, count=60, longest=90):
    """Lines of very different length, some of them empty."""
    symbols = list(CHARACTERS[:-1])
    sizes = rng.integers(0, longest, count) * rng.integers(0, 2, count)
    return ["".join(rng.choice(symbols, size)) + "\n" for size in sizes]


def scored_alone(model, given, **settings):
    return [-model.log_probs(line, **settings) for line in given]


def assert_equal_arrays(comp, ref):
    for a, b in zip(comp, ref, strict=True):
        assert a.tolist() == b.tolist()


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_nats_of_a_line_are_those_of_the_line_alone(cell, dtype, backend, rng):
    model = model_of(Vocab.from_text(CHARACTERS), cell=cell, dtype=dtype, layers=2)
    given = [*random_lines(rng, 40), "a bed"]
    scored = list(model.score("".join(given), backend=backend))
    assert [line.text for line in scored] == given
    assert [line.number for line in scored] == list(range(1, 42))
    ref = scored_alone(model, given, backend=backend)
    if backend == "fast":
        assert_equal_arrays([line.nats for line in scored], ref)
    else:  # products of NumPy depend on the number of lanes in their last bits
        np.testing.assert_allclose(
            np.concatenate([line.nats for line in scored]), np.concatenate(ref), rtol=TOLERANCES[dtype]
        )


@pytest.mark.skipif(not has_bf16("fast"), reason="this processor has no bf16")
def test_that_holds_in_bf16(model, rng):
    given = random_lines(rng)
    scored = model.score(given, precision="bf16")
    assert_equal_arrays([line.nats for line in scored], scored_alone(model, given, precision="bf16"))


@pytest.mark.parametrize("most_lanes", [1, 3, 200])
def test_they_do_not_depend_on_lanes_threads_or_pieces(most_lanes, model, rng, monkeypatch, share_every_step):
    monkeypatch.setattr(scoring, "_MOST_LANES", most_lanes)
    monkeypatch.setattr(scoring, "_FEWEST_SYMBOLS", 8)
    given = random_lines(rng)
    ref = scored_alone(model, given)
    for threads, gathered in itertools.product((1, 2), (1, 300, 1 << 18)):
        monkeypatch.setattr(scoring, "_GATHERED", gathered)
        assert_equal_arrays([line.nats for line in model.score(given, threads=threads)], ref)


def test_the_bits_of_a_line_do_not_depend_on_its_block_either(model, rng):
    """Sums are in the same order wherever a line stands."""
    given = random_lines(rng, longest=400)
    scorer = model.scorer(Encoder(model.vocab))
    together = scorer.score(Block("".join(given), 1))
    alone = [scorer.score(Block(line, 1)) for line in given]
    assert together.line_nats.tolist() == [scored.line_nats[0] for scored in alone]
    assert together.mean_nats.tolist() == [scored.mean_nats[0] for scored in alone]
    assert together.most_nats.tolist() == [scored.most_nats[0] for scored in alone]
    assert [scored.line(0).place for scored in alone] == [together.line(i).place for i in range(len(together))]


def test_a_line_has_its_bits_and_its_most_surprising_place(model):
    (line,) = model.score("abcéd")
    ref = -model.log_probs("abcéd")
    assert line.bits == pytest.approx(ref.sum() / math.log(2), rel=1e-12)  # sums in another order
    assert line.bits_per_char == line.bits / 5
    assert line.place == int(np.argmax(ref))
    assert ref[3] > model.vocab.naming_nats


def test_unknown_symbols_are_left_out_where_there_is_no_escape(rng):
    model = model_of(Vocab.from_text(CHARACTERS))
    assert (lenient(model.vocab), lenient(Vocab.from_text("a", escape=True))) == ("skip", "escape")
    first, second = model.score("aéb\n→é")
    known = -model.log_probs("ab\n")
    assert first.nats[[0, 2, 3]].tolist() == known.tolist()
    assert np.isnan(first.nats[1])
    assert first.bits_per_char == first.bits / 3
    assert (second.bits, second.bits_per_char, second.place) == (0.0, 0.0, None)
    with pytest.raises(VocabularyError, match="é"):
        list(model.score("aéb", unknown="error"))


def test_a_vocabulary_without_newline_leaves_line_ends_out(rng):
    model = model_of(Vocab.from_text(CHARACTERS[:-1]))
    given = random_lines(rng)
    scored = list(model.score(given))
    assert [line.text for line in scored] == given
    assert_equal_arrays([line.nats[:-1] for line in scored], scored_alone(model, [line[:-1] for line in given]))
    assert all(np.isnan(line.nats[-1]) for line in scored)


def test_lines_of_bytes_are_scored_by_a_model_of_bytes(rng):
    model = model_of(Vocab.of_bytes())
    given = [rng.bytes(30).replace(b"\n", b"") + b"\n" for _ in range(20)]
    scored = list(model.score(b"".join(given)))
    assert_equal_arrays([line.nats for line in scored], scored_alone(model, given))
    with pytest.raises(TypeError, match="bytes, not str"):
        list(model.score("text"))


def test_there_is_nothing_to_score_in_an_empty_text(model):
    assert list(model.score("")) == list(model.score([])) == []


def test_a_very_long_line_is_scored_in_parts(model, monkeypatch):
    for module in (lines, scoring):
        monkeypatch.setattr(module, "LONGEST", 50)
    text = "a\n" + "a" * 53 + "\na\n"
    scored = list(model.score(text))
    assert [(line.number, len(line.text)) for line in scored] == [(1, 2), (2, 50), (2, 4), (3, 2)]
    assert scored[2].nats.tolist() == (-model.log_probs("aaa\n")).tolist()
    scorer = model.scorer(Encoder(model.vocab))
    assert scorer.score(Block(text, 1)).is_cut
    assert scorer.score(Block("a" * 50, 1)).is_cut
    assert not scorer.score(Block("a\n\na", 1)).is_cut


def test_scoring_stops_when_it_is_told_to(model):
    with pytest.raises(StoppedError):
        next(model.score("abc\n", stop=lambda: True))


def test_a_model_without_finite_losses_is_an_error(model):
    model.parameters.flat[:] = np.inf
    with pytest.raises(FastlstmError, match="not a finite number"):
        list(model.score("abc\n"))


@pytest.mark.parametrize("by", MEASURES)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_ranking_has_the_lines_with_the_most_of_a_measure(by, size, model, rng):
    """Compared with sorting all lines; equal ones, such as the empty ones, stay in order."""
    given = random_lines(rng, 100, longest=30)
    scorer, ranking = model.scorer(Encoder(model.vocab)), Ranking(size, by)
    for start in range(0, 100, 25):
        scored = scorer.score(Block("".join(given[start : start + 25]), start + 1))
        ranking.add(scored, np.arange(25), "log")
    alone = [scorer.score(Block(line, n)) for n, line in enumerate(given, start=1)]
    expected = sorted(alone, key=lambda scored: -MEASURES[by](scored)[0])[:size]
    assert [(source, line.number) for source, line in ranking.lines()] == [
        ("log", int(scored.numbers[0])) for scored in expected
    ]


def test_memory_does_not_grow_with_the_number_of_lines(model):
    """NumPy reports its arrays to tracemalloc; lines and arrays of a block would be more than the bound if kept."""
    text = "abcdefgh abc\n" * 2000
    ranking, scorer = Ranking(3, "max"), model.scorer(Encoder(model.vocab))

    def read(blocks):
        for n in range(blocks):
            scored = scorer.score(Block(text, n))
            ranking.add(scored, np.arange(len(scored)))

    read(2)
    tracemalloc.start()
    try:
        read(2)
        _, few = tracemalloc.get_traced_memory()
        read(10)
        _, many = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert many - few < 20_000  # bytes; a kept block has more, and its nats 8 times as many
