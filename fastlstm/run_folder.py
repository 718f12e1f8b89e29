"""The run folder: where the model of a run is saved, and which files may be overwritten.

A run overwrites only its own files, unless the user asked for overwriting; even then an unfinished run does not
overwrite a finished model. If the path is taken, the next free folder is used: ``NAME-2``, ...
"""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastlstm import atomic, checkpoint
from fastlstm.errors import ConfigError, ModelExistsError, ModelFileError
from fastlstm.observers import Observer, Progress

#: Fraction of a run's time that intermediate saves may take, and the expected cost of the first save, in seconds and in
#: bytes per second: the first save thus comes after five seconds, for large models later.
SAVING_SHARE, _FIRST_SECONDS, _BYTES_PER_S = 0.008, 0.04, 200e6


#: The model of the last step, if it is not the best one.
LAST_NAME = "model-last.safetensors"


class RunFolder:
    """A run folder; as a context manager, it finally removes the folders that it created and that are empty.

    Parameters
    ----------
    wanted : the folder in which to save the model; it is created if missing.
    named : whether the user named it: then a model in it is an error, else the next free folder is used.
    overwrite : whether a model in it may be overwritten; an unfinished run does not overwrite a finished model.
    say : called with a line of text when the model is saved to another folder instead.

    Attributes
    ----------
    saved : path and step of the model that was saved last; ``None`` before the first save.

    Raises
    ------
    ConfigError
        When the named folder contains a model, and ``overwrite`` is false.
    ModelFileError
        When the folder cannot be created or is not writable.
    """

    def __init__(self, wanted: Path, *, named: bool, overwrite: bool, say: Callable[[str], None]) -> None:
        self.saved: tuple[Path, int] | None = None
        self._wanted = self._folder = wanted
        self._overwrite, self._say = overwrite, say
        self._own: tuple[int, ...] | None = None  # identity of the file that this run has saved
        self._made: list[Path] = []
        if not overwrite and _occupied(wanted, named):
            if named:
                atomic.remove_abandoned(wanted)  # without --overwrite, no other run would do so
                raise ConfigError(
                    f"{str(wanted)!r} already contains a model: choose another folder with --out, or overwrite it with"
                    " --overwrite"
                )
            self._move()
        self._prepare(self._folder)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.tidy()

    def tidy(self) -> None:
        """Remove the folders that this run created and that are empty."""
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def save(self, model: checkpoint.Content) -> Path:
        """Save a model of the run; returns the path of the file.

        Raises
        ------
        ModelFileError
            When it cannot be written.
        """
        training = model.training or {}
        before = self._path if self._is_own() else None
        if self._overwrite and (training["finished"] or not _finished(self._wanted)):
            self._folder = self._wanted
            self._write(model, overwrite=True)
        else:
            self._write_beside(model, overwrite=before is not None)
        if (
            before is not None and before != self._path
        ):  # an earlier save of this run, beside the model that is now overwritten
            with contextlib.suppress(OSError):
                before.unlink()
        self.saved = self._path, training["steps"]
        return self._path

    def save_last(self, last: checkpoint.Content | None) -> Path | None:
        """Save the model of the last step beside the best one; returns its path.

        ``None``: there is no other model, or the best one is not there. One of the run that was overwritten is removed.

        Raises
        ------
        ModelFileError
            When it cannot be written or removed.
        """
        path = self._folder / LAST_NAME
        if not self._is_own():
            return None
        if last is not None:
            checkpoint.save(path, last, overwrite=self._overwrite)
            return path
        try:
            if self._overwrite:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ModelFileError(f"cannot remove {str(path)!r}: {error.strerror}") from None
        return None

    def save_somewhere(self, model: checkpoint.Content) -> Path:
        """Save the model; if that fails, save it to another folder.

        Raises
        ------
        ModelFileError
            When `save` fails; the message states where the model was saved instead.
        """
        try:
            return self.save(model)
        except ModelFileError as error:
            tried: list[str] = []
            for place in self._other_places():
                self._folder = next(folder for folder in _siblings(place / _name(self._wanted)) if not _there(folder))
                try:
                    self._write(model, overwrite=False)
                except ModelFileError:
                    tried.append(repr(str(place)))
                    continue
                raise ModelFileError(f"{error}; the model was saved to {self._path} instead") from None
            raise ModelFileError(f"{error}; saving to {', '.join(tried)} failed too: {self._left()}") from None

    def _left(self) -> str:
        if self.saved is None:
            return "the model is lost"
        return f"the model of step {self.saved[1]:,} is in {self.saved[0]}"

    def _other_places(self) -> Iterator[Path]:
        yield self._wanted.parent
        for place in (Path.cwd, Path.home, lambda: Path(tempfile.gettempdir())):
            with contextlib.suppress(OSError, RuntimeError):
                yield place()

    @property
    def _path(self) -> Path:
        return self._folder / checkpoint.FILE_NAME

    def _is_own(self) -> bool:
        return self._own is not None and self._own == _identity(self._path)

    def _write_beside(self, model: checkpoint.Content, *, overwrite: bool) -> None:
        while True:
            try:
                return self._write(model, overwrite=overwrite)
            except ModelExistsError:
                self._move()
                overwrite = False

    def _write(self, model: checkpoint.Content, *, overwrite: bool) -> None:
        self._prepare(self._folder)  # it may have been removed since
        checkpoint.save(self._path, model, overwrite=overwrite)
        self._own = _identity(self._path)

    def _move(self) -> None:
        taken = self._folder
        self._folder = _next_free(self._wanted)
        self._say(f"{taken} already contains a model: this run is saved to {self._folder}")

    def _prepare(self, folder: Path) -> None:
        missing = [path for path in (folder, *folder.parents) if not _there(path)]
        self._made += [path for path in reversed(missing) if path not in self._made]
        checkpoint.check_writable(folder)


class Budget:
    """Limits the time spent on a repeated operation to a fraction of the elapsed time.

    Parameters
    ----------
    share : largest fraction of the time since the budget was created.
    expected : expected seconds of the first operation; later ones are expected to take as long as the last one did.
    """

    def __init__(self, share: float, expected: float) -> None:
        self._share, self._next = share, expected
        self._spent = 0.0
        self._made = time.perf_counter()

    def allows(self) -> bool:
        """Whether the operation fits into the budget now."""
        return self._spent + self._next <= self._share * (time.perf_counter() - self._made)

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Charge the time spent in this context to the budget."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._next = time.perf_counter() - started
            self._spent += self._next


class Saver(Observer):
    """Saves the model during a run, so rarely that it takes less than a hundredth of the run's time.

    Parameters
    ----------
    folder : the run folder.
    size : bytes of the model's parameters.
    saving : makes the context in which the model is saved.
    say : called with a line of text on the first failure; the run continues.

    Attributes
    ----------
    last : the model of the last step, if the run leaves the best one instead.
    """

    def __init__(
        self,
        folder: RunFolder,
        size: int,
        saving: Callable[[], contextlib.AbstractContextManager[None]],
        say: Callable[[str], None],
    ) -> None:
        self._folder, self._saving, self._say = folder, saving, say
        self._budget = Budget(SAVING_SHARE, _FIRST_SECONDS + size / _BYTES_PER_S)
        self._progress: Progress | None = None
        self._failed = False
        self.last: checkpoint.Content | None = None

    def started(self, progress: Progress) -> None:
        self._progress = progress

    def lost(self) -> str | None:
        """A description of what would be lost if the process ended now; ``None`` before the first step."""
        if self._progress is None or self._progress.step == 0:
            return None
        step, saved = self._progress.step, self._folder.saved
        if saved is None:
            return f"all {step:,} steps are lost"
        return f"the model of step {saved[1]:,} is in {saved[0]}, the {step - saved[1]:,} steps since are lost"

    def left_behind(self, progress: Progress, content: checkpoint.Content) -> None:
        self.last = content

    def kept(self, progress: Progress, content: checkpoint.Content) -> None:
        """Save the copy of the model, if a save is due."""
        if not self._budget.allows():
            return
        with self._budget.spending(), self._saving():
            try:
                self._folder.save(content)
            except ModelFileError as error:
                if not self._failed:
                    self._say(f"the run continues, but could not be saved at step {progress.step:,}: {error}")
                self._failed = True


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


def _occupied(folder: Path, named: bool = False) -> bool:
    """Whether the path of a model file exists; for a folder not named by the user, also whether it is no folder."""
    files = any(_there(folder / name) for name in (checkpoint.FILE_NAME, LAST_NAME))
    return files or (not named and _there(folder) and not folder.is_dir())


def _next_free(wanted: Path) -> Path:
    """The first free folder; temporary files in those before it, where no run writes again, are removed."""
    for folder in _siblings(wanted):
        if not _occupied(folder):
            break
        atomic.remove_abandoned(folder)
    return folder


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
