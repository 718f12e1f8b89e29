"""A model adapted to another vocabulary keeps what it knows, and starts on a new text below a model that guesses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import Model, TrainConfig, Vocab, defaults, fine_tuning
from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError
from fastlstm.reference.network import forward
from fastlstm.text import split

TEXT = "the cat sat on the mat, and so did the dog.\n" * 12
DTYPES = ["float32", "float64"]


def generic(text, rng, **settings):
    """A model in which no parameter is zero."""
    model = Model.for_text(text, **{"hidden": 6, "embedding": 3} | settings)
    for view in model.parameters.values():
        view += 0.3 * rng.standard_normal(view.shape).astype(view.dtype)
    return model


def both(old, new):
    """The symbols of two models that both have: their ids in each."""
    symbols = np.intersect1d(old.vocab.symbols, new.vocab.symbols)
    return np.searchsorted(old.vocab.symbols, symbols), np.searchsorted(new.vocab.symbols, symbols)


def probabilities(model, ids):
    """The (N, V) distributions after each symbol of a text, computed by the reference."""
    x = np.asarray(ids, np.int32)[:, None]
    return forward(model.parameters, x, x, model.zero_state(1)).probabilities[:, 0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_layers_and_the_parameters_of_known_symbols_are_kept_bit_for_bit(cell, layers, dtype, rng):
    old = generic(TEXT, rng, cell=cell, layers=layers, dtype=dtype)
    before = old.parameters.flat.copy()
    new = old.adapted("Über the cat: äöü")
    assert new.vocab == Vocab.from_text("Über the cat: äöü", escape=True)
    assert new.config.to_dict() == old.config.to_dict() | {"vocab_size": len(new.vocab)}
    ids, new_ids = both(old, new)
    assert 0 < len(ids) < min(len(old.vocab), len(new.vocab))
    for name, view in old.parameters.items():
        if name not in old.config.outer_tensors:
            np.testing.assert_array_equal(new.parameters[name], view)
    np.testing.assert_array_equal(new.parameters["embedding"][new_ids], old.parameters["embedding"][ids])
    np.testing.assert_array_equal(new.parameters["output.W"][:, new_ids], old.parameters["output.W"][:, ids])
    np.testing.assert_array_equal(new.parameters["output.b"][new_ids], old.parameters["output.b"][ids])
    assert new.parameters.flat.dtype == dtype
    assert not np.shares_memory(new.parameters.flat, old.parameters.flat)
    np.testing.assert_array_equal(old.parameters.flat, before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_new_symbol_is_an_average_input_and_is_predicted_by_its_share_alone(dtype, rng):
    old = generic("ab", rng, dtype=dtype, escape=False)
    text = "aaabbbb" + "x" * 15 + "y"
    new = old.adapted(text, escape=False)
    embedding, W, b = (new.parameters[name] for name in new.config.outer_tensors)
    a, b_, x, y = range(4)
    # 1e-6: rounding to float32, the coarser dtype.
    np.testing.assert_allclose(embedding[[x, y]], [(embedding[a] + embedding[b_]) / 2] * 2, rtol=0, atol=1e-6)
    assert not W[:, [x, y]].any()
    shares = {a: 4 / 27, b_: 5 / 27, x: 16 / 27, y: 2 / 27}  # one more of each than in the text
    offset = np.mean([b[a] - math.log(shares[a]), b[b_] - math.log(shares[b_])])
    np.testing.assert_allclose(b[[x, y]], [math.log(shares[x]) + offset, math.log(shares[y]) + offset], atol=1e-6)


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_vocabulary_gives_the_same_model(dtype, backend, rng):
    old = generic(TEXT, rng, dtype=dtype)
    content, changes = fine_tuning.adapted(old.content, old.vocab, old.encode(TEXT))
    assert changes == (len(old.vocab.symbols), 0, 0, 0.0)
    assert (content.config, content.vocab) == (old.config, old.vocab)
    np.testing.assert_array_equal(content.parameters.flat, old.parameters.flat)
    new = Model(content.config, content.vocab, content.parameters)
    assert new.evaluate(TEXT, backend=backend) == old.evaluate(TEXT, backend=backend)


symbols = st.sets(st.sampled_from("abcdefghijklmno"), min_size=1)


@given(kept=symbols, lost=symbols, new=symbols, cell=st.sampled_from(list(CELLS)), seed=st.integers(0, 9))
def test_on_known_symbols_probabilities_are_as_before_but_for_their_sum(kept, lost, new, cell, seed):
    lost, new = lost - kept, new - kept - lost
    rng = np.random.default_rng(seed)
    old = generic("".join(kept | lost), rng, cell=cell, dtype="float64")
    text = "".join(rng.choice(sorted(kept), 30))
    model = old.adapted(text + "".join(kept | new))
    ids, new_ids = both(old, model)
    p, q = probabilities(old, old.encode(text))[:, ids], probabilities(model, model.encode(text))[:, new_ids]
    # 1e-12: some hundred times the rounding of the products and sums of float64, in a state carried over 30 symbols.
    np.testing.assert_allclose(q / q.sum(axis=1, keepdims=True), p / p.sum(axis=1, keepdims=True), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("cell", "backend"), [("lstm", "fast"), *((cell, "reference") for cell in CELLS)])
def test_a_loss_of_symbols_that_do_not_occur_lowers_the_loss_of_a_text_by_what_they_took(cell, backend, rng):
    old = generic(TEXT + "XYZ", rng, cell=cell, dtype="float64", escape=False)
    new = old.adapted(TEXT, escape=False)
    assert len(new.vocab) == len(old.vocab) - 3
    ids, _ = both(old, new)
    p = probabilities(old, old.encode(TEXT))[:-1]
    taken = -np.log(p[:, ids].sum(axis=1)).mean()
    assert taken > 0.01
    before, after = (model.evaluate(TEXT, backend=backend).nats_per_char for model in (old, new))
    assert after == pytest.approx(before - taken, rel=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_of_bytes_is_adapted_to_bytes(cell, rng):
    old = generic(TEXT.encode(), rng, cell=cell)
    new = old.adapted(b"the \xff cat")
    assert new.vocab == Vocab.from_text(b"the \xff cat")
    assert np.isfinite(new.evaluate(b"the \xff cat", backend="reference").nats_per_char)


def test_bytes_and_characters_do_not_mix(rng):
    with pytest.raises(ConfigError, match=r"are bytes, those of the text are characters: use bytes \(train --bytes\)"):
        generic(TEXT.encode(), rng).adapted(TEXT)
    with pytest.raises(ConfigError, match="are characters, those of the text are bytes: use characters"):
        generic(TEXT, rng).adapted(TEXT.encode())


@pytest.mark.parametrize("text", ["ÄÖÜ", ""])
def test_a_text_without_a_known_symbol_is_refused(text, rng):
    with pytest.raises(ConfigError, match=f"the model knows none of the text's {len(text)} symbols"):
        generic(TEXT, rng).adapted(text)


def test_a_vocabulary_too_large_for_the_model_is_refused(monkeypatch, rng):
    old = generic("ab", rng)
    monkeypatch.setattr("fastlstm.config.MOST_PARAMETERS", old.config.parameter_count)
    with pytest.raises(ConfigError, match="parameters are more than"):
        old.adapted("abc")


def entries(model, id_):
    """The parameters of one entry of the vocabulary."""
    return [model.parameters[name][id_] for name in ("embedding", "output.b")] + [model.parameters["output.W"][:, id_]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_escape_is_kept_bit_for_bit(dtype, rng):
    old = generic("abcx", rng, dtype=dtype)
    new = old.adapted("aabyz")
    assert new.vocab == Vocab.from_text("aabyz", escape=True)
    for before, after in zip(entries(old, 4), entries(new, 4), strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_model_without_an_escape_gets_one_that_is_as_probable_as_it_is_masked(rng):
    old = generic("ab", rng, escape=False)
    new = old.adapted("aaabbbb" + "x" * 15 + "y")
    embedding, W, b = (new.parameters[name] for name in new.config.outer_tensors)
    # 1e-6: rounding to float32.
    np.testing.assert_allclose(embedding[4], (embedding[0] + embedding[1]) / 2, rtol=0, atol=1e-6)
    assert not W[:, 4].any()
    # Of the four symbols one each is masked in a pass, as often as a symbol that occurs four times; "b" does.
    offset = np.mean([b[0] - math.log(4 / 32), b[1] - math.log(5 / 32)])
    assert b[4] == pytest.approx(math.log(5 / 32) + offset, abs=1e-6)


def test_the_escape_is_dropped_on_request_and_changes_nothing_else(rng):
    old = generic(TEXT, rng, dtype="float64")
    with_it, without = old.adapted(TEXT), old.adapted(TEXT, escape=False)
    assert without.vocab == Vocab.from_text(TEXT)
    np.testing.assert_array_equal(with_it.parameters.flat, old.parameters.flat)
    for id_ in range(len(without.vocab)):
        for before, after in zip(entries(old, id_), entries(without, id_), strict=True):
            np.testing.assert_array_equal(after, before)


def test_the_escape_is_no_symbol_that_a_model_knows(rng):
    """Both have one, and nothing else in common."""
    vocab = Vocab.from_text("xy", escape=True)
    with pytest.raises(ConfigError, match="the model knows none of the text's 2 symbols"):
        fine_tuning.adapted(generic("ab", rng).content, vocab, vocab.encode("xy"))


def test_changes_count_symbols_and_the_new_part_of_the_text(monkeypatch, rng):
    old = generic("abcde", rng)
    vocab = Vocab.from_text("abxy")
    monkeypatch.setattr("fastlstm.text._CHUNK", 3)  # the text below is counted in three pieces
    _, changes = fine_tuning.adapted(old.content, vocab, vocab.encode("aaabbbxx"))
    assert changes == (2, 2, 3, 0.25)


def test_the_record_of_training_is_not_that_of_the_adapted_model(rng):
    old = generic(TEXT, rng)
    old.fit(TEXT, TrainConfig(steps=1, batch=2, sample_length=0))
    assert old.training is not None
    assert old.adapted(TEXT).training is None


def replaced(text, old, new):
    return text.translate(str.maketrans(old, new))


NEW = {
    "4 %": lambda text: text.replace("an", "än").replace("or", "ör").replace("us", "üs").replace("ss", "ß"),
    "20 %": lambda text: replaced(text, "eao", "эяю"),
    "40 %": lambda text: replaced(text, "etaosrc", "этаоср!"),
}


@pytest.fixture(scope="module")
def trained(default_text):
    """A small model, briefly trained on the first half of the default text; and the second half."""
    half = len(default_text) // 2
    model = Model.for_text(default_text[:half], hidden=64, embedding=32)
    model.fit(default_text[:half], chosen(half, 600))
    return model, default_text[half:]


def chosen(symbols, steps):
    values = defaults.chosen(symbols, {"hidden": 64}, {"steps": steps}).train
    return TrainConfig(steps=steps, checks=1, sample_length=0, **values)


@pytest.mark.parametrize("share", NEW)
def test_fine_tuning_on_new_characters_starts_and_stays_below_a_new_model(share, trained):
    model, text = trained
    text = NEW[share](text)
    tuned = model.adapted(text)
    validation = text[-len(split(np.arange(len(text)), 0.1)[1]) :]
    assert tuned.evaluate(validation).nats_per_char < math.log(len(tuned.vocab)) - 0.5
    new = Model.for_text(text, hidden=64, embedding=32)
    config = chosen(len(text), 200)
    assert tuned.fit(text, config).val_nats < new.fit(text, config).val_nats - 0.1
