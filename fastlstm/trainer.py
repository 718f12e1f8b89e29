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
from fastlstm.checkpoint import Content
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.errors import DivergenceError, FastlstmError, StoppedError, TextError
from fastlstm.inference import Inference, Networks, beginning
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.run_state import RunState
from fastlstm.text import IdArray, Vocab, split

#: Validations, and samples, in a run that does not say how often.
LOOKS = 10

#: Nats a symbol above log V at which training has diverged: the symbols that came were given, on average, less than
#: exp(-100) of the probability that guessing gives them, and float32 has no positive number below exp(-104).
DIVERGED_NATS = 100.0

#: Nats a symbol above log V from which a model is clearly worse than guessing, whatever the text of a few steps.
_WORSE_NATS = 1.0

#: Share of a run's time that copies of the parameters may take, and the seconds that the first is expected to take.
_COPYING_SHARE, _COPYING_SECONDS = 0.002, 0.001


def guessing_nats(config: ModelConfig) -> float:
    """The loss of guessing, log V, in nats a symbol."""
    return math.log(config.vocab_size)


def worse_than_guessing(nats: float, vocab_size: int) -> bool:
    """Whether a loss, in nats a symbol, is clearly above log V, that of a model that knows nothing."""
    return not nats <= math.log(vocab_size) + _WORSE_NATS


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


class Progress:
    """Where a run is, for whoever shows it: its state's numbers, and what follows from them.

    Parameters
    ----------
    state : of the run; what is read here is what it is now.
    total : steps of the whole run.
    chars_per_step : T*B, symbols predicted in a step.

    Attributes
    ----------
    total, chars_per_step : as given.
    """

    def __init__(self, state: RunState, total: int, chars_per_step: int) -> None:
        self._state = state
        self.total, self.chars_per_step = total, chars_per_step

    @property
    def step(self) -> int:
        """Steps done."""
        return self._state.step

    @property
    def loss(self) -> float:
        """Of the last step, nats a symbol; NaN before the first."""
        return self._state.loss

    @property
    def train_nats(self) -> float:
        """The smoothed loss (`RunState.smooth`), nats a symbol; before the first step log V, the loss of guessing."""
        smoothed = self._state.smoothed_loss
        return guessing_nats(self._state.parameters.config) if smoothed is None else smoothed

    @property
    def val_nats(self) -> float | None:
        """Of the last validation, nats a symbol; ``None`` before the first."""
        return self._state.val_nats

    @property
    def val_step(self) -> int | None:
        """When the last validation was; ``None`` before the first."""
        return self._state.val_step

    @property
    def seconds(self) -> float:
        """Spent in training steps."""
        return self._state.seconds

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

    def kept(self, progress: Progress, content: Content) -> None:
        """A copy of the parameters has been kept to go back to, and `fastlstm.checkpoint.save` can write it.

        ``content`` is what the model's file would hold, with that copy, some steps old: ``content.training["steps"]``.
        Its parameters are changed after this call.
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

    def kept(self, progress: Progress, content: Content) -> None:
        for observer in self.observers:
            observer.kept(progress, content)


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Attributes
    ----------
    steps : done.
    seconds, chars_per_s : of the training steps themselves, without compiling, validation and samples.
    compile_seconds : spent on compiling the kernels, or on loading them.
    train_nats : the smoothed training loss (`RunState.smooth`), nats a symbol.
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


def begin(start: Content, ids: IdArray, config: TrainConfig, observer: Observer) -> Run:
    """A run before its first step.

    Parameters
    ----------
    start : the model; its parameters are the start and, changed in place, the result.
    ids : (N,) the text, each id in range; its last ``config.val_frac`` is kept for validation.
    config : how to train.
    observer : is told of progress.

    Raises
    ------
    TextError, ConfigError
        When the text is too short for any training, or for the lanes asked for.
    """
    train_ids, val_ids = split(ids, config.val_frac)
    if len(train_ids) < 2:
        raise TextError(
            f"the text leaves {len(train_ids)} of the at least two characters that training needs: give more text,"
            f" or keep less of it for validation (now {config.val_frac:g})"
        )
    lanes = Lanes(train_ids, config.seq_len, config.batch)
    first_loss = guessing_nats(start.config) if config.smooth_from_guessing else None
    state = RunState.start(start.parameters, config.batch, UpdateRule(config.lr).slots, first_loss)
    return Run(state, lanes, val_ids, start.vocab, config, observer, start.training)


class Steps:
    """The steps of a run: each advances its state.

    Parameters
    ----------
    model : configuration of the model.
    lanes : the text.
    config : how to train.
    total : steps of the whole run.
    """

    def __init__(self, model: ModelConfig, lanes: Lanes, config: TrainConfig, total: int) -> None:
        self._lanes, self._config, self._total = lanes, config, total
        self._network = build(config.backend, model, config.seq_len, config.batch, config.threads)
        self._gradients = Parameters(model)
        self._x = np.zeros((config.seq_len, config.batch), np.int32)
        self._y = np.zeros_like(self._x)

    def take(self, state: RunState) -> None:
        """Take one step; ``state`` changes in place, its loss is that before the update."""
        started = time.perf_counter()
        config, lanes, x, y = self._config, self._lanes, self._x, self._y
        lanes.cursor = state.cursor
        if lanes.next(x, y):
            state.carried[...] = 0
        scale = 1.0 if config.reduction == "sum" else 1.0 / x.size
        nats = self._network.train_step(
            state.parameters, self._gradients, state.slots, x, y, state.carried, scale, self._rule(state.step)
        )
        state.loss = float(nats / x.size)
        state.seconds += time.perf_counter() - started
        state.step += 1
        state.cursor = lanes.cursor
        state.smooth(config.smoothing)

    def loss_after(self, state: RunState) -> float:
        """The loss that the last step's symbols have now, nats a symbol; ``state`` is not changed."""
        nats = self._network.forward(state.parameters, self._x, self._y, state.carried.copy())
        return nats / self._x.size

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return self._config.rate(step, self._total)

    def _rule(self, step: int) -> UpdateRule:
        config = self._config
        bounds = (math.inf if bound is None else bound for bound in (config.clip_value, config.clip_norm))
        return UpdateRule(self.rate(step), *bounds)


class Run:
    """One run: what happens before, between and after its steps.

    Parameters
    ----------
    state : where the run is; it is advanced in place. After a `DivergenceError` only its parameters are good.
    lanes, val_ids : the text to train on, and (N,) the ids to validate with.
    vocab, training : the model's; how it came about before the run.
    config : how to train.
    observer : is told of progress.

    Attributes
    ----------
    state : as given.
    training : how the model came about, with this run once it has ended.
    """

    def __init__(
        self,
        state: RunState,
        lanes: Lanes,
        val_ids: IdArray,
        vocab: Vocab,
        config: TrainConfig,
        observer: Observer,
        training: dict[str, Any] | None = None,
    ) -> None:
        self.state, self.training = state, training
        self._lanes, self._val_ids, self._vocab = lanes, val_ids, vocab
        self._config, self._observer = config, observer
        self._model = state.parameters.config
        self._guessing = guessing_nats(self._model)
        self._progress = Progress(state, config.total_steps(lanes.steps_per_epoch), config.seq_len * config.batch)

    def train(self, stop: Callable[[], bool]) -> TrainResult:
        """Take all steps that are left, or those until ``stop`` says so; it is asked before each.

        Raises
        ------
        DivergenceError
            When a loss is no finite number or more than `DIVERGED_NATS` above that of guessing, or a parameter at the
            end is not finite. The parameters are then those of an earlier step, which the message names.
        """
        config, state = self._config, self.state
        compile_seconds = self._compile()
        self._steps = Steps(self._model, self._lanes, config, self._progress.total)
        self._inference = Inference(Networks(self._model), state.parameters, config.backend, config.threads, stop)
        self._copies = _Copies(Content(self._model, self._vocab, state.parameters, self.training), state.step)
        self._first_step = state.step
        self._observer.started(self._progress)
        try:
            with contextlib.suppress(StoppedError):
                self._take_steps(stop)
            self._check_result()
        except DivergenceError:
            raise
        except BaseException:
            self.training = self._record()
            raise
        self.training = self._record()
        return self._result(compile_seconds)

    def _compile(self) -> float:
        started = time.perf_counter()
        warm_up(self._config.backend, self._model, self._observer.compiling)
        return time.perf_counter() - started

    def _take_steps(self, stop: Callable[[], bool]) -> None:
        state, total = self.state, self._progress.total
        while state.step < total and not stop():
            self._copies.take_if_due(self._record)
            self._steps.take(state)
            self._check_loss(state.loss)
            if self._copies.confirm(state.loss, self._model.vocab_size):
                self._observer.kept(self._progress, self._copies.good)
            self._observer.stepped(self._progress)
            self._measure()
        if total == 0:
            self._measure()

    def _measure(self) -> None:
        """Validate and sample, whatever is due."""
        try:
            self._validate()
            self._sample()
        except FastlstmError as error:
            raise self._diverged(str(error)) from None

    def _validate(self) -> None:
        state = self.state
        if len(self._val_ids) >= 2 and self._due(self._config.eval_every):
            state.val_nats, state.val_step = self._inference.evaluate(self._val_ids).nats_per_char, state.step
            self._observer.validated(self._progress)

    def _sample(self) -> None:
        config = self._config
        if config.sample_length and self._due(config.sample_every):
            seed = config.seed + self.state.step  # another sample each time
            start = beginning(self._vocab)
            ids = self._inference.draw(start, 1, config.sample_length, temperature=1.0, seed=seed)
            self._observer.sampled(self._progress, self._vocab.decode(ids[:, 0]))

    def _due(self, every: int | None) -> bool:
        step, total = self.state.step, self._progress.total
        if every is None:
            every = math.ceil(total / LOOKS)
        return step == total or (every > 0 and step % every == 0)

    def _check_loss(self, nats: float) -> None:
        if not math.isfinite(nats):
            raise self._diverged(f"the loss is no longer a finite number ({nats})")
        if nats > self._guessing + DIVERGED_NATS:
            raise self._diverged(f"the loss is {nats:.3g} nats a symbol, and that of guessing {self._guessing:.3g}")

    def _check_result(self) -> None:
        """The last update is followed by no step that would show what it broke."""
        if self.state.step == self._first_step:
            return
        for name, view in self.state.parameters.items():
            if not _all_finite(view):
                raise self._diverged(f"the parameter {name} is no longer finite")
        self._check_loss(self._steps.loss_after(self.state))

    def _diverged(self, why: str) -> DivergenceError:
        """The error to raise, after the parameters have been set to those that were good."""
        good, step, now = self._copies.good, self._copies.step, self.state.step
        self.state.parameters.flat[...] = good.parameters.flat
        self.training = good.training
        back = f"as it was at step {step:,}" if step else "as it was before the run"
        rate = self._steps.rate(max(now - 1, 0))
        return DivergenceError(
            f"training diverged at step {now} with a learning rate of {rate:.3g}: {why}; the model is {back}: lower the"
            f" learning rate (now {self._config.lr:g}), or clip gradients harder"
        )

    def _record(self) -> dict[str, Any]:
        """What is kept in the model's file about the run, as it is now."""
        progress = self._progress
        return {
            "steps": progress.step,
            "finished": progress.step == progress.total,
            "seed": self._config.seed,
            "train_nats": progress.train_nats,
            "val_nats": progress.val_nats,
            "config": self._config.to_dict(),
        }

    def _result(self, compile_seconds: float) -> TrainResult:
        progress = self._progress
        return TrainResult(
            steps=progress.step,
            seconds=progress.seconds,
            chars_per_s=progress.chars_per_s,
            compile_seconds=compile_seconds,
            train_nats=progress.train_nats,
            val_nats=progress.val_nats,
            parameters=self.state.parameters.flat.size,
            finished=progress.step == progress.total,
        )


class _Copies:
    """Copies of the parameters in training, to go back to when it diverges.

    The loss of a step is that of the parameters before it. So a copy is taken before a step and is good if, and when,
    the step's loss is.

    Parameters
    ----------
    start : the model before the run, whose parameters are those in training.
    step : at which the run starts.

    Attributes
    ----------
    good : the last good copy, at first of the model before the run, good or not; step : when it was taken.
    """

    def __init__(self, start: Content, step: int) -> None:
        self._parameters = start.parameters
        self.good, self._new = _copy(start), _copy(start)
        self.step = step
        self._taken = False
        self._budget = Budget(_COPYING_SHARE, _COPYING_SECONDS)

    def take_if_due(self, record: Callable[[], dict[str, Any]]) -> None:
        """Copy the parameters, with ``record()`` as their history, if there is time for it."""
        if not self._budget.allows():
            return
        with self._budget.spending():
            self._new.parameters.flat[...] = self._parameters.flat
            self._taken = _all_finite(self._new.parameters.flat)
        self._new = self._new._replace(training=record())

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


def _copy(content: Content) -> Content:
    return content._replace(parameters=Parameters(content.config, content.parameters.flat.copy()))


def _all_finite(values: FloatArray) -> bool:
    """Whether no value is infinite or NaN, found without an array of as many answers."""
    return math.isfinite(float(values.min())) and math.isfinite(float(values.max()))
