"""Random mutations of the computing code, each in a copy of the package, must be detected by the suite."""

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from harness import NoVerdictError, part

import fastlstm
from fastlstm.cells import CELLS

_PACKAGE = Path(fastlstm.__file__).parent
_TESTS = Path(__file__).parents[1]
#: The computing code, and the tests that compare it with the reference, numerical gradients, and other oracles.
FILES = (
    *(f"{backend}/cells/{cell}.py" for backend in ("reference", "kernels") for cell in CELLS),
    "reference/layer.py", "reference/network.py", "reference/optimizers.py", "reference/dropout.py",
    "kernels/recurrent.py", "kernels/gradients.py", "kernels/output.py", "kernels/update.py", "kernels/functions.py",
    "kernels/pack.py", "kernels/step.py", "kernels/dropout.py", "kernels/simd/words.py", "contract.py", "dropout.py",
    "optimizers.py", "schedules.py", "recovery.py",
)  # fmt: skip
SUITE = (
    "test_reference_gradients.py", "test_naive.py", "test_torch.py", "test_equivalence.py", "test_contract.py",
    "test_functions.py", "test_sequences.py", "test_trainer.py", "test_optimizers.py", "test_torch_optimizers.py",
    "test_dropout.py", "test_schedules.py", "test_recovery.py",
)  # fmt: skip
#: Seconds for the suite, which compiles all kernels again.
LONGEST_SUITE = 900
#: Plausible mistakes: signs, bounds, and similar operations exchanged.
SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip


@part("mutants", full=36, small=0, seconds=LONGEST_SUITE + 60)
def test_a_mutation_of_computing_code_is_detected(trials):
    """If a sign, index, bound or constant changes, a test fails. Survivors, equivalent code or gaps, are listed."""
    trials.run(try_mutant)


def try_mutant(trial):
    rng = trial.generator()
    path, place = mutable_places()[rng.integers(len(mutable_places()))]
    source, change = mutated((_PACKAGE / path).read_text(), place)
    shutil.copytree(_PACKAGE, trial.folder / "fastlstm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(_TESTS, trial.folder / "tests", ignore=shutil.ignore_patterns("__pycache__", "campaign"))
    shutil.copytree(_PACKAGE.parent / "data", trial.folder / "data")
    shutil.copy(_PACKAGE.parent / "pyproject.toml", trial.folder)
    (trial.folder / "fastlstm" / path).write_text(source)
    if suite_passes(trial.folder):
        raise NoVerdictError(f"survives: {path}: {change}")


def suite_passes(folder):
    """Whether the tests pass on the package in a folder; a mutation by which they do not end counts as detected."""
    command = [sys.executable, "-m", "pytest", "-x", *(f"tests/{name}" for name in SUITE)]
    variables = os.environ | {"PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, timeout=LONGEST_SUITE)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


@cache
def mutable_places():
    """Places for mutations: files, and numbers of nodes in their syntax trees."""
    return [
        (path, number)
        for path in FILES
        for number, node in enumerate(ast.walk(ast.parse((_PACKAGE / path).read_text())))
        if change_of(node)
    ]


def change_of(node):
    """A function that mutates a node, or `None` if there is no mutation for it."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        return lambda: setattr(node, "op", SWAPPED[type(node.op)]())
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        return lambda: node.ops.__setitem__(0, SWAPPED[type(node.ops[0])]())
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return lambda: setattr(node, "value", node.value + 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return lambda: setattr(node, "op", ast.UAdd())
    return None


def mutated(source, place):
    """The source with a mutation at a place, and a line that describes it."""
    tree = ast.parse(source)
    node = list(ast.walk(tree))[place]
    before = ast.unparse(node)
    change_of(node)()
    return ast.unparse(tree), f"line {node.lineno}: {before} -> {ast.unparse(node)}"
