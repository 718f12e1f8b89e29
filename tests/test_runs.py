"""The verb ``runs``: the best run first, the settings that differ, and a table that fits its output."""

import io
import json
import math
import re

import pytest
import rich.console
import run_folders
from run_folders import end, training, validation

from fastlstm import runs
from fastlstm.errors import FastlstmError


def lines(nats, *, finished=True):
    """A run of 100 steps whose best check, at step 80, has a loss of ``nats``."""
    last = [end(100, nats, 80)] if finished else []
    return [training(50, 3.0), validation(80, nats, (nats, 80)), training(100, 1.0), *last]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with runs of three kinds, the current one."""
    run_folders.write(tmp_path / "runs" / "second", lines(1.5), {"lr": 0.002, "steps": 100})
    run_folders.write(tmp_path / "runs" / "first", lines(1.25), {"hidden": 512, "steps": 100})
    run_folders.write(tmp_path / "runs" / "begun", [], {"dropout_output": 0.5, "steps": 2000})
    run_folders.write(tmp_path / "runs" / "on", lines(2.0, finished=False), {"steps": 2000})
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def listed(capsys):
    """A function that runs the verb; returns the lines of its output."""

    def listed(*arguments):
        assert runs.main([str(argument) for argument in arguments]) == 0
        return capsys.readouterr().out.splitlines()

    return listed


def test_runs_are_listed_by_their_best_loss_with_the_settings_that_differ(folder, listed):
    assert [line.split() for line in listed()] == [
        ["nats", "bits", "steps", "seconds", "state", "run", "hidden", "lr", "dropout_output"],
        ["1.2500", "1.8034", "100", "50.0", "finished", "runs/first", "512", "0.01", "-"],
        ["1.5000", "2.1640", "100", "50.0", "finished", "runs/second", "128", "0.002", "-"],
        ["2.0000", "2.8854", "100", "of", "2,000", "50.0", "unfinished", "runs/on", "128", "0.01", "-"],
        ["-", "-", "0", "of", "2,000", "0.0", "unfinished", "runs/begun", "128", "0.01", "0.5"],
    ]


def test_piped_output_is_aligned_plain_and_never_wrapped(folder, listed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setenv("TERM", "xterm-256color")
    run_folders.write(folder / ("long" * 60), lines(3.0), {f"setting_{n}": n for n in range(40)})
    output = listed()
    assert len(output) == 6
    assert not any("\x1b" in line or line != line.rstrip() for line in output)
    place = output[0].index("lr")
    assert {line[place - 2 : place] for line in output} == {"  "}
    assert {line[place] for line in output[1:]} == {"0"}


def test_equal_settings_have_no_columns(folder, listed):
    assert listed("runs/first")[0].split()[-1] == "run"
    assert len(listed("runs/first", "runs/../runs/first")) == 2  # one run, given twice


def test_folders_of_runs_and_runs_are_searched_together(folder, listed, tmp_path):
    run_folders.write(tmp_path / "more" / "deep" / "best", lines(0.5))
    output = listed("runs/second", "more")
    assert [line.split()[5] for line in output[1:]] == ["more/deep/best", "runs/second"]


def test_no_runs_are_one_clear_line(tmp_path, monkeypatch, listed):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments, name in (([], "runs"), (["empty"], "empty")):
        [line] = listed(*arguments)
        assert line.startswith(f"there are no runs in {name}; train a model with: ")
    assert json.loads(listed("empty", "--json")[-1]) == {"runs": [], "damaged": [], "differing": []}
    with pytest.raises(FastlstmError, match="no folder 'missing'"):
        runs.main(["missing"])


def test_a_damaged_run_is_marked_and_reported(folder, capsys):
    (folder / "second" / "config.toml").write_text("lr = ")
    assert runs.main(["--json"]) == 0
    output, errors = capsys.readouterr()
    assert output.splitlines()[-2].split() == ["-", "-", "-", "-", "damaged", "runs/second"]
    assert json.loads(output.splitlines()[-1])["damaged"] == ["runs/second"]
    assert errors.startswith("fastlstm runs: 'runs/second/config.toml' is not TOML")
    assert errors.count("\n") == 1


def test_json_has_every_setting_and_the_best_loss(folder, listed):
    result = json.loads(listed("--json")[-1])
    assert [run["path"] for run in result["runs"]] == ["runs/first", "runs/second", "runs/on", "runs/begun"]
    assert result["differing"] == ["hidden", "lr", "dropout_output"]
    assert result["runs"][0] == {
        "path": "runs/first", "finished": True, "steps": 100, "total_steps": 100, "seconds": 50.0, "best_nats": 1.25,
        "best_bits": 1.25 / math.log(2), "best_step": 80,
        "settings": {"hidden": 512, "lr": 0.01, "steps": 100, "data": ["notes.txt"]},
    }  # fmt: skip
    assert result["runs"][3]["best_bits"] is None


@pytest.fixture
def on_terminal(monkeypatch):
    """A function that runs the verb on a terminal; returns what it prints there."""
    console = rich.console.Console

    def printed(width, **variables):
        screen = io.StringIO()
        screen.isatty = lambda: True
        terminal = {"width": width, "_environ": {"TERM": "xterm-256color", **variables}}
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdout", screen)
            patch.setattr(rich.console, "Console", lambda **given: console(**{**terminal, **given}))
            assert runs.main([]) == 0
        return screen.getvalue()

    return printed


def without_codes(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_wide_terminal_shows_a_column_for_each_setting(folder, on_terminal):
    assert without_codes(on_terminal(120)).splitlines()[0].split()[5:] == ["run", "hidden", "lr", "dropout_output"]


def test_a_narrow_terminal_shows_the_settings_below_the_run(folder, on_terminal):
    output = [line.rstrip() for line in without_codes(on_terminal(80)).splitlines()]
    assert output[0].split() == ["nats", "bits", "steps", "seconds", "state", "run"]
    place = output[0].index("run")
    assert output[1].endswith("  runs/first")
    assert output[2] == " " * place + "hidden=512, lr=0.01"
    assert {len(line) <= 80 for line in output} == {True}
    assert max(map(len, without_codes(on_terminal(40)).splitlines())) <= 40


def test_a_dumb_terminal_gets_plain_text(folder, on_terminal):
    assert "\x1b[1m" in on_terminal(80)
    assert "\x1b" not in on_terminal(80, TERM="dumb")


def test_names_and_settings_control_no_terminal_and_are_no_markup(tmp_path, listed):
    run_folders.write(tmp_path / "a", lines(1.0), {"data": ["[bold]x\x1b[2J\n\x9b"], "seed": 1})
    run_folders.write(tmp_path / "b\x1b[2J", lines(2.0), {"data": [], "seed": 2})
    output = "\n".join(listed(tmp_path))
    assert not set("\x1b\x9b") & set(output)
    assert "[bold]x" in output
    assert len(output.splitlines()) == 3
