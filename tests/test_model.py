"""Model: arguments are validated, chunks do not change results, a seed determines a sample."""

import numpy as np
import pytest

from fastlstm import Model, ModelConfig, Vocab
from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError, TextError, VocabularyError
from fastlstm.reference.network import ReferenceNetwork

TEXT = "the cat sat on the mat.\nso did the dog, at last.\n" * 20


def double(**settings):
    """A small float64 model with weights so large that its predictions are far from uniform."""
    return Model.for_text(TEXT, dtype="float64", **{"hidden": 7, "embedding": 3, "weight_std": 0.8} | settings)


def chunk(model, T=5, B=3):
    ids = model.encode(TEXT)[: T * B + 1]
    return ids[:-1].reshape(T, B), ids[1:].reshape(T, B)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("cell", CELLS)
def test_both_backends_give_the_same_loss_gradients_and_state(cell, reduction):
    model = double(cell=cell, layers=2)
    x, y = chunk(model)
    state = np.random.default_rng(0).standard_normal(model.config.state_shape(3))
    before = state.copy()
    ref_loss, ref, ref_state = model.loss_and_grads(x, y, state, reduction=reduction, backend="reference")
    loss, comp, comp_state = model.loss_and_grads(x, y, state, reduction=reduction)
    np.testing.assert_array_equal(state, before)
    assert loss == pytest.approx(ref_loss, rel=1e-12)
    np.testing.assert_allclose(comp_state, ref_state, rtol=0, atol=1e-12)
    for name in ref:
        np.testing.assert_allclose(comp[name], ref[name], rtol=0, atol=1e-10 * max(1, np.abs(ref[name]).max()))


def test_the_sum_is_the_mean_times_the_number_of_symbols():
    model = double()
    x, y = chunk(model)
    mean, mean_grads, _ = model.loss_and_grads(x, y)
    total, grads, _ = model.loss_and_grads(x, y, reduction="sum")
    assert total == pytest.approx(15 * mean, rel=1e-12)
    np.testing.assert_allclose(grads.flat, 15 * mean_grads.flat, rtol=1e-9, atol=1e-14)


def test_three_chunks_with_carried_state_are_one_sequence():
    model = double()
    x, y = chunk(model, T=12)
    whole, _, ref_state = model.loss_and_grads(x, y, reduction="sum")
    state, parts = None, 0.0
    for start in range(0, 12, 4):
        part, _, state = model.loss_and_grads(x[start : start + 4], y[start : start + 4], state, reduction="sum")
        parts += part
    assert parts == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(state, ref_state, rtol=0, atol=1e-13)


def test_ids_of_the_right_type_are_not_copied():
    model = double()
    ids = model.encode(TEXT)
    assert model.encode(ids) is ids
    assert model.encode(ids.astype(np.int64)).dtype == ids.dtype


def test_a_later_call_does_not_change_an_earlier_result():
    model = double()
    x, y = chunk(model)
    _, first, state = model.loss_and_grads(x, y)
    kept, kept_state = first.flat.copy(), state.copy()
    model.loss_and_grads(y, x)
    np.testing.assert_array_equal(first.flat, kept)
    np.testing.assert_array_equal(state, kept_state)


def test_parameters_are_views_that_can_be_read_and_written():
    model = double()
    x, y = chunk(model)
    before, _, _ = model.loss_and_grads(x, y)
    model.parameters["output.W"][...] = 0
    model.parameters["output.b"] = np.zeros(len(model.vocab))
    after, _, _ = model.loss_and_grads(x, y)
    assert after != before
    assert after == pytest.approx(np.log(len(model.vocab)), rel=1e-12)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((2, 3), np.int64), np.zeros((3, 2), np.int64)),
        (np.zeros(3, np.int64), np.zeros(3, np.int64)),
        (np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64)),
        (np.zeros((2, 3)), np.zeros((2, 3), np.int64)),
        (np.full((2, 3), 99), np.zeros((2, 3), np.int64)),
        (np.full((2, 3), -1), np.zeros((2, 3), np.int64)),
        (np.zeros((2, 3), np.int64), np.full((2, 3), 99)),
        (np.full((2, 3), 2**40), np.zeros((2, 3), np.int64)),
    ],
)
def test_ids_that_kernels_cannot_handle_are_refused(x, y):
    for backend in ("fast", "reference"):
        with pytest.raises(ValueError, match=r"^[^\n]*$"):
            double().loss_and_grads(x, y, backend=backend)


def test_other_wrong_arguments_are_refused():
    model = double()
    x, y = chunk(model)
    with pytest.raises(ValueError, match=r"state must be of shape .* \(2, 1, 3, 7\)"):
        model.loss_and_grads(x, y, np.zeros((2, 1, 1, 7)))
    with pytest.raises(ConfigError, match="reduction"):
        model.loss_and_grads(x, y, reduction="max")
    with pytest.raises(ConfigError, match="vocabulary"):
        Model(ModelConfig(4), Vocab.from_text("abc"))
    with pytest.raises(ConfigError, match="another configuration"):
        Model(ModelConfig(3, hidden=9), Vocab.from_text("abc"), Model.for_text("abc").parameters)
    with pytest.raises(ValueError, match="from 0 to"):
        model.evaluate(np.array([0, 99]))
    for wrong in (
        {"temperature": -1.0},
        {"temperature": 1e50},
        {"temperature": float("nan")},
        {"length": -1},
        {"length": float("inf")},
        {"length": 2.5},
        {"seed": -1},
        {"seed": 2**128},
        {"length": True},
        {"temperature": 1e-4},
    ):
        with pytest.raises(ConfigError):
            model.stream(**wrong)  # before anything is drawn


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("length", [2, 256, 257, 258, 700])
def test_evaluation_in_chunks_is_one_pass_of_the_reference(backend, length):
    model = double(layers=2)
    ids = model.encode(TEXT)[:length].astype(np.int32)[:, None]
    ref = ReferenceNetwork(model.config, length - 1, 1).forward(
        model.parameters, ids[:-1], ids[1:], model.zero_state(1)
    )
    comp = model.evaluate(TEXT[:length], backend=backend)
    assert comp.chars == length - 1
    assert comp.nats_per_char == pytest.approx(ref / (length - 1), rel=1e-12)
    assert comp.bits_per_char == pytest.approx(comp.nats_per_char / np.log(2))
    assert comp.perplexity == pytest.approx(np.exp(comp.nats_per_char))


def test_evaluation_takes_text_or_ids_and_needs_two_symbols():
    model = double()
    assert model.evaluate(TEXT) == model.evaluate(model.encode(TEXT))
    for text in ("", "t"):
        with pytest.raises(TextError, match="at least two"):
            model.evaluate(text)
    with pytest.raises(VocabularyError, match="Z"):
        double(escape=False).evaluate("the Zoo")


def test_a_seed_determines_a_sample_and_backends_agree():
    model = double()
    for prompt in ("", "the ", TEXT[:600]):
        ref = model.sample(prompt, 150, seed=3, backend="reference")
        assert len(ref) == 150
        assert model.sample(prompt, 150, seed=3) == ref
        assert model.sample(prompt, 150, seed=4) != ref


def test_streamed_pieces_make_up_the_sample_and_come_early():
    model = double()
    pieces = list(model.stream("the ", 600, seed=5))
    assert "".join(pieces) == model.sample("the ", 600, seed=5)
    assert len(pieces[0]) == 1
    assert max(map(len, pieces)) == 256
    assert model.sample("the ", 40, seed=5) == model.sample("the ", 100, seed=5)[:40]
    assert list(model.stream("the ", 0)) == []
    assert model.sample("the ", 0) == ""


def test_a_prompt_is_read_to_its_end():
    model = double()
    assert model.sample("the cat", 60, seed=1) != model.sample("the dat", 60, seed=1)
    with pytest.raises(VocabularyError, match="Z"):
        double(escape=False).stream("Zoo")


def test_without_a_prompt_a_text_begins_as_after_a_line_feed():
    model = double()
    assert model.sample("", 50, seed=2) == model.sample("\n", 50, seed=2)
    no_lines = Model.for_text("abc", hidden=3, embedding=2)
    assert no_lines.sample("", 50) == no_lines.sample("a", 50)


def test_temperature_zero_takes_the_most_probable():
    model = double()
    assert model.sample("t", 80, temperature=0, seed=1) == model.sample("t", 80, temperature=0, seed=2)
    assert model.sample("t", 80, temperature=0) == model.sample("t", 80, temperature=0, backend="reference")


def test_a_model_of_bytes_gives_bytes():
    model = Model.for_text(b"\x00\xffab", hidden=3, embedding=2)
    sample = model.sample(b"\xff", 30)
    assert isinstance(sample, bytes)
    assert sample == b"".join(model.stream(b"\xff", 30))
    assert model.evaluate(b"\x00\xff\x00").chars == 2


def test_continuations_differ_and_a_single_one_is_the_sample():
    model = double()
    texts = model.continuations("the ", 5, 40, seed=3)
    assert len(set(texts)) == 5
    assert all(len(text) == 40 for text in texts)
    assert model.continuations("the ", 5, 40, seed=3, backend="reference") == texts
    assert model.continuations("the ", 1, 40, seed=3) == [model.sample("the ", 40, seed=3)]
    with pytest.raises(ConfigError, match="num must be a whole number of at least 1, not 0"):
        model.continuations(num=0)
