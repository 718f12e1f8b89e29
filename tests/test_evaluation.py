"""Evaluation: losses, accuracies and costs by hand, texts alone and together, and the error of lanes."""

import dataclasses
import math

import numpy as np
import pytest

from fastlstm import Model, ModelConfig, TrainConfig
from fastlstm.errors import ConfigError, StoppedError, TextError
from fastlstm.evaluation import evaluate_dynamic
from fastlstm.inference import Inference, Networks, Passage
from fastlstm.learning import Learning
from fastlstm.reference import network as reference
from fastlstm.text import Vocab

TEXT = "the cat sat on the mat, and the dog ate the hat of that man."


@pytest.fixture(scope="module")
def trained(default_text):
    """A model that has learned something: its loss is that of a text, not of guessing."""
    model = Model.for_text(default_text, hidden=32, embedding=16)
    model.fit(default_text[:60_000], TrainConfig(steps=300, seq_len=32, batch=16, sample_length=0))
    return model


@pytest.fixture
def model(rng):
    """A model of float64, with parameters that make its predictions differ."""
    vocab = Vocab.from_text(TEXT)
    model = Model(ModelConfig(len(vocab), hidden=9, embedding=5, layers=2, dtype="float64"), vocab)
    model.parameters.flat[...] = rng.normal(0, 0.8, model.parameters.flat.shape)
    return model


def with_escape(model):
    """The same model with the last of its symbols as the escape."""
    vocab = Vocab(model.vocab.symbols[:-1], escape=True)
    return Model(model.config, vocab, model.parameters)


def distributions(model, ids):
    """(N-1, V) probabilities of all symbols at each place but the first, by the reference."""
    x, y = (part.astype(np.int32)[:, None] for part in (ids[:-1], ids[1:]))
    return reference.forward(model.parameters, x, y, model.zero_state(1)).probabilities[:, 0]


def expected(model, ids):
    """Nats of every predicted symbol, and how many symbols are more probable."""
    p = distributions(model, ids)
    own = p[np.arange(len(p)), ids[1:]]
    return -np.log(own), (p > own[:, None]).sum(axis=1)


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_losses_and_accuracies_are_those_of_the_probabilities_of_the_reference(model, backend):
    ids = model.encode(TEXT)
    nats, ranks = expected(model, ids)
    found = model.evaluate(TEXT, backend=backend)
    assert found.chars == len(TEXT) - 1
    # Sums of 60 numbers of float64 with an error of some roundings each.
    assert found.nats_per_char == pytest.approx(nats.mean(), rel=1e-10)
    assert found.bits_per_char == pytest.approx(nats.mean() / math.log(2), rel=1e-10)
    assert (found.top1, found.top5) == (np.mean(ranks < 1), np.mean(ranks < 5))
    assert 0 < found.top1 < found.top5 < 1
    assert (found.unknown, found.error) == (0, 0.0)


def test_costs_are_sums_over_the_predictions_of_each_symbol_and_after_each_context(model):
    text = TEXT * 30
    ids = model.encode(text)
    nats, ranks = expected(model, ids)
    report = model.assess([text], hardest=1000)
    assert {cost.ids for cost in report.symbols} == {(i,) for i in np.unique(ids[1:]).tolist()}
    for cost in report.symbols:
        chosen = ids[1:] == cost.ids[0]
        assert cost.count == chosen.sum()
        assert cost.nats_per_char == pytest.approx(nats[chosen].mean(), rel=1e-10)
        assert cost.share == pytest.approx(nats[chosen].sum() / nats.sum(), rel=1e-10)
        assert cost.top1 == np.mean(ranks[chosen] < 1)
    assert [cost.share for cost in report.symbols] == sorted((cost.share for cost in report.symbols), reverse=True)

    pairs = list(zip(ids[:-2].tolist(), ids[1:-1].tolist(), strict=True))
    assert {cost.ids for cost in report.contexts} == {pair for pair in pairs if pairs.count(pair) >= 20}
    for cost in report.contexts:
        chosen = np.array([pair == cost.ids for pair in pairs])
        assert cost.count == chosen.sum()
        assert cost.nats_per_char == pytest.approx(nats[1:][chosen].mean(), rel=1e-10)
        assert cost.top1 == np.mean(ranks[1:][chosen] < 1)
    means = [cost.bits_per_char for cost in report.contexts]
    assert means == sorted(means, reverse=True)
    assert model.assess([text], hardest=3).contexts == report.contexts[:3]
    assert model.assess([text], hardest=0).symbols == ()


def test_each_of_several_texts_is_assessed_as_if_it_were_alone(trained, default_text):
    """To the bit: lengths around the 256 symbols whose nats are added up first, and one that outlasts the others."""
    lengths = (2, 3, 33, 256, 257, 258, 300, 600, 4000)
    starts = range(60_000, 150_000, 5000)
    texts = [default_text[start : start + length] for start, length in zip(starts, lengths, strict=False)]
    report = trained.assess(texts, hardest=5)
    assert report.texts == tuple(trained.evaluate(text) for text in texts)
    for text, found in zip(texts, report.texts, strict=True):
        loss = Inference(Networks(trained.config), trained.parameters, "fast", 1).evaluate(trained.encode(text))
        assert (found.chars, found.nats_per_char) == (loss.chars, loss.nats_per_char)
    total = report.total
    assert total.chars == sum(lengths) - len(lengths)
    for name in ("nats_per_char", "top1", "top5"):
        mean = sum(one.chars * getattr(one, name) for one in report.texts) / total.chars
        assert getattr(total, name) == pytest.approx(mean, rel=1e-14)  # the same sum in another order
    assert sum(cost.count for cost in trained.assess(texts, hardest=1000).symbols) == total.chars


def test_no_context_reaches_into_the_text_before(model):
    texts = ["ta" * 15, "ct" * 15]
    a, t, c = (int(model.encode(symbol)[0]) for symbol in "atc")
    costs = {cost.ids: cost.count for cost in model.assess(texts, hardest=99).contexts}
    assert costs == {}  # each context occurs 14 times
    texts = [text * 2 for text in texts]
    costs = {cost.ids: cost.count for cost in model.assess(texts, hardest=99).contexts}
    assert costs == {(t, a): 29, (a, t): 29, (c, t): 29, (t, c): 29}


def test_of_many_symbols_contexts_without_a_place_in_the_table_are_left_out(model, monkeypatch):
    text = TEXT * 30
    whole = {cost.ids: cost for cost in model.assess([text], hardest=1000).contexts}
    monkeypatch.setattr("fastlstm.evaluation._CONTEXTS", 20)
    some = model.assess([text], hardest=1000).contexts
    assert 0 < len(some) <= 20
    assert all(whole[cost.ids] == cost for cost in some)


@pytest.mark.parametrize("lanes", [2, 3, 16, 64, 512])
def test_lanes_differ_from_one_pass_by_less_than_the_stated_error(trained, default_text, lanes):
    text = default_text[:100_000]
    exact, found = trained.evaluate(text), trained.evaluate(text, lanes=lanes)
    assert found.chars == exact.chars
    assert 0 < abs(found.nats_per_char - exact.nats_per_char) <= found.error < 1e-4
    assert found.top1 == pytest.approx(exact.top1, abs=1e-3)


def test_the_stated_error_is_the_one_of_its_definition(trained, default_text):
    """Two lanes of 3,000 symbols: the second is entered at ``cut``, after 256 that the first one reads, too."""
    ids = trained.encode(default_text)[:3001]
    inference, cut = Inference(Networks(trained.config), trained.parameters, "fast", 1), 1 + (3000 + 256) // 2

    def last_nats(start):
        passage = Passage(np.array([start]), np.array([cut]), ids[start - 1 : start])
        return np.concatenate([one.nats[one.valid] for one in inference.read_lanes(ids, passage)])[-128:]

    difference = np.abs(last_nats(cut - 256) - last_nats(1)).mean()
    assert difference > 0
    # 1e-12: the order in which 128 differences are added up.
    assert trained.evaluate(ids, lanes=2).error == pytest.approx(difference * (3001 - cut) / 3000, rel=1e-12)


def test_parts_of_lanes_cover_every_symbol_once(trained, default_text):
    """The costs count all symbols, whatever the lanes: also if they are many more than a text has parts for."""
    ids = trained.encode(default_text)[:9973]
    occurring = np.bincount(ids[1:], minlength=len(trained.vocab))
    for lanes in (1, 2, 7, 9, 10_000):
        counted = []
        report = trained.assess([ids, ids[:1500]], lanes=lanes, hardest=1000, advance=counted.append)
        counts = {cost.ids[0]: cost.count for cost in report.symbols}
        both = occurring + np.bincount(ids[1:1500], minlength=len(trained.vocab))
        assert counts == {i: n for i, n in enumerate(both.tolist()) if n}
        assert report.total.chars == sum(counted) == 9972 + 1499
        assert (report.texts[0].error == 0) == (lanes == 1)
        assert report.texts[1].error == 0  # it is too short to be cut


def test_results_do_not_depend_on_threads(trained, default_text):
    ids = trained.encode(default_text)[:20_000]
    found = [trained.assess([ids, ids[:5000]], lanes=9, threads=threads) for threads in (1, 2, 3)]
    assert found[0] == found[1] == found[2]


def test_unknown_symbols_are_counted_cost_their_name_and_are_never_hits(model):
    model = with_escape(model)
    assert model.vocab.escape_id is not None
    model.parameters["output.b"][model.vocab.escape_id] += 100  # always the most probable
    text = TEXT[:40].replace("d", "é").replace("g", "→")
    ids = model.encode(text)
    unknown = int((ids[1:] == model.vocab.escape_id).sum())
    assert unknown > 1
    found = model.evaluate(text)
    nats, ranks = expected(model, ids)
    assert found.unknown == unknown
    assert found.nats_per_char == pytest.approx((nats.sum() + unknown * model.vocab.naming_nats) / 39, rel=1e-10)
    known = ids[1:] != model.vocab.escape_id
    assert (found.top1, found.top5) == (np.sum(known & (ranks < 1)) / 39, np.sum(known & (ranks < 5)) / 39)
    assert found.top1 == 0


def test_a_symbol_as_probable_as_others_is_a_hit(model):
    for name in ("output.W", "output.b"):
        model.parameters[name][...] = 0
    found = model.evaluate(TEXT)
    assert (found.top1, found.top5) == (1.0, 1.0)
    assert found.perplexity == pytest.approx(len(model.vocab), rel=1e-10)


def test_a_text_of_one_symbol_and_wrong_settings_are_refused(model):
    with pytest.raises(TextError, match="at least two"):
        model.assess([TEXT, "t"])
    with pytest.raises(ConfigError, match="lanes must be"):
        model.evaluate(TEXT, lanes=0)
    with pytest.raises(ConfigError, match="hardest must be"):
        model.assess([TEXT], hardest=-1)


def test_a_stopped_evaluation_ends(trained, default_text):
    stops = iter([False, False, True])
    with pytest.raises(StoppedError):
        trained.assess([default_text], stop=lambda: next(stops))


def test_a_model_that_learns_at_rate_0_while_it_reads_is_the_model(trained, default_text):
    text = default_text[:3000]
    found = trained.evaluate_dynamic(text, Learning(lr=0.0))
    exact = trained.evaluate(text)
    assert found.chars == exact.chars
    assert found.nats_per_char == pytest.approx(exact.nats_per_char, rel=1e-12)  # the same nats, added in another order


def test_learning_while_reading_predicts_a_strange_text_better_and_leaves_the_model_alone(trained):
    text, before, done = "abcabd efg " * 300, trained.parameters.flat.copy(), []
    found = trained.evaluate_dynamic(text, Learning(lr=0.01), advance=done.append)
    assert found.nats_per_char < 0.5 * trained.evaluate(text).nats_per_char
    np.testing.assert_array_equal(trained.parameters.flat, before)
    assert sum(done) == found.chars == len(text) - 1


def test_unknown_symbols_cost_their_name_while_the_model_learns(model):
    model, text = with_escape(model), "the → cat sat → é on"
    found = model.evaluate_dynamic(text, Learning(lr=0.0))
    assert found.nats_per_char == pytest.approx(model.evaluate(text).nats_per_char, rel=1e-12)


def test_no_model_learns_in_bf16_while_it_reads(trained):
    inference = dataclasses.replace(trained._inference("fast", None, "auto"), bf16=True)
    with pytest.raises(ConfigError, match="float32 or float64"):
        evaluate_dynamic(inference, trained.encode("the cat"), Learning())
