"""The notebook in docs/, executed: ``python -m tests.run_notebook`` brings its outputs up to date.

It needs the extra `notebook`. Output on standard error, such as notices, is left out, and no times are recorded, so
that the file changes only where results do.
"""

import argparse
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "exhibits.ipynb"

#: Limit of one cell, in seconds: a multiple of the longest time, on a busy machine that compiles all kernels.
_LIMIT = 600


def execute(notebook):
    """Execute all cells in place, with this checkout of the package.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        When a cell raises an exception.
    """
    settings = {"timeout": _LIMIT, "record_timing": False, "coalesce_streams": True}
    client = NotebookClient(notebook, kernel_name="python3", **settings)
    client.execute(cwd=str(ROOT), env=os.environ | {"PYTHONPATH": str(ROOT)})
    notebook.metadata["language_info"] = {"name": "python"}  # without the version that executed it
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.run_notebook", description="Execute docs/exhibits.ipynb.")
    parser.parse_args()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    execute(notebook)
    nbformat.write(notebook, NOTEBOOK)
    return 0


if __name__ == "__main__":
    sys.exit(main())
