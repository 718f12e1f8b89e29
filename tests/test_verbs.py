"""Verbs as users run them: their output, their error messages, and what survives Ctrl-C."""

import os
import signal
import subprocess
import sys

import pytest
from programs import ENVIRONMENT, QUICK, TEXT, as_written, begun, endless, last_json, python, wait_for

import fastlstm
from fastlstm import Model, ModelConfig, TrainConfig, cli
from fastlstm.cells import CELLS
from fastlstm.learning import Learning
from fastlstm.run_folder import FILES
from fastlstm.settings import settings_of


@pytest.fixture
def verb(tmp_path):
    """A function that runs a verb in an empty folder; returns status, standard output and standard error."""

    def run(name, *arguments, **settings):
        done = python("-m", f"fastlstm.{name}", *map(str, arguments), cwd=tmp_path, **settings)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    return run


@pytest.fixture
def notes(tmp_path):
    (tmp_path / "notes.txt").write_text(TEXT)
    return tmp_path / "notes.txt"


def assert_one_clear_line(done, status, *parts):
    code, _, errors = done
    assert code == status, errors
    assert errors.startswith("fastlstm ")
    assert errors.count("\n") == 1
    for part in parts:
        assert part in errors


def test_train_saves_a_model_and_prints_a_summary(verb, tmp_path):
    code, output, errors = verb("train", *QUICK, "--json")
    assert (code, errors) == (0, "")
    result = last_json(output)
    assert set(result) == {
        "steps", "seconds", "chars_per_s", "compile_seconds", "train_nats", "val_nats", "model_step", "finished",
        "parameters", "model", "settings",
    }  # fmt: skip
    assert result["steps"] == 12
    assert result["chars_per_s"] == pytest.approx(12 * 32 / result["seconds"])
    assert result["model"] == "runs/input/model.safetensors"
    model = Model.load(tmp_path / "runs" / "input")
    assert len(model.parameters.flat) == result["parameters"]
    assert model.training["val_nats"] == result["val_nats"]
    assert "--- sample at step 12" in output
    assert "python -m fastlstm.sample runs/input" in output


def test_train_reads_files_and_standard_input(verb, notes, tmp_path):
    assert verb("train", *QUICK, "--data", "notes.txt", "notes.txt", "--val-frac", 0, "--json")[0] == 0
    code, output, _ = verb("train", *QUICK, "--data", "-", "--json", input=TEXT.encode() * 2)
    assert (code, last_json(output)["model"]) == (0, "runs/stdin/model.safetensors")
    ref, comp = (Model.load(tmp_path / "runs" / name) for name in ("notes", "stdin"))
    assert ref.vocab == comp.vocab
    assert ref.training["val_nats"] is None


def test_the_preset_is_the_assignment_and_options_override_it(verb, notes, tmp_path):
    arguments = ["--preset", "assignment", "--steps", 3, "--data", "notes.txt", "--out"]
    assert verb("train", *arguments, "lstm")[0] == 0
    assert verb("train", *arguments, "rnn", "--cell", "rnn", "--hidden", 9, "--clip-norm", 2)[0] == 0
    lstm, rnn = Model.load(tmp_path / "lstm"), Model.load(tmp_path / "rnn")
    assert (lstm.config.embedding, lstm.config.hidden, lstm.config.forget_bias) == (4, 32, 0.0)
    training = lstm.training["config"]
    assert (training["seq_len"], training["batch"], training["reduction"]) == (64, 1, "sum")
    assert (training["clip_value"], training["clip_norm"], training["lr"]) == (5.0, None, 0.05)
    assert (rnn.config.embedding, rnn.config.hidden) == (32, 9)
    assert (rnn.training["config"]["clip_value"], rnn.training["config"]["clip_norm"]) == (None, 2.0)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_trained_sampled_and_evaluated(cell, verb, notes, tmp_path):
    assert verb("train", *QUICK, "--data", "notes.txt", "--cell", cell, "--layers", 2)[0] == 0
    assert Model.load(tmp_path / "runs" / "notes").config.cell == cell
    status, text, _ = verb("sample", "runs/notes", "--length", 20)
    assert (status, text) == (0, as_written(text[:20]))
    status, said, _ = verb("evaluate", "runs/notes", "notes.txt")
    assert (status, "bits per character" in said) == (0, True)


def test_a_short_text_gets_shorter_lanes_unless_options_set_them(verb, notes):
    notes.write_text(TEXT[:100])
    assert verb("train", "--data", "notes.txt", "--hidden", 4, "--steps", 2)[0] == 0
    done = verb("train", "--data", "notes.txt", "--hidden", 4, "--steps", 2, "--batch", 50)
    assert_one_clear_line(done, 2, "too short", "batch")


def test_sample_streams_the_prompt_and_its_continuation(verb, run_folder):
    code, output, errors = verb("sample", run_folder, "--prompt", "The ", "--length", 50, "--seed", 3)
    assert (code, errors) == (0, "")
    assert output == as_written("The " + Model.load(run_folder).sample("The ", 50, seed=3))
    model = run_folder / "model.safetensors"
    code, output, _ = verb("sample", model, "--length", 50, "--seed", 3, "--temperature", 0.5, "--json")
    assert last_json(output)["chars"] == 50
    text = Model.load(run_folder).sample("", 50, seed=3, temperature=0.5)
    assert output.startswith(text)


def test_a_model_of_bytes_writes_bytes(verb, tmp_path):
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 4)
    assert verb("train", *QUICK, "--bytes", "--data", "binary", "--out", "run")[0] == 0
    done = python("-m", "fastlstm.sample", "run", "--prompt", "é", "--length", "40", cwd=tmp_path)
    assert done.stdout == as_written("é".encode() + Model.load(tmp_path / "run").sample("é", 40))


def test_evaluate_measures_a_text(verb, run_folder, notes):
    notes.write_text("The sea was loud.\n")
    code, output, errors = verb("evaluate", run_folder, "notes.txt", "--json")
    assert (code, errors) == (0, "")
    ref = Model.load(run_folder).evaluate("The sea was loud.\n")
    numbers = {
        "chars": 17,
        "nats_per_char": ref.nats_per_char,
        "bits_per_char": ref.bits_per_char,
        "perplexity": ref.perplexity,
        "top1": ref.top1,
        "top5": ref.top5,
        "unknown": 0,
        "error_nats": 0.0,
    }
    found = last_json(output)
    assert found.pop("hardest_characters")
    assert found.pop("hardest_contexts") == []  # none occurs often enough
    assert found == {**numbers, "lanes": 1, "precision": "float32", "files": [{"file": "notes.txt", **numbers}]}
    assert "17 characters" in output.splitlines()[0]


def test_evaluate_measures_several_texts_each_and_together(verb, run_folder, notes, tmp_path):
    notes.write_text("The sea was\tloud.\n" * 300)
    (tmp_path / "other.txt").write_text("It was late.")
    arguments = [run_folder, "notes.txt", "other.txt", "--unknown", "skip", "--hardest", 2, "--lanes", 3, "--json"]
    code, output, errors = verb("evaluate", *arguments)
    assert (code, errors.count("warning")) == (0, 1)
    lines, found = output.splitlines(), last_json(output)
    ref = Model.load(run_folder).assess(["The sea wasloud.\n" * 300, "It was late."], lanes=3)
    assert [one["bits_per_char"] for one in found["files"]] == [one.bits_per_char for one in ref.texts]
    assert (found["bits_per_char"], found["error_nats"]) == (ref.total.bits_per_char, ref.total.error)
    assert found["error_nats"] > 0
    assert [one["symbols"] for one in found["hardest_contexts"]] == [
        [chr(symbols[place]) for place in cost.ids]
        for symbols in [Model.load(run_folder).vocab.symbols]
        for cost in ref.contexts[:2]
    ]
    assert lines[1].split() == ["5,099", f"{ref.texts[0].bits_per_char:.4f}", f"{ref.texts[0].top1:.1%}", "notes.txt"]
    assert lines[2].split()[-1] == "other.txt"
    assert lines[3].startswith(f"{ref.total.chars:,} characters: ")
    assert lines[5].startswith("measured error of reading in lanes: ")
    assert lines[6].startswith("hardest characters")
    assert len(lines) == 7 + 3 + 1
    assert max(map(len, lines[:-1])) <= 80


def test_evaluate_measures_each_file_that_matches_a_pattern(verb, run_folder, notes, tmp_path):
    notes.write_text("The sea was loud.\n")
    (tmp_path / "notes.2.txt").write_text("It was late.")
    given = last_json(verb("evaluate", run_folder, "notes.2.txt", "notes.txt", "--unknown", "skip", "--json")[1])
    assert last_json(verb("evaluate", run_folder, "notes*.txt", "--unknown", "skip", "--json")[1]) == given
    assert [one["file"] for one in given["files"]] == ["notes.2.txt", "notes.txt"]


@pytest.mark.parametrize(("text", "symbols"), [(" a", [" ", "a", None]), (b" a", [0x20, 0x61, 0xC3, 0xA9])])
def test_json_of_evaluate_tells_unknown_symbols_and_bytes_from_characters(verb, notes, tmp_path, text, symbols):
    Model.for_text(text, hidden=2).save(tmp_path / "small.safetensors")
    notes.write_text("a é a")
    found = last_json(verb("evaluate", "small.safetensors", "notes.txt", "--json")[1])["hardest_characters"]
    assert sorted((one["symbols"] for one in found), key=str) == sorted(([symbol] for symbol in symbols), key=str)


def test_evaluate_lets_a_copy_of_the_model_learn_while_it_reads(verb, run_folder, notes):
    notes.write_text("The sea was loud.\n" * 50)
    code, output, _ = verb("evaluate", run_folder, "notes.txt", "--dynamic", "--lr", 0.01, "--json", "--hardest", 0)
    assert code == 0
    ref = Model.load(run_folder).evaluate_dynamic(notes.read_text(), Learning(lr=0.01))
    found = last_json(output)
    assert found["dynamic"]["bits_per_char"] == pytest.approx(ref.bits_per_char, rel=1e-12)
    assert found["dynamic"]["files"] == [
        {
            "file": "notes.txt",
            "chars": ref.chars,
            "nats_per_char": ref.nats_per_char,
            "bits_per_char": ref.bits_per_char,
        }
    ]
    assert found["dynamic"]["gain"] == pytest.approx(1 - ref.bits_per_char / found["bits_per_char"])
    assert output.splitlines()[2].startswith(f"learning while reading: {ref.nats_per_char:.4f} nats")
    assert_one_clear_line(verb("evaluate", run_folder, "notes.txt", "--dynamic", "--lanes", 2), 2, "--lanes")
    assert_one_clear_line(verb("evaluate", run_folder, "notes.txt", "--lr", 0.01), 2, "--dynamic")


def test_evaluate_names_the_text_of_several_that_is_wrong(verb, run_folder, notes, tmp_path):
    (tmp_path / "one").write_text("T")
    (tmp_path / "strange").write_text("T字")
    assert_one_clear_line(verb("evaluate", run_folder, "notes.txt", "one"), 1, "one: at least two")
    done = verb("evaluate", run_folder, "notes.txt", "strange", "--unknown", "error")
    assert_one_clear_line(done, 1, "strange: ", "字", "position 1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--bogus"],
        ["train", "--steps", "many"],
        ["train", "--steps", "1", "--epochs", "1"],
        ["train", "--clip-value", "1", "--clip-norm", "1"],
        ["train", "--hidden", "0"],
        ["train", "--seq-len", "-3"],
        ["train", "--lr", "nan"],
        ["train", "--val-frac", "1"],
        ["train", "--cell", "lsmt"],
        ["train", "--preset", "assignment", "--cell", "gru"],
        ["train", "--seed", "-1"],
        ["sample"],
        ["sample", "{run}", "--temperature", "-1"],
        ["sample", "{run}", "--length", "-1"],
        ["evaluate", "{run}"],
        ["evaluate", "{run}", "input", "--threads", "0"],
        ["evaluate", "{run}", "input", "--lanes", "0"],
        ["gradcheck", "--vocab", "0"],
        ["gradcheck", "--seq-len", "0"],
    ],
    ids=" ".join,
)
def test_a_wrong_argument_is_one_line_and_status_2(verb, run_folder, arguments, tmp_path):
    name, *rest = [argument.format(run=run_folder) for argument in arguments]
    assert_one_clear_line(verb(name, *rest), 2)
    assert not (tmp_path / "runs").exists()


def test_a_bad_text_is_one_line_and_status_1(verb, run_folder, tmp_path):
    for name, content in (("empty", b""), ("one", b"T"), ("latin", b"caf\xe9"), ("strange", "T字".encode())):
        (tmp_path / name).write_bytes(content)
    for name, part in (("missing", "no file"), ("empty", "empty"), ("one", "at least two"), ("latin", "not UTF-8")):
        assert_one_clear_line(verb("train", *QUICK, "--data", name), 1, part)
        assert_one_clear_line(verb("evaluate", run_folder, name), 1, part)
    assert_one_clear_line(verb("evaluate", run_folder, "strange", "--unknown", "error"), 1, "字")
    assert_one_clear_line(verb("sample", run_folder, "--prompt", "a字", "--unknown", "error"), 1, "字")
    assert_one_clear_line(verb("train", "--data", tmp_path), 1, "is a folder")


def test_a_bad_model_is_one_line_and_status_1(verb, run_folder, tmp_path):
    (tmp_path / "damaged").write_bytes((run_folder / "model.safetensors").read_bytes()[:-9])
    (tmp_path / "text").write_text(TEXT)
    for name in ("damaged", "text", "missing", "."):
        assert_one_clear_line(verb("sample", name), 1, "model")
        assert_one_clear_line(verb("evaluate", name, "input"), 1, "model")


def test_an_unusable_output_folder_is_detected_before_training(verb, notes):
    code, output, errors = verb("train", "--out", "notes.txt")
    assert (code, output) == (1, "")
    assert "--out" in errors


def test_a_run_that_diverges_is_one_line_and_keeps_the_last_good_model(verb, notes, tmp_path):
    arguments = [*QUICK, "--data", "notes.txt", "--lr", "1e30", "--clip-norm", "inf"]
    assert_one_clear_line(verb("train", *arguments), 1, "step 2", "1e+30", "before the run")
    assert not (tmp_path / "runs").exists()
    program = f"""
from fastlstm import recovery, schedules, train
recovery.steps_between = lambda symbols: 1
schedules.rate = lambda config, step, total: 0.1 if step < 9 else 1e30
train.cli.run(train.main, {arguments})
"""
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 1
    where, error = done.stderr.decode().splitlines()
    assert where == "fastlstm train: the model of step 8 is in runs/notes/model.safetensors"
    assert "diverged at step 11 " in error
    assert "restored to step 8:" in error  # that of the best check, although the parameters of step 9 were good too
    training = Model.load(tmp_path / "runs" / "notes").training
    assert (training["steps"], training["model_step"], training["finished"]) == (11, 8, False)


def test_train_prints_its_choice_and_the_printed_options_repeat_the_run(verb, tmp_path):
    small = ["--hidden", "8", "--embedding", "4", "--steps", "12", "--sample-length", "0", "--json"]
    (tmp_path / "notes.txt").write_text("the cat sat on the mat.\nso did the dog, at last.\n" * 60)
    code, output, _ = verb("train", *small, "--data", "notes.txt", "--out", "first")
    assert code == 0
    [line] = [line for line in output.splitlines() if line.startswith("chosen: ")]
    options = line.removeprefix("chosen: ").split(";")[0].split()
    assert "--hidden" not in options
    code, again, _ = verb("train", *small, *options, "--data", "notes.txt", "--out", "second")
    assert code == 0
    assert "chosen: " not in again
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert files[0] == files[1]
    assert last_json(output)["settings"] == last_json(again)["settings"]
    assert set(last_json(output)["settings"]) == set(settings_of(ModelConfig)) | set(settings_of(TrainConfig))


def test_a_run_of_so_many_minutes_prints_the_command_that_repeats_it(verb, notes, tmp_path):
    code, output, _ = verb("train", "--data", "notes.txt", "--minutes", 0.05, "--hidden", 16, "--sample-length", 0)
    assert code == 0
    lines = output.splitlines()
    command = lines[lines.index("to repeat the run:") + 1]
    arguments = command.split("fastlstm.train ")[1].split()
    assert arguments == ["--config", "runs/notes/config.toml"]
    assert verb("train", *arguments, "--out", "again")[0] == 0
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("runs/notes", "again")]
    assert files[0] == files[1]


@pytest.mark.parametrize("more", [[], ["--patience", 1, "--checks", 40, "--lr", 0.3, "--schedule", "constant"]])
def test_a_run_that_was_fitted_to_its_text_or_ended_early_can_be_repeated_too(more, verb, tmp_path):
    """A short text has fewer lanes than are chosen, and a run without patience fewer steps than were planned."""
    (tmp_path / "short.txt").write_text("the cat sat on the mat.\nso did the dog, at last.\n" * 8)
    small = ["--data", "short.txt", "--hidden", 8, "--sample-length", 0]
    code, output, errors = verb("train", *small, "--minutes", 0.04, *more)
    assert (code, errors) == (0, "")
    command = output.splitlines()[output.splitlines().index("to repeat the run:") + 1]
    code, _, errors = verb("train", *command.split("fastlstm.train ")[1].split(), "--out", "again")
    assert (code, errors) == (0, "")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("runs/short", "again")]
    assert files[0] == files[1]


@pytest.mark.parametrize("option", ["--beta1", "--beta2", "--weight-decay", "--eps"])
def test_settings_of_the_chosen_optimizer_can_be_given_alone(option, verb, notes):
    code, output, errors = verb("train", *QUICK, "--data", "notes.txt", option, "0.25")
    assert (code, errors) == (0, "")
    assert f"{option} " not in next(line for line in output.splitlines() if line.startswith("chosen: "))


def test_settings_that_the_chosen_optimizer_does_not_have_are_refused_in_its_name(verb, notes):
    assert_one_clear_line(verb("train", *QUICK, "--data", "notes.txt", "--momentum", "0.9"), 2, "adamw has no momentum")


def test_a_preset_leaves_nothing_to_choose(verb, tmp_path):
    (tmp_path / "notes.txt").write_text("the cat sat on the mat.\n" * 60)
    code, output, _ = verb("train", "--preset", "assignment", "--steps", "2", "--data", "notes.txt")
    assert code == 0
    assert "chosen: " not in output


def test_a_result_worse_than_guessing_is_reported(verb, notes):
    code, _, errors = verb("train", *QUICK, "--data", "notes.txt", "--lr", 5, "--schedule", "constant", "--warmup", 0)
    assert code == 0
    assert errors.startswith("fastlstm train: the model predicts worse than uniform guessing (")
    assert errors.count("\n") == 1


def test_evaluating_a_model_that_gives_no_finite_loss_is_one_line(verb, notes, tmp_path):
    model = Model.for_text(TEXT, hidden=2, embedding=2)
    model.parameters.flat[...] = 3.4e38
    model.save(tmp_path / "model.safetensors")
    assert_one_clear_line(verb("evaluate", ".", "notes.txt"), 1, "not a finite number")


def test_debug_shows_where_an_error_arose(verb):
    code, _, errors = verb("sample", "missing", "--debug")
    assert code == 1
    assert "Traceback" in errors
    assert "ModelFileError" in errors


def test_a_closed_output_pipe_loses_no_work(tmp_path):
    with begun(*endless("--out", "run"), cwd=tmp_path) as process:
        wait_for(process, "step")
        process.stdout.close()
        assert process.wait(timeout=60) == 128 + signal.SIGPIPE
        assert process.stderr.read() == ""
    assert Model.load(tmp_path / "run").training["finished"] is False
    assert sorted(os.listdir(tmp_path / "run")) == sorted(FILES)


@pytest.mark.parametrize(("variable", "value"), [("NUMBA_NUM_THREADS", "0"), ("FASTLSTM_THREADS", "99999")])
def test_a_wrong_variable_is_one_line(variable, value, run_folder, tmp_path):
    """Reported before numba is imported, which would report it with a traceback."""
    command = [sys.executable, "-m", "fastlstm.sample", str(run_folder), "--length", "5"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT | {variable: value}, capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"fastlstm sample: error: {variable} must be ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [*cli.VERBS, "cli"])
def test_help_imports_no_heavy_library(name, tmp_path):
    program = (
        f"import sys, fastlstm.{name} as verb\n"
        "try: verb.main(['--help'])\n"
        "except SystemExit as end: assert not end.code\n"
        "loaded = {'numpy', 'numba', 'llvmlite', 'rich', 'safetensors', 'pooch'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = python("-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    assert b"--help" in done.stdout


@pytest.mark.parametrize("name", cli.VERBS)
def test_a_module_run_as_a_program_gives_no_warnings(name, verb):
    done = python("-W", "error", "-m", f"fastlstm.{name}", "--help", cwd=".")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(f"usage: python -m fastlstm.{name} ")


def test_the_console_script_has_the_verbs(tmp_path, run_folder):
    def script(*arguments):
        return python("-c", "from fastlstm.cli import main; main()", *map(str, arguments), cwd=tmp_path)

    done = script("--help")
    assert done.returncode == 0
    for name, about in cli.VERBS.items():
        assert f"{name:<10} {about}" in done.stdout.decode()
    assert script("--version").stdout.decode() == f"fastlstm {fastlstm.__version__}\n"
    assert script("sample", "--help").stdout.startswith(b"usage: fastlstm sample ")
    sampled = script("sample", run_folder, "--length", 9).stdout.decode()
    assert sampled == as_written(Model.load(run_folder).sample("", 9))
    assert script("sample", "missing").stderr.startswith(b"fastlstm sample: error: there is no model")
    assert script().returncode == 2
    wrong = script("fly")
    assert (wrong.returncode, wrong.stderr.count(b"\n")) == (2, 1)


def test_public_names_exist_and_hide_no_module():
    for name in fastlstm.__all__:
        assert getattr(fastlstm, name) is not None
        assert name in dir(fastlstm)
    assert not set(fastlstm.__all__) & {*cli.VERBS, "cli", "text", "model"}
    with pytest.raises(AttributeError, match="nonsense"):
        fastlstm.nonsense  # noqa: B018
