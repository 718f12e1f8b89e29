"""A copy of the project for students, in which the forward and backward pass of a cell are theirs to write.

usage: python -m tests.handout DIR [--cell NAME]

The copy has the files of the project as they are in this checkout, without its history. The bodies of `forward` and
`backward` in ``fastlstm/reference/cells/NAME.py`` are replaced by an error, and files that contain the solution
(`SOLUTIONS`) are left out. The tests of this cell fail in the copy, and pass with any correct solution.
docs/teacher.md is about the use of it.
"""

import argparse
import ast
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path, PurePath

from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError

ROOT = Path(__file__).parents[1]

#: Patterns of the files that contain solutions, or are of no use without them: derivations, this command, and the test
#: that every link leads to a file.
SOLUTIONS = (
    "docs/derivation*",
    "docs/render.py",
    "docs/teacher.md",
    "tests/test_derivation.py",
    "tests/test_documents.py",
    "tests/handout.py",
    "tests/test_handout.py",
)

#: The functions that are blanked.
PASSES = ("forward", "backward")


def files():
    """Paths of the project's files, relative to `ROOT`: those that git tracks, or those that it would not ignore."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z"]
        tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return [PurePath(name) for name in tracked.split("\0") if (ROOT / name).is_file()]
    ignored = [PurePath(line).name for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [path for path in paths if not any(fnmatch(part, name) for part in path.parts for name in ignored)]


def blanked(source, cell):
    """The source of a cell with an error as the body of each of `PASSES`; docstrings and signatures stay."""
    lines = source.splitlines()
    functions = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name in PASSES]
    for function in reversed(functions):  # from the last, so that the numbers of the lines before it stay right
        error = (
            f'raise NotImplementedError("write the {function.name} pass of the {cell.upper()}: see docs/student.md")'
        )
        lines[function.body[0].end_lineno : function.end_lineno] = [f"    {error}"]
    return "\n".join(_with_unused_imports_allowed(lines)) + "\n"


#: What tells ruff that an import is not used, and why.
UNUSED = "  # noqa: F401 - the solution uses it"


def _with_unused_imports_allowed(lines):
    """The lines with a comment for ruff at the imports that only the solution uses."""
    tree = ast.parse("\n".join(lines))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__":
            names = {alias.asname or alias.name for alias in node.names}
            if not names & used:
                lines[node.lineno - 1] += UNUSED
    return lines


def hand_out(folder, cell):
    """Make the copy in a folder that is new or empty.

    Raises
    ------
    ConfigError
        When the folder is not empty, or is in the project itself.
    """
    folder = Path(folder).resolve()
    if folder.is_relative_to(ROOT):
        raise ConfigError(f"'{folder}' is in the project itself: choose a folder elsewhere")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' is not an empty folder: choose a new one")
    for path in files():
        if any(path.match(pattern) for pattern in SOLUTIONS):
            continue
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, folder / path)
    equations = folder / "fastlstm" / "reference" / "cells" / f"{cell}.py"
    equations.write_text(blanked(equations.read_text(encoding="utf-8"), cell), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.handout", description="Make a copy with blanks to fill in.")
    parser.add_argument("folder", metavar="DIR", help="the copy: a new or empty folder outside of the project")
    parser.add_argument("--cell", choices=CELLS, default="lstm", help="the cell that is blanked (lstm)")
    options = parser.parse_args()
    try:
        hand_out(options.folder, options.cell)
    except (ConfigError, OSError) as error:
        parser.error(str(error))
    print(f"{options.folder}: write fastlstm/reference/cells/{options.cell}.py; docs/student.md is the guide")
    return 0


if __name__ == "__main__":
    sys.exit(main())
