"""The gradient check accepts correct gradients and detects wrong ones, from Python and from the command line."""

import json
import subprocess
import sys

import numpy as np
import pytest

from fastlstm import check_gradients, gradcheck
from fastlstm.cells import CELLS
from fastlstm.checking.centred import TOLERANCE
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.params import Parameters, initialise, table

CONFIG = ModelConfig(7, "lstm", 2, 5, 3)


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("cell", CELLS)
def test_all_cells_pass_on_both_backends(cell, backend, capsys):
    sizes = ["--hidden", "5", "--embedding", "3", "--vocab", "6", "--layers", "2", "--seq-len", "5"]
    assert gradcheck.main(["--cell", cell, "--backend", backend, *sizes]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "PASS"
    names = [entry.name for entry in table(ModelConfig(6, cell, 2, 5, 3))]
    assert [line.split()[0] for line in lines[1:-1]] == names
    assert {line.split()[-1] for line in lines[1:-1]} == {"ok"}


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("cell", CELLS)
def test_the_negative_control_fails(cell, backend, capsys):
    assert gradcheck.main(["--cell", cell, "--backend", backend, "--entries", "5", "--inject", "sign"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "FAIL"
    verdicts = {line.split()[0]: line.split()[-1] for line in lines[1:-1]}
    assert [name for name, verdict in verdicts.items() if verdict == "WRONG"] == ["layers.0.W"]


def test_the_program_reports_fail_with_status_1():
    """With the defaults: PASS with status 0; the negative control with status 1, and JSON as the last line."""
    command = [sys.executable, "-m", "fastlstm.gradcheck"]
    right = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (right.returncode, right.stdout.splitlines()[-1]) == (0, "PASS"), right.stderr
    wrong = subprocess.run([*command, "--inject", "sign", "--json"], capture_output=True, text=True, check=False)
    *_, verdict, last = wrong.stdout.splitlines()
    assert (wrong.returncode, verdict) == (1, "FAIL"), wrong.stderr
    result = json.loads(last)
    assert not result["passed"]
    assert [p["name"] for p in result["parameters"] if not p["passed"]] == ["layers.0.W"]


def test_help_needs_neither_numpy_nor_numba():
    code = "import sys; from fastlstm import gradcheck\ntry: gradcheck.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'numpy', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("entry", table(CONFIG), ids=lambda entry: entry.name)
def test_one_wrong_entry_of_any_parameter_is_detected(entry):
    """The largest entry of a parameter has an error of 1e-5, and the check names the parameter and the index."""

    def spoil(gradients):
        view = gradients[entry.name]
        view.flat[np.abs(view).argmax()] *= 1 + 1e-5
        spoiled.append(np.unravel_index(np.abs(view).argmax(), view.shape))

    spoiled = []
    report = check_gradients(CONFIG, seq_len=4, batch=2, gradient=spoil)
    assert not report.passed
    wrong = [p for p in report.parameters if not p.passed]
    assert [(p.name, p.where) for p in wrong] == [(entry.name, spoiled[0])]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda gradients: gradients.flat.fill(np.nan),
        lambda gradients: gradients.flat.fill(0),
        lambda gradients: np.clip(gradients.flat, -0.01, 0.01, out=gradients.flat),
        lambda gradients: gradients["embedding"].__iadd__(1e-6),  # absent symbols have a gradient of exactly 0
    ],
    ids=["nan", "zero", "clipped", "leak"],
)
def test_gradients_that_are_wrong_everywhere_are_detected(spoil):
    assert not check_gradients(CONFIG, seq_len=4, batch=1, gradient=spoil).passed


def test_correct_gradients_stay_far_below_the_tolerance():
    """There is a safety margin: over ten points and both backends, no error is near the tolerance.

    The floor is four times the rounding error; entries just above ``floor / TOLERANCE`` may show a quarter of it.
    """
    for seed in range(5):
        for backend in ("fast", "reference"):
            report = check_gradients(CONFIG, seq_len=4, batch=2, backend=backend, seed=seed, entries=15)
            assert max(p.worst for p in report.parameters) < TOLERANCE / 3


def test_float32_parameters_are_checked_in_float64_and_not_modified():
    parameters = initialise(ModelConfig(7, "rnn", 1, 5, 3), np.random.default_rng(0))
    before = parameters.flat.copy()
    report = check_gradients(parameters, seq_len=5)
    assert report.passed, f"\n{report}"
    assert np.array_equal(parameters.flat, before)
    assert parameters.flat.dtype == np.float32


def test_selected_entries_are_of_symbols_that_occur():
    """With N entries each of them has a gradient, and each parameter is represented."""
    seen = []
    report = check_gradients(
        ModelConfig(200, "lstm", 1, 4, 3), seq_len=3, batch=1, entries=6, gradient=lambda g: seen.append(g)
    )
    assert report.passed
    assert {p.entries for p in report.parameters} == {6}
    embedding = report.parameters[0]
    assert seen[0]["embedding"][embedding.where] == embedding.analytic != 0
    # Three rows of three: the median of six is not that of the other 197 rows, which is 0.
    assert embedding.median > 0


def test_a_trained_model_is_checked_from_its_file(tmp_path, capsys):
    from fastlstm.checkpoint import Content, save
    from fastlstm.text import Vocab

    vocab = Vocab.from_text("a small text")
    config = ModelConfig(len(vocab), "rnn", 2, 4, 3)
    file = tmp_path / "model.safetensors"
    save(file, Content(config, vocab, initialise(config, np.random.default_rng(1)), None))
    assert gradcheck.main(["--model", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [p["name"] for p in result["parameters"]] == list(Parameters(config))
    assert max(p["entries"] for p in result["parameters"]) == 32  # all of (4 + 4, 4): fewer than fifty
    with pytest.raises(SystemExit):
        gradcheck.main(["--model", str(file), "--hidden", "3"])
    assert "--hidden" in capsys.readouterr().err


def test_gradients_of_nan_fail_and_their_json_is_json(monkeypatch, capsys):
    def spoil(gradients):
        gradients.flat[:] = np.nan

    monkeypatch.setitem(gradcheck._INJECTIONS, "sign", spoil)
    assert gradcheck.main(["--inject", "sign", "--hidden", "3", "--backend", "reference", "--json"]) == 1
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not result["passed"]
    assert {p["worst"] for p in result["parameters"]} == {None}


@pytest.mark.parametrize(
    "setting",
    [{"seq_len": 0}, {"batch": 0}, {"entries": 0}, {"entries": 1.5}, {"seed": -1}, {"step": 0.0}, {"step": -1e-4}],
)
def test_sizes_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        check_gradients(CONFIG, **setting)
