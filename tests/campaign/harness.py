"""The common base of all parts of the campaign: seeded trials in separate processes, and classes of outcomes.

A part is a test function marked by `part`, and an attempt: a function of one `Trial` that raises when a promise is
broken. Attempts run in worker processes, so that one that crashes or hangs is counted and the campaign continues.
A trial may be a batch of cases, which its attempt counts: see `each`.
"""

from __future__ import annotations

import collections
import contextlib
import enum
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pytest

Case = TypeVar("Case")

#: Seconds after which a call, or a command beyond its ordinary start, counts as a hang.
LONGEST_WAIT = 5.0
#: Seconds for a worker process to import fastlstm and to compile its kernels, if they are not in the cache.
LONGEST_START = 600.0


class Outcome(enum.Enum):
    """The outcome of a trial; the values are the columns of the table."""

    HELD = "held"
    REFUSED = "refused cleanly"
    TRACEBACK = "tracebacks"
    HANG = "hangs over 5 s"
    CRASH = "crashes"
    WRONG = "wrong results"
    LOST = "lost models"

    @property
    def is_failure(self) -> bool:
        return self not in (Outcome.HELD, Outcome.REFUSED)


class BrokenPromiseError(Exception):
    """A trial has found a defect of the class ``outcome``."""

    def __init__(self, outcome: Outcome, detail: str) -> None:
        super().__init__(detail)
        self.outcome = outcome


def require(condition: object, outcome: Outcome, detail: str) -> None:
    """Raise `BrokenPromiseError` unless ``condition`` is true."""
    if not condition:
        raise BrokenPromiseError(outcome, detail)


@dataclass(frozen=True)
class Part:
    """A row of the table, and its number of trials.

    Attributes
    ----------
    name : name of the row.
    count : number of trials at scale 1.
    seconds : time after which a trial counts as a hang.
    is_full : whether this is the campaign itself, not the small share of it in the default suite.
    """

    name: str
    count: int
    seconds: float
    is_full: bool


@dataclass(frozen=True)
class Trial:
    """One trial of a part: its number, counted from 0, its random numbers, and a new empty folder."""

    part: Part
    seed: int
    number: int
    folder: Path = Path()

    def generator(self) -> np.random.Generator:
        """A new generator, which depends only on the seed, the part and the number."""
        return np.random.default_rng([self.seed, zlib.crc32(self.part.name.encode()), self.number])


class NoVerdictError(Exception):
    """A trial has a result that must be judged by hand; it is listed above the table."""


#: How often there was each outcome; ``None``: to be judged by hand.
Counts = collections.Counter[Outcome | None]


class Result(NamedTuple):
    counts: Counts
    detail: str = ""

    @property
    def failures(self) -> list[str]:
        """The names of the outcomes that are failures."""
        return [outcome.value for outcome in self.counts if outcome and outcome.is_failure]


#: Runs one trial. It returns an `Outcome`, or `None` for `Outcome.HELD`; for a batch, how often there was each.
Attempt = Callable[[Trial], "Outcome | Counts | None"]


def each(attempt: Callable[[Case], Outcome | None], cases: Iterable[Case]) -> Counts:
    """Make an attempt for each case of a batch, which a failure ends; returns how often there was each outcome."""
    return collections.Counter(attempt(case) or Outcome.HELD for case in cases)


def part(name: str, *, full: int, small: int, seconds: float = LONGEST_WAIT) -> pytest.MarkDecorator:
    """Mark a test of the campaign: ``full`` trials under ``-m campaign``, ``small`` in the default suite."""
    sizes = [pytest.param(Part(name, full, seconds, is_full=True), id="full", marks=pytest.mark.campaign)]
    if small:
        sizes.append(pytest.param(Part(name, small, seconds, is_full=False), id="small"))
    return pytest.mark.parametrize("trials", sizes, indirect=True)


def judge(attempt: Attempt, trial: Trial) -> Result:
    """Run a trial and classify its outcome."""
    try:
        found = attempt(trial) or Outcome.HELD
        return Result(found) if isinstance(found, collections.Counter) else one(found)
    except BrokenPromiseError as broken:
        return one(broken.outcome, str(broken))
    except NoVerdictError as open_question:
        return one(None, str(open_question))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return one(Outcome.TRACEBACK, f"{type(error).__name__} at {place}: {error}")


def one(outcome: Outcome | None, detail: str = "") -> Result:
    """The result of a trial with a single outcome."""
    return Result(collections.Counter([outcome]), detail)


def _serve(connection: Connection, temporary: str) -> None:
    """The main loop of a worker process: runs trials one after another, each in an empty folder."""
    os.setsid()  # so that this process can be ended together with those it has started
    tempfile.tempdir = temporary
    warnings.simplefilter("error")
    from subjects import warm_up

    warm_up()
    connection.send(None)
    with contextlib.suppress(EOFError):
        while True:
            attempt, trial = connection.recv()
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                connection.send(judge(attempt, Trial(trial.part, trial.seed, trial.number, Path(folder))))
                os.chdir("/")


class Worker:
    """A process that runs trials, one at a time; if it crashes or hangs, it is replaced by a new one.

    Parameters
    ----------
    temporary : folder for all temporary files, which may outlive the process.
    """

    def __init__(self, temporary: str) -> None:
        self.trial: Trial | None = None
        self._temporary = temporary
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, self._temporary))
        self._process.start()
        far_end.close()
        assert self.connection.poll(LONGEST_START), "a worker process of the campaign does not start"
        self.connection.recv()

    def give(self, attempt: Attempt, trial: Trial) -> None:
        """Start a trial."""
        self.trial = trial
        self._deadline = time.monotonic() + trial.part.seconds
        self.connection.send((attempt, trial))

    @property
    def seconds_left(self) -> float:
        """Seconds until the trial counts as a hang."""
        return max(0.0, self._deadline - time.monotonic())

    def result(self) -> Result | None:
        """The result of the trial; ``None`` while it runs."""
        try:
            if self.connection.poll():
                return self.connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            died = self._process.exitcode
            self._start()
            return one(Outcome.CRASH, f"the process ended with status {died}")
        if self.seconds_left:
            return None
        self.stop()
        self._start()
        return one(Outcome.HANG, f"no answer within {self.trial.part.seconds:g} s")

    def stop(self) -> None:
        """End the process and those it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()
        self.connection.close()


class Pool:
    """The worker processes of a session, started when they are first needed."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._temporary = tempfile.TemporaryDirectory(prefix="fastlstm-campaign-")

    def workers(self, count: int) -> list[Worker]:
        while len(self._workers) < count:
            self._workers.append(Worker(self._temporary.name))
        return self._workers[:count]

    def stop(self) -> None:
        for worker in self._workers:
            worker.stop()
        self._temporary.cleanup()


class Tally:
    """The outcomes of all parts, and the results to be judged by hand.

    Attributes
    ----------
    counts : of each part, by its name.
    seconds : what each part took that has been run to its end.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counts] = {}
        self.seconds: dict[str, float] = {}
        self._open_questions: list[str] = []

    def add(self, name: str, result: Result) -> None:
        self.counts.setdefault(name, collections.Counter()).update(result.counts)
        if None in result.counts:
            self._open_questions.append(f"{name}: {result.detail}")

    def finished(self) -> dict[str, dict[str, float]]:
        """The numbers of the parts that have been run to their end, by name."""
        return {
            name: {
                "tried": self.counts[name].total(),
                "held": self.counts[name][Outcome.HELD],
                "refused": self.counts[name][Outcome.REFUSED],
                "failed": sum(count for outcome, count in self.counts[name].items() if outcome and outcome.is_failure),
                "undecided": self.counts[name][None],
                "seconds": round(seconds, 1),
            }
            for name, seconds in self.seconds.items()
        }

    def lines(self) -> list[str]:
        """The results to be judged by hand, and the table, a line for each part."""
        head = ["part", "tried", *(outcome.value for outcome in Outcome)]
        rows = [
            [name, counts.total(), *(counts[outcome] for outcome in Outcome)] for name, counts in self.counts.items()
        ]
        widths = [max(len(f"{row[n]}") for row in [head, *rows]) for n in range(len(head))]
        return self._open_questions + [
            " | ".join([f"{row[0]:<{widths[0]}}", *(f"{row[n]:>{widths[n]}}" for n in range(1, len(head)))])
            for row in [head, *rows]
        ]


class Trials:
    """The trials of one part, from the fixture ``trials``."""

    #: Number of processes that run trials at the same time.
    WORKERS = 2
    #: Number of failures in a test's message, and of characters for each.
    _TOLD, _LONGEST = 20, 500
    #: Seconds between lines about progress.
    _EVERY = 15.0

    def __init__(
        self, part: Part, seed: int, numbers: range, pool: Pool, tally: Tally, say: Callable[[str], None]
    ) -> None:
        self._part, self._seed, self._numbers = part, seed, numbers
        self._pool, self._tally, self._say = pool, tally, say
        self._failures: list[str] = []
        self._done, self._said = 0, time.monotonic()

    def run(self, attempt: Attempt) -> None:
        """Run all trials; raise `AssertionError` when any of them has failed."""
        workers = self._pool.workers(self.WORKERS if self._part.is_full else 1)
        started = time.monotonic()
        waiting = (Trial(self._part, self._seed, number) for number in self._numbers)
        while busy := list(self._employed(workers, attempt, waiting)):
            wait([worker.connection for worker in busy], min(worker.seconds_left for worker in busy))
            for worker in busy:
                if (result := worker.result()) is not None:
                    self._record(worker.trial, result)
                    worker.trial = None
        self._tally.seconds[self._part.name] = time.monotonic() - started
        assert not self._failures, self._message()

    def _employed(self, workers: list[Worker], attempt: Attempt, waiting: Iterator[Trial]) -> Iterator[Worker]:
        """Give every idle worker a trial while any are waiting; yields the workers that have one."""
        for worker in workers:
            if worker.trial is None and (trial := next(waiting, None)):
                worker.give(attempt, trial)
            if worker.trial is not None:
                yield worker

    def _record(self, trial: Trial, result: Result) -> None:
        self._done += 1
        self._tally.add(self._part.name, result)
        for failure in result.failures:
            detail = " ".join(result.detail.split())[: self._LONGEST]
            self._failures.append(f"trial {trial.number}: {failure}: {detail}")
        if self._part.is_full and time.monotonic() - self._said > self._EVERY:
            self._said = time.monotonic()
            self._say(f"{self._part.name}: {self._done} of {len(self._numbers)}, {len(self._failures)} failed")

    def _message(self) -> str:
        more = len(self._failures) - self._TOLD
        return "\n".join(
            [
                f"{self._part.name}: {len(self._failures)} of {self._done} trials failed (seed {self._seed})",
                *self._failures[: self._TOLD],
                *([f"and {more} more"] if more > 0 else []),
            ]
        )
