"""Sweeps: every run is done once, in spite of interruptions and failures, and the table follows from the results."""

import json
import subprocess

import pytest

from benchmarks import sweep
from benchmarks.sweep import Job, RunError, jobs, key_of, load, markdown
from benchmarks.table import insert
from fastlstm.terminal import COMPILING

RESULT = {
    "text": "input", "sha256": "ab", "bytes": 9, "setting": "small", "options": ["--hidden", "8"], "seed": 0,
    "val_nats": 1.5, "steps": 100, "wall_seconds": 60.0, "cores_of_others": 0.0, "cpu": "a processor",
    "versions": {"fastlstm": "fastlstm 1 (c0ffee)", "python": "Python 3"},
}  # fmt: skip
TRAINED = {"steps": 7, "seconds": 1.0, "val_nats": 2.5, "parameters": 10, "model": "somewhere"}


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("some lines\n" * 40)
    return path


@pytest.fixture
def commands(monkeypatch):
    """Records the commands of runs, none of which is executed; each prints the next of ``outputs``."""

    class Commands(list):
        outputs = (json.dumps(TRAINED),)
        status = 0

        def __call__(self, command, **settings):
            if "fastlstm.train" not in command:
                return execute(command, **settings)
            self.append(command)
            output = self.outputs[min(len(self), len(self.outputs)) - 1]
            return subprocess.CompletedProcess(command, self.status, output, "a line\nthe last line\n")

    execute = subprocess.run
    commands = Commands()
    monkeypatch.setattr(sweep.subprocess, "run", commands)
    return commands


def result_of(job):
    return {**RESULT, "sha256": job.sha256, "options": job.options, "seed": job.seed, "setting": job.setting}


def test_every_setting_is_run_with_one_seed_before_any_with_the_next(text):
    found = list(jobs({"a": text, "b": text}, {"one": [], "two": ["--hidden", "8"]}, ["--minutes", "1"], 2))
    assert [(job.seed, job.text, job.setting) for job in found] == [
        (seed, name, setting) for seed in (0, 1) for name in "ab" for setting in ("one", "two")
    ]
    assert found[1].options == ["--minutes", "1", "--hidden", "8"]


def test_an_interrupted_sweep_goes_on_where_it_stopped(text, tmp_path):
    wanted, out, done = list(jobs({"a": text}, {"one": []}, [], 3)), tmp_path / "results.json", []

    def run(job):
        if len(done) == 1:
            done.append(None)
            raise KeyboardInterrupt
        done.append(job)
        return result_of(job)

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(wanted, out, run)
    assert [result["seed"] for result in load(out)] == [0]
    assert sweep.sweep(wanted, out, run) == 0
    assert [key_of(result) for result in load(out)] == [job.key for job in wanted]
    assert done == [wanted[0], None, *wanted[1:]]


@pytest.mark.parametrize("changed", ["text", "options", "seed"])
def test_another_text_option_or_seed_is_another_run(text, changed):
    job = Job("a", text, "ab", "one", [], 0)
    other = {
        "text": job._replace(sha256="cd"), "options": job._replace(options=["--cell", "gru"]),
        "seed": job._replace(seed=1),
    }[changed]  # fmt: skip
    assert key_of(result_of(other)) != key_of(result_of(job))
    assert key_of(result_of(job._replace(setting="renamed"))) == key_of(result_of(job))


def test_a_failed_run_is_reported_and_tried_again_and_the_others_go_on(text, tmp_path, capsys):
    wanted, out = list(jobs({"a": text}, {"one": []}, [], 2)), tmp_path / "results.json"

    def run(job):
        if job.seed == 0:
            raise RunError("out of luck")
        return result_of(job)

    assert sweep.sweep(wanted, out, run) == 1
    assert "out of luck" in capsys.readouterr().err
    assert [result["seed"] for result in load(out)] == [1]
    assert sweep.sweep(wanted, out, result_of) == 0
    assert [result["seed"] for result in load(out)] == [1, 0]


def test_a_run_gets_its_options_text_and_seed_and_its_report_is_recorded(commands, text):
    found = sweep.run(Job("a", text, "ab", "one", ["--hidden", "8"], 3))
    (command,) = commands
    assert command[1:7] == ["-m", "fastlstm.train", "--hidden", "8", "--data", str(text)]
    assert command[command.index("--seed") + 1] == "3"
    assert (found["val_nats"], found["steps"], found["trained"]["parameters"]) == (2.5, 7, 10)
    assert "model" not in found["trained"]
    assert list(found["versions"]) == ["fastlstm", "numba", "python"]


def test_a_run_that_compiled_kernels_is_repeated_once(commands, text):
    compiled, warm = json.dumps({**TRAINED, "val_nats": 9.0}), json.dumps(TRAINED)
    commands.outputs = (f"{COMPILING}\n{compiled}", warm)
    assert sweep.run(Job("a", text, "ab", "one", [], 0))["val_nats"] == 2.5
    assert len(commands) == 2


def test_a_run_that_fails_or_has_no_validation_is_an_error(commands, text):
    job = Job("a", text, "ab", "one", [], 0)
    commands.outputs = ('{"steps": 7}',)
    with pytest.raises(RunError, match="no validation loss"):
        sweep.run(job)
    commands.status = 1
    with pytest.raises(RunError, match=r"^the last line$"):
        sweep.run(job)


def test_a_real_run_gives_a_result(text):
    quick = ["--hidden", "8", "--embedding", "4", "--steps", "2", "--batch", "2", "--seq-len", "8"]
    found = sweep.run(Job("a", text, "ab", "one", [*quick, "--backend", "reference"], 0))
    assert found["steps"] == 2
    assert found["wall_seconds"] > found["trained"]["seconds"]
    assert json.loads(json.dumps(found)) == found


def test_the_table_has_mean_spread_and_minutes_of_the_seeds_of_each_setting():
    slower = {**RESULT, "seed": 1, "val_nats": 1.6, "wall_seconds": 66.0}
    found = markdown([RESULT, {**RESULT, "options": [], "setting": "default"}, slower])
    assert "| input | small | `--hidden 8` | 1.05 | 1.5500 | 1.5000 to 1.6000 | 2 | 100 |" in found
    assert "| input | default |  | 1.00 | 1.5000 | 1.5000 to 1.5000 | 1 | 100 |" in found
    assert "(a processor, fastlstm 1 (c0ffee), Python 3):" in found
    assert insert("<!-- sweep:begin --><!-- sweep:end -->", found, sweep.MARKS).count(found) == 1


def test_the_table_states_a_loss_that_is_not_finite_and_a_busy_machine():
    found = markdown([RESULT, {**RESULT, "seed": 1, "val_nats": None, "cores_of_others": 0.7}])
    assert "|  | 1 not finite | 2 |" in found
    assert "other programs kept up to 0.7 cores busy" in found


def test_the_table_is_made_from_a_file_and_put_into_a_document(tmp_path, capsys):
    results, document = tmp_path / "results.json", tmp_path / "README.md"
    results.write_text(json.dumps([RESULT]))
    document.write_text("before\n<!-- sweep:begin -->\nold\n<!-- sweep:end -->\nafter\n")
    with pytest.raises(SystemExit) as left:
        sweep.main(["--table", str(results), "--readme", str(document)])
    assert left.value.code == 0
    assert capsys.readouterr().out.strip() in document.read_text()
    assert "old" not in document.read_text()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ('one = "--hidden"', "one must be a list"), ("one = [1]", "one must be a list"), ("one", "not TOML"),
        ("", "no setting"),
    ],
)  # fmt: skip
def test_a_grid_that_is_not_named_lists_of_options_is_refused(grid, message, tmp_path, capsys):
    path = tmp_path / "grid.toml"
    path.write_text(grid)
    with pytest.raises(SystemExit) as left:
        sweep.main(["--grid", str(path), "--out", str(tmp_path / "results.json")])
    assert left.value.code == 2
    assert message in capsys.readouterr().err


def test_a_grid_names_lists_of_options(tmp_path):
    path = tmp_path / "grid.toml"
    path.write_text('default = []\n"dropout 0.2" = ["--dropout-output", "0.2"]\n')
    assert sweep.grid_file(str(path)) == {"default": [], "dropout 0.2": ["--dropout-output", "0.2"]}


@pytest.mark.parametrize(
    "arguments", [["--minutes", "0"], ["--minutes", "soon"], ["--seeds", "0"], ["--texts", "input,novel"]]
)
def test_a_wrong_argument_is_reported_before_anything_is_trained(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        sweep.main([*arguments, "--out", str(tmp_path / "results.json")])
    assert left.value.code == 2
    assert f"error: argument {arguments[0]}" in capsys.readouterr().err


def test_a_sweep_uses_only_texts_to_tune_on_unless_others_are_named():
    assert "shakespeare-tune" in sweep.parse(["--out", "results.json"]).texts
    assert not {"shakespeare", "input", "django"} & set(sweep.parse(["--out", "results.json"]).texts)
