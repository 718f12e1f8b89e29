"""The training loop: truncated BPTT over the lanes of a text, with periodic validation and samples.

Its result depends only on parameters, text and configuration: validation, samples and copies of the parameters use
their own generators, networks and states, and do not change a bit of it.
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
from fastlstm.config import ModelConfig, SampleConfig, TrainConfig
from fastlstm.errors import DivergenceError, FastlstmError, StoppedError, TextError
from fastlstm.inference import Inference, Networks, beginning
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.run_state import RunState
from fastlstm.text import IdArray, Vocab, split

#: Number of validations, and of samples, in a run whose configuration does not set it.
LOOKS = 10

#: Nats per symbol above log V from which training has diverged: the targets then have, on average, less than exp(-100)
#: of the probability that guessing gives them, and float32 has no positive number below exp(-104).
DIVERGED_NATS = 100.0

#: Nats per symbol above log V from which a model is clearly worse than guessing, even on the text of a few steps.
_WORSE_NATS = 1.0

#: Fraction of a run's time that copies of the parameters may take, and the expected seconds for the first copy.
_COPYING_SHARE, _COPYING_SECONDS = 0.002, 0.001


def guessing_nats(config: ModelConfig) -> float:
    """The loss of uniform guessing, log V, in nats per symbol."""
    return math.log(config.vocab_size)


def worse_than_guessing(nats: float, vocab_size: int) -> bool:
    """Whether a loss, in nats per symbol, is NaN or clearly above log V, the loss of uniform guessing."""
    return not nats <= math.log(vocab_size) + _WORSE_NATS


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


class Progress:
    """A read-only view of the progress of a run: numbers of its state, and those derived from them.

    Parameters
    ----------
    state : of the run; attributes reflect its current values.
    total : number of steps of the whole run.
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
    def val_step(self) -> int | None:
        """Step of the last validation; ``None`` before the first."""
        return self._state.val_step

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

    def started(self, progress: Progress) -> None:
        """The first step is about to be taken. All calls get the same ``progress``."""

    def stepped(self, progress: Progress) -> None:
        """A step has been taken."""

    def validated(self, progress: Progress) -> None:
        """The validation part has been evaluated."""

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        """A sample has been generated."""

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
    """The result of a run.

    Attributes
    ----------
    steps : number of steps done.
    seconds, chars_per_s : time and speed of the training steps, without compiling, validation and samples.
    compile_seconds : time spent on compiling the kernels, or on loading them.
    train_nats : the smoothed training loss (`RunState.smooth`), nats per symbol.
    val_nats : loss of the last validation, nats per symbol; a run that is not stopped ends with one. ``None`` without
        a validation.
    parameters : number of parameters of the model.
    finished : whether all steps were done; false if the run was stopped.
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
    """Prepare a run; `Run.train` then takes its steps.

    Parameters
    ----------
    start : the model; the run changes its parameters in place.
    ids : (N,) the text, each id in range; its last ``config.val_frac`` is used for validation.
    config : settings of the run.
    observer : its methods are called as the run progresses.

    Raises
    ------
    TextError, ConfigError
        When the text is too short to train on, or too short for ``seq_len`` and ``batch``.
    """
    train_ids, val_ids = split(ids, config.val_frac)
    if len(train_ids) < 2:
        raise TextError(
            f"at least two characters are needed for training, but the text leaves {len(train_ids)}: give more text,"
            f" or use less of it for validation (now {config.val_frac:g})"
        )
    lanes = Lanes(train_ids, config.seq_len, config.batch)
    first_loss = guessing_nats(start.config) if config.smooth_from_guessing else None
    state = RunState.start(start.parameters, config.batch, UpdateRule(config.lr).slots, first_loss)
    return Run(state, lanes, val_ids, start.vocab, config, observer, start.training)


class Steps:
    """Takes the steps of a run.

    Parameters
    ----------
    model : configuration of the model.
    lanes : the training text.
    config : settings of the run.
    total : number of steps of the whole run.
    """

    def __init__(self, model: ModelConfig, lanes: Lanes, config: TrainConfig, total: int) -> None:
        self._lanes, self._config, self._total = lanes, config, total
        self._network = build(config.backend, model, config.seq_len, config.batch, config.threads)
        self._gradients = Parameters(model)
        self._x = np.zeros((config.seq_len, config.batch), np.int32)
        self._y = np.zeros_like(self._x)

    def take(self, state: RunState) -> None:
        """Take one step; ``state`` changes in place. The loss is that before the update."""
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
        """The loss of the last step's symbols after its update, nats per symbol; ``state`` is not changed."""
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
    """One training run: its steps, and what is done before, between and after them.

    Parameters
    ----------
    state : of the run; changed in place. After a `DivergenceError` only its parameters are valid.
    lanes, val_ids : the text to train on, and (N,) the ids for validation.
    vocab : of the model.
    config : settings of the run.
    observer : its methods are called as the run progresses.
    training : record of the model's training before the run; ``None`` if there is none.

    Attributes
    ----------
    state : as given.
    training : record of the model's training; that of this run once it has ended.
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
        """Take all remaining steps, or those until ``stop``, which is called before each of them, returns true.

        Raises
        ------
        DivergenceError
            When a loss is not finite or more than `DIVERGED_NATS` above that of guessing, or a parameter is not finite
            at the end. The parameters are then restored to an earlier step, which the message names.
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
        """Validate and sample, if due."""
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
            seed = config.seed + self.state.step  # a different sample each time
            sampling = SampleConfig(length=config.sample_length, seed=seed)
            ids = self._inference.draw(beginning(self._vocab), sampling)
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
            raise self._diverged(f"the loss is {nats:.3g} nats per symbol, that of guessing {self._guessing:.3g}")

    def _check_result(self) -> None:
        """Check the parameters after the last update, which no further step would check."""
        if self.state.step == self._first_step:
            return
        for name, view in self.state.parameters.items():
            if not _all_finite(view):
                raise self._diverged(f"the parameter {name} is no longer finite")
        self._check_loss(self._steps.loss_after(self.state))

    def _diverged(self, why: str) -> DivergenceError:
        """Restore the last good parameters; returns the error to raise."""
        good, step, now = self._copies.good, self._copies.step, self.state.step
        self.state.parameters.flat[...] = good.parameters.flat
        self.training = good.training
        back = f"step {step:,}" if step else "its state before the run"
        rate = self._steps.rate(max(now - 1, 0))
        return DivergenceError(
            f"training diverged at step {now} with a learning rate of {rate:.3g}: {why}; the model was restored to"
            f" {back}: lower the learning rate (now {self._config.lr:g}), or clip gradients harder"
        )

    def _record(self) -> dict[str, Any]:
        """The record of the run so far, for the model file."""
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
    """Copies of the parameters during training, to restore when it diverges.

    The loss of a step is that of the parameters before it. So a copy is taken before a step, and confirmed as good by
    the loss of that step.

    Parameters
    ----------
    start : the model before the run; its parameters are those being trained.
    step : at which the run starts.

    Attributes
    ----------
    good : the last good copy; at first the model before the run, which is not checked.
    step : the step of that copy.
    """

    def __init__(self, start: Content, step: int) -> None:
        self._parameters = start.parameters
        self.good, self._new = _copy(start), _copy(start)
        self.step = step
        self._taken = False
        self._budget = Budget(_COPYING_SHARE, _COPYING_SECONDS)

    def take_if_due(self, record: Callable[[], dict[str, Any]]) -> None:
        """Copy the parameters, with ``record()`` as their training record, if the budget allows it."""
        if not self._budget.allows():
            return
        with self._budget.spending():
            self._new.parameters.flat[...] = self._parameters.flat
            self._taken = _all_finite(self._new.parameters.flat)
        self._new = self._new._replace(training=record())

    def confirm(self, loss: float, vocab_size: int) -> bool:
        """Accept or discard the copy taken before the last step, by that step's loss; returns whether it is good."""
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
    """Whether all values are finite, computed without a temporary array."""
    return math.isfinite(float(values.min())) and math.isfinite(float(values.max()))
