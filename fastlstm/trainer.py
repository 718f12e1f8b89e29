"""The training loop: truncated BPTT over the lanes of a text, with periodic validation and samples.

The steps depend only on parameters, text and configuration: samples, and validations that are only shown, use their own
generators, networks and states, and do not change a bit. The checks, validations at fixed steps, choose the best model;
they change the steps only with early stopping and the schedule "plateau".

If the vocabulary has an escape, the model learns it from symbols that are masked in training (`fastlstm.masking`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

from fastlstm.backend import warm_up
from fastlstm.batches import Lanes
from fastlstm.checkpoint import Content
from fastlstm.config import MOST_STEPS, SampleConfig, TrainConfig
from fastlstm.contract import StepResult
from fastlstm.errors import ConfigError, DivergenceError, FastlstmError, StoppedError, TextError
from fastlstm.inference import Estimate, Inference, Networks, beginning, smallest_ids
from fastlstm.observers import Observer, Progress, guessing_nats
from fastlstm.params import Parameters
from fastlstm.precision import check_can_go_on, settled
from fastlstm.recovery import DIVERGED_NATS, MOST_RECOVERIES, RECOVERY_FACTOR, Copies, all_finite, broken
from fastlstm.run_checkpoint import Checkpoint, TextIdentity, training_record
from fastlstm.run_state import RunState
from fastlstm.settings import settings_of
from fastlstm.steps import Steps
from fastlstm.text import IdArray, Vocab, fingerprint, split
from fastlstm.validation import Validation

#: Number of samples in a run whose configuration does not set it.
_SAMPLES = 10

#: Of the time that is left when the speed of a run of so many minutes has been measured, the steps get so much: checks,
#: samples and copies take about 3 %, and the first second was often 5 to 9 % faster than the whole run.
_STEPS_SHARE = 0.9

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


class _DivergedError(Exception):
    """Training has diverged, for the reason that the message states."""


class Trainer:
    """A training run, to be iterated over: each iteration takes a step, and gives the run's `Progress`.

    ::

        for progress in trainer:
            print(progress.step, progress.train_nats)

    `run` takes all steps. A loop that is left goes on from there in the next one. An exception in the middle of a step,
    such as `KeyboardInterrupt`, loses the steps since the last copy of the state, usually 10 to 200: the next loop goes
    on from that copy, to the same result.

    A run that diverges goes back to an earlier step and goes on with a lower rate, `MOST_RECOVERIES` times at most.

    Parameters
    ----------
    model : the content of the model; the run changes its parameters in place.
    ids : (N,) the text, each id in range; its last ``config.val_frac`` is used for validation.
    config : settings of the run; ``None``: the defaults.
    observer : its methods are called as the run progresses.
    stop : called before each step, and during validation and sampling; if it returns true, the run ends early.
    started : `time.perf_counter` at the start of the minutes of the configuration; ``None``: when the first step is
        taken.
    begin_from : checkpoint to go on from, see `resumed`.

    Attributes
    ----------
    progress : of the run.
    state : of the run. Its parameters are finally those of the model that the run leaves.
    training : record of the model's training, before the run and, once it has ended, of this run.
    text : the identity of the text.
    config : settings of the run, with the precision in effect; those of a run of so many minutes contain the number of
        steps once it is known.
    observer : as given; to be changed before the first step only.

    Raises
    ------
    TextError, ConfigError
        When the text is too short to train on, or too short for ``seq_len`` and ``batch``; when patience or the
        schedule "plateau" need a validation part, and there is none; or when the precision is not that of the model's
        parameters, or needs another processor.

    Iterating raises
    ----------------
    DivergenceError
        When a loss, gradient, parameter or slot is not finite, or a loss is more than `DIVERGED_NATS` above that of
        guessing, once too often. The parameters are then those of the best check, or of an earlier step, which the
        message names.
    """

    def __init__(
        self,
        model: Content,
        ids: IdArray,
        config: TrainConfig | None = None,
        *,
        observer: Observer | None = None,
        stop: Callable[[], bool] | None = None,
        started: float | None = None,
        begin_from: Checkpoint | None = None,
    ) -> None:
        self.config = config = settled(config or TrainConfig(), model.config)
        self.observer, self._stop, self._started = observer or Observer(), stop or (lambda: False), started
        ids = smallest_ids(ids, len(model.vocab))
        self._vocab, self.text = model.vocab, begin_from.text if begin_from else _identity(model.vocab, ids)
        train_ids, val_ids = _checked_split(ids, config)
        self._lanes = Lanes(train_ids, config.seq_len, config.batch)
        self.training = model.training
        if begin_from is None:
            first_loss = guessing_nats(model.config) if config.smooth_from_guessing else None
            self.state = RunState.start(model.parameters, config.batch, config.rule(0.0).slots, first_loss)
        else:
            self.state = begin_from.state
        self._good_at_start = begin_from.good if begin_from else self.state
        # The parameters of the best check, which are never changed.
        self._best = None if begin_from is None else begin_from.best
        # After an exception in the middle of a step, the run goes on from here, with the best parameters of that time:
        # from its last copy (None), or from where it was resumed.
        self._point = begin_from.state.copy() if begin_from else None
        self._best_at_point = self._best
        self._model, self._guessing = model.config, guessing_nats(model.config)
        self._inference = Inference(
            Networks(self._model),
            self.state.parameters,
            config.backend,
            config.threads,
            self._stop,
            self.config.is_bf16,
            model.vocab,
        )
        self._validation = Validation(self._inference, val_ids)
        total = 0 if config.minutes else config.total_steps(self._lanes.steps_per_epoch)
        self.progress = Progress(self.state, total, config.seq_len * config.batch, self._lanes.steps_per_epoch)
        self._compile_seconds = 0.0
        self._last: Checkpoint | None = None  # that after the last step
        self._is_prepared = self._took_a_step = self._is_finished = self._is_over = False
        self._is_between_steps, self._next_due = True, 0

    @classmethod
    def resumed(
        cls, checkpoint: Checkpoint, vocab: Vocab, ids: IdArray, config: TrainConfig | None = None, **more: Any
    ) -> Self:
        """A run that goes on from a checkpoint, to the result that it would have had without an interruption.

        Parameters
        ----------
        checkpoint : its arrays are used, not copied.
        vocab, ids : the vocabulary and the ids (N,) of the run's text, see `fastlstm.text.read_ids`.
        config : ``None``: that of the run. Settings that do not change what a step computes may differ
            (`fastlstm.settings.Declaration.resumable`), such as the number of steps. The precision ``auto`` is that of
            the run.
        more : as for a new run.

        Raises
        ------
        TextError
            When the text is not that of the run.
        ConfigError
            When a setting differs that must not, the run has taken more steps already, or it computes in bf16 and this
            processor cannot.
        """
        given = _identity(vocab, ids)
        if given != checkpoint.text:
            raise TextError(
                f"the text is not that of the run, or has changed: it has {given.symbols:,} symbols (SHA-256"
                f" {given.sha256[:8]}), that of the run has {checkpoint.text.symbols:,} ({checkpoint.text.sha256[:8]}):"
                " resume with the same text, or train its model on this one with --init-from"
            )
        config = config or checkpoint.config
        if config.precision == "auto":
            config = dataclasses.replace(config, precision=checkpoint.config.precision)
        _check_resumable(checkpoint.config, config)
        check_can_go_on(checkpoint.config)
        run = cls(checkpoint.last, ids, config, **more, begin_from=checkpoint)
        if 0 < run.progress.total < run.state.step:
            raise ConfigError(
                f"the run has taken {run.state.step:,} steps already, more than {run.progress.total:,}: give more steps"
            )
        return run

    def run(self) -> TrainResult:
        """Take all remaining steps, or those until ``stop`` returns true; returns the result."""
        for _ in self:
            pass
        return self.result

    def __iter__(self) -> Iterator[Progress]:
        if self._is_over:
            return
        self._prepare()
        self._go_on()
        try:
            yield from self._train()
        except (DivergenceError, GeneratorExit):
            raise
        except BaseException:
            self.training = self._record()
            raise
        self._is_over, self.training = True, self._record()

    def _go_on(self) -> None:
        """Undo what an exception has left half done: a step, or the choice of the best model."""
        if self._last is None and self._is_between_steps:
            return
        self._copies.discard()
        self.state.restore(self.checkpoint.state)
        if not self._is_between_steps:
            self._best, self._is_between_steps, self._next_due = self._best_at_point, True, 0
        self._last, self.progress.model_step, self._is_finished = None, None, False

    @property
    def result(self) -> TrainResult:
        """The result of the run, or of its steps so far."""
        progress = self.progress
        return TrainResult(
            steps=progress.step,
            seconds=progress.seconds,
            chars_per_s=progress.chars_per_s,
            compile_seconds=self._compile_seconds,
            train_nats=progress.train_nats,
            val_nats=progress.val_nats,
            model_step=self._left_step,
            parameters=self.state.parameters.flat.size,
            finished=self._is_finished,
        )

    @property
    def content(self) -> Content:
        """The content of a model file, with the parameters as they are now, which are not copied."""
        return Content(self._model, self._vocab, self.state.parameters, self.training)

    @property
    def checkpoint(self) -> Checkpoint:
        """What is needed to go on from here; its arrays are those of the run, which the next step changes.

        In the middle of a step, it is that of an earlier one; after the end, that of the last step, which need not be
        the step of the model that the run leaves.
        """
        if self._last is not None:
            return self._last
        if self._is_between_steps:
            return self._checkpoint(self.state, self._best)
        return self._checkpoint(self._point or self._copies.good, self._best_at_point)

    def _checkpoint(self, state: RunState, best: Parameters | None) -> Checkpoint:
        return Checkpoint(state, self._copies.good, best, self._vocab, self.config, self.text)

    @functools.cached_property
    def _steps(self) -> Steps:
        return Steps(self._model, self._lanes, self.config, self.progress.total, self._vocab.escape_id)

    @functools.cached_property
    def _copies(self) -> Copies:
        return Copies(self._good_at_start, self.progress.chars_per_step)

    def _prepare(self) -> None:
        """Before the first step of this object: compile, build the network, plan the length."""
        if self._is_prepared:
            return
        started = time.perf_counter() if self._started is None else self._started
        compiled = self._compile()
        if self.config.minutes:
            self._plan(started + compiled * self._compile_seconds + 60 * self.config.minutes)
        self._is_prepared = True
        self.progress.start(len(self._validation.ids))
        self.observer.started(self.progress)

    def _compile(self) -> bool:
        """Compile or load the kernels; returns whether any was compiled."""
        started, announced = time.perf_counter(), []

        def compiling() -> None:
            announced.append(True)
            self.observer.compiling()

        warm_up(self.config.backend, self._model, compiling, bf16=self.config.is_bf16)
        self._compile_seconds = time.perf_counter() - started
        return bool(announced)

    def _plan(self, deadline: float) -> None:
        """Fix the number of steps, so that the run ends at about ``deadline``, unless it is stopped meanwhile."""
        self._steps.total = MOST_STEPS  # for the rate of the measured steps, which are not kept
        seconds = self._steps.seconds_per_step(self.state, self._stop)
        left = deadline - time.perf_counter() - self._validation.seconds() - _ENDING_SECONDS
        more = max(1, math.floor(_STEPS_SHARE * left / seconds))
        self.progress.total = self._steps.total = self.state.step + more
        self.config = dataclasses.replace(self.config, minutes=None, steps=self.progress.total)
        self.observer.planned(self.progress, self.progress.chars_per_step / seconds)

    def _train(self) -> Iterator[Progress]:
        """Take the steps, going back when they diverge; then leave the best model."""
        has_ended = False
        with contextlib.suppress(StoppedError):
            yield from self._take_all_steps()
            has_ended = self._ended()
        last = self.checkpoint
        self._last = dataclasses.replace(last, state=last.state.copy())
        self.observer.ended(self.progress, self._last)
        with contextlib.suppress(StoppedError):
            if has_ended and not self._stop():
                self._choose_exactly()
                self._is_finished = True
                self._sample()
        # Without checks since the best one, the steps since may have improved the model.
        if not self._is_finished and self.state.worse:
            self._leave_best(self.state.best_nats)

    def _take_all_steps(self) -> Iterator[Progress]:
        while True:
            try:
                yield from self._take_steps()
                if self._ended():  # else the next step, of the run that is resumed, checks its parameters
                    self._check_result()
                return
            except _DivergedError as found:
                self._go_back(str(found))

    def _take_steps(self) -> Iterator[Progress]:
        while not self._ended() and not self._stop():
            self._is_between_steps = False
            self._take_step()
            self._is_between_steps = True
            yield self.progress

    def _take_step(self) -> None:
        """One step, and what is due after it."""
        state, steps = self.state, self._steps
        self._copies.take_if_due(state)
        result = steps.take(state)
        self._took_a_step = True
        self.progress.norm, self.progress.rate = result.norm, steps.last_rate
        self._check_step(result)
        if self._copies.confirm(state.loss):
            self._point, self._best_at_point = None, self._best
            self.observer.kept(self.progress, self._checkpoint(self._copies.good, self._best))
        self.observer.stepped(self.progress)
        if state.step >= self._next_due:
            self._validate()
            if not self._ended():  # the last sample is that of the model that the run leaves
                self._sample()
            self._next_due = self._due_after(state.step)

    def _due_after(self, step: int) -> int:
        """The next step with a validation or a sample, or the last step."""
        config = self.config
        distances = (self._every(config.checks), config.eval_every, self._sample_every)
        return min(self.progress.total, *(step - step % every + every for every in distances if every))

    @property
    def _sample_every(self) -> int:
        """Steps between two samples; 0: only at the end."""
        return self._every(_SAMPLES) if self.config.sample_every is None else self.config.sample_every

    def _ended(self) -> bool:
        """Whether all steps have been taken, or patience has ended."""
        state, patience = self.state, self.config.patience
        planned = self.progress.total > 0 or self.config.minutes is None
        return planned and (state.step >= self.progress.total or (patience is not None and state.worse >= patience))

    def _validate(self) -> None:
        """Estimate the validation loss, if a check is due, or a validation to be shown."""
        config, state, total = self.config, self.state, self.progress.total
        if not self._validation:
            return
        every = self._every(config.checks)
        is_check = _due(state.step, total, every)
        found = self._check(every) if is_check else None
        if self._ended():  # the last validation is exact
            return
        if config.eval_every is not None:
            is_shown = _due(state.step, total, config.eval_every)
            found = (found or self._validation.estimate(self._symbols(config.eval_every))) if is_shown else None
        if found is not None:
            state.val_nats, state.val_error, state.val_step = found.nats_per_char, found.error or None, state.step
            self.observer.validated(self.progress)

    def _check(self, every: int) -> Estimate:
        """A check: keep the parameters if they are the best so far; the schedule "plateau" may lower the rate."""
        state, config = self.state, self.config
        found = self._validation.estimate(self._symbols(every))
        if found is None:
            raise _DivergedError("the validation loss is not a finite number")
        if state.judge(found.nats_per_char):
            self._best = Parameters(self._model, state.parameters.flat.copy())
        elif config.schedule == "plateau" and state.stalled >= config.decay_patience:
            state.rate_factor, state.stalled = state.rate_factor * config.decay_factor, 0
        return found

    def _symbols(self, steps: int) -> int:
        """Number of symbols of so many steps."""
        return steps * self.progress.chars_per_step

    def _choose_exactly(self) -> None:
        """Leave the last model or that of the best check, whichever predicts the validation part better."""
        state = self.state
        if not self._validation:
            return
        nats, best = self._exact(state.parameters), math.inf
        if state.worse and self._best is not None:
            best = self._exact(self._best)
        state.val_nats, state.val_error, state.val_step = nats, None, state.step
        if best < nats:
            self._leave_best(best)
        self.observer.validated(self.progress)

    def _leave_best(self, nats: float | None) -> None:
        """Leave the parameters of the best check, whose loss is ``nats``."""
        state = self.state
        assert self._best is not None  # there was a check
        state.parameters.flat[...] = self._best.flat
        self.progress.model_step, state.val_nats = state.best_step, nats

    def _exact(self, parameters: Parameters) -> float:
        try:
            return self._validation.exact(parameters)
        except FastlstmError as error:
            raise self._diverged(str(error)) from None

    def _sample(self) -> None:
        config, total = self.config, self.progress.total
        if not config.sample_length or not (self._ended() or _due(self.state.step, total, self._sample_every)):
            return
        seed = config.seed + self.state.step  # a different sample each time
        sampling = SampleConfig(length=config.sample_length, seed=seed)
        try:
            ids = self._inference.draw(beginning(self._vocab), sampling)
        except FastlstmError:  # the next step reports the divergence; a sample changes nothing
            return
        self.observer.sampled(self.progress, self._vocab.decode(ids[:, 0]))

    def _every(self, times: int) -> int:
        """Steps between events of which a run has about so many."""
        return max(1, math.ceil(self.progress.total / times))

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
        if self._took_a_step:
            self._check_loss(self._steps.loss_after(self.state))

    def _go_back(self, why: str) -> None:
        """Continue from the last good state with a lower rate.

        Raises
        ------
        DivergenceError
            When that has been done too often, or there is no good state.
        """
        state, good = self.state, self._copies.good
        if state.recoveries >= MOST_RECOVERIES or not all_finite(good.parameters.flat):
            raise self._diverged(why)
        reason = self._divergence(why)
        good.recoveries, good.rate_factor = state.recoveries + 1, state.rate_factor * RECOVERY_FACTOR
        good.best_nats, good.best_step = state.best_nats, state.best_step
        if (state.best_step or 0) > good.step:
            good.worse = 1  # the best check is ahead
        self._copies.go_back(state)
        self._point, self._best_at_point = None, self._best
        self._is_between_steps, self._next_due = True, 0
        self.observer.recovered(self.progress, reason)

    def _divergence(self, why: str) -> str:
        rate = self._steps.rate(self.state, max(self.state.step - 1, 0))
        return f"training diverged at step {self.state.step:,} with a learning rate of {rate:.3g}: {why}"

    def _diverged(self, why: str) -> DivergenceError:
        """Restore the best parameters; returns the error to raise."""
        state, good = self.state, self._copies.good
        of, left, step, nats = good, good.parameters, good.step, good.val_nats
        if self._best is not None:
            of, left, step, nats = state, self._best, state.best_step or 0, state.best_nats
        if step:
            self.progress.model_step = step
            self.training = training_record(of, self.config, self.text, model_step=step, val_nats=nats)
        reason = self._divergence(why)
        state.parameters.flat[...] = left.flat
        self._is_over = True
        back = f"step {step:,}" if step else "its state before the run"
        return DivergenceError(
            f"{reason}; the model was restored to {back}: lower the learning rate"
            f" (now {self.config.highest_rate:g}), or clip gradients harder"
        )

    @property
    def _left_step(self) -> int:
        """Step of the parameters that the run leaves."""
        return self.state.step if self.progress.model_step is None else self.progress.model_step

    def _record(self) -> dict[str, Any]:
        """The record of the run so far, for the model file."""
        return training_record(
            self.state,
            self.config,
            self.text,
            model_step=self._left_step,
            val_nats=self.state.val_nats,
            finished=self._is_finished,
        )


def _identity(vocab: Vocab, ids: IdArray) -> TextIdentity:
    """The identity of a text; it does not depend on the type of the ids."""
    return TextIdentity(fingerprint(vocab, smallest_ids(ids, len(vocab))), len(ids))


def _checked_split(ids: IdArray, config: TrainConfig) -> tuple[IdArray, IdArray]:
    """The parts of a text for training and for validation, if they suffice."""
    train_ids, val_ids = split(ids, config.val_frac)
    if len(train_ids) < 2:
        raise TextError(
            f"at least two characters are needed for training, but the text leaves {len(train_ids)}: give more text,"
            f" or use less of it for validation (now {config.val_frac:g})"
        )
    if len(val_ids) < 2 and (config.patience is not None or config.schedule == "plateau"):
        raise ConfigError("patience and the schedule plateau need a part for validation: give val_frac, or more text")
    return train_ids, val_ids


def _check_resumable(run: TrainConfig, given: TrainConfig) -> None:
    """Raise `ConfigError` if a setting differs from that of the run, and would change what a step computes."""
    for name, one in settings_of(TrainConfig).items():
        before, now = getattr(run, name), getattr(given, name)
        if before != now and not one.declared.resumable:
            raise ConfigError(
                f"{name} of the run is {before}, and cannot become {now} when it is resumed: leave it out, or begin a"
                " new run"
            )


def _due(step: int, total: int, every: int) -> bool:
    """Whether something is due at a step: every so many steps, and at the end; 0: only at the end."""
    return step >= total or (every > 0 and step % every == 0)
