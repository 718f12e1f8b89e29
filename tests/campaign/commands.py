"""Commands of fastlstm as processes: started, waited for no longer than is decent, and judged by what they leave."""

import functools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from harness import LONGEST_WAIT, BrokenPromiseError, Outcome, require
from subjects import TEXT, file_of

import fastlstm
from fastlstm import Model, cli
from fastlstm.errors import ModelFileError
from fastlstm.terminal import COMPILING

#: A command that a signal ends has this plus the signal's number as its status.
SIGNALLED = 128
_ROOT = Path(fastlstm.__file__).parents[1]
#: Said, not as an error, while kernels are compiled or loaded.
_NOTICES = (COMPILING,)


class Ended(NamedTuple):
    """What a command has left: its status (negative: the signal that killed it) and what it has written."""

    status: int
    output: str
    errors: str

    @property
    def complaints(self) -> list[str]:
        """Lines on standard error that are no notices."""
        return [line for line in self.errors.splitlines() if line not in _NOTICES]


def environment(folder, **variables):
    """For a command whose home and temporary folder are in its trial's folder."""
    return os.environ | {"PYTHONPATH": str(_ROOT), "HOME": str(folder), "TMPDIR": str(folder)} | variables


def start(command, folder, **settings):
    """Start ``python COMMAND`` in a folder."""
    settings = {"stdin": subprocess.DEVNULL, "env": environment(folder)} | settings
    return subprocess.Popen(
        [sys.executable, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings
    )


def finish(process, seconds, text=None) -> Ended:
    """Wait for a command to end, feeding it ``text``; one that takes longer is killed, and is a hang."""
    try:
        output, errors = process.communicate(text, timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise BrokenPromiseError(Outcome.HANG, f"{process.args} runs on") from None
    return Ended(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def judge(ended, what) -> Outcome:
    """The class of a command's end: status 0, or one line about what is wrong with the status of an error."""
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
    """Seconds after which a command of little work hangs: what is a hang for a call, beyond an ordinary start."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "import numpy, numba, fastlstm.kernels.network"], env=environment("/tmp"), check=True
    )
    return LONGEST_WAIT + 3 * (time.monotonic() - started)


def models_in(folder):
    """Model files in and below a folder, temporary ones left out."""
    return sorted(path for path in folder.rglob("*.safetensors") if path.is_file())


def require_whole(path) -> Model:
    """Load a model that must be there, and whole."""
    try:
        return Model.load(path)
    except ModelFileError as error:
        raise BrokenPromiseError(Outcome.LOST, str(error)) from None


def lay_out(folder):
    """A folder as users have them: a text, a finished model in the folder ``kept``, and things that are neither."""
    (folder / "notes.txt").write_text(TEXT)
    (folder / "kept").mkdir()
    (folder / "kept" / "model.safetensors").write_bytes(file_of(0))
    (folder / "empty.txt").touch()
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 100)
    (folder / "damaged.safetensors").write_bytes(file_of(0)[:-9])
    (folder / "folder").mkdir()


def require_kept(folder):
    """The finished model of `lay_out` must still be what it was."""
    kept = folder / "kept" / "model.safetensors"
    require(kept.is_file() and kept.read_bytes() == file_of(0), Outcome.LOST, "the finished model was replaced")
