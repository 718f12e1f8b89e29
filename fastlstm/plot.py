"""``python -m fastlstm.plot``: draw the loss curves of runs, as PNG and SVG and on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.errors import FastlstmError

if TYPE_CHECKING:
    from fastlstm.charts import Axis, Format
    from fastlstm.history import History

#: Name of the images.
_NAME = "loss"

_AXES: tuple[Axis, ...] = ("steps", "seconds", "epochs")
_FORMATS: tuple[Format, ...] = ("png", "svg")


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "plot",
        "Draw the loss curves of one or several runs as BASE.png and BASE.svg. Where there is no display, draw them on"
        " the terminal as well.",
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="run folder")
    chart = made.add_argument_group("chart")
    chart.add_argument("--x", choices=_AXES, default=_AXES[0], help=f"the x axis (default: {_AXES[0]})")
    chart.add_argument(
        "--out",
        metavar="BASE",
        help=f"path of the images, without .png and .svg, or their folder (default: {_NAME} in the folder of a single"
        " run, else in the current folder)",
    )
    chart.add_argument(
        "--overwrite", action="store_true", help="overwrite files of these names that are no charts of fastlstm"
    )
    chart.add_argument("--terminal", action="store_true", help="draw on the terminal as well, or into a pipe")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Draw runs as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    from fastlstm import charts, history

    runs = [history.read(path) for path in dict.fromkeys(options.runs)]
    base = _base(options.out, runs)
    paths = {format: base.with_name(f"{base.name}.{format}") for format in _FORMATS}
    if not options.overwrite:
        charts.refuse_foreign(paths.values())
    figure = charts.figure(runs, options.x)
    for format, path in paths.items():
        charts.write(figure, path, format)
    if options.terminal or (sys.stdout.isatty() and not _has_display()):
        _show(runs, options.x, wanted=options.terminal)
    print(f"the curves are in {' and '.join(map(str, paths.values()))}", flush=True)
    if options.json:
        cli.print_json({"files": [str(path) for path in paths.values()], "runs": [_json(run) for run in runs]})
    return 0


def _base(out: str | None, runs: Sequence[History]) -> Path:
    """The path of the images without their suffixes."""
    if out is None:
        return runs[0].path / _NAME if len(runs) == 1 else Path(_NAME)
    path = Path(out)
    if path.is_dir():
        return path / _NAME
    return path.with_suffix("") if path.suffix in (".png", ".svg") else path


def _has_display() -> bool:
    """Whether images can be looked at on this machine."""
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _show(runs: Sequence[History], axis: Axis, *, wanted: bool) -> None:
    """Draw on the terminal; if this is not ``wanted`` explicitly, a missing library is no error."""
    from rich.console import Console

    from fastlstm import charts

    console = Console()
    try:
        chart = charts.text(
            runs,
            axis,
            width=console.width,
            colours=console.color_system is not None and not console.no_color,
            ascii_only=console.options.ascii_only,
        )
    except FastlstmError as error:
        if wanted:
            raise
        cli.note("plot", str(error))
    else:
        print(chart)


def _json(run: History) -> dict[str, Any]:
    return {"path": str(run.path), "best_nats": run.best_nats, "best_step": run.best_step}


if __name__ == "__main__":
    cli.run(main)
