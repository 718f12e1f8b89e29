"""docs/exhibits.ipynb can be executed, and is kept with its outputs but without traces of where that was."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "exhibits.ipynb"


def code_cells():
    return [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


@pytest.mark.slow  # it trains several networks, half a minute with compiled kernels
def test_every_cell_can_be_executed():
    nbformat = pytest.importorskip("nbformat", reason="it needs fastlstm[notebook]")
    from run_notebook import execute

    execute(nbformat.read(NOTEBOOK, as_version=4))  # raises the error of a cell


@pytest.mark.slow  # it starts a kernel
def test_an_exception_in_a_cell_is_an_error():
    """Negative control."""
    nbformat = pytest.importorskip("nbformat", reason="it needs fastlstm[notebook]")
    from nbclient.exceptions import CellExecutionError
    from run_notebook import execute

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(notebook)


def test_all_cells_were_executed_in_their_order_and_show_no_error():
    cells = code_cells()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert {"stream", "display_data"} <= kinds
    assert "error" not in kinds


def test_the_file_is_small_and_tells_nothing_of_the_machine_that_executed_it():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    without_images = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/home/|/root|/tmp|/work|site-packages|[A-Z]:\\\\|20\d\d-\d\d-\d\d", without_images)
    assert "execution" not in {key for cell in code_cells() for key in cell["metadata"]}  # where times are recorded
