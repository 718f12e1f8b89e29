"""The training loop: truncated BPTT over the lanes of a text, with validation and samples on the way.

What it computes depends on parameters, text and configuration alone: validation, samples and copies of the parameters
take generators, networks and states of their own, and change no bit of the result.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.backend import build, warm_up
from fastlstm.batches import Lanes
from fastlstm.config import TrainConfig
from fastlstm.errors import DivergenceError, FastlstmError, StoppedError, TextError
from fastlstm.model import Model
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.text import IdArray, split

#: Validations, and samples, in a run that does not say how often.
LOOKS = 10

#: Nats a symbol above log V at which training has diverged: the symbols that came were given, on average, less than
#: exp(-100) of the probability that guessing gives them, and float32 has no positive number below exp(-104).
DIVERGED_NATS = 100.0

#: Nats a symbol above log V from which a model is clearly worse than guessing, whatever the text of a few steps.
_WORSE_NATS = 1.0

#: Share of a run's time that copies of the parameters may take, and the seconds that the first is expected to take.
_COPYING_SHARE, _COPYING_SECONDS = 0.002, 0.001


def worse_than_guessing(nats: float, vocab_size: int) -> bool:
    """Whether a loss, in nats a symbol, is clearly above log V, that of a model that knows nothing."""
    return not nats <= math.log(vocab_size) + _WORSE_NATS


class Average:
    """The smoothed training loss: an exponential average, in which each loss weighs ``smoothing`` times the next one.

    It is divided by the sum of its weights, so that it is a mean of the losses there were, from the first on.

    Parameters
    ----------
    smoothing : from 0, which shows the last loss alone, to below 1.
    start : what it starts from instead, as if that had been the loss of all steps before the first (the assignment's
        rule, with log V); ``None``: from the first loss.
    """

    def __init__(self, smoothing: float, start: float | None = None) -> None:
        self._smoothing = smoothing
        self._sum, self._weight = (0.0, 0.0) if start is None else (start, 1.0)

    def add(self, loss: float) -> float:
        """Take a step's loss in; returns the average."""
        new = 1.0 - self._smoothing
        self._sum = self._smoothing * self._sum + new * loss
        self._weight = self._smoothing * self._weight + new
        return self._sum / self._weight


class Budget:
    """Keeps something that is done now and then to a share of the time.

    Parameters
    ----------
    share : of the time since the budget was made.
    expected : seconds that doing it for the first time will take; later the last time is the guide.
    """

    def __init__(self, share: float, expected: float) -> None:
        self._share, self._next = share, expected
        self._spent = 0.0
        self._made = time.perf_counter()

    def allows(self) -> bool:
        """Whether it can be done now."""
        return self._spent + self._next <= self._share * (time.perf_counter() - self._made)

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        """Measure what is done in this context."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._next = time.perf_counter() - started
            self._spent += self._next


@dataclass
class Progress:
    """Where a run is.

    Attributes
    ----------
    total : steps of the whole run.
    chars_per_step : T*B, symbols predicted in a step.
    step : steps done.
    loss : of the last step, nats a symbol.
    train_nats : the smoothed loss (`Average`), nats a symbol; before the first step log V, the loss of guessing.
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
        """The kernels are about to be compiled, which takes a while."""

    def started(self, progress: Progress) -> None:
        """The first step is about to be taken. ``progress`` is the same object throughout the run."""

    def stepped(self, progress: Progress) -> None:
        """A step has been taken."""

    def validated(self, progress: Progress) -> None:
        """The validation part has been evaluated."""

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        """A sample has been written."""

    def kept(self, progress: Progress, model: Model) -> None:
        """A copy of the model has been kept to go back to, and can be saved.

        ``model`` is that copy, some steps old: ``model.training["steps"]``. It is changed after this call.
        """


class Observers(Observer):
    """Tells several observers, in their order."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def compiling(self) -> None:
        for observer in self.observers:
            observer.compiling()

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

    def kept(self, progress: Progress, model: Model) -> None:
        for observer in self.observers:
            observer.kept(progress, model)


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Attributes
    ----------
    steps : done.
    seconds, chars_per_s : of the training steps themselves, without compiling, validation and samples.
    compile_seconds : spent on compiling the kernels, or on loading them.
    train_nats : the smoothed training loss (`Average`), nats a symbol.
    val_nats : of the last validation, which a run that is not stopped ends with; ``None`` before the first, or
        without a validation part.
    parameters : how many the model has.
    finished : whether all steps were done, rather than the run stopped.
    """

    steps: int
    seconds: float
    chars_per_s: float
    compile_seconds: float
    train_nats: float
    val_nats: float | None
    parameters: int
    finished: bool


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
    model : its parameters are the start and, changed in place, the result; ``model.training`` is set, whatever ends
        the run.
    ids : (N,) the text; its last ``config.val_frac`` is kept for validation.
    config : how to train.
    observer : is told of progress.
    stop : asked before each step, and within validation and samples, whether to end early.

    Raises
    ------
    TextError, ConfigError
        When the text is too short for any training, or for the lanes asked for.
    DivergenceError
        When a loss is no finite number or more than `DIVERGED_NATS` above that of guessing, or a parameter at the end
        is not finite. The model is then as it was at an earlier step, which the message names.
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
        self.guessing = math.log(model.config.vocab_size)
        self.lanes = Lanes(train_ids, config.seq_len, config.batch)
        self.gradients, self.slots = Parameters(model.config), Parameters(model.config)
        self.state = model.zero_state(config.batch)
        self.x = np.zeros((config.seq_len, config.batch), np.int32)
        self.y = np.zeros_like(self.x)
        total = config.total_steps(self.lanes.steps_per_epoch)
        self.progress = Progress(total, self.x.size, train_nats=self.guessing)
        self.average = Average(config.smoothing, self.guessing if config.smooth_from_guessing else None)

    def run(self, stop: Callable[[], bool]) -> TrainResult:
        compile_seconds = self._compile()
        config = self.config
        self.network = build(config.backend, self.model.config, config.seq_len, config.batch, config.threads)
        self.copies = _Copies(self.model)
        self.observer.started(self.progress)
        try:
            with contextlib.suppress(StoppedError):
                self._steps(stop)
            self._check_result()
        except DivergenceError:
            raise
        except BaseException:
            self.model.training = self._record()
            raise
        self.model.training = self._record()
        return self._result(compile_seconds)

    def _compile(self) -> float:
        started = time.perf_counter()
        warm_up(self.config.backend, self.model.config, self.observer.compiling)
        return time.perf_counter() - started

    def _steps(self, stop: Callable[[], bool]) -> None:
        progress = self.progress
        while progress.step < progress.total and not stop():
            self.copies.take_if_due(self._record)
            self._timed_step()
            if self.copies.confirm(progress.loss, self.model.config.vocab_size):
                self.observer.kept(progress, self.copies.good)
            self.observer.stepped(progress)
            self._look(stop)
        if progress.total == 0:
            self._look(stop)

    def _timed_step(self) -> None:
        started = time.perf_counter()
        loss = self._step()
        progress = self.progress
        progress.seconds += time.perf_counter() - started
        progress.step += 1
        progress.loss = loss
        self._check_loss(loss)
        progress.train_nats = self.average.add(loss)

    def _step(self) -> float:
        """One update; returns the loss before it, in nats a symbol."""
        config, size = self.config, self.x.size
        if self.lanes.next(self.x, self.y):
            self.state[...] = 0
        rule = UpdateRule(self._rate(self.progress.step), config.clip_value, config.clip_norm)
        scale = 1.0 if config.reduction == "sum" else 1.0 / size
        nats = self.network.train_step(
            self.model.parameters, self.gradients, self.slots, self.x, self.y, self.state, scale, rule
        )
        return nats / size

    def _rate(self, step: int) -> float:
        return self.config.rate(step, self.progress.total)

    def _look(self, stop: Callable[[], bool]) -> None:
        try:
            self._validate(stop)
            self._sample(stop)
        except FastlstmError as error:
            raise self._diverged(str(error)) from None

    def _validate(self, stop: Callable[[], bool]) -> None:
        config, progress = self.config, self.progress
        if len(self.val_ids) >= 2 and self._due(config.eval_every):
            evaluation = self.model.evaluate(self.val_ids, backend=config.backend, threads=config.threads, stop=stop)
            progress.val_nats, progress.val_step = evaluation.nats_per_char, progress.step
            self.observer.validated(progress)

    def _sample(self, stop: Callable[[], bool]) -> None:
        config, progress = self.config, self.progress
        if config.sample_length and self._due(config.sample_every):
            seed = config.seed + progress.step  # another sample each time
            text = self.model.sample(
                length=config.sample_length, seed=seed, backend=config.backend, threads=config.threads, stop=stop
            )
            self.observer.sampled(progress, text)

    def _due(self, every: int | None) -> bool:
        step, total = self.progress.step, self.progress.total
        if every is None:
            every = math.ceil(total / LOOKS)
        return step == total or (every > 0 and step % every == 0)

    def _check_loss(self, nats: float) -> None:
        if not math.isfinite(nats):
            raise self._diverged(f"the loss is no longer a finite number ({nats})")
        if nats > self.guessing + DIVERGED_NATS:
            raise self._diverged(f"the loss is {nats:.3g} nats a symbol, and that of guessing {self.guessing:.3g}")

    def _check_result(self) -> None:
        """The last update is followed by no step that would show what it broke."""
        if self.progress.step == 0:
            return
        for name, view in self.model.parameters.items():
            if not _all_finite(view):
                raise self._diverged(f"the parameter {name} is no longer finite")
        self._check_loss(self.network.forward(self.model.parameters, self.x, self.y, self.state.copy()) / self.x.size)

    def _diverged(self, why: str) -> DivergenceError:
        """The error to raise, after the model has been given back the parameters that were good."""
        good = self.copies.good
        self.model.parameters.flat[...] = good.parameters.flat
        self.model.training = good.training
        step = self.copies.step
        back = f"as it was at step {step:,}" if step else "as it was before the run"
        now = self.progress.step
        rate = self._rate(max(now - 1, 0))
        return DivergenceError(
            f"training diverged at step {now} with a learning rate of {rate:.3g}: {why}; the model is {back}: lower the"
            f" learning rate (now {self.config.lr:g}), or clip gradients harder"
        )

    def _record(self) -> dict[str, Any]:
        """What is kept in the model's file about the run, as it is now."""
        progress = self.progress
        return {
            "steps": progress.step,
            "finished": progress.step == progress.total,
            "seed": self.config.seed,
            "train_nats": progress.train_nats,
            "val_nats": progress.val_nats,
            "config": self.config.to_dict(),
        }

    def _result(self, compile_seconds: float) -> TrainResult:
        progress = self.progress
        return TrainResult(
            steps=progress.step,
            seconds=progress.seconds,
            chars_per_s=progress.chars_per_s,
            compile_seconds=compile_seconds,
            train_nats=progress.train_nats,
            val_nats=progress.val_nats,
            parameters=len(self.model.parameters.flat),
            finished=progress.step == progress.total,
        )


class _Copies:
    """Copies of a model in training, to go back to when it diverges.

    The loss of a step is that of the parameters before it. So a copy is taken before a step and is good if, and when,
    the step's loss is.

    Attributes
    ----------
    good : the last good copy, at first of the model before the run, good or not; step : when it was taken.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.good, self._new = _copy(model), _copy(model)
        self.step = 0
        self._taken = False
        self._budget = Budget(_COPYING_SHARE, _COPYING_SECONDS)

    def take_if_due(self, record: Callable[[], dict[str, Any]]) -> None:
        """Copy the model, with ``record()`` as its history, if there is time for it."""
        if not self._budget.allows():
            return
        with self._budget.spending():
            self._new.parameters.flat[...] = self._model.parameters.flat
            self._taken = _all_finite(self._new.parameters.flat)
        self._new.training = record()

    def confirm(self, loss: float, vocab_size: int) -> bool:
        """Judge the copy taken before the last step, if any, by the step's loss; returns whether there is a new one."""
        if not self._taken:
            return False
        self._taken = False
        if worse_than_guessing(loss, vocab_size):
            return False
        self.good, self._new = self._new, self.good
        assert self.good.training is not None
        self.step = self.good.training["steps"]
        return True


def _copy(model: Model) -> Model:
    copy = Model(model.config, model.vocab, Parameters(model.config, model.parameters.flat.copy()))
    copy.training = model.training
    return copy


def _all_finite(values: FloatArray) -> bool:
    """Whether no value is infinite or NaN, found without an array of as many answers."""
    return math.isfinite(float(values.min())) and math.isfinite(float(values.max()))
