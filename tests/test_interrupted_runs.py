"""`train` as users interrupt and resume it, with configuration files, and from other models."""

import json
import os
import signal

import pytest
from programs import QUICK, TEXT, begun, endless, last_json, python, wait_for

from fastlstm import Model, TrainConfig
from fastlstm import train as train_verb
from fastlstm.train_settings import Given

#: A run that lasts long enough to be interrupted, and saves often.
LONG = [
    "--data", "notes.txt", "--hidden", 16, "--embedding", 4, "--batch", 4, "--seq-len", 8, "--steps", 12_000,
    "--save-every", 500, "--dropout-output", 0.2, "--sample-length", 30,
]  # fmt: skip


@pytest.fixture
def here(tmp_path):
    (tmp_path / "notes.txt").write_text(TEXT)
    return tmp_path


@pytest.fixture
def train(here):
    """A function that runs the verb; returns status, standard output and standard error."""

    def run(*arguments):
        done = python("-m", "fastlstm.train", *map(str, arguments), cwd=here)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


def assert_one_line(done, status, *parts):
    code, _, errors = done
    assert (code, errors.count("\n")) == (status, 1), errors
    for part in parts:
        assert part in errors


def without_times(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in ("seconds", "chars_per_s")} for line in lines]


def settings(folder):
    return (folder / "config.toml").read_text().split("[run]")[0]


def assert_same_runs(folder, other):
    for name in ("model.safetensors", "samples.txt"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    assert without_times(folder) == without_times(other)
    assert settings(folder) == settings(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of the run that is not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "notes.txt").write_text(TEXT)
    assert python("-m", "fastlstm.train", *LONG, "--out", "run", cwd=folder).returncode == 0
    return folder / "run"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_interrupted_and_resumed_has_the_files_of_one_that_is_not(number, train, here, whole):
    with begun("-m", "fastlstm.train", *LONG, "--out", "run", cwd=here) as process:
        wait_for(process, "step 3,600")
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not Model.load(here / "run").training["finished"]
    if number != signal.SIGKILL:
        assert output.endswith("to go on with the run:\n  python -m fastlstm.train --resume run\n")
    code, output, errors = train("--resume", "run")
    assert (code, errors) == (0, "")
    assert "resuming run\n" in output
    assert "resumed at step " in output
    assert_same_runs(here / "run", whole)


def test_a_finished_run_that_is_resumed_stays_as_it_is(train, here):
    assert train(*QUICK, "--data", "notes.txt", "--out", "run")[0] == 0
    before = {path.name: path.read_bytes() for path in (here / "run").iterdir() if path.suffix == ".safetensors"}
    metrics = without_times(here / "run")
    assert train("--resume", "run")[0] == 0
    assert {name: (here / "run" / name).read_bytes() for name in before} == before
    assert without_times(here / "run") == metrics
    assert train("--resume", "run", "--steps", 20)[0] == 0
    assert Model.load(here / "run").training["steps"] == 20


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(train, here):
    assert train(*QUICK, "--data", "notes.txt", "--out", "whole")[0] == 0
    (here / "run").mkdir()
    (here / "run" / "config.toml").write_bytes((here / "whole" / "config.toml").read_bytes())
    (here / "run" / "metrics.jsonl").write_text('{"step": 3, "cut')
    code, output, _ = train("--resume", "run")
    assert code == 0
    assert "run has no checkpoint yet: the run starts again" in output
    assert_same_runs(here / "run", here / "whole")


def test_what_cannot_be_resumed_is_one_line_and_changes_nothing(train, here):
    assert train(*QUICK, "--data", "notes.txt", "--out", "run")[0] == 0
    before = {path.name: path.read_bytes() for path in (here / "run").iterdir()}
    assert_one_line(train("--resume", "elsewhere"), 2, "'elsewhere' contains no run that could be resumed")
    assert_one_line(train("--resume", "run", "--lr", 5), 2, "lr of the run is", "cannot become 5.0")
    assert_one_line(train("--resume", "run", "--hidden", 9), 2, "hidden cannot be given with --resume")
    assert_one_line(train("--resume", "run", "--out", "other"), 2, "--out cannot be given with --resume")
    (here / "notes.txt").write_text(TEXT.replace("cat", "cow"))
    assert_one_line(train("--resume", "run", "--steps", 20), 1, "is not that of the run, or has changed")
    (here / "notes.txt").rename(here / "moved.txt")
    assert_one_line(train("--resume", "run", "--steps", 20), 1, "there is no file 'notes.txt'")
    (here / "moved.txt").write_text(TEXT)
    assert {path.name: path.read_bytes() for path in (here / "run").iterdir()} == before
    assert os.listdir(here / "run").count(".lock") == 0
    assert train("--resume", "run", "--steps", 20, "--data", "moved.txt")[0] == 0


def test_a_damaged_or_missing_checkpoint_is_one_line_and_costs_nothing(train, here):
    assert train(*QUICK, "--data", "notes.txt", "--out", "run")[0] == 0
    path = here / "run" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    assert_one_line(train("--resume", "run"), 1, "last.safetensors' is damaged")
    path.unlink()
    before = {path.name: path.read_bytes() for path in (here / "run").iterdir()}
    assert_one_line(train("--resume", "run"), 2, "contains a model, but no last.safetensors", "--init-from")
    assert_one_line(train("--resume", ""), 2, "the path is empty")
    assert {path.name: path.read_bytes() for path in (here / "run").iterdir()} == before


def test_a_second_run_in_a_folder_is_refused_while_the_first_goes_on(train, here):
    with begun(*endless("--save-every", 50, "--out", "run"), cwd=here) as process:
        wait_for(process, "step")
        for arguments in (["--resume", "run"], [*QUICK, "--out", "run", "--overwrite"]):
            assert_one_line(train(*arguments), 1, "in use by another run", f"process {process.pid}")
    assert (here / "run" / ".lock").exists()  # that of a killed run, which holds nobody up:
    assert_one_line(train("--resume", "run", "--steps", 1), 2, "steps already, more than 1")


def test_a_configuration_file_is_read_and_the_command_line_wins(train, here):
    (here / "settings.toml").write_text('data = ["notes.txt"]\nhidden = 8\nsteps = 7\nseq_len = 8\nbatch = 4\n')
    code, output, _ = train("--config", "settings.toml", "--steps", 5, "--json", "--out", "run")
    assert code == 0
    found = last_json(output)["settings"]
    assert (found["hidden"], found["steps"], found["batch"]) == (8, 5, 4)
    assert "--hidden" not in next(line for line in output.splitlines() if line.startswith("chosen: "))
    assert train("--config", "run", "--out", "again")[0] == 0
    assert_same_runs(here / "again", here / "run")


def test_a_wrong_configuration_file_is_one_line(train, here):
    (here / "settings.toml").write_text("hiden = 8")
    done = train("--config", "settings.toml")
    assert_one_line(done, 2, "in 'settings.toml': there is no setting 'hiden': the nearest is 'hidden'")
    assert not (here / "runs").exists()


def test_a_model_is_trained_on_with_other_symbols(train, here):
    assert train(*QUICK, "--data", "notes.txt", "--out", "first", "--steps", 300)[0] == 0
    (here / "other.txt").write_text(TEXT.replace("o", "ö").replace("S", "s"))
    code, output, _ = train(
        "--init-from", "first", "--data", "other.txt", "--out", "second", "--steps", 5, "--batch", 4, "--seq-len", 8
    )
    assert code == 0
    assert "fine-tuning first: 16 symbols kept, 1 new (" in output
    assert "1 dropped" in output
    first, second = Model.load(here / "first"), Model.load(here / "second")
    assert second.config.hidden == first.config.hidden == 8
    assert 'init_from = "first"' in (here / "second" / "config.toml").read_text()
    done = train("--init-from", "first", "--data", "other.txt", "--hidden", 9)
    assert_one_line(done, 2, "hidden of the model 'first' is 8, not 9")
    assert_one_line(train("--init-from", "nowhere"), 1, "there is no model")


def test_a_preset_wins_over_a_configuration_file(here):
    (here / "settings.toml").write_text('hidden = 8\noptimizer = "adamw"\nlr = 0.5\nclip_norm = 1.0\n')
    options = train_verb.parser().parse_args(["--preset", "assignment", "--steps", "5"])
    wanted = Given.by(options, here / "settings.toml")
    model, training = wanted.completed(1000)
    config = TrainConfig(**training)
    assert (model["hidden"], config.optimizer, config.clip_value, config.clip_norm) == (32, "adagrad", 5.0, None)
    assert (config.lr, config.steps) == (0.05, 5)


def test_a_run_is_resumed_from_another_folder_and_its_record_says_so(train, here):
    assert train(*QUICK, "--data", "notes.txt", "--out", "run")[0] == 0
    (here / "elsewhere").mkdir()
    done = python("-m", "fastlstm.train", "--resume", "../run", "--steps", 20, cwd=here / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert "step 12: python -m fastlstm.train --resume ../run --steps 20" in (here / "run" / "config.toml").read_text()


def test_a_quiet_run_prints_nothing_but_what_is_asked_for(train, here):
    code, output, errors = train(*QUICK, "--data", "notes.txt", "--quiet", "--json")
    assert (code, output.count("\n"), errors) == (0, 1, "")
    assert last_json(output)["model"] == "runs/notes/model.safetensors"
