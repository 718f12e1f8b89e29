"""docs/kernels.md agrees with the code: its table, its excerpts, its file names, and the output of its examples."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastlstm.kernels.host import vector_unit
from fastlstm.kernels.workspace import table

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "kernels.md").read_text()
EXAMPLES = re.findall(r"```sh\n(.*?)```\n```text\n(.*?)```", PAGE, flags=re.S)


def unindented(text):
    return "\n".join(line.strip() for line in text.strip().splitlines())


def test_the_table_of_buffers_is_made_from_their_declarations():
    (found,) = re.findall(r"<!-- buffers:begin -->\n(.*)\n<!-- buffers:end -->", PAGE, flags=re.S)
    assert found == table()


def test_excerpts_are_the_codes_own_lines():
    excerpts = re.findall(r"<!-- from (\S+) -->\n```python\n(.*?)```", PAGE, flags=re.S)
    assert len(excerpts) == 2
    for path, excerpt in excerpts:
        assert unindented(excerpt) in unindented((ROOT / path).read_text()), path


def test_files_that_the_page_names_exist():
    paths = set(re.findall(r"`((?:fastlstm|benchmarks)/[\w/.]+)`", PAGE))
    _, table_of_files = PAGE.split("## Where to read on")
    paths |= {f"fastlstm/kernels/{name}" for name in re.findall(r"`([a-z_]+(?:\.py|/))`", table_of_files)}
    assert len(paths) > 20
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.slow  # one of them compiles all tiles
@pytest.mark.parametrize("example", range(len(EXAMPLES)))
@pytest.mark.skipif(sys.platform == "win32", reason="the examples are for a POSIX shell")
def test_examples_run_and_print_what_the_page_shows(example):
    """Exactly on a processor like the page's; on others, the generated code may differ in details."""
    command, output = EXAMPLES[example]
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=os.environ | paths, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    if vector_unit() == (64, 32, True):
        if "mm" in output:
            assert done.stdout.count("vfmadd") == output.count("vfmadd")
        else:
            assert done.stdout == output
