"""The progress of a run as event files of TensorBoard: losses, learning rate, gradient norm, speed and samples.

tensorboardX, of the extra ``tensorboard``, encodes the events. Its own writer is not used: it writes in a thread that
ends at the first error, after which the run would wait for it forever.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fastlstm import extras
from fastlstm.observers import Observer, Progress
from fastlstm.terminal import printable

#: Most training steps that are written, and fraction of a run's time that writing them may take.
_POINTS, _SHARE = 1000, 0.003

#: Seconds between flushes, in which the last events may be lost.
_FLUSH_SECONDS = 5.0


class EventFiles(Observer):
    """Writes event files; use it as a context manager.

    A run that goes on from a saved state writes a new file. TensorBoard then hides what files of the same folder say
    about later steps; likewise when a run goes back after a divergence. If a file cannot be written, the run goes on
    without it.

    Parameters
    ----------
    folder : of the event files; it is created if missing.
    say : called with a line of text if a file cannot be written, at most once.

    Raises
    ------
    FastlstmError
        When tensorboardX is missing.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._records, self._events, self._summaries, self._text = (
            extras.load(f"tensorboardX.{name}", extra="tensorboard", purpose="writing event files")
            for name in ("record_writer", "proto.event_pb2", "proto.summary_pb2", "summary")
        )
        self._file: Any = None
        self._due = math.inf  # the next step to write
        self._every = 1
        self._spent = self._started = self._flush_at = 0.0

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self._attempt(self._flush)
        self._close()

    def started(self, progress: Progress) -> None:
        self._every = max(1, math.ceil(progress.total / _POINTS))
        self._started = time.perf_counter()
        self._flush_at = self._started + _FLUSH_SECONDS
        self._attempt(self._open)
        self._write(0, file_version="brain.Event:2")
        self._go_to(progress.step)

    def stepped(self, progress: Progress) -> None:
        if progress.step < self._due:
            return
        self._due = progress.step + self._every
        if self._spent > _SHARE * (time.perf_counter() - self._started):
            return
        values = {
            "loss/train": progress.train_nats,
            "rate": progress.rate,
            "norm": progress.norm,
            "chars_per_s": progress.chars_per_s,
        }
        self._write_scalars(progress.step, values)

    def validated(self, progress: Progress) -> None:
        values = {}
        if progress.val_nats is not None and progress.model_step is None:  # else it is no point of the curve
            values["loss/validation"] = progress.val_nats
        if progress.best_nats is not None:
            values["loss/best"] = progress.best_nats
        self._write_scalars(progress.step, values)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        verbatim = "\n".join(f"    {line}" for line in printable(text).split("\n"))  # TensorBoard shows Markdown
        self._write(progress.step, summary=self._text.text("sample", verbatim))

    def recovered(self, progress: Progress, reason: str) -> None:
        self._go_to(progress.step)

    def _go_to(self, step: int) -> None:
        """Hide the events of steps after ``step``, which will be taken again."""
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(step + 1, session_log=start)
        self._due = step + self._every

    def _write_scalars(self, step: int, values: Mapping[str, float]) -> None:
        scalars = [self._summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step, summary=self._summaries.Summary(value=scalars))

    def _write(self, step: int, **content: Any) -> None:
        """Write an event, if the file is open, and flush it if that is due; the time is counted."""
        if self._file is None:
            return
        started = time.perf_counter()
        event = self._events.Event(step=step, wall_time=time.time(), **content)
        self._attempt(lambda: self._file.write(event.SerializeToString()))
        if self._file is not None and started >= self._flush_at:
            self._attempt(self._flush)
        self._spent += time.perf_counter() - started

    def _open(self) -> None:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        path = self._folder.absolute() / f"events.out.tfevents.{time.time_ns()}"
        self._file = self._records.RecordWriter(str(path))

    def _flush(self) -> None:
        """Flush and sync the file; where that is slow, the next time is later."""
        started = time.perf_counter()
        if self._file is not None:
            self._file.flush()
        ended = time.perf_counter()
        self._flush_at = ended + max(_FLUSH_SECONDS, (ended - started) / _SHARE)

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do something with the file; if that fails, it is the last attempt."""
        try:
            action()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._close()
        self._say(f"no more events are written to {str(self._folder)!r} ({error.strerror or error}); the run goes on")

    def _close(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # it flushes what could not be written before
                self._file.close()
        self._file = None
