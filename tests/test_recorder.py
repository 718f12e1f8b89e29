"""The files that a run writes beside its models: complete, cut back when it is resumed, and no reason to end a run."""

import contextlib
import json
import math

import numpy as np
import pytest
from runs_to_resume import IDS, VOCAB, run_config, untrained

from fastlstm import checkpoint, history, recorder, run_checkpoint
from fastlstm.errors import ModelFileError
from fastlstm.observers import Observers
from fastlstm.recorder import Journal, Log, Recorder, Saver
from fastlstm.run_folder import RunFolder
from fastlstm.trainer import Trainer


@pytest.fixture
def said():
    return []


@pytest.fixture
def folder(tmp_path, said):
    with RunFolder(tmp_path / "run", named=True, overwrite=False, say=said.append) as folder:
        yield folder


_OPENED = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def closed():
    """Closes the files of runs that a test interrupts, as the system does."""
    yield
    _OPENED.close()


def recorded(folder, config, said, until=None):
    """A new run whose files are written; returns its trainer, at a step or at its end, and its saver."""
    return go_on(Trainer(untrained().content, IDS, config), folder, said, None, until)


def go_on(trainer, folder, said, lengths, until=None):
    log = _OPENED.enter_context(contextlib.closing(Log(folder.path, said.append)))
    files = _OPENED.enter_context(contextlib.closing(Recorder(folder.path, said.append, lengths)))
    saver = Saver(folder, files, trainer.config, 0, contextlib.nullcontext, said.append)
    trainer.observer = Observers(log, files, saver)
    for progress in trainer:
        if progress.step == until:
            break
    else:
        files.over(trainer.result)
        files.close()
        log.close()
    return trainer, saver


def lines_of(folder):
    return [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]


def timeless(folder):
    return [{key: line[key] for key in line if key not in ("seconds", "chars_per_s")} for line in lines_of(folder)]


def test_the_metrics_of_a_run_are_complete(folder, said):
    trainer, _ = recorded(folder, run_config(), said)
    lines = lines_of(folder)
    training = [line for line in lines if "train_nats" in line]
    assert [line["step"] for line in training] == list(range(1, 301))
    for line in training:
        assert set(line) == {"step", "seconds", "epoch", "loss", "train_nats", "rate", "norm", "chars_per_s"}
        assert all(math.isfinite(value) for value in line.values())
    checks = [line for line in lines if "val_nats" in line and "finished" not in line]
    assert [line["step"] for line in checks] == [43, 86, 129, 172, 215, 258, 300]
    assert checks[-1]["best_nats"] == trainer.state.best_nats
    assert lines[-1] == {
        "step": 300, "seconds": pytest.approx(trainer.state.seconds, abs=1e-3), "finished": True,
        "val_nats": trainer.result.val_nats, "model_step": trainer.result.model_step,
    }  # fmt: skip
    assert said == []


def test_a_long_run_has_about_a_thousand_lines_of_training(folder, said):
    recorded(folder, run_config(steps=2500, sample_length=0), said)
    assert [line["step"] for line in lines_of(folder) if "train_nats" in line] == list(range(3, 2501, 3))


def test_the_history_reads_what_a_run_records(folder, said):
    trainer, _ = recorded(folder, run_config(), said)
    folder.write_config("steps = 300\n")
    found = history.read(folder.path)
    assert found.finished
    assert (found.step, found.total) == (300, 300)
    assert (found.best_nats, found.best_step) == (trainer.result.val_nats, trainer.result.model_step)
    assert found.training.train_nats[-1] == trainer.result.train_nats
    assert len(found.validation.step) == 7
    assert found.training.epoch[-1] == pytest.approx(trainer.progress.epoch, abs=1e-4)  # four digits are recorded


def test_samples_are_kept(folder, said):
    recorded(folder, run_config(), said)
    text = (folder.path / "samples.txt").read_text()
    assert text.count("--- step ") == 300 // 29 + 1
    assert "--- step 290\n" in text


def test_the_samples_of_a_run_are_read_as_they_were_written(folder, said):
    assert recorder.read_samples(folder.path) == {}
    trainer, _ = recorded(folder, run_config(), said)
    files = Recorder(folder.path, said.append)
    texts = ["two\nlines\n", "", "--- step x\n", b"caf\xc3\xa9 \xff", "\x1b[2J"]
    for text in texts:
        trainer.state.step += 1000
        files.sampled(trainer.progress, text)
    files.close()
    samples = recorder.read_samples(folder.path)
    assert list(samples) == [*range(29, 300, 29), 300, 1300, 2300, 3300, 4300, 5300]
    assert all(len(samples[step]) == 10 for step in range(29, 300, 29))
    assert [samples[step] for step in list(samples)[-5:]] == [
        "two\nlines\n", "", "--- step x\n", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{REPLACEMENT CHARACTER}",
        "\N{REPLACEMENT CHARACTER}[2J",
    ]  # fmt: skip


def test_of_a_step_that_was_recorded_again_the_later_sample_counts(tmp_path):
    (tmp_path / "samples.txt").write_text("cut\n--- step 20\nold\n--- step 1,000\nlast\n--- step 20\nnew\n")
    assert recorder.read_samples(tmp_path) == {20: "new", 1000: "last"}
    assert list(recorder.read_samples(tmp_path)) == [20, 1000]


def test_the_log_has_times_and_what_happened(folder, said):
    recorded(folder, run_config(), said)
    text = (folder.path / "train.log").read_text()
    assert all(line[:2] == "20" and line[10] == " " and line[19:21] == "  " for line in text.splitlines())
    assert "step 43/300" in text
    assert "--- sample" not in text


@pytest.mark.parametrize("at", [1, 57, 58, 215, 299])
def test_files_of_a_resumed_run_are_those_of_one_that_was_not_interrupted(at, folder, said, tmp_path):
    with RunFolder(tmp_path / "whole", named=True, overwrite=False, say=said.append) as whole:
        recorded(whole, run_config(), said)
    trainer, saver = recorded(folder, run_config(), said, until=at)
    saver.ended(trainer.progress, trainer.checkpoint)
    for name, more in (("metrics.jsonl", '{"step": 299, "cut of'), ("samples.txt", "--- step 999\nnever")):
        with open(folder.path / name, "a") as file:  # steps after the checkpoint, which are lost
            file.write(more)
    found = run_checkpoint.read(folder.path)
    go_on(Trainer.resumed(found, VOCAB, IDS), folder, said, found.positions)
    assert timeless(folder) == timeless(whole)
    assert (folder.path / "samples.txt").read_bytes() == (whole.path / "samples.txt").read_bytes()


def test_files_that_were_removed_before_a_run_is_resumed_are_begun_again(folder, said):
    trainer, saver = recorded(folder, run_config(), said, until=150)
    saver.ended(trainer.progress, trainer.checkpoint)
    (folder.path / "metrics.jsonl").unlink()
    (folder.path / "samples.txt").write_text("short")
    found = run_checkpoint.read(folder.path)
    go_on(Trainer.resumed(found, VOCAB, IDS), folder, said, found.positions)
    assert lines_of(folder)[0]["step"] == 151
    assert (folder.path / "samples.txt").read_text().startswith("short--- step 174\n")


def test_numbers_that_are_not_finite_are_null(folder, said):
    trainer = Trainer(untrained().content, IDS, run_config())
    files = Recorder(folder.path, said.append)
    files.stepped(trainer.progress)  # before the first step: the loss is NaN
    files.close()
    (line,) = lines_of(folder)
    assert (line["loss"], line["rate"], line["norm"]) == (None, None, None)


class FullDisk:
    """A file that cannot be written."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        raise OSError(28, "No space left on device")

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_file_that_cannot_be_written_is_reported_once_and_ends_no_run(tmp_path, said):
    journal = Journal(tmp_path / "metrics.jsonl", said.append)
    journal._file = FullDisk(journal._file)
    for _ in range(3):
        journal.write("line\n")
        journal.flush()
    journal.sync()
    assert journal.length() is None
    journal.close()
    assert len(said) == 1
    assert "the run continues" in said[0]
    assert "No space left" in said[0]


def saves_of(folder, said, monkeypatch, **settings):
    """The steps of the checkpoints that a run saves."""
    steps, save = [], folder.save_checkpoint

    def noted(found):
        steps.append(found.state.step)
        save(found)

    monkeypatch.setattr(folder, "save_checkpoint", noted)
    recorded(folder, run_config(**settings), said)
    return steps


def test_checkpoints_are_saved_every_so_many_steps_at_the_next_copy(folder, said, monkeypatch):
    monkeypatch.setattr("fastlstm.recovery.steps_between", lambda symbols: 20)
    assert saves_of(folder, said, monkeypatch, save_every=50) == [60, 120, 180, 240, 300]


def test_checkpoints_are_saved_every_so_many_minutes(folder, said, monkeypatch):
    monkeypatch.setattr("fastlstm.recovery.steps_between", lambda symbols: 20)
    now = iter(np.arange(0.0, 1e6, 30.0))  # half a minute between two looks at the clock
    monkeypatch.setattr(recorder.time, "monotonic", lambda: next(now))
    steps = saves_of(folder, said, monkeypatch, save_minutes=1)
    assert len(steps) > 3


def test_without_a_setting_checkpoints_take_a_hundredth_of_the_time(folder, said, monkeypatch):
    monkeypatch.setattr("fastlstm.recovery.steps_between", lambda symbols: 1)
    assert saves_of(folder, said, monkeypatch) == [300]  # a run of less than a second: only at its end


def test_a_checkpoint_is_saved_with_the_best_model_so_far(folder, said):
    trainer, saver = recorded(folder, run_config(), said, until=290)
    saver.ended(trainer.progress, trainer.checkpoint)
    content = checkpoint.load(folder.path)
    assert content.training["model_step"] == trainer.state.best_step == 258
    assert content.training["steps"] == 290
    assert not content.training["finished"]


def test_a_failing_save_on_the_way_is_reported_once(folder, said, monkeypatch):
    def fail(content):
        raise ModelFileError("the disk is full")

    monkeypatch.setattr("fastlstm.recovery.steps_between", lambda symbols: 20)
    monkeypatch.setattr(folder, "save_checkpoint", fail)
    monkeypatch.setattr(folder, "save_somewhere", lambda save: None)
    trainer, saver = recorded(folder, run_config(save_every=20), said)
    assert said == ["the run continues, but could not be saved at step 21: the disk is full"]
    assert saver.lost() == "all 300 steps are lost"
    assert trainer.result.finished


def test_what_would_be_lost_is_told(folder, said):
    trainer, saver = recorded(folder, run_config(), said, until=100)
    assert saver.lost() == "all 100 steps are lost"
    saver.ended(trainer.progress, trainer.checkpoint)
    for progress in trainer:
        if progress.step == 103:
            break
    assert saver.lost() == f"the run up to step 100 is in {folder.path}, the 3 steps since are lost"


def test_nothing_is_saved_before_the_first_step(folder, said):
    _, saver = recorded(folder, run_config(steps=0), said)
    assert not (folder.path / "last.safetensors").exists()
    assert saver.lost() is None
