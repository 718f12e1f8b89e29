"""The training loop: truncated BPTT over the lanes of a text, with periodic validation and samples.

The steps depend only on parameters, text and configuration: samples, and validations that are only shown, use their own
generators, networks and states, and do not change a bit. The checks, validations at fixed steps, choose the best model;
they change the steps only with early stopping and the schedule "plateau".
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm import schedules
from fastlstm.backend import build, warm_up
from fastlstm.batches import Lanes
from fastlstm.checkpoint import Content
from fastlstm.config import MOST_STEPS, ModelConfig, SampleConfig, TrainConfig
from fastlstm.contract import StepResult
from fastlstm.dropout import Dropout
from fastlstm.errors import ConfigError, DivergenceError, FastlstmError, StoppedError, TextError
from fastlstm.inference import Estimate, Inference, Networks, beginning
from fastlstm.observers import Observer, Progress, guessing_nats
from fastlstm.params import Parameters
from fastlstm.recovery import DIVERGED_NATS, MOST_RECOVERIES, RECOVERY_FACTOR, Copies, all_finite, broken
from fastlstm.run_state import RunState
from fastlstm.text import IdArray, Vocab, split

#: Number of samples in a run whose configuration does not set it.
_SAMPLES = 10

#: Symbols that a validation during the run reads, as a fraction of those trained on since the last one: reading takes
#: a third of the time of training, so validations take about 2 % of the run.
_VALIDATED_SHARE = 0.06

#: A run of so many minutes measures its speed for so many seconds, after a few steps in which the number of workers
#: settles. Of the time that is left, the steps themselves get `_STEPS_SHARE`: checks, samples and copies take about
#: 3 %, and the first second was often 5 to 9 % faster than the whole run.
_MEASURED_SECONDS, _SETTLING_STEPS, _STEPS_SHARE = 1.0, 3, 0.9

#: Symbols read to estimate the time of the last validation, which is exact.
_READ_SYMBOLS = 1024

#: Seconds of such a run that are kept for its last sample and for saving the model.
_ENDING_SECONDS = 0.3


@dataclass(frozen=True)
class TrainResult:
    """The result of a run.

    Attributes
    ----------
    steps : number of steps done.
    seconds, chars_per_s : time and speed of the training steps, without compiling, validation and samples.
    compile_seconds : time spent on compiling the kernels, or on loading them.
    train_nats : the smoothed training loss (`RunState.smooth`), nats per symbol.
    val_nats : loss of the last validation, nats per symbol; a run that is not stopped ends with an exact one, of the
        model that it leaves. ``None`` without a validation.
    model_step : step of the model that the run leaves: the last one, or that of the best check.
    parameters : number of parameters of the model.
    finished : whether the run ended by itself: after all steps, or early for lack of patience.
    """

    steps: int
    seconds: float
    chars_per_s: float
    compile_seconds: float
    train_nats: float
    val_nats: float | None
    model_step: int
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
        When the text is too short to train on, or too short for ``seq_len`` and ``batch``; or when patience or the
        schedule "plateau" need a validation part, and there is none.
    """
    train_ids, val_ids = split(ids, config.val_frac)
    if len(train_ids) < 2:
        raise TextError(
            f"at least two characters are needed for training, but the text leaves {len(train_ids)}: give more text,"
            f" or use less of it for validation (now {config.val_frac:g})"
        )
    if len(val_ids) < 2 and (config.patience is not None or config.schedule == "plateau"):
        raise ConfigError("patience and the schedule plateau need a part for validation: give val_frac, or more text")
    lanes = Lanes(train_ids, config.seq_len, config.batch)
    first_loss = guessing_nats(start.config) if config.smooth_from_guessing else None
    state = RunState.start(start.parameters, config.batch, config.rule(0.0).slots, first_loss)
    return Run(state, lanes, val_ids, start.vocab, config, observer, start.training)


class Steps:
    """Takes the steps of a run.

    Parameters
    ----------
    model : configuration of the model.
    lanes : the training text.
    config : settings of the run.
    total : number of steps of the whole run.

    Attributes
    ----------
    total : as given; it can be set when it becomes known.
    gradients : of the last step.
    """

    def __init__(self, model: ModelConfig, lanes: Lanes, config: TrainConfig, total: int) -> None:
        self._lanes, self._config = lanes, config
        self.total = total
        dropout = Dropout(
            config.dropout_embedding, config.dropout_layers, config.dropout_output, config.dropout_held, config.seed
        )
        self._network = build(config.backend, model, config.seq_len, config.batch, config.threads, dropout=dropout)
        self.gradients = Parameters(model)
        self._x = np.zeros((config.seq_len, config.batch), np.int32)
        self._y = np.zeros_like(self._x)

    def take(self, state: RunState) -> StepResult:
        """Take one step; ``state`` changes in place. The loss is that before the update."""
        started = time.perf_counter()
        config, lanes, x, y = self._config, self._lanes, self._x, self._y
        lanes.cursor = state.cursor
        if lanes.next(x, y):
            state.carried[...] = 0
        scale = 1.0 if config.reduction == "sum" else 1.0 / x.size
        result = self._network.train_step(
            state.parameters, self.gradients, state.slots, x, y, state.carried, scale,
            config.rule(self.rate(state, state.step), state.step), state.step,
        )  # fmt: skip
        state.loss = float(result.nats / x.size)
        state.seconds += time.perf_counter() - started
        state.step += 1
        state.cursor = lanes.cursor
        state.smooth(config.smoothing)
        return result

    def loss_after(self, state: RunState) -> float:
        """The loss of the last step's symbols after its update, nats per symbol; ``state`` is not changed."""
        nats = self._network.forward(state.parameters, self._x, self._y, state.carried.copy())
        return nats / self._x.size

    def rate(self, state: RunState, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        return state.rate_factor * schedules.rate(self._config, step, self.total)

    def seconds_per_step(self, state: RunState, stop: Callable[[], bool]) -> float:
        """Measure the speed with steps on a copy of ``state``, which is not changed."""
        trial = state.copy()
        while trial.step < state.step + _SETTLING_STEPS and trial.seconds < _MEASURED_SECONDS and not stop():
            self.take(trial)
        first, trial.seconds = trial.step, 0.0
        self.take(trial)
        while trial.seconds < _MEASURED_SECONDS and not stop():
            self.take(trial)
        return trial.seconds / (trial.step - first)


class _DivergedError(Exception):
    """Training has diverged, for the reason that the message states."""


class Run:
    """One training run: its steps, and what is done before, between and after them.

    Parameters
    ----------
    state : of the run; changed in place. Its parameters are finally those of the model that the run leaves.
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
        total = 0 if config.minutes else config.total_steps(lanes.steps_per_epoch)
        self._progress = Progress(state, total, config.seq_len * config.batch)
        self._best: Parameters | None = None  # those of the best check
        self._model_step: int | None = None  # step of the parameters that the run leaves, if not the last

    def train(self, stop: Callable[[], bool], started: float | None = None) -> TrainResult:
        """Take all remaining steps, or those until ``stop``, which is called before each of them, returns true.

        A run that diverges goes back to an earlier step and goes on with a lower rate, `MOST_RECOVERIES` times at most.

        Parameters
        ----------
        stop : whether to end the run early.
        started : `time.perf_counter` at the start of the minutes of the configuration; ``None``: now.

        Raises
        ------
        DivergenceError
            When a loss, gradient, parameter or slot is not finite, or a loss is more than `DIVERGED_NATS` above that of
            guessing, once too often. The parameters are then those of the best check, or of an earlier step, which the
            message names.
        """
        started = time.perf_counter() if started is None else started
        compile_seconds, compiled = self._compile()
        self._steps = Steps(self._model, self._lanes, self._config, self._progress.total)
        self._inference = Inference(
            Networks(self._model), self.state.parameters, self._config.backend, self._config.threads, stop
        )
        if self._config.minutes:
            self._plan(started + compiled * compile_seconds + 60 * self._config.minutes, stop)
        self._copies = Copies(self.state, self._progress.chars_per_step)
        self._first_step = self.state.step
        self._observer.started(self._progress)
        try:
            self._train(stop)
        except DivergenceError:
            raise
        except BaseException:
            self.training = self._record(self.state)
            raise
        self.training = self._record(self.state)
        return self._result(compile_seconds)

    def _compile(self) -> tuple[float, bool]:
        """Seconds spent on compiling the kernels or on loading them, and whether any was compiled."""
        started, announced = time.perf_counter(), []

        def compiling() -> None:
            announced.append(True)
            self._observer.compiling()

        warm_up(self._config.backend, self._model, compiling)
        return time.perf_counter() - started, bool(announced)

    def _plan(self, deadline: float, stop: Callable[[], bool]) -> None:
        """Fix the number of steps, so that the run ends at about ``deadline``, unless it is stopped meanwhile."""
        self._steps.total = MOST_STEPS  # for the rate of the measured steps, which are not kept
        seconds, reading = self._steps.seconds_per_step(self.state, stop), 0.0
        with contextlib.suppress(StoppedError, FastlstmError):
            reading = self._reading_seconds()
        left = deadline - time.perf_counter() - reading - _ENDING_SECONDS
        self._progress.total = self._steps.total = max(1, math.floor(_STEPS_SHARE * left / seconds))
        self._config = dataclasses.replace(self._config, minutes=None, steps=self._progress.total)
        self._observer.planned(self._progress, self._progress.chars_per_step / seconds)

    def _reading_seconds(self) -> float:
        """Estimated seconds of the exact validation at the end."""
        part = self._val_ids[: _READ_SYMBOLS + 1]
        if len(part) < 2:
            return 0.0
        self._inference.evaluate(part)  # the first evaluation allocates networks
        started = time.perf_counter()
        self._inference.evaluate(part)
        return (time.perf_counter() - started) * len(self._val_ids) / len(part)

    def _train(self, stop: Callable[[], bool]) -> None:
        """Take the steps, going back when they diverge; then leave the best model."""
        chosen = False
        with contextlib.suppress(StoppedError):
            self._take_all_steps(stop)
            if self._ended() and not stop():
                self._choose_exactly()
                chosen = True
                self._sample()
        if not chosen and self.state.worse:  # else the steps since the best check may have improved the model
            self._leave_best(self.state.best_nats)

    def _take_all_steps(self, stop: Callable[[], bool]) -> None:
        while True:
            try:
                self._take_steps(stop)
                self._check_result()
                return
            except _DivergedError as found:
                self._go_back(str(found))

    def _take_steps(self, stop: Callable[[], bool]) -> None:
        state = self.state
        while not self._ended() and not stop():
            self._copies.take_if_due(state)
            self._check_step(self._steps.take(state))
            if self._copies.confirm(state.loss):
                good = self._copies.good
                self._observer.kept(self._progress, self._content(good.parameters, self._record(good)))
            self._observer.stepped(self._progress)
            self._validate()
            if not self._ended():  # the last sample is that of the model that the run leaves
                self._sample()

    def _ended(self) -> bool:
        state, patience = self.state, self._config.patience
        return state.step >= self._progress.total or (patience is not None and state.worse >= patience)

    def _validate(self) -> None:
        """Estimate the validation loss, if a check is due, or a validation to be shown."""
        config, state, total = self._config, self.state, self._progress.total
        if len(self._val_ids) < 2:
            return
        every = self._every(config.checks)
        is_check = _due(state.step, total, every)
        found = self._check(every) if is_check else None
        if self._ended():  # the last validation is exact
            return
        if config.eval_every is not None:
            is_shown = _due(state.step, total, config.eval_every)
            found = (found or self._estimate(config.eval_every)) if is_shown else None
        if found is not None:
            state.val_nats, state.val_error, state.val_step = found.nats_per_char, found.error or None, state.step
            self._observer.validated(self._progress)

    def _check(self, every: int) -> Estimate:
        """A check: keep the parameters if they are the best so far; the schedule "plateau" may lower the rate."""
        state, config = self.state, self._config
        found = self._estimate(every)
        if found is None:
            raise _DivergedError("the validation loss is not a finite number")
        if state.judge(found.nats_per_char):
            self._best = self._best or Parameters(self._model)
            self._best.flat[...] = state.parameters.flat
        elif config.schedule == "plateau" and state.stalled >= config.decay_patience:
            state.rate_factor, state.stalled = state.rate_factor * config.decay_factor, 0
        return found

    def _estimate(self, every: int) -> Estimate | None:
        """The validation loss, as exact as one in ``every`` steps can be at little cost; ``None``: it is not finite."""
        try:
            return self._inference.estimate(
                self._val_ids, math.ceil(_VALIDATED_SHARE * every * self._progress.chars_per_step)
            )
        except FastlstmError:
            return None

    def _choose_exactly(self) -> None:
        """Leave the last model or that of the best check, whichever predicts the validation part better."""
        state = self.state
        if len(self._val_ids) < 2:
            return
        nats, best = self._exact(state.parameters), math.inf
        if state.worse and self._best is not None:
            best = self._exact(self._best)
        state.val_nats, state.val_error, state.val_step = nats, None, state.step
        if best < nats:
            self._leave_best(best)
        self._observer.validated(self._progress)

    def _leave_best(self, nats: float | None) -> None:
        """Leave the parameters of the best check, whose loss is ``nats``, and report the last ones."""
        if self._best is None:  # a run that goes on from a saved state
            return
        state = self.state
        last = Parameters(self._model, state.parameters.flat.copy())
        content = self._content(last, self._record(state))
        state.parameters.flat[...] = self._best.flat
        self._model_step, state.val_nats = state.best_step, nats
        self._observer.left_behind(self._progress, content)

    def _exact(self, parameters: Parameters) -> float:
        inference = dataclasses.replace(self._inference, parameters=parameters)
        try:
            return inference.evaluate(self._val_ids).nats_per_char
        except FastlstmError as error:
            raise self._diverged(str(error)) from None

    def _content(self, parameters: Parameters, record: dict[str, Any]) -> Content:
        return Content(self._model, self._vocab, parameters, record)

    def _sample(self) -> None:
        config, total = self._config, self._progress.total
        every = self._every(_SAMPLES) if config.sample_every is None else config.sample_every
        if not config.sample_length or not (self._ended() or _due(self.state.step, total, every)):
            return
        seed = config.seed + self.state.step  # a different sample each time
        sampling = SampleConfig(length=config.sample_length, seed=seed)
        try:
            ids = self._inference.draw(beginning(self._vocab), sampling)
        except FastlstmError:  # the next step reports the divergence; a sample changes nothing
            return
        self._observer.sampled(self._progress, self._vocab.decode(ids[:, 0]))

    def _every(self, times: int) -> int:
        """Steps between events of which a run has about so many."""
        return max(1, math.ceil(self._progress.total / times))

    def _check_step(self, result: StepResult) -> None:
        loss = self.state.loss
        if not (result.finite and math.isfinite(loss)):
            raise _DivergedError(broken(loss, self.state, self._steps.gradients))
        self._check_loss(loss)

    def _check_loss(self, nats: float) -> None:
        if not nats <= self._guessing + DIVERGED_NATS:
            raise _DivergedError(f"the loss is {nats:.3g} nats per symbol, that of guessing {self._guessing:.3g}")

    def _check_result(self) -> None:
        """Check the parameters after the last update, which no further step would check."""
        if self.state.step > self._first_step:
            self._check_loss(self._steps.loss_after(self.state))

    def _go_back(self, why: str) -> None:
        """Continue from the last good state with a lower rate.

        Raises
        ------
        DivergenceError
            When that has been done too often, or there is no good state.
        """
        state = self.state
        if state.recoveries >= MOST_RECOVERIES or not all_finite(self._copies.good.parameters.flat):
            raise self._diverged(why)
        kept = {
            "recoveries": state.recoveries + 1,
            "rate_factor": state.rate_factor * RECOVERY_FACTOR,
            "best_nats": state.best_nats,
            "best_step": state.best_step,
            "worse": int((state.best_step or 0) > self._copies.good.step),  # the best check may be ahead
        }
        reason = self._divergence(why)
        self._copies.go_back(state)
        for name, value in kept.items():
            setattr(state, name, value)
        self._observer.recovered(self._progress, reason)

    def _divergence(self, why: str) -> str:
        rate = self._steps.rate(self.state, max(self.state.step - 1, 0))
        return f"training diverged at step {self.state.step:,} with a learning rate of {rate:.3g}: {why}"

    def _diverged(self, why: str) -> DivergenceError:
        """Restore the best parameters; returns the error to raise."""
        state, good = self.state, self._copies.good
        left, step = (self._best, state.best_step) if self._best else (good.parameters, good.step)
        if step:
            self._model_step, nats = step, state.best_nats if self._best else good.val_nats
            self.training = {**self._record(state if self._best else good), "val_nats": nats, "finished": False}
        state.parameters.flat[...] = left.flat
        back = f"step {step:,}" if step else "its state before the run"
        return DivergenceError(
            f"{self._divergence(why)}; the model was restored to {back}: lower the learning rate"
            f" (now {self._config.highest_rate:g}), or clip gradients harder"
        )

    def _record(self, state: RunState) -> dict[str, Any]:
        """The record of the run up to ``state``, for the model file."""
        progress = Progress(state, self._progress.total, self._progress.chars_per_step)
        return {
            "steps": progress.step,
            "finished": state is self.state and self._ended(),
            "model_step": progress.step if self._model_step is None else self._model_step,
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
            model_step=progress.step if self._model_step is None else self._model_step,
            parameters=self.state.parameters.flat.size,
            finished=self._ended(),
        )


def _due(step: int, total: int, every: int) -> bool:
    """Whether something is due at a step: every so many steps, and at the end; 0: only at the end."""
    return step >= total or (every > 0 and step % every == 0)
