"""What a run reports while it trains: its progress, and the callbacks of those who watch it."""

from __future__ import annotations

import math
import time

from fastlstm.config import ModelConfig
from fastlstm.logarithm import log
from fastlstm.run_checkpoint import Checkpoint
from fastlstm.run_state import RunState


def guessing_nats(config: ModelConfig) -> float:
    """The loss of uniform guessing, log V, in nats per symbol."""
    return log(config.vocab_size)


class Progress:
    """A read-only view of the progress of a run: numbers of its state, and those derived from them.

    Parameters
    ----------
    state : of the run; attributes reflect its current values.
    total : number of steps of the whole run; 0 while it is not known, see `Observer.planned`.
    chars_per_step : T*B, the number of symbols predicted in a step.
    steps_per_epoch : number of steps of one pass over the training text.

    Attributes
    ----------
    total, chars_per_step : as given.
    rate : learning rate of the last step; NaN before the first of this process.
    norm : norm of its gradient, before clipping; NaN before the first of this process.
    model_step : step of the model that the run leaves, if that is not the last one; the last validation is then of it.
    """

    def __init__(self, state: RunState, total: int, chars_per_step: int, steps_per_epoch: int = 1) -> None:
        self._state = state
        self.total, self.chars_per_step, self._steps_per_epoch = total, chars_per_step, steps_per_epoch
        self.rate = self.norm = math.nan
        self.model_step: int | None = None
        self.start(0)

    def start(self, symbols_at_end: int) -> None:
        """Start the clock of this process; at the end, so many symbols are read for the last validation."""
        self._started, self._first_step, self._symbols_at_end = time.perf_counter(), self.step, symbols_at_end

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self._state.step

    @property
    def loss(self) -> float:
        """Loss of the last step, nats per symbol; NaN before the first."""
        return self._state.loss

    @property
    def train_nats(self) -> float:
        """The smoothed loss (`RunState.smooth`), nats per symbol; before the first step log V, the loss of guessing."""
        smoothed = self._state.smoothed_loss
        return guessing_nats(self._state.parameters.config) if smoothed is None else smoothed

    @property
    def val_nats(self) -> float | None:
        """Loss of the last validation, nats per symbol; ``None`` before the first."""
        return self._state.val_nats

    @property
    def val_error(self) -> float | None:
        """Standard error of that loss, if it is an estimate from a part of the text; ``None`` if it is exact."""
        return self._state.val_error

    @property
    def best_nats(self) -> float | None:
        """The lowest loss of a check, see `fastlstm.config.TrainConfig.checks`; ``None`` before the first."""
        return self._state.best_nats

    @property
    def best_step(self) -> int | None:
        """Step of that check; ``None`` before the first."""
        return self._state.best_step

    @property
    def val_step(self) -> int | None:
        """Step of the last validation; ``None`` before the first."""
        return self._state.val_step

    @property
    def rate_factor(self) -> float:
        """Factor of the schedule's learning rate, see `fastlstm.run_state.RunState`."""
        return self._state.rate_factor

    @property
    def seconds(self) -> float:
        """Seconds spent in training steps."""
        return self._state.seconds

    @property
    def chars_per_s(self) -> float:
        """Symbols trained on per second."""
        return self.step * self.chars_per_step / self.seconds if self.seconds else 0.0

    @property
    def epoch(self) -> float:
        """Passes over the training text so far."""
        return self.step / self._steps_per_epoch

    @property
    def elapsed(self) -> float:
        """Wall seconds since the first step of this process was begun."""
        return time.perf_counter() - self._started

    @property
    def seconds_left(self) -> float:
        """Estimated wall seconds until the end, with validations and samples; NaN before the first step.

        The steps are expected to go on as so far; the last validation reads about as fast as a step does.
        """
        done = self.step - self._first_step
        if done < 1:
            return math.nan
        at_end = self._symbols_at_end / self.chars_per_s if self.seconds else 0.0
        return self.elapsed / done * max(self.total - self.step, 0) + at_end


class Observer:
    """Callbacks of a run; override those of interest. Here every method does nothing."""

    def compiling(self) -> None:
        """The kernels are about to be compiled, which takes a while."""

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        """The speed of a run of so many minutes has been measured, and ``progress.total`` follows from it."""

    def started(self, progress: Progress) -> None:
        """The first step is about to be taken. All calls get the same ``progress``."""

    def stepped(self, progress: Progress) -> None:
        """A step has been taken."""

    def validated(self, progress: Progress) -> None:
        """The validation part has been evaluated."""

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        """A sample has been generated."""

    def recovered(self, progress: Progress, reason: str) -> None:
        """Training diverged for this ``reason``, and went back to ``progress.step`` with a lower learning rate."""

    def kept(self, progress: Progress, checkpoint: Checkpoint) -> None:
        """The state has been copied, to go back to if training diverges: a checkpoint that can be written now.

        It is of an earlier step than ``progress``, after everything that was reported up to that step. Its arrays are
        reused after this call.
        """

    def ended(self, progress: Progress, checkpoint: Checkpoint) -> None:
        """All steps have been taken, or the run is stopped; the best model is chosen next.

        The ``checkpoint`` is of this step, or of that of the last copy if the run is stopped within a validation. Its
        arrays are reused after this call.
        """


_IDLE = Observer.stepped


class Observers(Observer):
    """Forwards each call to several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers
        # The only call that every step makes.
        self._stepped = [one.stepped for one in observers if getattr(one.stepped, "__func__", None) is not _IDLE]

    def compiling(self) -> None:
        for observer in self.observers:
            observer.compiling()

    def planned(self, progress: Progress, chars_per_s: float) -> None:
        for observer in self.observers:
            observer.planned(progress, chars_per_s)

    def started(self, progress: Progress) -> None:
        for observer in self.observers:
            observer.started(progress)

    def stepped(self, progress: Progress) -> None:
        for stepped in self._stepped:
            stepped(progress)

    def validated(self, progress: Progress) -> None:
        for observer in self.observers:
            observer.validated(progress)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        for observer in self.observers:
            observer.sampled(progress, text)

    def recovered(self, progress: Progress, reason: str) -> None:
        for observer in self.observers:
            observer.recovered(progress, reason)

    def kept(self, progress: Progress, checkpoint: Checkpoint) -> None:
        for observer in self.observers:
            observer.kept(progress, checkpoint)

    def ended(self, progress: Progress, checkpoint: Checkpoint) -> None:
        for observer in self.observers:
            observer.ended(progress, checkpoint)
