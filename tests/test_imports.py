"""Imports run one way: the contracts of ``pyproject.toml`` hold, and violations are detected."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastlstm

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fastlstm.__file__).parent

#: The program ``lint-imports``, without a cache in the folder.
LINT = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))
"""


def lint(folder):
    """Whether the package in a folder fulfils the contracts, and the report."""
    command = [sys.executable, "-c", LINT, str(ROOT / "pyproject.toml")]
    variables = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr


def test_every_import_of_the_package_runs_downwards():
    kept, said = lint(PACKAGE.parent)
    assert kept, said


#: Code that is added to a module, and the resulting report.
BROKEN = {
    "upwards": ("text.py", "import fastlstm.model", "fastlstm.text is not allowed to import fastlstm.model"),
    "late": (
        "contract.py",
        "def late():\n    from fastlstm.kernels import network",
        "fastlstm.contract is not allowed to import fastlstm.kernels",
    ),
    "for types": (
        "params.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fastlstm.checkpoint import Content",
        "fastlstm.params is not allowed to import fastlstm.checkpoint",
    ),
    "a verb": ("trainer.py", "from fastlstm import cli", "fastlstm.trainer is not allowed to import fastlstm.cli"),
    "reference to kernels": (
        "reference/layer.py",
        "from fastlstm.kernels.host import vector_unit",
        "fastlstm.reference is not allowed to import fastlstm.kernels",
    ),
    "kernels to reference": (
        "kernels/pack.py",
        "from fastlstm.reference import layer",
        "fastlstm.kernels is not allowed to import fastlstm.reference",
    ),
    "in the kernels": (
        "kernels/jit.py",
        "from fastlstm.kernels import recurrent",
        "fastlstm.kernels.jit is not allowed to import fastlstm.kernels.recurrent",
    ),
    "one cell to another": (
        "kernels/cells/gru.py",
        "from fastlstm.kernels.cells import lstm",
        "fastlstm.kernels.cells.gru is not allowed to import fastlstm.kernels.cells.lstm",
    ),
    "without a place": ("news.py", "", "fastlstm.news"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_import_in_another_direction_is_detected(case, tmp_path):
    """Negative controls, each in a copy of the package."""
    path, added, expected = BROKEN[case]
    shutil.copytree(PACKAGE, tmp_path / "fastlstm", ignore=shutil.ignore_patterns("__pycache__", "data"))
    with open(tmp_path / "fastlstm" / path, "a", encoding="utf-8") as file:
        file.write(f"\n{added}\n")
    kept, said = lint(tmp_path)
    assert not kept
    assert expected in said
