"""``python -m fastlstm.runs``: list runs with their best losses, and the settings that differ."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.errors import FastlstmError

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from fastlstm.history import History

_DEFAULT = "runs"

#: The columns of every listing: numbers, which are aligned to the right, and texts. Those of the settings follow.
_NUMBERS, _TEXTS = ("nats", "bits", "steps", "seconds"), ("state", "run")

#: More characters than any table is wide.
_ANY_WIDTH = 100_000


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "runs",
        "List runs, that of the lowest validation loss first, and the settings that differ. The loss of a run is that"
        " of its best model, per character.",
    )
    made.add_argument(
        "folders", nargs="*", metavar="DIR", help=f"run folders, or folders of runs (default: {_DEFAULT})"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """List runs as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    from fastlstm import history

    runs, damaged = _read(_found(options.folders))
    names = [name for name in history.differing(runs) if name not in _NUMBERS]
    if runs or damaged:
        _print(runs, damaged, names)
    else:
        folders = " ".join(options.folders or [_DEFAULT])
        print(f"there are no runs in {folders}; train a model with: {cli.command('train')}")
    if options.json:
        cli.print_json(
            {"runs": [_json(run) for run in runs], "damaged": [str(path) for path in damaged], "differing": names}
        )
    return 0


def _found(folders: Sequence[str]) -> list[Path]:
    """The run folders among and below some folders, each once; without any, those below the default folder."""
    from fastlstm import history

    for folder in folders:
        if not Path(folder).is_dir():
            raise FastlstmError(f"there is no folder {folder!r}: check the path")
    found = (path for folder in folders or [_DEFAULT] for path in history.find(folder))
    return list({path.resolve(): path for path in found}.values())


def _read(paths: Sequence[Path]) -> tuple[list[History], list[Path]]:
    """The histories of runs, the best one first, and the paths of the damaged ones, which are reported."""
    from fastlstm import history

    runs, damaged = [], []
    for path in paths:
        try:
            runs.append(history.read(path))
        except FastlstmError as error:
            cli.note("runs", str(error))
            damaged.append(path)
    return sorted(runs, key=lambda run: math.inf if run.best_nats is None else run.best_nats), damaged


def _print(runs: Sequence[History], damaged: Sequence[Path], names: Sequence[str]) -> None:
    """Print a table that fits the terminal; elsewhere lines of plain text, of any length."""
    from rich.console import Console

    console = Console(highlight=False)
    table = _table(runs, damaged, names)
    width = console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).maximum
    if not console.is_terminal or console.is_dumb_terminal:
        plain = io.StringIO()
        Console(file=plain, width=width, color_system=None, highlight=False).print(table)
        print("\n".join(line.rstrip() for line in plain.getvalue().splitlines()))
    elif width <= console.width:
        console.print(table)
    else:
        console.print(_narrow_table(runs, damaged, names))


def _table(runs: Sequence[History], damaged: Sequence[Path], names: Sequence[str]) -> Table:
    """A row for each run, and a column for each setting that differs."""
    table = _headed()
    for name in names:
        table.add_column(_text(name))
    for run in runs:
        table.add_row(*_facts(run), _text(run.path), *(_setting(run, name, "-") for name in names))
    for path in damaged:
        table.add_row(*_facts_of_damaged(), _text(path))
    return table


def _narrow_table(runs: Sequence[History], damaged: Sequence[Path], names: Sequence[str]) -> Table:
    """The same with the settings below the path of each run, in lines that are folded."""
    from rich.text import Text

    table = _headed()
    table.columns[-1].no_wrap = False
    table.columns[-1].overflow = "fold"
    for run in runs:
        settings = [Text.assemble(_text(name), "=", _setting(run, name)) for name in names if name in run.settings]
        below = [Text("\n"), Text(", ").join(settings)] if settings else []
        table.add_row(*_facts(run), _text(run.path).append_text(Text.assemble(*below, style="dim")))
    for path in damaged:
        table.add_row(*_facts_of_damaged(), _text(path))
    return table


def _headed() -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _NUMBERS:
        table.add_column(name, justify="right", no_wrap=True)
    for name in _TEXTS:
        table.add_column(name, no_wrap=True)
    return table


def _facts(run: History) -> list[str]:
    """The cells of a run before its path."""
    nats = math.nan if run.best_nats is None else run.best_nats
    losses = ["-", "-"] if math.isnan(nats) else [f"{nats:.4f}", f"{nats / math.log(2):.4f}"]
    steps = f"{run.step:,}" if run.finished or not run.total else f"{run.step:,} of {run.total:,}"
    seconds = "-" if math.isnan(run.seconds) else f"{run.seconds:,.1f}"
    return [*losses, steps, seconds, "finished" if run.finished else "unfinished"]


def _facts_of_damaged() -> list[str]:
    return ["-"] * len(_NUMBERS) + ["damaged"]


def _setting(run: History, name: str, missing: str = "") -> Text:
    from fastlstm.history import shown

    return _text(shown(run.settings[name]) if name in run.settings else missing)


def _text(value: object) -> Text:
    """A path, or a text from a file, as a line that is safe on a terminal."""
    from rich.text import Text

    from fastlstm.terminal import printable

    return Text(" ".join(printable(str(value)).split()))


def _json(run: History) -> dict[str, Any]:
    return {
        "path": str(run.path),
        "finished": run.finished,
        "steps": run.step,
        "total_steps": run.total,
        "seconds": run.seconds,
        "best_nats": run.best_nats,
        "best_bits": None if run.best_nats is None else run.best_nats / math.log(2),
        "best_step": run.best_step,
        "settings": run.settings,
    }


if __name__ == "__main__":
    cli.run(main)
