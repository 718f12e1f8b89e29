"""The Markdown documents: their links lead somewhere, and their lists and tables are complete."""

import itertools
import re
import tomllib
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from fastlstm.cli import VERBS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [path for folder in (".", "docs", "benchmarks", "data") for path in sorted((ROOT / folder).glob("*.md"))]
OUTSIDE = ("https:", "http:", "mailto:")


def parsed(document):
    """The tokens of a document, those inside of paragraphs and headings included, in order."""
    for token in MarkdownIt("commonmark").enable("table").parse(document):
        yield token
        yield from token.children or ()


def links(document):
    """Targets of the links and images in a document."""
    targets = (token.attrGet("href") or token.attrGet("src") for token in parsed(document))
    return [target for target in targets if target]


def anchors(document):
    """The anchors that GitHub gives to a document's headings."""
    tokens = MarkdownIt("commonmark").parse(document)
    headings = [inline for start, inline in itertools.pairwise(tokens) if start.type == "heading_open"]
    texts = ("".join(token.content for token in heading.children) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in texts}


def resolves(link, document, folder):
    """Whether a link of a document in a folder leads to a file and, if it names a heading, to that heading."""
    path, _, anchor = link.partition("#")
    target = folder / path
    if not target.exists():
        return False
    return not anchor or anchor in anchors(target.read_text(encoding="utf-8") if path else document)


def broken(document, folder):
    """The relative links of a document in a folder that lead nowhere."""
    return [link for link in links(document) if not link.startswith(OUTSIDE) and not resolves(link, document, folder)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_relative_link_leads_to_a_file_and_to_a_heading(path):
    assert broken(path.read_text(encoding="utf-8"), path.parent) == []


def test_links_that_lead_nowhere_are_found(tmp_path):
    """A negative control."""
    (tmp_path / "other.md").write_text("## What `it` is, now")
    right = "# Here\n[a](other.md) [b](other.md#what-it-is-now) [c](#here) [d](https://example.org/x) `[e](code.md)`\n"
    wrong = "[f](missing.md) ![g](missing.png)\n\n| a |\n|---|\n| [h](other.md#what) [i](#there) |\n"
    assert broken(right + wrong, tmp_path) == ["missing.md", "missing.png", "other.md#what", "#there"]


def test_the_documents_are_found():
    names = {path.relative_to(ROOT).as_posix() for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "docs/runs.md", "benchmarks/README.md"} <= names


def test_the_structure_lists_every_module_once():
    """Those that the layers of ``pyproject.toml`` declare, each of which exists (`test_imports.py`)."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(one["layers"] for one in contracts["contracts"] if one["containers"] == ["fastlstm"])
    declared = [name for layer in layers for name in re.findall(r"\w+", layer)]
    document = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^    fastlstm/\n((?:      \S.*\n)+)", document, re.MULTILINE)
    assert sorted(re.findall(r"\w+(?=\.py\b)|(?<=^ {6})\w+(?=/)", listed, re.MULTILINE)) == sorted(declared)


@pytest.mark.parametrize("verb", VERBS)
def test_the_readme_shows_every_verb(verb):
    assert f"python -m fastlstm.{verb}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_of_speed_are_made_from_the_recorded_results():
    """If not: ``python -m benchmarks.table --write``."""
    table = pytest.importorskip("benchmarks.table", reason="the benchmarks are not beside the tests")
    for place in table.PLACES:
        document = (ROOT / place.document).read_text(encoding="utf-8")
        assert table.insert(document, place.tables(table.read()), place.marks) == document, place.document
