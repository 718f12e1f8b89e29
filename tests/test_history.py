"""Histories of runs: what a run folder says, whatever became of the run, and one line for a damaged folder."""

import json
import math

import numpy as np
import pytest
import run_folders
from hypothesis import given
from hypothesis import strategies as st
from run_folders import end, training, validation

from fastlstm import history
from fastlstm.errors import FastlstmError


@pytest.fixture
def read(tmp_path):
    """A function that reads a run of these lines."""

    def read(lines, settings=None, record=None):
        return history.read(run_folders.write(tmp_path / "run", lines, settings, record))

    return read


RUN = [
    training(100, 2.5), validation(100, 2.6, (2.6, 100)),
    training(200, 2.0), validation(200, 2.2, (2.2, 200), error=0.01),
    training(300, 1.9), validation(300, 2.1, (2.1, 300), error=None), end(300, 2.1, 300),
]  # fmt: skip


def test_a_run_is_read_as_it_was_recorded(read):
    run = read(RUN, {"clip_norm": 5.0, "bytes": False}, {"fastlstm": "0.2.0", "symbols": 1000})
    assert run.settings == {
        "hidden": 128, "lr": 0.01, "steps": 1000, "data": ["notes.txt"], "clip_norm": 5.0, "bytes": False
    }  # fmt: skip
    assert run.record == {"fastlstm": "0.2.0", "symbols": 1000}
    curve = run.training
    assert (curve.step.tolist(), curve.step.dtype) == ([100, 200, 300], np.int64)
    assert curve.seconds.tolist() == [50.0, 100.0, 150.0]
    assert curve.epoch.tolist() == [1.0, 2.0, 3.0]
    assert curve.train_nats.tolist() == [2.5, 2.0, 1.9]
    assert curve.rate.tolist() == [0.01, 0.01, 0.01]
    assert curve.norm.tolist() == [1.5, 1.5, 1.5]
    assert run.validation.step.tolist() == [100, 200, 300]
    assert run.validation.val_nats.tolist() == [2.6, 2.2, 2.1]
    assert run.validation.val_error.tolist() == [0.02, 0.01, 0.0]
    assert (run.best_nats, run.best_step) == (2.1, 300)
    assert (run.step, run.seconds, run.total, run.finished) == (300, 150.0, 1000, True)


def test_a_run_that_was_killed_is_read_up_to_its_last_whole_line(read, tmp_path):
    whole = read(RUN[:4])
    path = tmp_path / "run" / "metrics.jsonl"
    line = json.dumps(RUN[4])
    for length in range(len(line)):  # the whole line, even without its line feed, is one
        path.write_text("".join(json.dumps(one) + "\n" for one in RUN[:4]) + line[:length])
        run = history.read(path.parent)
        assert (run.step, run.finished, run.best_step) == (whole.step, False, 200)
        assert run.training.train_nats.tolist() == [2.5, 2.0]


def test_a_run_that_has_not_begun_has_empty_curves(read, tmp_path):
    for run in (read([]), history.read(tmp_path / "run")):
        assert (run.step, run.seconds, run.total, run.finished) == (0, 0.0, 1000, False)
        assert (run.best_nats, run.best_step) == (None, None)
        assert run.training.step.size == run.validation.step.size == 0
        (tmp_path / "run" / "metrics.jsonl").unlink(missing_ok=True)


def test_steps_that_were_taken_back_are_superseded(read):
    diverged = [training(300, 9.0), validation(300, 9.5, (2.2, 200)), training(350, 99.0)]
    run = read([*RUN[:4], *diverged, {"step": 200, "seconds": 100.0, "recovered": "the loss is NaN"}, *RUN[4:]])
    assert run.training.train_nats.tolist() == [2.5, 2.0, 1.9]
    assert run.validation.val_nats.tolist() == [2.6, 2.2, 2.1]
    assert run.finished


def test_steps_that_a_resumed_run_took_again_are_superseded(read):
    """It was killed at step 350, after the checkpoint of step 200, which records nothing."""
    lost = [training(300, 5.0), validation(300, 5.1, (2.2, 200)), training(350, 5.0)]
    run = read([*RUN[:4], *lost, *RUN[4:]])
    assert run.training.train_nats.tolist() == [2.5, 2.0, 1.9]
    assert run.validation.val_nats.tolist() == [2.6, 2.2, 2.1]


def test_a_finished_run_that_goes_on_is_not_finished(read):
    run = read([*RUN, training(400, 1.8)])
    assert (run.step, run.finished) == (400, False)
    assert (run.best_nats, run.best_step) == (2.1, 300)


def test_a_stopped_run_is_not_finished(read):
    run = read([*RUN[:4], end(250, 2.2, 200, finished=False)])
    assert (run.step, run.seconds, run.finished) == (250, 125.0, False)
    assert (run.best_nats, run.best_step) == (2.2, 200)


def test_the_best_loss_of_a_finished_run_is_that_of_the_model_it_left(read):
    run = read([*RUN[:4], training(300, 1.0), end(300, 2.25, 200)])
    assert run.validation.step.tolist() == [100, 200]
    assert (run.best_nats, run.best_step) == (2.25, 200)  # exact, unlike the check
    assert (run.step, run.finished) == (300, True)


def test_a_share_of_an_epoch_that_is_too_small_tells_no_total(read):
    assert read([training(100, 1.0, epoch=1e-320)], {"epochs": 3.0, "steps": "?"}).total is None


def test_damaged_lines_unknown_kinds_and_strange_numbers_are_skipped(read, tmp_path):
    read(RUN[:2])
    strange = [
        b"\xff\xfe", b"[" * 100_000, b"null", b"[1]", b"{}", b'{"step": 5}', b'{"step": -1, "train_nats": 1}',
        b'{"step": true, "train_nats": 1}', b'{"step": 1.5, "train_nats": 1}', b'{"step": 1e400, "train_nats": 1}',
        b'{"step": 9007199254740993, "train_nats": 1}', b'{"step": ' + b"9" * 5000 + b', "train_nats": 1}',
        b'{"train_nats": 1}', b"\x00" * 50,
    ]  # fmt: skip
    with open(tmp_path / "run" / "metrics.jsonl", "ab") as file:
        file.write(b"\n".join(strange) + b"\n")
        file.write(json.dumps({"step": 150, "note": "of a later version"}).encode() + b"\n")
        file.write(b'{"step": 160, "seconds": "x", "epoch": [], "train_nats": NaN, "rate": 1' + b"0" * 400 + b"}\n")
    run = history.read(tmp_path / "run")
    assert run.training.step.tolist() == [100, 160]
    for column in (run.training.seconds, run.training.epoch, run.training.train_nats, run.training.rate):
        assert math.isnan(column[1])


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path_factory, config, metrics):
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.toml").write_bytes(config)
    (folder / "metrics.jsonl").write_bytes(metrics)
    try:
        history.read(folder)
    except FastlstmError as error:
        message = str(error)
    else:
        return
    assert str(folder / "config.toml") in message
    assert len(message.splitlines()) == 1


def test_a_folder_without_a_valid_configuration_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for name, reason in ((".", "it has no config.toml"), ("missing", "there is no such folder"), ("file", "no such")):
        with pytest.raises(FastlstmError, match=f"no run in .*{reason}"):
            history.read(tmp_path / name)
    (tmp_path / "config.toml").write_text("hidden = 3\nlr =\n")
    with pytest.raises(FastlstmError, match=r"config.toml' is not TOML: .*line 2"):
        history.read(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(FastlstmError, match=r"cannot read .*config.toml"):
        history.read(tmp_path)


@pytest.mark.parametrize(
    ("settings", "total"),
    [
        ({"steps": 700}, 700),
        ({"steps": 0}, 0),
        ({"epochs": 3.0}, 300),
        ({"epochs": 2.005}, 201),  # rounded up, as by TrainConfig
        ({"epochs": math.inf}, None),
        ({"epochs": "many"}, None),
        ({"minutes": 2.0}, None),
        ({"steps": -1}, None),
    ],
)
def test_the_total_follows_from_the_settings(settings, total, tmp_path):
    values = "\n".join(f"{name} = {json.dumps(value).lower()}" for name, value in settings.items())
    (tmp_path / "config.toml").write_text(values.replace("infinity", "inf"))
    (tmp_path / "metrics.jsonl").write_text(json.dumps(training(50, 2.0, steps_per_epoch=100)))
    assert history.read(tmp_path).total == total


def test_seconds_of_a_step_are_interpolated(read):
    run = read(RUN)
    assert [run.seconds_at(step) for step in (0, 50, 100, 250)] == [0.0, 25.0, 50.0, 125.0]
    assert run.training.epochs_per_step == 0.01


def test_values_of_toml_become_values_of_json(tmp_path):
    (tmp_path / "config.toml").write_text(
        "clip_norm = inf\n[run]\nstarted = 2026-01-02T03:04:05\ndays = [2026-01-02]\n[run.more]\nat = 03:04:05\n"
    )
    run = history.read(tmp_path)
    assert run.settings == {"clip_norm": math.inf}
    assert run.record == {"started": "2026-01-02T03:04:05", "days": ["2026-01-02"], "more": {"at": "03:04:05"}}


def test_runs_are_found_below_a_folder_but_not_inside_of_runs(tmp_path):
    for name in ("b", "a", "deep/er/c", "a/tensorboard/inner", ".hidden/d"):
        run_folders.write(tmp_path / name, [])
    assert list(history.find(tmp_path)) == [tmp_path / "a", tmp_path / "b", tmp_path / "deep" / "er" / "c"]
    assert list(history.find(tmp_path / "a")) == [tmp_path / "a"]
    assert list(history.find(tmp_path / "missing")) == []


def test_settings_differ_if_a_value_does_or_is_missing(tmp_path):
    settings = ({"lr": 0.5, "clip": 1.0}, {"lr": 0.5, "batch": 3}, {"lr": 0.5, "data": ["a"]})
    runs = [
        history.read(run_folders.write(tmp_path / str(n), [], {"seed": n // 2, **values}))
        for n, values in enumerate(settings)
    ]
    assert history.differing(runs) == ["data", "seed", "clip", "batch"]
    assert history.differing(runs[:1]) == []
    assert history.differing([]) == []


def test_the_current_folder_is_named_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(run_folders.write(tmp_path / "runs" / "notes", []))
    assert history.read(".").name == "notes"
    assert history.read("../notes").name == "../notes"


def test_values_of_settings_are_shown_shortly():
    assert [history.shown(value) for value in (0.002, 5.0, True, 128, ["a", "b c"], "adam", math.inf)] == [
        "0.002", "5", "true", "128", "a b c", "adam", "inf"
    ]  # fmt: skip
