"""What a run reports while it trains: its progress, and the callbacks of those who watch it."""

from __future__ import annotations

import math

from fastlstm.checkpoint import Content
from fastlstm.config import ModelConfig
from fastlstm.run_state import RunState


def guessing_nats(config: ModelConfig) -> float:
    """The loss of uniform guessing, log V, in nats per symbol."""
    return math.log(config.vocab_size)


class Progress:
    """A read-only view of the progress of a run: numbers of its state, and those derived from them.

    Parameters
    ----------
    state : of the run; attributes reflect its current values.
    total : number of steps of the whole run; 0 while it is not known, see `Observer.planned`.
    chars_per_step : T*B, the number of symbols predicted in a step.

    Attributes
    ----------
    total, chars_per_step : as given.
    """

    def __init__(self, state: RunState, total: int, chars_per_step: int) -> None:
        self._state = state
        self.total, self.chars_per_step = total, chars_per_step

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
    def seconds_left(self) -> float:
        """Estimated seconds of training until the end, at the average speed so far; NaN before the first step."""
        return self.seconds / self.step * (self.total - self.step) if self.step else math.nan


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

    def left_behind(self, progress: Progress, content: Content) -> None:
        """The run has ended, and leaves the model of the best check; ``content`` is the model of its last step."""

    def kept(self, progress: Progress, content: Content) -> None:
        """A copy of the parameters has been kept, to restore it if training diverges.

        ``content`` is the content of a model file with that copy; `fastlstm.checkpoint.save` can write it. It is of an
        earlier step than ``progress``: ``content.training["steps"]``. Its arrays are reused after this call.
        """


class Observers(Observer):
    """Forwards each call to several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

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
        for observer in self.observers:
            observer.stepped(progress)

    def validated(self, progress: Progress) -> None:
        for observer in self.observers:
            observer.validated(progress)

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        for observer in self.observers:
            observer.sampled(progress, text)

    def recovered(self, progress: Progress, reason: str) -> None:
        for observer in self.observers:
            observer.recovered(progress, reason)

    def left_behind(self, progress: Progress, content: Content) -> None:
        for observer in self.observers:
            observer.left_behind(progress, content)

    def kept(self, progress: Progress, content: Content) -> None:
        for observer in self.observers:
            observer.kept(progress, content)
