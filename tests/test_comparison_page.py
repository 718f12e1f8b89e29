"""The page of a comparison draws and says what was measured."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from fastlstm import comparison
from fastlstm.comparison_plan import ComparisonPlan
from fastlstm.exhibits.recovery import recovery
from fastlstm.pages import compare as page
from fastlstm.pages.recovery import Course, sentence


@pytest.fixture(scope="module")
def found(default_text):
    plan = ComparisonPlan(
        steps=40, seeds=2, hidden=8, embedding=4, batch=4, seq_len=16, recall_steps=2, recovery_steps=0
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_MEASURED_SECONDS", 0.01)
        patch.setattr(comparison, "recovery", functools.partial(recovery, lanes=2, after=200))
        return comparison.compare(default_text[:30_000], plan, ["rnn", "lstm"])


@pytest.fixture
def drawn(monkeypatch):
    """A function that draws a part of the page, and returns the lines of its figures, by figure and label."""
    figure = pytest.importorskip("matplotlib.figure").Figure

    def lines(part, *arguments):
        painted = {}
        monkeypatch.setattr(page, "draw", lambda name, *texts: painted.setdefault(name, texts[-1]))
        part(*arguments)
        axes = {name: figure().subplots() for name in painted}
        for name, paint in painted.items():
            paint(axes[name])
        return {name: {line.get_label(): line.get_xydata() for line in one.get_lines()} for name, one in axes.items()}

    return lines


def shown(gradient):
    """The norms of the last layer, as far as the axis reaches."""
    return np.maximum(gradient.norms[-1], 1e-21)


def test_the_gradients_of_each_figure_are_those_before_and_after(found, drawn):
    lines = drawn(page._gradients, found)
    for when, gradients in (("before", found.before), ("after", found.after)):
        for cell in ("rnn", "lstm"):
            one = gradients[f"{cell}-seed-0"]
            line = lines[f"gradient-{when}"][cell.upper()]
            np.testing.assert_array_equal(line, np.stack([one.lags, shown(one)], axis=1))
        for bias, name in ((0, "lstm-forget-bias-0"), (1, "lstm-seed-0"), (3, "lstm-forget-bias-3")):
            line = lines[f"forget-bias-{when}"][f"forget bias {bias}"]
            np.testing.assert_array_equal(line[:, 1], shown(gradients[name]))


def test_the_losses_are_the_means_of_the_seeds(found, drawn):
    lines = drawn(page._loss, found)
    for cell in ("rnn", "lstm"):
        first, second = (one.curve for one in found.of(cell))
        line = lines["loss-step"][cell.upper()]  # without the last loss, which is exact
        assert line[:, 0].tolist() == first.step[:-1].tolist()
        np.testing.assert_allclose(line[:, 1], (first.val_nats + second.val_nats)[:-1] / 2, rtol=1e-15)


def test_gradients_that_explode_are_inside_of_the_figure(found):
    large = SimpleNamespace(norms=np.array([[1.0, 1e5]]))
    _, high = page._norm_limits(SimpleNamespace(before={"rnn": large}, after=found.after))
    assert high == 1e5


def test_the_sentences_about_the_gates_follow_them():
    lstm = SimpleNamespace(names=("i", "f"), low=np.zeros((1, 2)), high=np.array([[0.2, 0.7]]))
    rnn = SimpleNamespace(names=("h",), low=np.array([[0.1]]), high=np.array([[0.25]]))
    sentences = " ".join(page._gate_sentences(SimpleNamespace(saturation={"lstm": lstm, "rnn": rnn})))
    assert "above 0.9, at 70 % of values" in sentences
    assert "saturated at 35 % of values" in sentences


def test_the_sentence_about_recovery_is_about_the_worst_disturbance():
    kinds = ("none", "new text", "random state", "random symbols")
    one = SimpleNamespace(disturbances=kinds, astray=np.array([0.0, 0.1, 0.5, 0.2]), word_share=np.full((4, 2), 0.7))
    said = sentence([Course("RNN", "black", "-", one)])
    assert "50 % for the RNN (after random state)" in said
