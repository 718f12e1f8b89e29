"""The command line common to all verbs, and the console script ``fastlstm``.

A verb is a module with ``main(argv) -> int`` (its exit status). It imports the library after parsing its arguments, so
that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import importlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from fastlstm import signals, terminal
from fastlstm.config import Unknown
from fastlstm.errors import ConfigError, FastlstmError

if TYPE_CHECKING:
    from fastlstm.text import Encoder

Main = Callable[[Sequence[str] | None], int]

#: The verbs, each with a one-line description.
VERBS = {
    "train": "train a model on a text",
    "sample": "generate text with a model",
    "evaluate": "measure how well a model predicts a text",
    "score": "show how surprising each line of a text is",
    "compress": "compress a file without loss, with a model or a new one",
    "decompress": "decompress a file that compress has written",
    "info": "show what a model is, and how it was trained and checked",
    "gradcheck": "check gradients against numerical ones",
    "runs": "list runs with their best losses",
    "plot": "draw the loss curves of runs",
    "compare": "train RNN, GRU and LSTM alike, and show what they have learned",
    "report": "show all of a run in one HTML page",
}

FAILURE, USAGE = 1, 2
#: Exit status when the reader of the output has closed the pipe: that of SIGPIPE, which not every system defines.
BROKEN_PIPE = signals.SIGNALLED + 13


class Parser(argparse.ArgumentParser):
    """An argument parser that reports an error in one line, in the format of `fail`."""

    def __init__(self, verb: str = "", **settings: Any) -> None:
        super().__init__(prog=command(verb), allow_abbrev=False, **settings)
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        """Report an error in the arguments and exit with status 2."""
        sys.exit(fail(self.verb, f"{message}; see --help", USAGE))


def parser(verb: str, description: str) -> Parser:
    """The parser of a verb, with the options common to all verbs in its group "output"."""
    made = Parser(verb, description=description)
    output = made.add_argument_group("output")
    output.add_argument(
        "--json", action="store_true", help="print the result as one JSON object, in the last line of standard output"
    )
    output.add_argument("--debug", action="store_true", help="on an error, show the traceback")
    return made


def add_text_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add the options of a text to train on; returns their group."""
    text = parser.add_argument_group("text")
    text.add_argument(
        "--data", nargs="+", action="extend", metavar="TEXT",
        help="files (also .gz, .bz2, .xz and .zst), patterns such as 'notes/*.txt', '-' for standard input, or names of"
        " corpora: input (the default), pydoc, tinyshakespeare",
    )  # fmt: skip
    add_encoding_option(text)
    text.add_argument("--bytes", action="store_true", default=None, help="use bytes as symbols instead of characters")
    return text


def add_unknown_option(group: argparse._ArgumentGroup) -> None:
    """Add the option that says what becomes of symbols that a model does not know."""
    group.add_argument(
        "--unknown", choices=get_args(Unknown),
        help="a symbol that the model does not know is an error, is left out (skip), or is read and counted as unknown"
        " (escape; the default where the model can)",
    )  # fmt: skip


def warn_of_unknown(verb: str, encoder: Encoder) -> None:
    """Print the symbols that the model does not know, if there were any, in one line on standard error."""
    if report := encoder.report():
        note(verb, f"warning: {terminal.printable_line(report)}")


def add_encoding_option(group: argparse._ArgumentGroup) -> None:
    """Add the option that gives the encoding of texts."""
    group.add_argument(
        "--encoding", metavar="NAME", help="encoding of the text, such as utf-16, latin-1 or cp1252 (default: utf-8)"
    )


def command(verb: str) -> str:
    """The command of a verb, in the form in which this process was started: ``python -m fastlstm.train``, or so."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or not spec.name.startswith("fastlstm."):
        return _name(verb)
    return f"python -m {_name(verb)}" if spec.name == "fastlstm.__main__" else f"python -m fastlstm.{verb}"


def fail(verb: str, message: str, status: int = FAILURE) -> int:
    """Print an error as one line on standard error; returns the exit status."""
    note(verb, f"error: {message}")
    return status


def print_json(values: dict[str, Any]) -> None:
    """Print a JSON object in one line; numbers that are not finite become null."""
    print(json.dumps(_without_nan(values), allow_nan=False), flush=True)


def _without_nan(value: Any) -> Any:
    """A value with NaN and infinities, which JSON does not have, replaced by ``None`` at any depth."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def argument_text(argument: str) -> str:
    """The text of an argument: bytes that the locale's encoding (such as ASCII) cannot decode are read as UTF-8."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def path(argument: str) -> str:
    """The type of an argument that is a path: not empty, as it is when a variable of the shell is not set."""
    if not argument:
        raise argparse.ArgumentTypeError("the path is empty")
    return argument


def say_compiling() -> None:
    """Print on standard error that kernels are being compiled."""
    print(terminal.COMPILING, file=sys.stderr, flush=True)


def note(verb: str, message: str) -> None:
    """Print one line on standard error; failures to write it are ignored."""
    with contextlib.suppress(OSError):
        print(f"{_name(verb)}: {' '.join(message.split())}", file=sys.stderr, flush=True)


def _name(verb: str) -> str:
    return f"fastlstm {verb}".strip()


def run(main: Main, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a verb and exit with its status; an error is printed as one line, unless ``--debug`` is given."""
    verb = _verb(main)
    signals.install(_name(verb))
    _open_streams()
    lacking = _Lacking()
    codecs.register_error(_Lacking.HANDLER, lacking)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors=_Lacking.HANDLER)
    status = _status(main, verb, list(sys.argv[1:] if argv is None else argv))
    signals.ignore()
    lacking.say(verb)
    _release_streams()
    sys.exit(status)


def _status(main: Main, verb: str, arguments: list[str]) -> int:
    """Run a verb and flush its output; returns the exit status."""
    try:
        try:
            status = main(arguments)
        except SystemExit as end:  # of the parser
            status = end.code if isinstance(end.code, int) else 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of the output has closed the pipe
        return BROKEN_PIPE
    except (FastlstmError, OSError, MemoryError) as error:
        if "--debug" in arguments:
            raise
        message = str(error) or "out of memory"
        if isinstance(error, MemoryError):
            message += ": choose smaller sizes"
        return fail(verb, message, USAGE if isinstance(error, ConfigError) else FAILURE)


def _open_streams() -> None:
    """Open the null device for standard streams that are closed: else the next file opened would get their output."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            # No `with`: like Python's own streams, these stay open until the process ends.
            setattr(sys, name, open(descriptor, "w", closefd=False, encoding="utf-8"))  # noqa: SIM115


def _release_streams() -> None:
    """Flush the streams, so that the interpreter does not fail to flush them at exit."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Lacking:
    """Error handler of standard output: characters that its encoding lacks are written as ``?`` and counted."""

    HANDLER = "fastlstm.lacking"

    def __init__(self) -> None:
        self.count, self.encoding = 0, ""

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        count = error.end - error.start
        self.count, self.encoding = self.count + count, error.encoding
        return "?" * count, error.end

    def say(self, verb: str) -> None:
        """Report how many there were, if any."""
        if self.count:
            characters = "1 character was" if self.count == 1 else f"{self.count:,} characters were"
            note(
                verb,
                f"{characters} written as '?', because the encoding of standard output ({self.encoding}) lacks them:"
                " set PYTHONIOENCODING=utf-8 to write all characters",
            )


def _verb(main: Main) -> str:
    """The verb of a ``main``, from its module's spec: ``__name__`` is ``__main__`` when it runs as the program."""
    spec = getattr(sys.modules[main.__module__], "__spec__", None)
    verb = "" if spec is None else spec.name.rpartition(".")[2]
    return verb if verb in VERBS else ""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script: ``fastlstm train ...`` is ``python -m fastlstm.train ...``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in VERBS:
        verb = importlib.import_module(f"fastlstm.{arguments[0]}")
        run(verb.main, arguments[1:])
    run(_no_verb, arguments)


def _no_verb(argv: Sequence[str] | None) -> int:
    lines = "\n".join(f"  {verb:<10} {about}" for verb, about in VERBS.items())
    made = Parser(
        description="Character-level LSTM language models on an ordinary CPU.",
        epilog=f"verbs:\n{lines}\n\n'fastlstm VERB --help' lists the options of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="store_true", help="print the version and exit")
    made.add_argument("verb", nargs="?", metavar="VERB", choices=VERBS, help="one of the verbs below")
    if made.parse_args(argv).version:
        from fastlstm import __version__

        print(f"fastlstm {__version__}")
        return 0
    made.print_help()
    return USAGE
