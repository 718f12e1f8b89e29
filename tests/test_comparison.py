"""Comparisons of cells: alike where they should be, resumable, and without repetition."""

import functools
import json
import shutil

import numpy as np
import pytest

from fastlstm import Model, comparison
from fastlstm.comparison import Watch, compare
from fastlstm.comparison_plan import ORDER, ComparisonPlan, checked_cells, compared, of_assignment, shapes
from fastlstm.errors import ConfigError, ModelFileError, StoppedError, TextError
from fastlstm.exhibits.recovery import recovery

TINY = {"hidden": 8, "embedding": 4, "batch": 4, "seq_len": 16, "recall_steps": 2, "recovery_steps": 10}


class AbortError(Exception):
    """Ends a comparison when its steps are known."""


class Planned(Watch):
    def __init__(self, abort=False):
        self.parts, self.results, self.steps, self._abort = [], [], None, abort

    def planned(self, steps):
        self.steps = steps
        if self._abort:
            raise AbortError

    def began(self, what, number, total, seconds_left):
        self.parts.append((number, total))

    def ended(self, result):
        self.results.append(result)


@pytest.fixture(autouse=True, scope="module")
def measure_little():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "_MEASURED_SECONDS", 0.01)
        patch.setattr(comparison, "recovery", functools.partial(recovery, lanes=2, after=200))
        yield


@pytest.fixture(scope="module")
def text(default_text):
    return default_text[:30_000]


@pytest.fixture(scope="module")
def plan():
    return ComparisonPlan(steps=30, seeds=2, **TINY)


@pytest.fixture(scope="module")
def made(text, plan, tmp_path_factory):
    """A finished comparison, its folder and its parts."""
    folder, watch = tmp_path_factory.mktemp("comparison"), Planned()
    return compare(text, plan, name="a text", folder=folder, watch=watch), folder, watch


def test_the_compared_models_have_equally_many_parameters():
    for layers, hidden in ((1, 128), (1, 16), (3, 100)):
        models = shapes(ComparisonPlan(hidden=hidden, layers=layers), ORDER, 65)
        counts = np.array([model.parameter_count for model in models.values()])
        assert np.ptp(counts) / counts.mean() < 0.02
        assert models["lstm"].hidden == hidden


def test_the_compared_trainings_differ_in_cell_seed_and_rate_only(plan):
    models = shapes(plan, ORDER, 65)
    trainings = compared(plan, models, dict.fromkeys(ORDER, 30), 30_000)
    assert [(one.cell, one.train.seed) for one in trainings] == [(cell, seed) for seed in (0, 1) for cell in ORDER]
    settings = [one.train.to_dict() | {"seed": None, "lr": None} for one in trainings]
    assert all(one == settings[0] for one in settings)
    assert trainings[0].train.precision == "float32"


def test_cells_are_checked_and_ordered():
    assert checked_cells(["lstm", "rnn"], ComparisonPlan()) == ("rnn", "lstm")
    assert checked_cells([], ComparisonPlan()) == ORDER
    assert checked_cells([], ComparisonPlan(preset="assignment")) == ("rnn", "lstm")
    with pytest.raises(ConfigError, match="no cell is named 'tree'"):
        checked_cells(["tree"], ComparisonPlan())
    with pytest.raises(ConfigError, match="no template"):
        checked_cells(["gru"], ComparisonPlan(preset="assignment"))


def test_the_larger_lstm_of_the_assignment_has_as_many_parameters_as_its_rnn():
    rnn, lstm, large = (one.model for one in of_assignment(ComparisonPlan(), ORDER, 65))
    assert (rnn.hidden, lstm.hidden) == (100, 32)
    assert large.parameter_count == pytest.approx(rnn.parameter_count, rel=0.02)


def test_a_comparison_has_all_trainings_and_exhibits(made, plan):
    found, _, watch = made
    assert found.cells == ORDER
    assert watch.parts == [(n, len(watch.parts)) for n in range(1, len(watch.parts) + 1)]
    assert watch.steps == dict.fromkeys(ORDER, 30)
    for cell in ORDER:
        assert found.losses(cell).shape == (plan.seeds,)
        for one in found.of(cell):
            assert one.steps == 30
            assert one.curve.step[-1] == 30
            assert one.curve.val_nats[-1] == pytest.approx(one.val_nats)
            assert one.samples[-1].step == 30
    assert {"lstm-forget-bias-0", "lstm-forget-bias-3", "lstm-seed-0"} <= found.after.keys()
    assert found.before.keys() == found.after.keys()
    assert found.after["rnn-seed-0"].norms.shape == (1, comparison.LAGS + 1)
    assert found.saturation.keys() == found.activations.keys() == found.recall.keys() == set(ORDER)
    assert {"rnn-assignment", "lstm-assignment", "rnn-seed-0", "lstm-seed-0"} <= found.recovery.keys()


def test_the_validation_loss_is_that_of_the_model_that_is_kept(made, text):
    found, _, _ = made
    one = found.of("gru")[1]
    part = found.text.symbols - int(np.ceil(0.1 * found.text.symbols))
    # The last validation and `evaluate` read the same symbols in one pass each, in float32.
    assert one.model.evaluate(text[part:]).nats_per_char == pytest.approx(one.val_nats, rel=1e-5)


def test_the_results_are_plain_json(made):
    found, _, _ = made
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["trainings"]["lstm-seed-1"]["val_nats"] == found.losses("lstm")[1]
    assert len(written["gradient_by_lag"]["rnn-seed-0"]["after"]["norms"][0]) == comparison.LAGS + 1
    assert written["text"]["sha256"] == found.text.sha256


def test_a_finished_comparison_trains_nothing_again(made, text, plan, monkeypatch):
    found, folder, _ = made

    def fail(*arguments, **more):
        raise AssertionError("trained again")

    monkeypatch.setattr(Model, "fit", fail)
    monkeypatch.setattr(comparison, "recall_curve", fail)
    watch = Planned()
    again = compare(text, plan, name="a text", folder=folder, watch=watch)
    assert set(watch.results) == {"done before"}
    assert again.to_dict() == found.to_dict()


def test_a_stopped_comparison_goes_on_to_the_same_result(made, text, plan, tmp_path):
    found, _, first = made
    watch = Planned()
    with pytest.raises(StoppedError):
        compare(text, plan, name="a text", folder=tmp_path, watch=watch, stop=lambda: len(watch.results) > 8)
    assert len(watch.results) == 9
    again = Planned()
    resumed = compare(text, plan, name="a text", folder=tmp_path, watch=again)
    assert again.results.count("done before") == 9
    assert len(again.results) == len(first.results)
    for cell in ORDER:
        np.testing.assert_array_equal(resumed.losses(cell), found.losses(cell))


def test_the_folder_of_another_comparison_is_refused(made, text, plan):
    _, folder, _ = made
    with pytest.raises(ConfigError, match="another text"):
        compare(text[1:], plan, name="a text", folder=folder)
    with pytest.raises(ConfigError, match="other settings"):
        compare(text, ComparisonPlan(steps=31, seeds=2, **TINY), name="a text", folder=folder)
    with pytest.raises(ConfigError, match="other cells"):
        compare(text, plan, ["lstm"], name="a text", folder=folder)


def test_a_damaged_record_of_a_training_is_one_clear_error(made, text, plan, tmp_path):
    _, folder, _ = made
    shutil.copytree(folder, tmp_path / "copy")
    record = tmp_path / "copy" / "models" / "rnn-assignment.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({"settings": content["settings"]}))
    with pytest.raises(ModelFileError, match="rnn-assignment is damaged"):
        compare(text, plan, name="a text", folder=tmp_path / "copy")
    record.write_text("{")
    with pytest.raises(ModelFileError, match="cannot read"):
        compare(text, plan, name="a text", folder=tmp_path / "copy")


def planned(monkeypatch, text, speeds, **settings):
    """The steps of a plan in which a step of each cell takes so many seconds."""
    monkeypatch.setattr(comparison._Run, "_seconds_per_step", lambda self, cell: speeds[cell])
    watch = Planned(abort=True)
    with pytest.raises(AbortError):
        compare(text, ComparisonPlan(**(TINY | {"recall_steps": 0, "recovery_steps": 0} | settings)), watch=watch)
    return watch.steps


def test_equal_seconds_give_a_faster_cell_more_steps(monkeypatch, text):
    speeds = {"rnn": 0.01, "gru": 0.02, "lstm": 0.04}
    assert planned(monkeypatch, text, speeds, steps=100) == {"rnn": 100, "gru": 100, "lstm": 100}
    assert planned(monkeypatch, text, speeds, steps=100, equal="seconds") == {"rnn": 400, "gru": 200, "lstm": 100}


def test_the_steps_fill_the_minutes(monkeypatch, text):
    speeds, seeds = {"rnn": 0.01, "gru": 0.02, "lstm": 0.04}, 2
    for equal in ("steps", "seconds"):
        steps = planned(monkeypatch, text, speeds, minutes=10, seeds=seeds, equal=equal)
        trained = sum(seeds * steps[cell] * speeds[cell] for cell in ORDER) + 2 * steps["lstm"] * speeds["lstm"]
        # 600 seconds without those for the exhibits, of which the steps get nine tenths; compiling and validation take
        # a few seconds of this tiny text.
        assert 0.85 * 570 < trained <= 0.9 * 570


def test_a_text_that_is_too_short_is_refused():
    with pytest.raises(TextError, match=r"at least 2,000 characters.*has 500"):
        compare("abcde" * 100)
