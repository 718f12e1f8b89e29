"""The training loop: truncated BPTT over the lanes of a text, with looks at validation loss and samples on the way.

What it computes depends on parameters, text and configuration alone: looking on takes generators, networks and
states of its own, and changes no bit of the result.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastlstm.backend import build, warm_up
from fastlstm.batches import Lanes
from fastlstm.config import TrainConfig
from fastlstm.errors import FastlstmError, TextError
from fastlstm.model import Model
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.text import IdArray, split

#: Looks at validation loss and at a sample in a run that does not say how often.
LOOKS = 10


@dataclass
class Progress:
    """Where a run is.

    Attributes
    ----------
    total : steps of the whole run.
    chars_per_step : T*B, symbols predicted in a step.
    step : steps done.
    loss : of the last step, nats a symbol.
    train_nats : the smoothed loss, nats a symbol; log V at the start.
    val_nats : of the last validation, nats a symbol, and val_step, when it was; ``None`` before the first.
    seconds : spent in training steps.
    """

    total: int
    chars_per_step: int
    train_nats: float
    step: int = 0
    loss: float = math.nan
    val_nats: float | None = None
    val_step: int | None = None
    seconds: float = 0.0

    @property
    def chars_per_s(self) -> float:
        """Symbols trained on in a second."""
        return self.step * self.chars_per_step / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Seconds of training until the end, at the speed so far."""
        return self.seconds / self.step * (self.total - self.step) if self.step else math.nan


class Observer:
    """What a run tells to whoever looks on; every method does nothing here."""

    def compiling(self) -> None:
        """The kernels are being compiled, which takes a while."""

    def started(self, progress: Progress) -> None:
        """The first step is about to be taken. ``progress`` is the same object throughout the run."""

    def stepped(self, progress: Progress) -> None:
        """A step has been taken."""

    def validated(self, progress: Progress) -> None:
        """The validation part has been evaluated."""

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        """A sample has been written."""


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Attributes
    ----------
    steps : done.
    seconds, chars_per_s : of the training steps themselves, without compiling, validation and samples.
    compile_seconds : spent on compiling the kernels, or on loading them.
    train_nats : the smoothed training loss, nats a symbol.
    val_nats : of the last validation, which a run that is not stopped ends with; ``None`` before the first, or
        without a validation part.
    parameters : how many the model has.
    """

    steps: int
    seconds: float
    chars_per_s: float
    compile_seconds: float
    train_nats: float
    val_nats: float | None
    parameters: int


def train(
    model: Model,
    ids: IdArray,
    config: TrainConfig,
    observer: Observer | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train a model, in place.

    Parameters
    ----------
    model : its parameters are the start and, changed in place, the result; ``model.training`` is set.
    ids : (N,) the text; its last ``config.val_frac`` is kept for validation.
    config : how to train.
    observer : is told of progress.
    stop : asked before each step whether to end early.

    Raises
    ------
    TextError, ConfigError
        When the text is too short for any training, or for the lanes asked for.
    FastlstmError
        When the loss, or a parameter at the end, is not a finite number.
    """
    return _Run(model, ids, config, observer or Observer()).run(stop or (lambda: False))


class _Run:
    """One run: its arrays, its clock, and the order of events."""

    def __init__(self, model: Model, ids: IdArray, config: TrainConfig, observer: Observer) -> None:
        train_ids, self.val_ids = split(model.encode(ids), config.val_frac)
        if len(train_ids) < 2:
            raise TextError(
                f"the text leaves {len(train_ids)} of the at least two characters that training needs: give more text,"
                f" or keep less of it for validation (now {config.val_frac:g})"
            )
        self.model, self.config, self.observer = model, config, observer
        self.lanes = Lanes(train_ids, config.seq_len, config.batch)
        self.network = build(config.backend, model.config, config.seq_len, config.batch, config.threads)
        self.gradients, self.slots = Parameters(model.config), Parameters(model.config)
        self.state = model.zero_state(config.batch)
        self.x = np.zeros((config.seq_len, config.batch), np.int32)
        self.y = np.zeros_like(self.x)
        total = config.total_steps(self.lanes.steps_per_epoch)
        self.progress = Progress(total, self.x.size, train_nats=math.log(model.config.vocab_size))

    def run(self, stop: Callable[[], bool]) -> TrainResult:
        progress = self.progress
        compile_seconds = self._compile()
        self.observer.started(progress)
        while progress.step < progress.total and not stop():
            self._timed_step()
            self.observer.stepped(progress)
            self._look()
        if progress.total == 0:
            self._look()
        self._check_parameters()
        return self._result(compile_seconds)

    def _compile(self) -> float:
        started = time.perf_counter()
        warm_up(self.config.backend, self.model.config, self.observer.compiling)
        return time.perf_counter() - started

    def _timed_step(self) -> None:
        started = time.perf_counter()
        loss = self._step()
        progress = self.progress
        progress.seconds += time.perf_counter() - started
        progress.step += 1
        if not math.isfinite(loss):
            raise FastlstmError(
                f"the loss is no longer a finite number at step {progress.step} ({loss}): lower the learning rate"
                f" (now {self.config.lr:g}), or clip gradients harder"
            )
        progress.loss = loss
        smoothing = self.config.smoothing
        progress.train_nats = smoothing * progress.train_nats + (1.0 - smoothing) * loss

    def _step(self) -> float:
        """One update; returns the loss before it, in nats a symbol."""
        config, size = self.config, self.x.size
        if self.lanes.next(self.x, self.y):
            self.state[...] = 0
        rate = config.rate(self.progress.step, self.progress.total)
        rule = UpdateRule(rate, config.clip_value, config.clip_norm)
        scale = 1.0 if config.reduction == "sum" else 1.0 / size
        nats = self.network.train_step(
            self.model.parameters, self.gradients, self.slots, self.x, self.y, self.state, scale, rule
        )
        return nats / size

    def _look(self) -> None:
        config, progress = self.config, self.progress
        if len(self.val_ids) >= 2 and self._due(config.eval_every):
            evaluation = self.model.evaluate(self.val_ids, backend=config.backend, threads=config.threads)
            progress.val_nats, progress.val_step = evaluation.nats_per_char, progress.step
            self.observer.validated(progress)
        if config.sample_length and self._due(config.sample_every):
            seed = config.seed + progress.step  # another sample each time
            text = self.model.sample(
                length=config.sample_length, seed=seed, backend=config.backend, threads=config.threads
            )
            self.observer.sampled(progress, text)

    def _due(self, every: int | None) -> bool:
        step, total = self.progress.step, self.progress.total
        if every is None:
            every = math.ceil(total / LOOKS)
        return step == total or (every > 0 and step % every == 0)

    def _check_parameters(self) -> None:
        """The last update is followed by no loss that would show what it broke."""
        for name, view in self.model.parameters.items():
            if not np.isfinite(view).all():
                raise FastlstmError(
                    f"the parameter {name} is no longer finite after {self.progress.step} steps: lower the learning"
                    f" rate (now {self.config.lr:g}), or clip gradients harder"
                )

    def _result(self, compile_seconds: float) -> TrainResult:
        progress = self.progress
        result = TrainResult(
            steps=progress.step,
            seconds=progress.seconds,
            chars_per_s=progress.chars_per_s,
            compile_seconds=compile_seconds,
            train_nats=progress.train_nats,
            val_nats=progress.val_nats,
            parameters=len(self.model.parameters.flat),
        )
        self.model.training = {
            "steps": result.steps,
            "seed": self.config.seed,
            "train_nats": result.train_nats,
            "val_nats": result.val_nats,
            "config": self.config.to_dict(),
        }
        return result
