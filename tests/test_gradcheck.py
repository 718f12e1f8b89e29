"""The verb accepts correct gradients and detects wrong ones, of both backends; and so does `check_gradients`."""

import json
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest

from fastlstm import check_gradients, gradcheck
from fastlstm.cells import CELLS
from fastlstm.checking.bugs import BUGS
from fastlstm.checking.differences import TOLERANCE
from fastlstm.checking.rows import rows
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError, FastlstmError
from fastlstm.kernels.network import FastNetwork
from fastlstm.params import Parameters, initialise, table
from fastlstm.reference import network as reference

CONFIG = ModelConfig(7, "lstm", 2, 5, 3)

#: The quickest check of all kinds.
TINY = ["--hidden", "3", "--embedding", "2", "--vocab", "5", "--seq-len", "3"]

#: The checks of a backend's gradients, in their order.
OF_GRADIENTS = {
    "fast": ["centred differences", "random direction", "sweep over h"],
    "reference": ["centred differences", "random direction", "complex steps", "sweep over h"],
}


def run(capsys, *arguments):
    """Status, lines without the JSON, and the JSON."""
    status = gradcheck.main([*arguments, "--json"])
    *lines, last = capsys.readouterr().out.splitlines()
    return status, lines, json.loads(last)


def failed(result):
    return [(check["check"], check["backend"]) for check in result["checks"] if not check["passed"]]


def verdicts(lines, title):
    """The last words of a table's rows, by parameter and gate."""
    begin = next(n for n, line in enumerate(lines) if line.startswith(title))
    end = lines.index("", begin)
    found = {}
    for line in lines[begin + 2 : end]:
        name, gate, *_ = line.split()
        found[name, "" if gate.isdigit() else gate] = line.split()[-1]
    return found


@pytest.mark.parametrize("cell", CELLS)
def test_all_checks_of_both_backends_pass_by_default_and_each_is_named(cell, capsys):
    status, lines, result = run(capsys, "--cell", cell, "--layers", "2", *TINY)
    assert (status, lines[-1], result["passed"]) == (0, "PASS", True)
    expected = [(check, backend) for backend, checks in OF_GRADIENTS.items() for check in checks]
    expected += [("fast against reference", "both")] * 2
    expected += [
        (check, backend) for backend in OF_GRADIENTS for check in ("chunks against whole", "lanes against singles")
    ]
    assert [(check["check"], check["backend"]) for check in result["checks"]] == expected
    for check, backend in expected:
        assert any(line.startswith(check) and (backend == "both" or backend in line) for line in lines)
    for backend in OF_GRADIENTS:
        found = verdicts(lines, f"centred differences, {backend}")
        assert list(found) == [(row.name, row.gate) for row in rows(ModelConfig(5, cell, 2, 3, 2))]
        assert set(found.values()) == {"ok"}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bug", [[], ["--inject", "transposed-weight"], ["--inject", "aliased-state"]])
def test_the_output_fits_79_columns(cell, bug, capsys):
    _, lines, _ = run(capsys, "--cell", cell, "--layers", "3", "--per-param", "3", *bug)
    assert max(map(len, lines)) <= 79


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_every_entry_of_two_layers_passes_with_a_margin(cell, capsys):
    status, _, result = run(capsys, "--cell", cell, "--layers", "2", "--all")
    assert status == 0
    for check in result["checks"]:
        if "parameters" in check:
            assert sum(p["entries"] for p in check["parameters"]) == ModelConfig(11, cell, 2, 9, 5).parameter_count
    worst = {(check["check"], check["backend"]): check["worst"] for check in result["checks"]}
    # Margins: a third as for other points below, and the tenth that `COMPLEX_TOLERANCE` promises.
    assert max(worst["centred differences", backend] for backend in OF_GRADIENTS) < 1e-6 / 3
    assert worst["complex steps", "reference"] < 1e-12 / 10


@pytest.mark.parametrize("backend", OF_GRADIENTS)
def test_one_backend_is_checked_alone_when_asked_for(backend, capsys):
    status, _, result = run(capsys, "--backend", backend, *TINY)
    assert status == 0
    assert {check["backend"] for check in result["checks"]} == {backend}


def test_the_reference_alone_needs_no_kernels():
    """As when a new cell has no kernel yet."""
    code = (
        f"import sys; from fastlstm import gradcheck\nassert gradcheck.main(['--backend', 'reference', *{TINY}]) == 0\n"
    )
    code += "sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_broken_reference_fails_by_default(capsys, monkeypatch):
    """Someone who edits the reference sees it, in the table of the reference and in no other."""
    right = reference.backward

    def wrong(parameters, tape, scale, gradients):
        right(parameters, tape, scale, gradients)
        H = parameters.config.hidden
        gradients["layers.0.b"][H : 2 * H] *= 1.001

    monkeypatch.setattr(reference, "backward", wrong)
    status, lines, result = run(capsys, *TINY)
    assert (status, lines[-1]) == (1, "FAIL")
    assert set(failed(result)) == {
        *((check, "reference") for check in (*OF_GRADIENTS["reference"], "one time step")),
        ("fast against reference", "both"),
        # The gradients of lanes are wrong in proportion, and a chunk's are not compared.
    }
    found = verdicts(lines, "centred differences, reference")
    assert [row for row, verdict in found.items() if verdict == "WRONG"] == [("layers.0.b", "f")]
    assert "WRONG" not in verdicts(lines, "centred differences, fast").values()
    summary = " ".join(lines[next(n for n, line in enumerate(lines) if line.startswith("wrong:")) : -1])
    assert summary.startswith("wrong: centred differences, reference (layers.0.b f);")


def test_broken_kernels_fail_by_default(capsys, monkeypatch):
    right = FastNetwork._backward

    def wrong(self, parameters, scale, gradients):
        right(self, parameters, scale, gradients)
        gradients["output.b"] *= 1.001

    monkeypatch.setattr(FastNetwork, "_backward", wrong)
    status, lines, result = run(capsys, *TINY)
    assert status == 1
    assert {backend for _, backend in failed(result)} == {"fast", "both"}
    found = verdicts(lines, "centred differences, fast")
    assert [row for row, verdict in found.items() if verdict == "WRONG"] == [("output.b", "")]


@pytest.mark.parametrize(("name", "cell"), [(name, bug.cells[0]) for name, bug in BUGS.items()])
def test_every_injected_bug_fails_in_the_reference_alone(name, cell, capsys):
    """With the default network: a quarter of the usual entries, which is time enough."""
    status, lines, result = run(capsys, "--inject", name, "--cell", cell, "--per-param", "12")
    assert (status, lines[-1], result["injected"]) == (1, "FAIL", name)
    found = failed(result)
    assert ("fast against reference", "both") in found
    assert {backend for _, backend in found} == {"reference", "both"}


def test_the_bugs_are_explained(capsys):
    assert gradcheck.main(["--inject", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(BUGS)
    assert max(map(len, lines)) <= 79
    text = " ".join(" ".join(lines).split())
    assert all(" ".join(bug.about.split()) in text for bug in BUGS.values())
    assert gradcheck.main(["--inject", "list", "--json"]) == 0
    bugs = json.loads(capsys.readouterr().out.splitlines()[-1])["bugs"]
    assert [bug["name"] for bug in bugs] == list(BUGS)


def test_the_program_reports_fail_with_status_1():
    """With the defaults: PASS with status 0; a negative control with status 1, and JSON as the last line."""
    command = [sys.executable, "-m", "fastlstm.gradcheck"]
    right = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (right.returncode, right.stdout.splitlines()[-1]) == (0, "PASS"), right.stderr
    wrong = subprocess.run([*command, *TINY, "--inject", "sign", "--json"], capture_output=True, text=True, check=False)
    *_, verdict, last = wrong.stdout.splitlines()
    assert (wrong.returncode, verdict) == (1, "FAIL"), wrong.stderr
    assert not json.loads(last)["passed"]


def test_help_needs_neither_numpy_nor_numba():
    code = "import sys; from fastlstm import gradcheck\ntry: gradcheck.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'numpy', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--inject", "signs"], "there is no bug 'signs': --inject list explains all"),
        (["--all", "--per-param", "3"], "not allowed with"),
        (["--plot", "sweep.pdf"], "--plot needs a name that ends in .png or .svg, not 'sweep.pdf'"),
        (["--inject", "sign", "--backend", "fast"], "--inject breaks the reference, and --backend fast leaves it out"),
        (["--precision", "float32", "--per-param", "3"], "--per-param is for float64"),
        (["--precision", "float32", "--per-param", "0"], "--per-param is for float64"),
        (["--precision", "float32", "--all"], "--all is for float64"),
        (["--precision", "float32", "--inject", "sign"], "--inject is for float64"),
        (["--precision", "float32", "--plot", "sweep.png"], "--plot is for float64"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        gradcheck.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_bug_of_another_cell_is_refused():
    with pytest.raises(ConfigError, match="needs the cell gru"):
        gradcheck.main(["--inject", "reset-ignored", "--cell", "lstm"])


def test_a_trained_model_is_checked_from_its_file(tmp_path, capsys):
    from fastlstm.checkpoint import Content, save
    from fastlstm.text import Vocab

    vocab = Vocab.from_text("a small text")
    config = ModelConfig(len(vocab), "rnn", 1, 8, 3)
    file = tmp_path / "model.safetensors"
    save(file, Content(config, vocab, initialise(config, np.random.default_rng(1)), None))
    status, _, result = run(capsys, "--model", str(file))
    assert status == 0
    entries = {p["name"]: p["entries"] for p in result["checks"][0]["parameters"]}
    assert list(entries) == [row.name for row in rows(config)]
    assert entries["output.W"] == 50  # of 8 * 8
    assert entries["layers.0.W[h]"] == 25  # half of the 50 of W
    _, _, result = run(capsys, "--model", str(file), "--all")
    assert sum(p["entries"] for p in result["checks"][0]["parameters"]) == config.parameter_count
    with pytest.raises(SystemExit):
        gradcheck.main(["--model", str(file), "--hidden", "3"])
    assert "--hidden" in capsys.readouterr().err


def test_networks_with_many_parameters_are_sampled_by_default(capsys):
    """Of more than 5,000 parameters 50 of each are checked, spread over the gates; with fewer, all."""
    _, _, result = run(
        capsys, "--cell", "rnn", "--vocab", "400", "--hidden", "12", "--embedding", "2", "--seq-len", "2"
    )
    entries = {p["name"]: p["entries"] for p in result["checks"][0]["parameters"]}
    assert entries["output.W"] == entries["output.b"] == 50
    assert entries["embedding"] == 8  # of the 4 symbols that occur
    _, _, result = run(capsys, *TINY)
    entries = sum(p["entries"] for p in result["checks"][0]["parameters"])
    assert entries == ModelConfig(5, "lstm", 1, 3, 2).parameter_count


def test_gradients_of_nan_fail_and_their_json_is_json(monkeypatch, capsys):
    monkeypatch.setattr(reference, "backward", lambda parameters, tape, scale, gradients: gradients.flat.fill(np.nan))
    status, lines, result = run(capsys, *TINY)
    assert (status, lines[-1]) == (1, "FAIL")
    # Chunks compare losses and states, which are right.
    assert [check["check"] for check in result["checks"] if check["backend"] != "fast" and check["passed"]] == [
        "chunks against whole"
    ]
    (centred,) = [c for c in result["checks"] if (c["check"], c["backend"]) == ("centred differences", "reference")]
    assert {p["worst"] for p in centred["parameters"]} == {None}


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_sweep_is_drawn(suffix, tmp_path, capsys):
    from matplotlib import image

    path = tmp_path / f"sweep.{suffix}"
    assert gradcheck.main([*TINY, "--plot", str(path)]) == 0
    assert f"the sweep is in {path}" in capsys.readouterr().out.splitlines()
    if suffix == "png":
        assert image.imread(path).shape[:2] == (675, 1650)
    else:
        assert xml.etree.ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_foreign_file_is_not_overwritten_by_the_plot(tmp_path, capsys):
    path = tmp_path / "sweep.svg"
    path.write_text("mine")
    with pytest.raises(FastlstmError, match=r"exists, and is no chart of fastlstm: give --overwrite"):
        gradcheck.main([*TINY, "--plot", str(path)])
    assert (path.read_text(), capsys.readouterr().out) == ("mine", "")  # before the checks
    for arguments in (["--overwrite"], []):  # now it is ours
        assert gradcheck.main([*TINY, "--backend", "reference", "--plot", str(path), *arguments]) == 0
    assert path.read_text() != "mine"


# From Python.


def row_of(entry, where):
    """The row of the table that has an entry of a parameter."""
    place = entry.start + np.ravel_multi_index(where, entry.shape)
    (found,) = [(row.name, row.gate) for row in rows(CONFIG) if place in row.places]
    return found


@pytest.mark.parametrize("entry", table(CONFIG), ids=lambda entry: entry.name)
def test_one_wrong_entry_of_any_parameter_is_detected(entry):
    """The largest entry of a parameter has an error of 1e-5, and the check names its row and the index."""

    def spoil(gradients):
        view = gradients[entry.name]
        view.flat[np.abs(view).argmax()] *= 1 + 1e-5
        spoiled.append(np.unravel_index(np.abs(view).argmax(), view.shape))

    spoiled = []
    report = check_gradients(CONFIG, seq_len=4, batch=2, gradient=spoil)
    assert not report.passed
    wrong = [(p.name, p.gate, p.where) for p in report.parameters if not p.passed]
    assert wrong == [(*row_of(entry, spoiled[0]), spoiled[0])]


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
            report = check_gradients(CONFIG, seq_len=4, batch=2, backend=backend, seed=seed, per_param=15)
            assert report.worst < TOLERANCE / 3


def test_float32_parameters_are_checked_in_float64_and_not_modified():
    parameters = initialise(ModelConfig(7, "rnn", 1, 5, 3), np.random.default_rng(0))
    before = parameters.flat.copy()
    report = check_gradients(parameters, seq_len=5)
    assert report.passed, f"\n{report}"
    assert np.array_equal(parameters.flat, before)
    assert parameters.flat.dtype == np.float32


def test_selected_entries_are_of_symbols_that_occur():
    """With N entries of a parameter each of them has a gradient, and each of its rows is represented."""
    seen = []
    report = check_gradients(
        ModelConfig(200, "lstm", 1, 4, 3), seq_len=3, batch=1, per_param=6, gradient=lambda g: seen.append(g)
    )
    assert report.passed
    # W has 8 rows, of which each has at least one; b has 4.
    assert {p.name: p.entries for p in report.parameters} == {
        "embedding": 6, "layers.0.W[x]": 1, "layers.0.W[h]": 1, "layers.0.b": 2, "output.W": 6, "output.b": 6,
    }  # fmt: skip
    embedding = report.parameters[0]
    assert seen[0]["embedding"][embedding.where] == embedding.analytic != 0
    # Three rows of three: the median of six is not that of the other 197 rows, which is 0.
    assert embedding.median > 0


@pytest.mark.parametrize("cell", CELLS)
def test_every_entry_is_in_one_row_and_in_the_row_of_its_gate(cell):
    config = ModelConfig(7, cell, 2, 5, 3)
    found = rows(config)
    assert sorted(np.concatenate([row.places for row in found])) == list(range(config.parameter_count))
    numbered = Parameters(config, np.arange(config.parameter_count, dtype=np.float64).astype(np.float32))
    for row in found:
        *_, tensor = row.name.split(".")
        if row.gate and tensor.startswith("W"):
            block = numbered[row.parameter.name][:-5] if tensor == "W[x]" else numbered[row.parameter.name][-5:]
            column = 5 * config.structure.gates.index(row.gate)
            assert np.array_equal(block[:, column : column + 5].ravel(), row.places)


@pytest.mark.parametrize(
    "setting",
    [{"seq_len": 0}, {"batch": 0}, {"per_param": 0}, {"per_param": 1.5}, {"seed": -1}, {"step": 0.0}, {"step": -1e-4}],
)
def test_sizes_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        check_gradients(CONFIG, **setting)


def test_a_chart_that_cannot_be_written_costs_no_result(tmp_path, capsys):
    sizes = ["--hidden", "2", "--embedding", "2", "--vocab", "3", "--per-param", "1", "--backend", "reference"]
    with pytest.raises(FastlstmError, match="cannot write"):
        gradcheck.main([*sizes, "--plot", str(tmp_path / "none" / "sweep.png"), "--json"])
    *_, verdict, result = capsys.readouterr().out.splitlines()
    assert verdict == "PASS"
    assert json.loads(result)["passed"]
