"""What the verbs compress and decompress share: arguments, files, and the given model."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fastlstm import atomic, cli
from fastlstm.config import TrainConfig
from fastlstm.errors import ConfigError, FastlstmError
from fastlstm.settings import add_options, settings_of

if TYPE_CHECKING:
    from fastlstm.checkpoint import Content

#: Standard input or output in place of a file.
STANDARD = "-"


def add_file_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Add the arguments FILE, ``--out`` and ``--overwrite``; ``output`` describes the default of ``--out``."""
    parser.add_argument("file", type=cli.path, metavar="FILE", help="the file, or '-' for standard input")
    files = parser.add_argument_group("result")
    files.add_argument(
        "-o", "--out", type=cli.path, metavar="OUT", help=f"where it is written, or '-' (default: {output})"
    )
    files.add_argument("--overwrite", action="store_true", help="overwrite a file that is there already")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--threads``; `threads` gives its value."""
    add_options(parser.add_argument_group("computing"), TrainConfig, only=("threads",))


def threads(options: argparse.Namespace) -> int | None:
    """The number of worker threads that an option gives."""
    found: int | None = settings_of(TrainConfig)["threads"].validated(options.threads)
    return found


def read(path: str) -> bytes:
    """The content of a file, or of standard input.

    Raises
    ------
    FastlstmError
        When it cannot be read.
    """
    try:
        return sys.stdin.buffer.read() if path == STANDARD else Path(path).read_bytes()
    except FileNotFoundError:
        raise FastlstmError(f"there is no file {path!r}: check the path") from None
    except (OSError, ValueError) as error:
        raise FastlstmError(f"cannot read {path!r} ({_reason(error)}): check the file and its permissions") from None


def load_model(path: str | None) -> Content | None:
    """The model of an option that may not be given."""
    if path is None:
        return None
    from fastlstm import run_checkpoint

    return run_checkpoint.load_model(path)


class Output:
    """Where a verb writes its result: a new file, or standard output.

    Parameters
    ----------
    options : parsed, with the arguments of `add_file_options`.
    default : gives the path for that of FILE.

    Raises
    ------
    ConfigError
        When there is a file already, unless it may be overwritten, or when standard output would get more than the
        result.
    """

    def __init__(self, options: argparse.Namespace, default: Callable[[str], str]) -> None:
        if options.out is None and options.file == STANDARD:
            raise ConfigError("the result of standard input needs a place: give it with --out")
        self.path: str = options.out or default(options.file)
        self._overwrite: bool = options.overwrite
        if self.path == STANDARD and options.json:
            raise ConfigError("--json cannot be given with --out -: both would be written to standard output")
        if self.path != STANDARD and not self._overwrite and os.path.lexists(self.path):
            raise self._exists()

    def write(self, data: bytes) -> None:
        """Write the result; a file is written atomically.

        Raises
        ------
        FastlstmError
            When it cannot be written. An existing file is then unchanged.
        """
        if self.path == STANDARD:
            sys.stdout.buffer.write(data)
            return
        try:
            target = os.path.realpath(self.path) if self._overwrite else self.path
            atomic.write(Path(target), [data], overwrite=self._overwrite)
        except FileExistsError:
            raise self._exists() from None
        except (OSError, ValueError) as error:
            raise FastlstmError(
                f"cannot write {self.path!r} ({_reason(error)}): check the folder, its permissions, and the free space"
            ) from None

    def say(self, line: str) -> None:
        """Print a line about the result, unless standard output is the result."""
        if self.path != STANDARD:
            print(line)

    def _exists(self) -> ConfigError:
        return ConfigError(f"{self.path!r} exists already: choose another place with --out, or give --overwrite")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
