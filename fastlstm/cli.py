"""What all verbs share on the command line, and the console script ``fastlstm``.

A verb is a module with ``main(argv) -> int`` (its exit status); it imports the library after it has parsed its
arguments, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NoReturn

from fastlstm.errors import ConfigError, FastlstmError

Main = Callable[[Sequence[str] | None], int]

#: Each verb and one line about it.
VERBS = {
    "train": "train a model on a text",
    "sample": "write text with a model",
    "evaluate": "measure how well a model predicts a text",
    "gradcheck": "check gradients against numerical ones",
}

COMPILING = "compiling kernels ..."

#: What could disturb a terminal: controls but tab and line feed, separators of lines, turns of direction, surrogates.
_DISTURBING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

FAILURE, USAGE = 1, 2
#: Exit status of a command that a signal ended is this plus the signal's number.
SIGNALLED = 128
#: Status of a command whose reader has left: of SIGPIPE, which not every system names.
BROKEN_PIPE = SIGNALLED + 13


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, in the words of `fail`."""

    def __init__(self, verb: str = "", **settings: Any) -> None:
        super().__init__(prog=command(verb), allow_abbrev=False, **settings)
        self.verb = verb

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and leave."""
        sys.exit(fail(self.verb, f"{message}; see --help", USAGE))


def parser(verb: str, description: str) -> Parser:
    """The parser of a verb, with the options that all verbs share in its group "output"."""
    made = Parser(verb, description=description)
    output = made.add_argument_group("output")
    output.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all random numbers (default: 0)")
    output.add_argument(
        "--json", action="store_true", help="end with a line on standard output that is one JSON object"
    )
    output.add_argument("--debug", action="store_true", help="on an error, show where in the program it arose")
    return made


def command(verb: str) -> str:
    """How the user runs a verb: ``fastlstm train`` or ``python -m fastlstm.train``, as this process was run."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and spec.name.startswith("fastlstm."):
        return f"python -m fastlstm.{verb or 'cli'}"
    return f"fastlstm {verb}".strip()


def fail(verb: str, message: str, status: int = FAILURE) -> int:
    """Print one line about an error on standard error; returns the exit status."""
    line = " ".join(message.split())
    print(f"{f'fastlstm {verb}'.strip()}: error: {line}", file=sys.stderr)
    return status


def print_json(values: dict[str, Any]) -> None:
    """Print one line that is one JSON object; numbers that are not finite become null."""
    print(json.dumps(_without_nan(values), allow_nan=False), flush=True)


def _without_nan(value: Any) -> Any:
    """A value for JSON, which has no NaN and no infinity, at any depth."""
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def printable(text: str | bytes) -> str:
    """A text that no terminal takes for a command, for people to read."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return _DISTURBING.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def say_compiling() -> None:
    """Tell, on standard error, why nothing happens for a while."""
    print(COMPILING, file=sys.stderr, flush=True)


def run(main: Main, argv: Sequence[str] | None = None) -> NoReturn:
    """Run a verb and leave the process with its exit status; errors become one line, unless ``--debug`` is given."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal lacks is no reason to stop
            stream.reconfigure(errors="replace")
    try:
        status = main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = BROKEN_PIPE
    except KeyboardInterrupt:
        status = fail(_verb(main), "interrupted", SIGNALLED + signal.SIGINT)
    except (FastlstmError, OSError, MemoryError) as error:
        if debug:
            raise
        message = str(error) or "out of memory"
        if isinstance(error, MemoryError):
            message += ": choose smaller sizes"
        status = fail(_verb(main), message, USAGE if isinstance(error, ConfigError) else FAILURE)
    sys.exit(status)


def _verb(main: Main) -> str:
    """The verb of a ``main``, from its module's name, which is ``fastlstm.train`` even where it runs as the program."""
    spec = getattr(sys.modules[main.__module__], "__spec__", None)
    verb = "" if spec is None else spec.name.rpartition(".")[2]
    return verb if verb in VERBS else ""


class Stop:
    """Turns Ctrl-C and SIGTERM into a wish to stop, for as long as it is entered; a second one leaves at once.

    Attributes
    ----------
    status : exit status to end with, 0 while nobody has asked to stop.
    """

    def __init__(self) -> None:
        self.status = 0
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether somebody has asked to stop."""
        return self.status != 0

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.status:
            sys.exit(SIGNALLED + number)
        self.status = SIGNALLED + number


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
        epilog=f"verbs:\n{lines}\n\n'fastlstm VERB --help' tells more of each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="store_true", help="print the version and leave")
    made.add_argument("verb", nargs="?", metavar="VERB", choices=VERBS, help="what to do")
    if made.parse_args(argv).version:
        from fastlstm import __version__

        print(f"fastlstm {__version__}")
        return 0
    made.print_help()
    return USAGE


if __name__ == "__main__":
    main()
