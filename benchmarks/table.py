"""The tables of speed in docs/performance.md and README.md, made from the results of `benchmarks.peers`.

usage: python -m benchmarks.table [FILE.json ...] [--write]

Without files, the results are those recorded in ``benchmarks/results``. The tables are printed; with ``--write`` they
are put between their marks in the two documents.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arguments import input_file
from benchmarks.libraries import LIBRARIES, Library
from benchmarks.workloads import SAMPLED

ROOT = Path(__file__).parents[1]

#: The recorded results.
RECORDED = tuple(Path(__file__).with_name("results") / f"{verb}.json" for verb in ("train", "sample", "read"))

#: The names of the marks that enclose the tables of all results, and the table of a few.
MARKS, SUMMARY_MARKS = "benchmark", "benchmark-summary"

Result = dict[str, Any]

#: Mean number of cores used by other programs from which on the table mentions them.
BUSY = 0.1

_TITLES = {
    "train": "Training, one step", "sample": f"Sampling {SAMPLED} characters, one at a time",
    "read": "Reading a text, forward and loss",
}  # fmt: skip

#: What is measured, in a row of the summary.
_ACTIONS = {"train": "training step", "sample": "sampling", "read": "reading"}

#: Verb and workload of the rows of the summary.
SUMMARY = (
    ("train", "b1-h32"), ("train", "b50-h128"), ("train", "b50-h256"), ("train", "b50-h512"), ("train", "b64-h1024"),
    ("sample", "h256"), ("read", "b50-h256"),
)  # fmt: skip


def milliseconds(value: float | None) -> str:
    """A time to three significant digits; empty if nothing was measured."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Column(NamedTuple):
    """A column of the table after those of the libraries: its name, its field in a result, and how a value is shown."""

    name: str
    field: str
    shown: str


#: Only those of which there are values are shown.
COLUMNS = (
    Column("ratio", "ratio", ".2f"),
    Column("ratio to ONNX Runtime", "ratio_onnx", ".2f"),
    Column("characters/s", "chars_per_s", ",.0f"),
    Column("of the peak", "share_of_peak", ".0%"),
    Column("bf16 ratio", "ratio_bf16_float32", ".2f"),
    Column("bf16 ratio to ONNX Runtime", "ratio_onnx_bf16", ".2f"),
    Column("bf16 ratio to PyTorch bf16", "ratio_bf16", ".2f"),
    Column("bf16 ratio to own fp32", "ours_float32_over_bf16", ".2f"),
    Column("bf16 characters/s", "bf16_chars_per_s", ",.0f"),
    Column("bf16 of the peak", "bf16_share_of_peak", ".0%"),
)

#: The fields of those that the summary has.
SUMMARY_FIELDS = {"ratio", "chars_per_s", "ratio_bf16_float32", "bf16_chars_per_s"}


def header(results: Sequence[Result]) -> list[str]:
    """Names of the columns: the libraries that were measured, and the values derived from them."""
    times = [f"{library.label} ms" + " (1 thread)" * _known(results, library.alone_field) for library in timed(results)]
    return ["workload", *times, *(column.name for column in _derived(results))]


def cells(result: Result, results: Sequence[Result]) -> list[str]:
    """The row of a result, with the columns of `header`."""
    times = [_times(result, library) for library in timed(results)]
    return [result["workload"], *times, *(_value(result, column) for column in _derived(results))]


def _value(result: Result, column: Column) -> str:
    value = result.get(column.field)
    return "" if value is None else format(value, column.shown)


def _times(result: Result, library: Library) -> str:
    """The time of a library, with that of one thread in parentheses."""
    alone = result.get(library.alone_field)
    return milliseconds(result.get(library.field)) + ("" if alone is None else f" ({milliseconds(alone)})")


def timed(results: Sequence[Result]) -> list[Library]:
    """The libraries that were measured with the usual number of threads."""
    return [one for one in measured(results) if one.threads is None]


def measured(results: Sequence[Result]) -> list[Library]:
    """The libraries that were measured."""
    return [library for library in LIBRARIES if _known(results, library.field)]


def _derived(results: Sequence[Result]) -> list[Column]:
    """The columns with values, without those that repeat another, as when ONNX Runtime is always the fastest peer."""
    by_values: dict[tuple[Any, ...], Column] = {}
    for column in COLUMNS:
        if _known(results, column.field):
            by_values.setdefault(tuple(result.get(column.field) for result in results), column)
    return list(by_values.values())


def _known(results: Sequence[Result], field: str) -> bool:
    return any(result.get(field) is not None for result in results)


def markdown(results: Sequence[Result]) -> str:
    """A table for each verb, each with a line about the conditions of the measurement."""
    parts = []
    for verb in _TITLES:
        if chosen := [result for result in results if result["verb"] == verb]:
            parts += [f"**{_TITLES[verb]}** ({conditions(chosen)}):", _table(chosen)]
    return "\n\n".join(parts)


def summary(results: Sequence[Result]) -> str:
    """One small table of the results that `SUMMARY` selects, with a line about the conditions of the measurement."""
    by_name = {(result["verb"], result["workload"]): result for result in results}
    chosen = [by_name[name] for name in SUMMARY if name in by_name]
    columns = [column for column in COLUMNS if column.field in SUMMARY_FIELDS and _known(chosen, column.field)]
    names = ["", "fastest peer", "fastlstm ms", *(column.name for column in columns)]
    lines = [[*_measured_call(result), *(_value(result, column) for column in columns)] for result in chosen]
    return f"({conditions(chosen)})\n\n{rows([names, *lines], words=2)}"


def _measured_call(result: Result) -> list[str]:
    """What one call did, in words, the name of the fastest peer, and the time of the call."""
    sizes = result["sizes"]
    characters = SAMPLED if result["verb"] == "sample" else f"{sizes['B']} x {sizes['T']}"
    call = f"{_ACTIONS[result['verb']]} {sizes['L']}x{sizes['H']}, {characters} characters"
    labels = {library.field: library.label for library in LIBRARIES}
    return [call, labels.get(f"{result['fastest_peer']}_ms", ""), milliseconds(result["ours_ms"])]


def conditions(results: Sequence[Result]) -> str:
    """Machine, threads, precisions, versions and rounds of the results; each distinct value is listed once."""
    machines = _distinct(result["cpu"] for result in results)
    versions = _distinct(version for result in results for version in result["versions"].values())
    threads = _distinct(f"{result['threads']} thread{'s' * (result['threads'] > 1)}" for result in results)
    precisions = _distinct(result["precision"] for result in results)
    rounds = f"medians of {' or '.join(_distinct(str(result['rounds']) for result in results))} rounds in turn"
    others = max((result["cores_of_others"] or 0.0 for result in results), default=0.0)
    busy = [f"while other programs kept up to {others:.1f} cores busy"] if others > BUSY else []
    return ", ".join([*machines, *threads, *precisions, *versions, rounds, *busy])


def _distinct(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _table(results: Sequence[Result]) -> str:
    return rows([header(results), *(cells(result, results) for result in results)])


def rows(lines: Sequence[Sequence[str]], words: int = 1) -> str:
    """A Markdown table: a header, then rows whose first ``words`` columns are words, and the others numbers."""
    ruled = [lines[0], [*["---"] * words, *["---:"] * (len(lines[0]) - words)], *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def marks(name: str) -> tuple[str, str]:
    """The marks before and after a generated table."""
    return f"<!-- {name}:begin -->", f"<!-- {name}:end -->"


def insert(document: str, tables: str, name: str = MARKS) -> str:
    """``document`` with the text between the marks of that name replaced by ``tables``."""
    begin, end = marks(name)
    before, found_begin, rest = document.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"there is no {begin} with a {end} after it")
    return f"{before}{begin}\n{tables}\n{end}{after}"


class Place(NamedTuple):
    """Where tables belong: a document, by its path from the root; the name of its marks; and what makes the tables."""

    document: str
    marks: str
    tables: Callable[[Sequence[Result]], str]


PLACES = (Place("docs/performance.md", MARKS, markdown), Place("README.md", SUMMARY_MARKS, summary))


def read(files: Sequence[Path] = RECORDED) -> list[Result]:
    """The results in files of `benchmarks.peers`."""
    return [result for path in files for result in json.loads(path.read_text(encoding="utf-8"))]


def write(results: Sequence[Result], root: Path = ROOT) -> None:
    """Put the tables into the documents.

    Raises
    ------
    ValueError
        When a document has no marks; none is changed then.
    OSError
        When a document cannot be read or written.
    """
    documents = {place: (root / place.document).read_text(encoding="utf-8") for place in PLACES}
    changed = {place: _filled(place, document, results) for place, document in documents.items()}
    for place, document in changed.items():
        (root / place.document).write_text(document, encoding="utf-8")


def _filled(place: Place, document: str, results: Sequence[Result]) -> str:
    try:
        return insert(document, place.tables(results), place.marks)
    except ValueError as error:
        raise ValueError(f"{place.document}: {error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.table", description="Make Markdown tables from the results of benchmarks.peers."
    )
    parser.add_argument("files", nargs="*", type=input_file, metavar="FILE.json", help="results (those recorded)")
    documents = " and ".join(place.document for place in PLACES)
    parser.add_argument("--write", action="store_true", help=f"put them between their marks in {documents}")
    options = parser.parse_args(argv)
    results = read(options.files or RECORDED)
    if not options.write:
        print("\n\n".join(place.tables(results) for place in PLACES))
        return
    try:
        write(results)
    except (OSError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
