"""``python -m fastlstm.score``: the bits of each line of files, of standard input or of a growing log."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from fastlstm import cli, signals
from fastlstm.config import TrainConfig
from fastlstm.errors import ConfigError, FastlstmError, StoppedError
from fastlstm.settings import add_options, given
from fastlstm.terminal import printable

if TYPE_CHECKING:
    from fastlstm.lines import Block
    from fastlstm.scoring import Scored

#: Most lines of ``--top``, which are kept in memory.
_MOST_RANKED = 100_000


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "score",
        "Print how many bits each line takes: how surprising it is to a model. Each line is read as if it were alone."
        " Columns, separated by tabs: the file if there are several, the line's number, its bits, its bits per"
        " character, the line.",
    )
    made.add_argument("model", metavar="MODEL", help="the model file, or its run folder")
    made.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="the lines: files, '-' for standard input (the default), or the name of a corpus",
    )
    text = made.add_argument_group("text")
    cli.add_unknown_option(text)
    cli.add_encoding_option(text)
    text.add_argument(
        "-f", "--follow", action="store_true",
        help="wait for lines that are added to the file, also after it is replaced or made shorter, until Ctrl-C",
    )  # fmt: skip
    lines = made.add_argument_group("lines")
    shown = lines.add_mutually_exclusive_group()
    shown.add_argument("--top", type=_count, metavar="N", help="print only the N most surprising lines, at the end")
    shown.add_argument(
        "--per-char", action="store_true", help="print the bits of every character: line, column, character, bits"
    )
    lines.add_argument(
        "--by", choices=("mean", "total", "max"), default="max",
        help="the most surprising lines are those with the most bits per character (mean), with the most bits (total),"
        " or with the character that has the most (max; the default)",
    )  # fmt: skip
    lines.add_argument(
        "--min-bits", type=_bits, default=-math.inf, metavar="X", help="only lines of at least X bits per character"
    )
    lines.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto",
        help="colour characters by their bits (auto, the default: on a terminal, unless NO_COLOR is set)",
    )  # fmt: skip
    add_options(made.add_argument_group("computing"), TrainConfig, only=("threads", "backend", "precision"))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Score as given by the arguments; returns the exit status."""
    options = parser().parse_intermixed_args(argv)  # so that files may follow options
    computing = TrainConfig(**given(options, TrainConfig))
    files = _files(options)
    from fastlstm.backend import warm_up
    from fastlstm.model import Model
    from fastlstm.precision import effective
    from fastlstm.scoring import lenient
    from fastlstm.sources import ENCODING
    from fastlstm.text import Encoder

    model = Model.load(options.model)
    if model.vocab.is_bytes and options.encoding is not None:
        raise ConfigError("the model is of bytes, which are read as they are: leave out --encoding")
    encoding = None if model.vocab.is_bytes else options.encoding or ENCODING
    encoder = Encoder(model.vocab, options.unknown or lenient(model.vocab))
    precision = effective(computing.precision, model.config, computing.backend)
    warm_up(computing.backend, precision.applied(model.config), cli.say_compiling, bf16=precision.bf16)
    output = _Output(options)
    with signals.Stop() as stop, contextlib.suppress(StoppedError):
        stop.lost = lambda: "the rest of the lines is not scored"
        scorer = model.scorer(
            encoder, backend=computing.backend, threads=computing.threads, precision=precision.name, stop=stop
        )
        try:
            for file in files:
                for block in _blocks(file, encoding, options.follow, stop):
                    output.take(scorer.score(block), file if len(files) > 1 else "")
        except FastlstmError:
            output.end()  # a bad text does not lose what was read before it
            raise
    output.end()
    cli.warn_of_unknown("score", encoder)
    if options.json:
        cli.print_json(output.result() | {"unknown": sum(encoder.lacking.values()), "precision": precision.name})
    return stop.status


def _files(options: argparse.Namespace) -> list[str]:
    """The files to read, which are all that match patterns."""
    from fastlstm.decompression import FORMATS
    from fastlstm.sources import expanded

    files = [file for name in options.files or ["-"] for file in expanded(name)]
    if options.follow and (len(files) > 1 or files == ["-"]):
        raise ConfigError("--follow needs one file: name it, or leave the option out for standard input")
    if options.follow and PurePath(files[0]).suffix.lower() in FORMATS:
        raise ConfigError(f"{files[0]!r} is compressed, and does not grow line by line: leave out --follow")
    return files


def _blocks(file: str, encoding: str | None, follow: bool, stop: Callable[[], bool]) -> Iterator[Block]:
    """The lines of a file, as they arrive; without an encoding, of bytes."""
    from fastlstm import lines

    for chunks in lines.follow(file, stop) if follow else [lines.read(file, stop)]:
        if encoding is None:
            yield from lines.whole_lines(chunks)
        else:
            yield from lines.whole_lines(lines.decoded(chunks, file, encoding))


class _Output:
    """Prints lines as the options want them, and adds up what was scored."""

    def __init__(self, options: argparse.Namespace) -> None:
        from fastlstm import surprise
        from fastlstm.scoring import Ranking

        self._colour = _is_coloured(options.color)
        self._is_raw_on_a_terminal = sys.stdout.isatty() and not self._colour
        self._columns = shutil.get_terminal_size().columns
        self._ranking = Ranking(options.top, options.by) if options.top else None
        self._least_nats = options.min_bits * math.log(2)
        self._rows = surprise.coloured_rows if self._colour else surprise.rows
        if options.per_char:
            self._rows = surprise.rows_of_symbols
        self._lines, self._chars, self._nats, self._cut = 0, 0, 0.0, False

    def take(self, scored: Scored, source: str) -> None:
        """Print the lines of a block, or rank them."""
        self._add_up(scored)
        which = (scored.mean_nats >= self._least_nats).nonzero()[0]
        if self._ranking is not None:
            self._ranking.add(scored, which, source)
        else:
            rows = self._rows(scored, which.tolist(), source)
            sys.stdout.writelines(map(printable, rows) if self._is_raw_on_a_terminal else rows)
            sys.stdout.flush()

    def _add_up(self, scored: Scored) -> None:
        self._lines += len(scored)
        self._chars += int(scored.counted.sum())
        self._nats += float(scored.line_nats.sum())
        if scored.is_cut and not self._cut:
            from fastlstm.lines import LONGEST

            cli.note("score", f"warning: a line of more than {LONGEST:,} symbols is cut into lines of this length")
            self._cut = True

    def end(self) -> None:
        """Print the most surprising lines, if they are wanted."""
        from fastlstm.surprise import ranked

        if self._ranking is not None:
            sys.stdout.writelines(ranked(self._ranking.lines(), columns=self._columns, colour=self._colour))

    def result(self) -> dict[str, Any]:
        """The result as an object of JSON."""
        from fastlstm.surprise import as_json

        bits = self._nats / math.log(2)
        top = [] if self._ranking is None else [as_json(source, line) for source, line in self._ranking.lines()]
        return {
            "lines": self._lines,
            "chars": self._chars,
            "bits": bits,
            "bits_per_char": bits / self._chars if self._chars else math.nan,
            "top": top,
        }


def _is_coloured(choice: str) -> bool:
    if choice == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return choice == "always"


def _count(argument: str) -> int:
    try:
        count = int(argument)
    except ValueError:
        count = 0
    if not 1 <= count <= _MOST_RANKED:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {_MOST_RANKED}, not {argument!r}")
    return count


def _bits(argument: str) -> float:
    try:
        bits = float(argument)
    except ValueError:
        bits = math.nan
    if math.isnan(bits):
        raise argparse.ArgumentTypeError(f"must be a number, not {argument!r}")
    return bits


if __name__ == "__main__":
    cli.run(main)
