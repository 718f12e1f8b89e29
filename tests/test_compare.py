"""The verb ``compare`` and its page: files, resuming, signals, and sentences that follow the numbers."""

import contextlib
import functools
import io
import json
import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from documents import assert_self_contained
from programs import begun, last_json, python, wait_for

from fastlstm import compare, comparison, signals
from fastlstm.comparison_folder import ComparisonFolder
from fastlstm.comparison_plan import ComparisonPlan
from fastlstm.errors import ConfigError, FastlstmError, TextError
from fastlstm.exhibits.recovery import recovery
from fastlstm.pages.compare import findings, gradient_sentence, loss_sentence, recall_sentence
from fastlstm.presets import UNFAIR

TINY = ["--hidden", 8, "--embedding", 4, "--batch", 4, "--seq-len", 16, "--recall-steps", 2, "--recovery-steps", 10]
VERB = ["-m", "fastlstm.compare", "--data", "notes.txt"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, default_text):
    """A folder with a text whose samples would disturb a page."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "notes.txt").write_text(default_text[:20_000] + "<script>alert('&')</script>" * 100)
    return folder


@pytest.fixture(scope="module")
def verb():
    """A function that runs the verb in a folder, in this process, with small exhibits; returns status and output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "_receive", signals._receive)  # restored at the end
        patch.setattr(comparison, "_MEASURED_SECONDS", 0.01)
        patch.setattr(comparison, "recovery", functools.partial(recovery, lanes=2, after=200))

        def run(*arguments, cwd):
            with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()) as output:
                status = compare.main([*map(str, arguments)])
            return status, output.getvalue()

        yield run


@pytest.fixture(scope="module")
def made(folder, verb):
    """The output of the verb, and the folder that it made."""
    status, output = verb("--data", "notes.txt", *TINY, "--steps", 24, "--seeds", 2, "--json", cwd=folder)
    assert status == 0
    return output, folder / "comparisons" / "notes"


def test_the_verb_makes_a_page_its_figures_and_the_numbers(made):
    output, folder = made
    document = (folder / "index.html").read_text()
    assert_self_contained(document)
    assert "<script>alert" not in document
    images = sorted(folder.glob("*.png"))
    assert len(images) == document.count("<svg")
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    numbers = json.loads((folder / "comparison.json").read_text())
    said = last_json(output)
    assert said["page"] == "comparisons/notes/index.html"
    for cell, losses in said["val_nats"].items():
        assert [numbers["trainings"][f"{cell}-seed-{seed}"]["val_nats"] for seed in (0, 1)] == losses
    for sentence in said["findings"]:
        assert sentence in " ".join(output.split())
    assert numbers["text"]["sha256"] in document
    assert UNFAIR not in document


@pytest.mark.slow  # it trains networks in a process of its own
def test_resuming_repeats_nothing(made, folder, verb):
    _, result = made
    models = {path: path.stat().st_mtime_ns for path in (result / "models").iterdir()}
    page = (result / "index.html").read_bytes()
    status, output = verb("--resume", result, cwd=folder / "comparisons")
    assert status == 0
    assert output.count("done before") == output.count("] ") - 1  # all but the exhibits
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert (result / "index.html").read_bytes() == page


def test_a_changed_text_is_not_resumed(made, folder, verb):
    _, result = made
    elsewhere = folder / "changed"
    elsewhere.mkdir()
    (elsewhere / "notes.txt").write_text("changed " * 1000)
    with pytest.raises(ConfigError, match="another text"):
        verb("--resume", result, cwd=elsewhere)


def test_the_preset_is_said_to_be_unfair_on_the_terminal_and_on_the_page(folder, verb):
    options = ["--preset", "assignment", "--steps", 24, "--seeds", 1, "--recall-steps", 0, "--recovery-steps", 0]
    status, output = verb("--data", "notes.txt", *options, "--out", "preset", cwd=folder)
    assert status == 0
    assert UNFAIR in output
    document = (folder / "preset" / "index.html").read_text()
    assert UNFAIR in document
    assert "1 x 100" in document
    assert "1 x 32" in document


def test_one_step_of_one_cell_makes_a_page_too(folder, verb):
    options = [*TINY, "--cells", "gru", "--steps", 1, "--seeds", 1, "--recovery-steps", 0, "--quiet", "--out", "one"]
    assert verb("--data", "notes.txt", *options, cwd=folder) == (0, "")
    assert_self_contained((folder / "one" / "index.html").read_text())


def test_a_library_that_is_missing_is_said_before_anything_is_trained(folder, verb, monkeypatch):
    monkeypatch.setattr(comparison, "compare", lambda *_, **__: pytest.fail("the comparison has begun"))
    for library in ("matplotlib.figure", "jinja2", "markupsafe"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, library, None)
            with pytest.raises(FastlstmError, match=rf"{library.partition('.')[0]}.*fastlstm\[plot\]"):
                verb("--data", "notes.txt", "--out", "lacking", cwd=folder)
    assert not (folder / "lacking").exists()


def test_a_comparison_that_cannot_begin_leaves_no_folder(folder, verb):
    (folder / "short.txt").write_text("short")
    for source, message in (("absent.txt", "no file"), ("short.txt", "at least 2,000")):
        with pytest.raises(TextError, match=message):
            verb("--data", source, cwd=folder)
        assert not (folder / "comparisons" / source.partition(".")[0]).exists()


@pytest.mark.slow  # it trains networks in a process of its own
def test_bytes_of_one_value_in_a_file_with_a_hostile_name_make_a_page(tmp_path, verb):
    (tmp_path / "\x1b[31m\u202e<b>.dat").write_bytes(b"a" * 3000)
    options = [*TINY, "--steps", 2, "--seeds", 1, "--recall-steps", 0, "--bytes", "--out", "made"]
    assert verb("--data", "\x1b[31m\u202e<b>.dat", *options, cwd=tmp_path)[0] == 0
    document = (tmp_path / "made" / "index.html").read_text()
    assert_self_contained(document)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]|<b>", document)
    assert "nats per byte" in document
    of_assignment = "The assignment's networks were trained on the default text"
    shown = re.sub("<script.*?</script>", "", document, flags=re.DOTALL).partition('id="recovery"')[0]
    assert "character" not in shown
    assert of_assignment in document.replace("&#39;", "'")
    assert "validation text" not in document.partition('id="recovery"')[0].partition('id="gradients"')[2]


def test_train_says_that_the_templates_of_the_preset_differ(folder):
    done = python("-m", "fastlstm.train", "--preset", "assignment", "--steps", 2, "--data", "notes.txt", cwd=folder)
    assert UNFAIR in done.stdout.decode()


@pytest.mark.slow  # it trains networks in a process of its own
def test_ctrl_c_ends_with_its_status_and_says_how_to_go_on(folder):
    options = [*TINY, "--steps", 10_000_000, "--recall-steps", 0, "--recovery-steps", 0, "--out", "stopped"]
    with begun(*VERB, *options, cwd=folder) as process:
        wait_for(process, "[1/")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert errors.startswith("fastlstm compare: stopped")
    assert "--resume stopped" in errors
    assert (folder / "stopped" / "plan.json").exists()


def test_nothing_is_overwritten(tmp_path):
    first, second = (ComparisonFolder.next_free(tmp_path / "a" / "notes").path.name for _ in range(2))
    assert (first, second) == ("notes", "notes-2")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="not empty"):
        compare.main(["--out", str(tmp_path / "full")])


def test_resuming_takes_no_settings_and_needs_a_comparison(tmp_path):
    with pytest.raises(ConfigError, match="--hidden cannot be given with --resume"):
        compare.main(["--resume", str(tmp_path), "--hidden", "8"])
    with pytest.raises(ConfigError, match="no comparison"):
        compare.main(["--resume", str(tmp_path)])
    (tmp_path / "plan.json").write_text('{"plan": []}')
    with pytest.raises(ConfigError, match="no plan of this command"):
        compare.main(["--resume", str(tmp_path)])


def test_a_comparison_is_resumed_with_its_texts_and_their_encoding(tmp_path):
    (tmp_path / "notes.txt").touch()
    origin = {"data": ["n*.txt", "missing.txt"], "bytes": False, "folder": str(tmp_path)}
    for encoding in ({}, {"encoding": "utf-16"}):  # comparisons made before there was an encoding have none
        plan = {"plan": ComparisonPlan().to_dict(), "cells": ["lstm"], "origin": origin | encoding}
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        wanted = compare._resumed(ComparisonFolder(tmp_path))
        assert wanted.data == [str(tmp_path / "n*.txt"), "missing.txt"]
        assert wanted.encoding == encoding.get("encoding")


def test_the_sentence_about_the_losses_follows_them():
    low, high = np.array([1.50, 1.51, 1.52]), np.array([1.58, 1.60, 1.62])
    better = loss_sentence({"lstm": low, "rnn": high})
    assert "0.090 below the RNN's 1.600 (1.580 to 1.620)" in better
    assert "do not overlap" in better
    worse = loss_sentence({"lstm": high, "rnn": low})
    assert "0.090 above the RNN's" in worse
    assert "do not overlap" in worse
    between = loss_sentence({"lstm": low, "rnn": low + 0.01})
    assert "0.010 below" in between
    assert "seeds overlap" in between
    assert "chance" in loss_sentence({"lstm": low[:1], "rnn": high[:1]})
    assert loss_sentence({"lstm": low}) == ""


def by_lag(norm):
    return SimpleNamespace(norms=np.full((1, 101), norm))


def test_the_sentence_about_the_gradients_follows_them():
    assert "is 250 times the RNN's" in gradient_sentence({"lstm": by_lag(2.5e-3), "rnn": by_lag(1e-5)})
    huge = gradient_sentence({"lstm": by_lag(1.2e-3), "rnn": by_lag(1e-11)})
    assert "is 1.2e8 times the RNN's: 1.2e-3 against 1.0e-11" in huge
    assert "smaller than the RNN's, 0.4 times it" in gradient_sentence({"lstm": by_lag(0.2), "rnn": by_lag(0.5)})
    assert "the RNN's is 0" in gradient_sentence({"lstm": by_lag(0.2), "rnn": by_lag(0.0)})


def recall(accuracy, chance=0.125):
    return SimpleNamespace(distractors=np.array([0, 50]), accuracy=np.array([1.0, accuracy]), chance=chance)


def test_the_sentence_about_recall_follows_it():
    expected = recall_sentence({"rnn": recall(0.15), "lstm": recall(0.99)})
    assert "After 50 distractors" in expected
    assert "is 15 % for the RNN (near guessing) and 99 % for the LSTM; guessing gives 12.5 %" in expected
    other = recall_sentence({"rnn": recall(0.97), "lstm": recall(0.13)})
    assert "97 % for the RNN and 13 % for the LSTM (near guessing)" in other


def test_the_findings_leave_out_what_was_not_measured():
    one = SimpleNamespace(training=SimpleNamespace(name="gru-seed-0"))
    found = SimpleNamespace(
        cells=("gru",), losses=lambda cell: np.array([1.5]), of=lambda cell: [one], after={"gru-seed-0": by_lag(1)},
        recall={}, symbol="character",
    )  # fmt: skip
    assert findings(found) == []
