"""Observers that write the files of a run: its checkpoints, its metrics (see `fastlstm.history`), samples and log."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from fastlstm.budget import Budget
from fastlstm.config import TrainConfig
from fastlstm.errors import FastlstmError, ModelFileError
from fastlstm.observers import Observer, Progress
from fastlstm.progress import Lines
from fastlstm.run_checkpoint import Checkpoint
from fastlstm.run_folder import LOG, METRICS, SAMPLES, RunFolder
from fastlstm.terminal import printable
from fastlstm.trainer import TrainResult

#: Largest fraction of a run's time that checkpoints may take, and the expected cost of the first one, in seconds and in
#: bytes per second: the first comes after five seconds, for large models later.
SAVING_SHARE, _FIRST_SECONDS, _BYTES_PER_S = 0.008, 0.04, 200e6

#: Seconds between two writes to a file that grows.
_FLUSH_SECONDS = 0.5

#: Number of lines of training in the metrics of a run.
_LINES = 1000

#: The line before a sample in the file of the samples.
_SAMPLE_HEAD = re.compile(r"^--- step (\d[\d,]{0,24})\n", re.MULTILINE)

Say = Callable[[str], None]


class Journal:
    """A text file that grows during a run. The first write that fails is reported and ends it; the run goes on.

    What is written reaches the file within half a second, or with the next text.

    Parameters
    ----------
    path : the file.
    say : called with a line of text on the failure.
    """

    def __init__(self, path: Path, say: Say) -> None:
        self._path, self._say = path, say
        self._file: BinaryIO | None = None
        self._pending: list[bytes] = []
        self._length, self._flushed = 0, time.monotonic()
        with self._reporting():
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - open for as long as the run
            self._length = os.fstat(self._file.fileno()).st_size

    def truncate(self, length: int) -> None:
        """Remove what the file has after so many bytes."""
        with self._reporting():
            if self._file is not None and length < self._length:
                self._file.truncate(length)
                self._length = length

    def write(self, text: str) -> None:
        """Append a text."""
        self._pending.append(text.encode("utf-8", "surrogatepass"))
        self._length += len(self._pending[-1])
        if time.monotonic() - self._flushed >= _FLUSH_SECONDS:
            self.flush()

    def length(self) -> int | None:
        """Bytes so far; ``None`` after a failure."""
        return None if self._file is None else self._length

    def flush(self) -> None:
        """Write what has not been written yet."""
        data, self._pending = memoryview(b"".join(self._pending)), []
        self._flushed = time.monotonic()
        with self._reporting():
            while self._file is not None and data:
                data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Flush, and sync the file to disk."""
        self.flush()
        with self._reporting():
            if self._file is not None:
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Flush and close the file; nothing is written after that."""
        if self._file is not None:
            self.flush()
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._say(f"the run continues, but {str(self._path)!r} could not be written ({error.strerror})")
            file, self._file = self._file, None
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()


class Recorder(Observer):
    """Writes the metrics and the samples of a run.

    Parameters
    ----------
    folder : the run folder.
    say : called with a line of text on the first failure of a file.
    lengths : those of `positions`, for a run that is resumed: what follows is removed when it starts.
    """

    def __init__(self, folder: Path, say: Say, lengths: Mapping[str, int] | None = None) -> None:
        self._lengths = lengths or {}
        self._journals = {name: Journal(folder / name, say) for name in (METRICS, SAMPLES)}
        self._every = 1

    def positions(self) -> dict[str, int]:
        """The lengths of the files so far, in bytes, by name."""
        lengths = {name: journal.length() for name, journal in self._journals.items()}
        return {name: length for name, length in lengths.items() if length is not None}

    def sync(self) -> None:
        """Sync the files to disk."""
        for journal in self._journals.values():
            journal.sync()

    def close(self) -> None:
        """Close the files."""
        for journal in self._journals.values():
            journal.close()

    def started(self, progress: Progress) -> None:
        for name, length in self._lengths.items():
            if name in self._journals:
                self._journals[name].truncate(length)
        self._every = max(1, math.ceil(progress.total / _LINES))

    def stepped(self, progress: Progress) -> None:
        if progress.step % self._every == 0:
            self._line(
                progress, epoch=round(progress.epoch, 4), loss=progress.loss, train_nats=progress.train_nats,
                rate=progress.rate, norm=progress.norm, chars_per_s=round(progress.chars_per_s),
            )  # fmt: skip

    def validated(self, progress: Progress) -> None:
        if progress.model_step is not None:  # it is of an earlier model, and no point of the curve
            return
        self._line(
            progress, val_nats=progress.val_nats, val_error=progress.val_error, best_nats=progress.best_nats,
            best_step=progress.best_step,
        )  # fmt: skip

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        self._journals[SAMPLES].write(f"--- step {progress.step:,}\n{printable(text)}\n")

    def recovered(self, progress: Progress, reason: str) -> None:
        self._line(progress, recovered=reason)

    def over(self, result: TrainResult) -> None:
        """Write the line of the end."""
        end = {"finished": result.finished, "val_nats": result.val_nats, "model_step": result.model_step}
        self._write({"step": result.steps, "seconds": round(result.seconds, 3), **end})

    def _line(self, progress: Progress, **values: Any) -> None:
        self._write({"step": progress.step, "seconds": round(progress.seconds, 3), **values})

    def _write(self, values: dict[str, Any]) -> None:
        infinite = {key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
        self._journals[METRICS].write(json.dumps(values | dict.fromkeys(infinite)) + "\n")


def read_samples(folder: Path) -> dict[int, str]:
    """The samples of a run by their steps, in the order of steps; empty if it has none yet.

    Where a run went back and recorded a step again, the later sample counts.

    Parameters
    ----------
    folder : the run folder.

    Raises
    ------
    FastlstmError
        When the file cannot be read.
    """
    path = folder / SAMPLES
    try:
        content = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FastlstmError(f"cannot read {str(path)!r} ({error.strerror}): check its permissions") from None
    _, *parts = _SAMPLE_HEAD.split(content)  # steps and texts in turn
    samples = {
        int(step.replace(",", "")): text.removesuffix("\n") for step, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return dict(sorted(samples.items()))


class Log(Lines):
    """The log of a run: the lines that are printed for a file rather than a terminal, with times, but no samples."""

    def __init__(self, folder: Path, say: Say) -> None:
        self._journal = Journal(folder / LOG, say)
        super().__init__(self._journal)

    def note(self, line: str) -> None:
        """Write a line, with the time."""
        super()._print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}")

    stepped = Observer.stepped  # the metrics tell more

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        pass

    def ended(self, progress: Progress, checkpoint: Checkpoint) -> None:
        self.note(f"the steps end at step {progress.step:,} of {progress.total:,}")

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def _print(self, line: str) -> None:
        self.note(line)


class WhenPlanned(Observer):
    """Calls a function when the number of steps of a run of so many minutes has been determined."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        self._call()


class Saver(Observer):
    """Saves checkpoints during a run, and at its end.

    Parameters
    ----------
    folder : the run folder.
    recorder : of the files whose lengths checkpoints contain.
    config : settings of the run: how often to save. Without ``save_every`` and ``save_minutes``, checkpoints take less
        than a hundredth of the run's time.
    size : bytes of the model's parameters.
    saving : makes the context in which a checkpoint is saved.
    say : called with a line of text on the first failure; the run continues.
    """

    def __init__(
        self,
        folder: RunFolder,
        recorder: Recorder,
        config: TrainConfig,
        size: int,
        saving: Callable[[], contextlib.AbstractContextManager[None]],
        say: Say,
    ) -> None:
        self._folder, self._recorder, self._saving, self._say = folder, recorder, saving, say
        self._every = config.save_every
        self._seconds = None if config.save_minutes is None else 60 * config.save_minutes
        self._budget = Budget(SAVING_SHARE, _FIRST_SECONDS + 4 * size / _BYTES_PER_S)
        self._progress: Progress | None = None
        self._positions: dict[str, int] = {}  # when the last copy of the state was confirmed
        self._saved_step = 0
        self._tried_at, self._tried_step = time.monotonic(), 0
        self._failed = False

    def lost(self) -> str | None:
        """A description of what would be lost if the process ended now; ``None`` before the first step."""
        if self._progress is None or self._progress.step == 0:
            return None
        step, saved = self._progress.step, self._saved_step
        if not saved:
            return f"all {step:,} steps are lost"
        return f"the run up to step {saved:,} is in {self._folder.path}, the {step - saved:,} steps since are lost"

    def started(self, progress: Progress) -> None:
        self._progress, self._saved_step, self._tried_step = progress, progress.step, progress.step
        self._positions = self._recorder.positions()

    def recovered(self, progress: Progress, reason: str) -> None:
        self._positions = self._recorder.positions()

    def kept(self, progress: Progress, checkpoint: Checkpoint) -> None:
        """Save a checkpoint, if one is due."""
        self._positions = self._recorder.positions()
        if not self._is_due(checkpoint.state.step):
            return
        with self._budget.spending(), self._saving():
            try:
                self._save(checkpoint)
            except ModelFileError as error:
                if not self._failed:
                    self._say(f"the run continues, but could not be saved at step {progress.step:,}: {error}")
                self._failed = True
        self._tried_at, self._tried_step = time.monotonic(), checkpoint.state.step

    def ended(self, progress: Progress, checkpoint: Checkpoint) -> None:
        """Save the last checkpoint, if necessary to another folder; before the first step there is nothing to save."""
        if progress.step == 0:
            return
        if checkpoint.state.step == progress.step:  # else the run is stopped within a validation
            self._positions = self._recorder.positions()
        with self._saving():
            try:
                self._folder.save_somewhere(lambda: self._save(checkpoint))
            except ModelFileError as error:
                self._folder.failure = error

    def _save(self, checkpoint: Checkpoint) -> None:
        self._recorder.sync()
        self._folder.save_checkpoint(dataclasses.replace(checkpoint, positions=self._positions))
        self._saved_step = checkpoint.state.step

    def _is_due(self, step: int) -> bool:
        if self._every is None and self._seconds is None:
            return self._budget.allows()
        by_steps = self._every is not None and step - self._tried_step >= self._every
        return by_steps or (self._seconds is not None and time.monotonic() - self._tried_at >= self._seconds)
