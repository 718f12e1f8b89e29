"""The run folder: the files of a run, where they are, and which files may be overwritten.

=====================  =================================================================================
file                   content
=====================  =================================================================================
config.toml            all settings of the run, see `fastlstm.config_file`
metrics.jsonl          losses, rate and speed over the run, see `fastlstm.history`
model.safetensors      the best model so far, see `fastlstm.checkpoint`
last.safetensors       all that is needed to go on, see `fastlstm.run_checkpoint`
samples.txt            the samples
train.log              what happened, with times
.lock                  while a run uses the folder, see `fastlstm.lock`
=====================  =================================================================================

A run overwrites only its own files, unless the user asked for overwriting; even then the files of the run that was
there are replaced only when the new one ends, and those of a finished run only by a finished one. Until then, and if
the path is taken, the next free folder is used: ``NAME-2``, ...
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Self

from fastlstm import atomic, checkpoint, config_file, history, run_checkpoint
from fastlstm.errors import ConfigError, ModelExistsError, ModelFileError, RunInUseError
from fastlstm.lock import Lock
from fastlstm.run_checkpoint import Checkpoint

CONFIG, METRICS, SAMPLES, LOG = config_file.FILE_NAME, history.METRICS_NAME, "samples.txt", "train.log"

#: The folder of event files in a run folder, see `fastlstm.event_files`.
EVENTS = "tensorboard"

#: The files of a run, in the order in which they replace those of another run.
FILES = (CONFIG, METRICS, SAMPLES, LOG, run_checkpoint.FILE_NAME, checkpoint.FILE_NAME)

#: The files that are written before there is a model.
_EARLY = (CONFIG, METRICS, SAMPLES, LOG)


class Saved(NamedTuple):
    """A model that has been saved: its path, and its step."""

    path: Path
    step: int


class RunFolder:
    """The folder of a run, locked until it is closed; also as a context manager.

    Parameters
    ----------
    wanted : the folder; it is created if missing.
    named : whether the user named it: then a run in it is an error, else the next free folder is used.
    overwrite : whether the files of a run in it may be replaced by those of this one when it ends.
    say : called with a line of text when another folder is used instead.

    Attributes
    ----------
    saved : the model that was saved last; ``None`` before the first save.
    failure : why the run is saved to another folder; ``None`` if it is not.

    Raises
    ------
    ConfigError
        When the named folder contains a run, and ``overwrite`` is false.
    RunInUseError
        When another run uses the folder.
    ModelFileError
        When the folder cannot be created or is not writable.
    """

    def __init__(self, wanted: Path, *, named: bool, overwrite: bool, say: Callable[[str], None]) -> None:
        self._begin(wanted, say)
        self._overwrite = overwrite and bool(_occupied(wanted))
        if self._overwrite:
            with Lock(wanted):  # no run that still goes on
                pass
        if named and not self._overwrite:
            self._claim(wanted)
            if found := _occupied(wanted):
                self._lock.release()
                atomic.remove_abandoned(wanted)  # no other run would do so
                raise ConfigError(
                    f"{str(wanted)!r} already contains a run ({found}): go on with it (--resume), choose another folder"
                    " with --out, or overwrite it with --overwrite"
                )
        else:
            self._claim_free()

    def _begin(self, wanted: Path, say: Callable[[str], None]) -> None:
        self.saved: Saved | None = None
        self.failure: ModelFileError | None = None
        self._wanted = self._folder = wanted
        self._overwrite, self._say = False, say
        self._own: tuple[int, ...] | None = None  # identity of the model file that this run has saved
        self._made: list[Path] = []
        self._config = ""
        self._is_resumed = False

    @classmethod
    def resumed(cls, folder: Path, say: Callable[[str], None]) -> Self:
        """The folder of a run that goes on.

        Raises
        ------
        ConfigError
            When there is no run.
        RunInUseError, ModelFileError
            As for a new run.
        """
        if not any(_there(folder / name) for name in (CONFIG, run_checkpoint.FILE_NAME)):
            raise ConfigError(f"{str(folder)!r} contains no run that could be resumed: check the path")
        made = cls.__new__(cls)
        made._begin(folder, say)
        made._claim(folder)
        made._own, made._is_resumed = _identity(made.model), True
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The folder in use."""
        return self._folder

    @property
    def model(self) -> Path:
        """Path of the model."""
        return self._folder / checkpoint.FILE_NAME

    def close(self) -> None:
        """Unlock the folder; if the run has saved nothing, remove its files, and the folders that it created."""
        if self.saved is None and not self._is_resumed:
            shutil.rmtree(self._folder / EVENTS, ignore_errors=True)
            _remove(self._folder, _EARLY)
        self._lock.release()
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def write_config(self, text: str) -> None:
        """Write config.toml; raises `ModelFileError` if that fails."""
        self._config = text
        self._write_file(CONFIG, text)

    def save(self, model: checkpoint.Content) -> Path:
        """Save a model of the run; returns the path of the file.

        Raises
        ------
        ModelFileError
            When it cannot be written.
        """
        overwrite = self._own is not None and self._own == _identity(self.model)
        while True:
            try:
                self._write(model, overwrite=overwrite)
                break
            except ModelExistsError:  # it was put there by another program
                self._move()
                overwrite = False
        self.saved = Saved(self.model, (model.training or {})["model_step"])
        return self.model

    def save_checkpoint(self, saved: Checkpoint) -> None:
        """Save what is needed to go on, and the best model so far.

        Raises
        ------
        ModelFileError
            When one of them cannot be written.
        """
        # The checkpoint first: if there is a model, there is something to go on from.
        self._prepare()
        run_checkpoint.write(self._folder / run_checkpoint.FILE_NAME, saved)
        before = self._folder
        self.save(saved.content)
        if self._folder != before:
            run_checkpoint.write(self._folder / run_checkpoint.FILE_NAME, saved)

    def save_somewhere(self, save: Callable[[], object]) -> None:
        """Call ``save``, which saves to this folder; if it fails, use another folder and call it again.

        Then `failure` states why, and where the run is saved.

        Raises
        ------
        ModelFileError
            When it fails everywhere.
        """
        try:
            save()
        except ModelFileError as error:
            tried: list[str] = []
            before = self._folder
            for place in self._other_places():
                try:
                    self._folder = _new_folder(place / _name(self._wanted))
                except OSError:
                    tried.append(repr(str(place)))
                    continue
                try:
                    save()
                except ModelFileError:
                    tried.append(repr(str(place)))
                    _remove(self._folder, FILES)
                    self._folder = before
                    continue
                self._overwrite = False
                self.failure = ModelFileError(f"{error}; the run is saved to {str(self._folder)!r} instead")
                return
            raise ModelFileError(f"{error}; saving to {', '.join(tried)} failed too: {self._left()}") from None

    def replace(self, *, finished: bool) -> None:
        """At the end of a run that overwrites another: replace that run's files, if they may be.

        A run that is not ``finished`` replaces no finished one, and stays where it is.
        """
        if not self._overwrite or (not finished and _finished(self._wanted)):
            return
        try:
            with Lock(self._wanted):
                for name in (*FILES, EVENTS):
                    _replace(self._folder / name, self._wanted / name)
        except (OSError, RunInUseError, ModelFileError) as error:
            self._say(f"{self._wanted} could not be replaced ({error}): the run is in {self._folder}")
            return
        self._lock.release()
        with contextlib.suppress(OSError):
            self._folder.rmdir()
        self._folder, self._overwrite = self._wanted, False

    def _left(self) -> str:
        if self.saved is None:
            return "the model is lost"
        return f"the model of step {self.saved.step:,} is in {self.saved.path}"

    def _other_places(self) -> Iterator[Path]:
        yield self._wanted.parent
        for place in (Path.cwd, Path.home, lambda: Path(tempfile.gettempdir())):
            with contextlib.suppress(OSError, RuntimeError):
                yield place()

    def _write(self, model: checkpoint.Content, *, overwrite: bool) -> None:
        self._prepare()  # the folder may have been removed since
        if self._config and not _there(self._folder / CONFIG):
            self._write_file(CONFIG, self._config)
        checkpoint.save(self.model, model, overwrite=overwrite)
        self._own = _identity(self.model)

    def _write_file(self, name: str, text: str) -> None:
        path = self._folder / name
        try:
            atomic.write(path, [text.encode()], overwrite=True)
        except OSError as error:
            raise ModelFileError(
                f"cannot write {str(path)!r} ({error.strerror}): check the folder, its permissions, and the free space"
            ) from None

    def _claim(self, folder: Path) -> None:
        """Create a folder and lock it."""
        self._folder = folder
        self._prepare()
        self._lock = Lock(folder)
        try:
            self._lock.acquire()
        except ModelFileError:
            if folder.is_dir():
                raise
            self._prepare()  # the run that used it has removed it meanwhile
            self._lock.acquire()

    def _claim_free(self) -> None:
        """Claim the wanted folder if it is free, else the next free one."""
        for folder in _siblings(self._wanted):
            if _occupied(folder) or (_there(folder) and not folder.is_dir()):
                atomic.remove_abandoned(folder)  # no run writes there again
                continue
            try:
                self._claim(folder)
            except RunInUseError:
                continue
            if not _occupied(folder):
                break
            self._lock.release()  # another run has ended there meanwhile
        if folder != self._wanted:
            until = " until it ends" if self._overwrite else ""
            self._say(f"{self._wanted} already contains a run: this run is saved to {folder}{until}")

    def _move(self) -> None:
        """Go on in the next free folder; the files written so far stay where they are."""
        taken = self._folder
        self._lock.release()
        self._claim_free()
        self._say(f"{taken} contains a model of another program: this run is saved to {self._folder}")

    def _prepare(self) -> None:
        missing = [path for path in (self._folder, *self._folder.parents) if not _there(path)]
        self._made += [path for path in reversed(missing) if path not in self._made]
        checkpoint.check_writable(self._folder)


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files of a run from its folder, as far as possible, and the folder if it is empty then."""
    for name in names:
        with contextlib.suppress(OSError):
            (folder / name).unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()


def _replace(new: Path, old: Path) -> None:
    """Replace a file or a folder by a new one, or remove it if there is none."""
    if old.is_dir():
        shutil.rmtree(old)
    if _there(new):
        os.replace(new, old)
    else:
        old.unlink(missing_ok=True)


def _new_folder(wanted: Path) -> Path:
    """Create a folder of this name, or of the next one that is free."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for folder in _siblings(wanted):
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def _siblings(folder: Path) -> Iterator[Path]:
    """The folder, then NAME-2, NAME-3, ... in the same parent folder."""
    if folder.name in ("", ".."):
        folder = Path(os.path.abspath(folder))
    yield folder
    for number in itertools.count(2):
        yield folder.parent / f"{folder.name}-{number}"


def _name(folder: Path) -> str:
    return Path(os.path.abspath(folder)).name or "model"


def _there(path: Path) -> bool:
    return os.path.lexists(path)


def _occupied(folder: Path) -> str:
    """The name of a file of a run in a folder; empty if it contains none."""
    return next((name for name in FILES if _there(folder / name)), "")


def _finished(folder: Path) -> bool:
    """Whether a folder contains a finished model; a model that cannot be read or has no record counts as finished."""
    if not _there(folder / checkpoint.FILE_NAME):
        return False
    try:
        training = checkpoint.load(folder).training or {}
    except ModelFileError:
        return True
    return training.get("finished") is not False


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
