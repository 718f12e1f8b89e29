"""Commands of fastlstm as processes: started, awaited with a time limit, and judged by their results."""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from forks import fork, status_of
from harness import LONGEST_WAIT, BrokenPromiseError, Outcome, require
from subjects import TEXT, file_of

import fastlstm
from fastlstm import Model, cli
from fastlstm.errors import ModelFileError
from fastlstm.terminal import COMPILING

#: The status of a command that a signal ends is this plus the signal's number.
SIGNALLED = 128
#: User and group of those who have no other.
_NOBODY = 65534
_ROOT = Path(fastlstm.__file__).parents[1]
#: Notices, not errors, that are printed while kernels are compiled or loaded.
_NOTICES = (COMPILING,)
#: In lines about a file of a run, such as its log, that cannot be written.
_GOES_ON = "the run continues, but "


class Ended(NamedTuple):
    """The result of a command: its status (negative: the signal that killed it) and its output."""

    status: int
    output: str
    errors: str

    @property
    def complaints(self) -> list[str]:
        """Lines on standard error that are not notices."""
        return [line for line in self.errors.splitlines() if line not in _NOTICES and _GOES_ON not in line]


def environment(folder, **variables):
    """Environment of a command whose home and temporary folder are in its trial's folder."""
    return os.environ | {"PYTHONPATH": str(_ROOT), "HOME": str(folder), "TMPDIR": str(folder)} | variables


def start(command, folder, **settings):
    """Start ``python COMMAND`` in a folder."""
    settings = {"stdin": subprocess.DEVNULL, "env": environment(folder)} | settings
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings
    )


def finish(process, seconds, text=None) -> Ended:
    """Wait for a command to end, with ``text`` as its input; one that takes longer is killed, and counts as a hang."""
    try:
        output, errors = process.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise BrokenPromiseError(Outcome.HANG, f"{process.args} does not end") from None
    return Ended(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def run_in_child(arguments, folder, seconds, text=b"", prepare=lambda: None) -> Ended:
    """Run ``fastlstm ARGUMENTS`` in a forked child, which starts at once, with ``text`` as its input; ``prepare`` is
    called in the child before.
    """
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        streams[0].write(text)
        streams[0].seek(0)

        def run():
            for number, stream in enumerate(streams):
                os.dup2(stream.fileno(), number)
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as that of a started Python
            os.chdir(folder)
            prepare()
            try:
                cli.main(arguments)
            except SystemExit as end:
                return end.code

        status = status_of(fork(run), seconds)
        for stream in streams:
            stream.seek(0)
        output, errors = (stream.read().decode(errors="replace") for stream in streams[1:])
        return Ended(status, output, errors)


def become_nobody():
    """Give up the rights of the administrator, to whom every file is open."""
    if os.geteuid() == 0:
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def judge(ended, what) -> Outcome:
    """The outcome of a command: status 0, or one line about an error with the status of an error."""
    shown = f"status {ended.status} of {what}: {ended.errors[-300:]!r}"
    for sign in ("Traceback", "Exception ignored", "Fatal Python error"):
        require(sign not in ended.errors, Outcome.TRACEBACK, shown)
    require(ended.status >= 0, Outcome.CRASH, shown)
    if ended.status == 0:
        return Outcome.HELD
    known = ended.status in (cli.FAILURE, cli.USAGE) or ended.status > SIGNALLED
    require(known and len(ended.complaints) <= 1, Outcome.WRONG, shown)
    return Outcome.REFUSED


@functools.cache
def patience() -> float:
    """Seconds after which a small command counts as a hang: the limit for a call plus the time of a normal start."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import numpy, numba, fastlstm.kernels.network"], env=environment("/tmp"), check=True
    )
    return LONGEST_WAIT + 3 * (time.monotonic() - started)


def models_in(folder):
    """Model files in and below a folder, without temporary ones."""
    return sorted(path for path in folder.rglob("*.safetensors") if path.is_file())


def require_whole(path) -> Model:
    """Load a model, which must exist and be undamaged."""
    try:
        return Model.load(path)
    except ModelFileError as error:
        raise BrokenPromiseError(Outcome.LOST, str(error)) from None


def lay_out(folder):
    """Create a typical folder: a text, a finished model in the folder ``kept``, and other files."""
    (folder / "notes.txt").write_text(TEXT)
    (folder / "kept").mkdir()
    (folder / "kept" / "model.safetensors").write_bytes(file_of(0))
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    (folder / "damaged.safetensors").write_bytes(file_of(0)[:-9])
    (folder / "folder").mkdir()


def require_kept(folder):
    """The finished model of `lay_out` must be unchanged."""
    kept = folder / "kept" / "model.safetensors"
    require(kept.is_file() and kept.read_bytes() == file_of(0), Outcome.LOST, "the finished model was replaced")
