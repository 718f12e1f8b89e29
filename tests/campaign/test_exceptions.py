"""Exceptions and signals at random instants of library calls do not affect the next call."""

import dis
import gc
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from harness import BrokenPromiseError, Outcome, part, require
from subjects import SHORT_RUN, TEXT, fresh_model

import fastlstm
from fastlstm import Model
from fastlstm.backend import build
from fastlstm.drawing import Drawing
from fastlstm.errors import FastlstmError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.threads import _quota

#: Number of units from which two workers share even the time step of a single lane.
HIDDEN = 96
T, B = 6, 8
#: Prefix of the names of worker threads.
WORKER = "fastlstm-"
PACKAGE = str(Path(fastlstm.__file__).parent)


class InjectedError(Exception):
    """An error at a random instant, such as a full memory."""


class InjectedInterrupt(KeyboardInterrupt):
    """Ctrl-C at a random instant."""


class Subject:
    """The objects of one trial: a model, networks of two workers, and a folder."""

    def __init__(self, folder):
        self.model = fresh_model(hidden=HIDDEN)
        self.start = self.model.parameters.flat.copy()
        self.path = folder / "model.safetensors"
        self._networks = {}

    def network(self, seq_len):
        if seq_len not in self._networks:
            self._networks[seq_len] = build("fast", self.model.config, seq_len, B, 2)
        return self._networks[seq_len]

    def reset(self):
        """Restore what a training call has changed."""
        self.model.parameters.flat[...] = self.start
        self.model.training = None


def symbols():
    return np.random.default_rng(1).integers(5, size=(T, B), dtype=np.int32)


def forward(subject):
    state = subject.model.zero_state(B)
    return subject.network(T).forward(subject.model.parameters, symbols(), symbols(), state), state.tobytes()


def train_step(subject):
    config, rule = subject.model.config, UpdateRule(0.1, clip_norm=5.0)
    gradients, slots = Parameters(config), np.zeros((rule.slots, config.parameter_count), config.dtype)
    state = subject.model.zero_state(B)
    result = subject.network(T).train_step(
        subject.model.parameters, gradients, slots, symbols(), symbols(), state, 1.0, rule
    )
    return result, subject.model.parameters.flat.tobytes()


def generate(subject):
    uniforms = np.random.default_rng(2).random((5, B))
    ids = subject.network(1).generate(
        subject.model.parameters, symbols()[0], subject.model.zero_state(B), uniforms, Drawing()
    )
    return ids.tobytes()


def loss_and_grads(subject):
    loss, gradients, _ = subject.model.loss_and_grads(symbols(), symbols(), threads=2)
    return loss, gradients.flat.tobytes()


def sample(subject):
    return subject.model.sample("so it", 20, threads=2)


def evaluate(subject):
    return subject.model.evaluate(TEXT[:300], threads=2)


def fit(subject):
    result = subject.model.fit(TEXT, SHORT_RUN)
    return result.train_nats, result.val_nats, subject.model.parameters.flat.tobytes()


def save(subject):
    subject.model.save(subject.path)
    return Model.load(subject.path).parameters.flat.tobytes()


def load(subject):
    if not subject.path.exists():
        subject.model.save(subject.path)
    return Model.load(subject.path).parameters.flat.tobytes()


Call = Callable[[Subject], object]
#: Calls in which worker threads take part, and all calls.
SHARED: tuple[Call, ...] = (forward, train_step, generate, loss_and_grads, sample, evaluate, fit)
CALLS: tuple[Call, ...] = (*SHARED, save, load)


class Lines:
    """A trace function that counts executed lines of fastlstm, and raises an ``error`` at number ``at``.

    If that line leaves an exception handler, the next one fails instead. Only a tracer can raise there, and since
    Python 3.11 the thread would then keep the handled exception, and with it the frames of all callers, forever.
    """

    def __init__(self, at=None, error=InjectedError):
        self.at, self.error, self.count = at, error, 0

    def __call__(self, frame, event, argument):
        if not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.at:
                if not leaves_handler(frame):
                    raise self.error("injected")  # a new one each time: an exception keeps its frames
                self.at += 1
        return self


def leaves_handler(frame):
    """Whether the next instruction of a frame ends its ``except`` block."""
    return frame.f_code.co_code[frame.f_lasti] == dis.opmap["POP_EXCEPT"]


def trace_caller(lines, call, subject):
    """Make a call, and trace the lines that run in this thread."""
    sys.settrace(lines)
    try:
        return call(subject)
    finally:
        sys.settrace(None)


def trace_workers(lines, call, subject):
    """Make a call, and trace the lines that run in worker threads started by it."""
    threading.settrace(lines)
    try:
        return call(subject)
    finally:
        threading.settrace(None)


@pytest.mark.parametrize("error", [InjectedError, InjectedInterrupt, MemoryError])
def test_a_thread_does_not_keep_an_injected_exception(error, tmp_path):
    """It would keep the workers of the trial alive, and the tracer would be the cause of the surviving threads."""
    counted = Lines()
    trace_caller(counted, _quota, tmp_path)  # a function that handles an exception: there is no quota in this folder
    for at in range(1, counted.count):
        with pytest.raises(error):
            trace_caller(Lines(at, error), _quota, tmp_path)
        assert sys.exc_info()[1] is None
    assert trace_caller(Lines(counted.count, error), _quota, tmp_path) is None  # its last line leaves the handler
    assert sys.exc_info()[1] is None


class Undisturbed(NamedTuple):
    value: object
    seconds: float
    lines: dict[Callable, int]


@cache
def undisturbed(call: Call) -> Undisturbed:
    """Result, time and number of executed lines of an undisturbed call."""
    lines = {}
    with tempfile.TemporaryDirectory() as folder:
        for tracer in (trace_caller, trace_workers):
            counted = Lines()
            tracer(counted, call, Subject(Path(folder)))
            lines[tracer] = max(1, counted.count)
        subject = Subject(Path(folder))
        started = time.perf_counter()
        return Undisturbed(call(subject), time.perf_counter() - started, lines)


@part("exceptions", full=4_672, small=40)
def test_an_exception_at_any_line_leaves_everything_usable(trials):
    """After any failure, the model gives the same bits, nothing hangs, no thread survives, no file is incomplete."""
    trials.run(fail_somewhere)


def fail_somewhere(trial):
    rng = trial.generator()
    threading.excepthook = lambda arguments: None  # print no traceback: only the effect of a failed worker counts
    in_worker = trial.number % 4 == 0
    tracer, calls = (trace_workers, SHARED) if in_worker else (trace_caller, CALLS)
    call = calls[rng.integers(len(calls))]
    expected = undisturbed(call)
    error = [InjectedError, InjectedInterrupt, MemoryError][rng.integers(3)]
    lines = Lines(1 + int(rng.integers(expected.lines[tracer])), error)
    disturb(trial, call, expected.value, lambda subject: tracer(lines, call, subject))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer here that sends signals")
@part("signals in calls", full=320, small=8)
def test_a_signal_at_any_instant_leaves_everything_usable(trials):
    """Ctrl-C in the middle of a call, also inside the kernels: like an exception, it has no effect on later calls."""
    trials.run(interrupt_somewhere)


def interrupt_somewhere(trial):
    rng = trial.generator()
    call = CALLS[rng.integers(len(CALLS))]
    expected = undisturbed(call)
    instant = 1e-6 + 1.2 * expected.seconds * rng.random()
    disturb(trial, call, expected.value, lambda subject: interrupted(instant, call, subject))


def interrupted(instant, call, subject):
    """Make a call that a timer's signal interrupts after ``instant`` seconds, unless it ends before."""

    def raise_interrupt(number, frame):
        raise InjectedInterrupt

    before = signal.signal(signal.SIGALRM, raise_interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, instant)
            return call(subject)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


def disturb(trial, call, expected, disturbed):
    """Make a disturbed call, then an undisturbed one on the same subject, which must not be affected by the first."""
    before = set(worker_threads())
    subject = Subject(trial.folder)
    if trial.generator().random() < 0.5:  # some networks have been used before, some are made during the call
        call(subject)
        subject.reset()
    try:
        value = disturbed(subject)
        require(value == expected, Outcome.WRONG, f"{call.__name__} raised nothing, but gave another result")
    except (InjectedError, InjectedInterrupt, FastlstmError, MemoryError):
        pass
    subject.reset()
    require(call(subject) == expected, Outcome.WRONG, f"{call.__name__} gives another result afterwards")
    require_no_stray(subject, trial.folder)
    del subject
    require_no_threads(call, before)


def require_no_stray(subject, folder):
    """An interrupted writer may leave a temporary file, which the next save must remove."""
    subject.model.save(subject.path)
    left = [path.name for path in folder.iterdir() if path != subject.path]
    require(not left, Outcome.WRONG, f"stray files: {left}")


def worker_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(WORKER)]


def require_no_threads(call, before):
    """Worker threads must end when they cannot be used any more."""
    deadline = time.monotonic() + 2
    while living := set(worker_threads()) - before:
        if time.monotonic() > deadline:
            raise BrokenPromiseError(Outcome.WRONG, f"threads outlive {call.__name__}: {living}")
        gc.collect()
        time.sleep(1e-3)
