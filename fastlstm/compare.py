"""``python -m fastlstm.compare``: train networks of several cells alike, and show what they have learned, as a page."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlstm import cli, signals, terminal
from fastlstm.comparison_plan import ORDER, ComparisonPlan
from fastlstm.presets import UNFAIR
from fastlstm.settings import add_options, given

if TYPE_CHECKING:
    from fastlstm.cells import CellName
    from fastlstm.comparison import Comparison, Watch
    from fastlstm.comparison_folder import ComparisonFolder
    from fastlstm.observers import Progress

#: Seconds between two lines about a training.
_LINE_SECONDS = 10.0

#: The options that are allowed when a comparison is resumed.
_WITH_RESUME = ("resume", "quiet", "json", "debug")


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "compare",
        "Train RNN, GRU and LSTM networks with equally many parameters alike on a text, and show what they have"
        " learned: a page (index.html) with its figures (PNG) and the numbers (comparison.json).",
    )
    cli.add_text_options(made)
    comparison = made.add_argument_group("comparison")
    comparison.add_argument(
        "--cells", nargs="+", choices=ORDER, metavar="CELL", help=f"the cells (default: all: {', '.join(ORDER)})"
    )
    add_options(comparison, ComparisonPlan)
    for group in ("model", "training", "exhibits", "computing"):
        add_options(made.add_argument_group(group), ComparisonPlan)
    result = made.add_argument_group("progress and result")
    result.add_argument(
        "--out",
        type=cli.path,
        metavar="DIR",
        help="folder (default: comparisons/NAME, named after the first text, or the next free one)",
    )
    result.add_argument(
        "--resume", type=cli.path, metavar="DIR", help="go on with the comparison in this folder; nothing is repeated"
    )
    result.add_argument("--quiet", action="store_true", help="print only warnings and errors, and --json")
    return made


class _Wanted(NamedTuple):
    """What is to be compared: settings, cells, and where the text comes from."""

    plan: ComparisonPlan
    cells: list[str]
    data: list[str]
    as_bytes: bool
    encoding: str | None

    @property
    def origin(self) -> dict[str, Any]:
        """Where the text comes from, as it is kept in the folder."""
        return {"data": self.data, "bytes": self.as_bytes, "encoding": self.encoding, "folder": os.getcwd()}


def main(argv: Sequence[str] | None = None) -> int:
    """Compare cells as given by the arguments; returns the exit status."""
    started = time.perf_counter()
    options = parser().parse_args(argv)
    plan = ComparisonPlan(**given(options, ComparisonPlan))
    from fastlstm.comparison_folder import ComparisonFolder
    from fastlstm.lock import Lock
    from fastlstm.pages.figures import check_libraries

    check_libraries()
    if options.resume:
        _check_alone(options)
        folder = ComparisonFolder(options.resume)
        wanted = _resumed(folder)
    else:
        wanted = _Wanted(plan, options.cells or [], options.data or [], bool(options.bytes), options.encoding)
        folder = _new_folder(options.out, wanted.data)
    try:
        with Lock(folder.path):
            return _compare(wanted, folder, started, options)
    finally:
        if options.out is None:  # the name of a comparison that could not begin is free again
            folder.remove_if_empty()


def _check_alone(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing when a comparison is resumed."""
    from fastlstm.errors import ConfigError

    for name, value in vars(options).items():
        if value is not None and name not in _WITH_RESUME:
            raise ConfigError(
                f"--{name.replace('_', '-')} cannot be given with --resume: the comparison has its own text and"
                " settings"
            )


def _resumed(folder: ComparisonFolder) -> _Wanted:
    """The comparison of a folder, to go on with."""
    from fastlstm.comparison_folder import PLAN
    from fastlstm.errors import ConfigError
    from fastlstm.run_text import located

    record = folder.read(PLAN)
    if record is None:
        raise ConfigError(f"{str(folder.path)!r} contains no comparison that could be resumed: check the path")
    try:
        origin = record["origin"]
        data = [located(source, origin) for source in origin["data"]]
        plan = ComparisonPlan.from_dict(record["plan"])
        return _Wanted(plan, list(record["cells"]), data, bool(origin["bytes"]), origin.get("encoding"))
    except (KeyError, TypeError):
        raise ConfigError(f"{str(folder.path / PLAN)!r} is no plan of this command: begin a new comparison") from None


def _new_folder(out: str | None, data: list[str]) -> ComparisonFolder:
    """The folder given by ``--out``, else the next free ``comparisons/NAME`` with the name of the first text."""
    from fastlstm import sources
    from fastlstm.comparison_folder import ComparisonFolder

    if out is not None:
        return ComparisonFolder.new(Path(out))
    return ComparisonFolder.next_free(Path("comparisons", sources.title(data)))


def _compare(wanted: _Wanted, folder: ComparisonFolder, started: float, options: argparse.Namespace) -> int:
    """Make the comparison and its page; returns the exit status."""
    from fastlstm.comparison import compare
    from fastlstm.errors import StoppedError
    from fastlstm.text import read_text

    tell = _teller(options.quiet)
    if wanted.plan.preset is not None:
        tell(f"note: {UNFAIR}")
    text = read_text(wanted.data, as_bytes=wanted.as_bytes, encoding=wanted.encoding)
    name = ", ".join(terminal.printable_line(Path(source).name) for source in wanted.data) or "the default text"
    with signals.Stop() as stop:
        stop.lost = lambda: f"what is done is in {folder.path}"
        try:
            found = compare(
                text, wanted.plan, wanted.cells, name=name, folder=folder.path, origin=wanted.origin,
                watch=_watch(tell), stop=stop, started=started,
            )  # fmt: skip
        except StoppedError:
            cli.note("compare", f"stopped; to go on: {cli.command('compare')} --resume {shlex.quote(str(folder.path))}")
            return stop.status
        with stop.saving():
            page = _write(found, folder)
        stop.done()
        _summarise(found, page, tell)
        if options.json:
            cli.print_json(_json(found, folder, page))
    return stop.status


def _teller(quiet: bool) -> Callable[[str], None]:
    """The function that prints lines; with ``--quiet`` it does nothing."""
    if quiet:
        return lambda line: None
    return lambda line: print(terminal.wrapped(line) if sys.stdout.isatty() else line, flush=True)


def _watch(tell: Callable[[str], None]) -> Watch:
    """What prints the progress of a comparison, as lines."""
    from fastlstm import comparison
    from fastlstm.bar import clock
    from fastlstm.progress import nats_and_bits

    class Lines(comparison.Watch):
        def __init__(self) -> None:
            self._due = time.monotonic() + _LINE_SECONDS

        def compiling(self) -> None:
            tell(terminal.COMPILING)

        def planned(self, steps: Mapping[CellName, int]) -> None:
            tell("steps: " + ", ".join(f"{cell} {count:,}" for cell, count in steps.items()))

        def began(self, what: str, number: int, total: int, seconds_left: float) -> None:
            tell(f"[{number}/{total}] {what}; {clock(seconds_left)} left")
            self._due = time.monotonic() + _LINE_SECONDS

        def advanced(self, progress: Progress) -> None:
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + _LINE_SECONDS
                tell(f"  step {progress.step:,}/{progress.total:,}  train {nats_and_bits(progress.train_nats)}")

        def ended(self, result: str) -> None:
            tell(f"  {result}")

    return Lines()


def _write(found: Comparison, folder: ComparisonFolder) -> Path:
    """Write the results, the figures and the page; returns the path of the page."""
    from fastlstm.comparison_folder import PAGE, RESULTS
    from fastlstm.pages.compare import page

    folder.write(RESULTS, found.to_dict())
    document, figures = page(found)
    for figure in figures:
        folder.write(f"{figure.name}.png", figure.png)
    return folder.write(PAGE, document)


def _summarise(found: Comparison, page: Path, tell: Callable[[str], None]) -> None:
    from fastlstm.pages.compare import findings

    for sentence in findings(found):
        tell(sentence)
    tell(f"the page is {page}")


def _json(found: Comparison, folder: ComparisonFolder, page: Path) -> dict[str, Any]:
    from fastlstm.comparison_folder import RESULTS
    from fastlstm.pages.compare import findings

    return {
        "page": str(page),
        "results": str(folder.path / RESULTS),
        "val_nats": {cell: found.losses(cell).tolist() for cell in found.cells},
        "findings": findings(found),
    }


if __name__ == "__main__":
    cli.run(main)
