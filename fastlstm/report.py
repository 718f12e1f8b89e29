"""``python -m fastlstm.report``: show all of a run in one HTML page, which opens offline."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastlstm import cli
from fastlstm.config import TrainConfig
from fastlstm.errors import ConfigError, FastlstmError
from fastlstm.settings import add_options, given

#: Name of the page in the run folder.
_NAME = "report.html"


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "report",
        "Show all of a run in one HTML page, which opens offline: its curves and samples, the gates and cells of its"
        " model, and what a sample copies from the training text. The figures are also written as PNG, to a folder of"
        " the page's name.",
    )
    made.add_argument("run", metavar="RUN", help="run folder; the run may be unfinished, or going on")
    text = made.add_argument_group("text")
    text.add_argument("--data", nargs="+", metavar="FILE", help="the text of the run (default: where its settings say)")
    text.add_argument(
        "--text", metavar="FILE",
        help="the text over which cells are shown, '-' for standard input; its first 500 characters are used (default:"
        " the beginning of the validation part)",
    )  # fmt: skip
    page = made.add_argument_group("page")
    page.add_argument(
        "--out", type=cli.path, metavar="FILE", help=f"path of the page (default: {_NAME} in the run folder)"
    )
    page.add_argument(
        "--overwrite", action="store_true", help="overwrite files of these names that this command has not written"
    )
    add_options(made.add_argument_group("computing"), TrainConfig)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Make the report as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    computing = TrainConfig(**given(options, TrainConfig))
    from fastlstm.pages.report import report

    page = _page(options.run, options.out)
    made = report(
        options.run,
        data=options.data,
        over=options.text,
        seed=computing.seed,
        compiling=cli.say_compiling,
        backend=computing.backend,
        threads=computing.threads,
        precision=computing.precision,
    )
    for sentence in made.missing:
        cli.note("report", sentence)
    images = page.with_suffix("")
    files = {page: made.html.encode("utf-8", "replace")}
    files |= {images / f"{figure.name}.png": figure.png for figure in made.figures}
    if not options.overwrite:
        _refuse_foreign(files)
    _write(files)
    print(f"the report is in {page}, its figures are in {images}", flush=True)
    if options.json:
        cli.print_json({"files": [str(path) for path in files], "numbers": made.numbers})
    return 0


def _page(run: str, out: str | None) -> Path:
    """The path of the page."""
    if out is None:
        return Path(run) / _NAME
    path = Path(out)
    if path.is_dir():
        return path / _NAME
    if path.suffix not in (".html", ".htm"):
        raise ConfigError(f"--out {out!r} names no page: let it end with .html, or give a folder that exists")
    return path


def _refuse_foreign(paths: Iterable[Path]) -> None:
    """Raise `FastlstmError` if there is a file that this command has not written."""
    from fastlstm.pages.figures import is_figure
    from fastlstm.pages.report import is_report

    for path in paths:
        if os.path.lexists(path) and not (is_report(path) or is_figure(path)):
            raise FastlstmError(
                f"{str(path)!r} exists, and is no report of this command: give --overwrite, or another name with --out"
            )


def _write(files: Mapping[Path, bytes]) -> None:
    from fastlstm import atomic

    for path, content in files.items():
        try:
            atomic.make_folder(path.parent)
            atomic.write(path, [content], overwrite=True)
        except OSError as error:
            why = error.strerror or error
            raise FastlstmError(f"cannot write {str(path)!r} ({why}): choose another path with --out") from None


if __name__ == "__main__":
    cli.run(main)
