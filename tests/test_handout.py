"""The copy for students: its tests fail, pass with any correct solution, and fail with a wrong one."""

import handout
import pytest
from programs import ENVIRONMENT, python

TESTS = ["tests/test_reference_gradients.py", "tests/test_naive.py"]
#: Expressions of pytest: all tests of the LSTM, and those that are no negative controls, for a wrong solution.
ALL, POSITIVE = "lstm", "lstm and not broken"

#: A correct solution that is not the project's: other names, and other but equal formulas.
RIGHT = '''"""The LSTM as somebody else would write it."""

import numpy as np


def forward(a, before):
    half = [(1 + np.tanh(v / 2)) / 2 for v in a[:3]]
    candidate = np.tanh(a[3])
    memory = half[0] * candidate + before[1] * half[1]
    return [*half, candidate], [np.tanh(memory) * half[2], memory]


def backward(gates, before, after, dh, carry):
    write, keep, show, candidate = gates
    squashed = after[0] / show
    to_memory = carry + dh * show / np.cosh(after[1]) ** 2
    slopes = [gate - gate**2 for gate in (write, keep, show)]
    return [
        to_memory * candidate * slopes[0],
        to_memory * before[1] * slopes[1],
        squashed * dh * slopes[2],
        to_memory * write * (1 + candidate) * (1 - candidate),
    ], to_memory * keep
'''

#: The same without the gradient that comes from the next step through c.
WRONG = RIGHT.replace("to_memory = carry + dh", "to_memory = dh")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handout") / "copy"
    done = python("-m", "tests.handout", folder, cwd=handout.ROOT, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def run(copy, *arguments):
    return python("-m", *arguments, cwd=copy, env=ENVIRONMENT | {"PYTHONPATH": str(copy)}, text=True)


def results(copy, selected):
    """Exit status and output of `TESTS`, and those of the gradient check."""
    tests = run(copy, "pytest", "-p", "no:cacheprovider", "-rA", "--tb=no", *TESTS, "-k", selected)
    check = run(copy, "fastlstm.gradcheck", "--cell", "lstm", "--backend", "reference")
    return tests.returncode, tests.stdout, check.returncode, check.stdout + check.stderr


@pytest.fixture
def hand_in(copy):
    """Hands in a solution and returns its `results`; the copy is as before when the test ends."""
    file = copy / "fastlstm" / "reference" / "cells" / "lstm.py"
    blank = file.read_text()

    def results_with(solution, selected):
        file.write_text(solution)
        return results(copy, selected)

    yield results_with
    file.write_text(blank)


def test_all_tests_of_the_lstm_fail_in_the_copy_and_say_what_is_to_be_written(copy):
    status, tests, check_status, check = results(copy, ALL)
    assert (status, check_status) == (1, 1)
    assert "FAILED" in tests
    assert "PASSED" not in tests
    assert "write the forward pass of the LSTM: see docs/student.md" in check


@pytest.mark.slow  # it runs tests of the copy
def test_a_correct_solution_passes_though_it_is_written_differently(hand_in):
    status, tests, check_status, check = hand_in(RIGHT, ALL)
    assert (status, check_status) == (0, 0), tests + check
    assert "FAILED" not in tests
    assert check.splitlines()[-1] == "PASS"


@pytest.mark.slow  # it runs tests of the copy
def test_a_wrong_solution_fails(hand_in):
    assert WRONG != RIGHT
    status, tests, check_status, check = hand_in(WRONG, POSITIVE)
    assert (status, check_status) == (1, 1)
    assert "FAILED tests/test_reference_gradients.py::test_every_parameter_agrees_with_a_complex_step[lstm-1]" in tests
    assert "PASSED tests/test_naive.py::test_the_reference_is_the_naive_forward_pass[lstm-1]" in tests
    assert check.splitlines()[-1] == "FAIL"


def test_the_copy_has_all_files_but_those_with_solutions(copy):
    left_out = {path.as_posix() for path in handout.files() if not (copy / path).exists()}
    assert {"docs/teacher.md", "tests/handout.py", "tests/test_handout.py"} <= left_out
    known = (
        "docs/derivation",
        "docs/render.py",
        "docs/teacher",
        "tests/test_derivation",
        "tests/test_documents",
        "tests/handout",
        "tests/test_handout",
    )
    assert [name for name in left_out if not name.startswith(known)] == []
    assert not (copy / ".git").exists()


def test_no_file_of_the_copy_contains_a_line_of_the_backward_pass(copy):
    """The same equations are in the kernel and, forward, in the README and the tests; but not these lines."""
    right = (handout.ROOT / "fastlstm" / "reference" / "cells" / "lstm.py").read_text()
    lines = {line.split("#")[0].strip() for line in right[right.index("def backward") :].splitlines()}
    lines = {line for line in lines if " * " in line}
    assert len(lines) >= 5
    texts = {
        path: path.read_text(encoding="utf-8")
        for path in copy.rglob("*.*")
        if path.suffix in (".py", ".md", ".html", ".ipynb")
    }
    assert [(path, line) for path, text in texts.items() for line in lines if line in text] == []


@pytest.mark.parametrize("cell", handout.CELLS)
def test_only_the_bodies_of_the_passes_are_replaced(cell):
    source = (handout.ROOT / "fastlstm" / "reference" / "cells" / f"{cell}.py").read_text()
    blank = handout.blanked(source, cell)
    assert blank.count("raise NotImplementedError") == 2
    kept = [line.removesuffix(handout.UNUSED) for line in blank.splitlines() if "raise" not in line]
    lines = source.splitlines()
    assert [line for line in lines if line in kept] == kept
    assert not [line for line in lines if line not in kept and not line.startswith("    ")]


def test_without_git_the_files_are_those_that_it_would_not_ignore(tmp_path, monkeypatch):
    tree = {"pyproject.toml", "tests/a.py", ".gitignore"}
    for name in tree | {"tests/__pycache__/a.pyc", ".venv/lib/b.py", ".ci/venv/c.py", "runs/x/model.safetensors"}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((handout.ROOT / ".gitignore").read_text() if name == ".gitignore" else "")
    monkeypatch.setattr(handout, "ROOT", tmp_path)
    assert {path.as_posix() for path in handout.files()} == tree


def test_a_folder_with_files_and_one_in_the_project_are_refused_and_stay_as_they_are(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for folder, message in ((tmp_path, "is not an empty folder"), (handout.ROOT / "copy", "is in the project itself")):
        done = python("-m", "tests.handout", folder, cwd=handout.ROOT, text=True)
        assert done.returncode == 2
        assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert not (handout.ROOT / "copy").exists()
