"""A comparison of cells: networks trained alike on one text, and what the exhibits measure of them.

::

    found = compare(text, ComparisonPlan(minutes=6), folder="comparisons/notes")
    print(found.losses("lstm") - found.losses("rnn"))

What takes a fixed time comes first: the recall task and the assignment's networks. The time that is left is then shared
among the trainings of the compared cells, whose speed is measured. The exhibits come last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from fastlstm import __version__, comparison_plan, corpora
from fastlstm.backend import warm_up
from fastlstm.cells import CellName
from fastlstm.comparison_folder import PLAN, ComparisonFolder
from fastlstm.comparison_plan import ComparisonPlan, Training
from fastlstm.config import MOST_STEPS
from fastlstm.errors import ConfigError, ModelFileError, StoppedError, TextError
from fastlstm.exhibits.activations import Activations, activations
from fastlstm.exhibits.lags import GradientByLag, gradient_by_lag
from fastlstm.exhibits.recall import RecallCurve, recall_curve
from fastlstm.exhibits.recovery import Recovery, recovery
from fastlstm.exhibits.saturation import GateSaturation, gate_saturation
from fastlstm.exhibits.words import as_characters, known_words, shuffled_share, word_share
from fastlstm.model import Model
from fastlstm.observers import Observer, Progress
from fastlstm.text import IdArray, Vocab, fingerprint, read_text, split
from fastlstm.threads import usable_cores

#: The fewest symbols of a text: the windows of the exhibits need some hundreds.
FEWEST_SYMBOLS = 2000

#: Largest lag of the gradients, in characters.
LAGS = 100

#: Characters of the text over which single cells are shown.
SHOWN_CHARS = 600

#: The text whose words are counted: so many samples of so many characters.
_SAMPLED, _SAMPLED_LENGTH = 8, 1000

#: The speed of a cell is measured for so many seconds, after a few steps in which the number of workers settles.
_MEASURED_SECONDS, _SETTLING_STEPS = 0.7, 3

#: Symbols read to measure the time of a validation.
_READ_SYMBOLS = 16_384

#: Of the time that is left for trainings, the steps get so much: validations and samples take the rest.
_STEPS_SHARE = 0.9

#: Seconds that are kept for the exhibits of trained networks, and for what is made of them.
_EXHIBIT_SECONDS = 30.0

#: Parameters of the networks of the recall task.
_RECALL_PARAMETERS = 12_000

#: Training steps of each network of the recall task: at most, and for each minute of the comparison.
_RECALL_STEPS, _RECALL_STEPS_PER_MINUTE = 1500, 500


class Watch:
    """Callbacks of a comparison; here every method does nothing."""

    def compiling(self) -> None:
        """Kernels are about to be compiled, which takes a while."""

    def planned(self, steps: Mapping[CellName, int]) -> None:
        """The number of steps of each cell's trainings is known."""

    def began(self, what: str, number: int, total: int, seconds_left: float) -> None:
        """The part ``number`` of ``total`` begins; the seconds that are left in all are NaN while not known."""

    def advanced(self, progress: Progress) -> None:
        """A training has taken a step."""

    def ended(self, result: str) -> None:
        """The part is done, with this result."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Losses over a training, in nats per symbol.

    Attributes
    ----------
    step, seconds : (P,) where they were measured: int64, and float64, seconds of training.
    train_nats : (P,) float64, the smoothed training loss.
    val_nats, val_error : (P,) float64, the validation loss, and its standard error as an estimate. The last is exact.
    """

    step: NDArray[np.int64]
    seconds: NDArray[np.float64]
    train_nats: NDArray[np.float64]
    val_nats: NDArray[np.float64]
    val_error: NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """A text that a network generated after a step, and the share of its words that occur in the text it learned."""

    step: int
    text: str
    word_share: float


@dataclass(frozen=True, eq=False)
class Trained:
    """A finished training.

    Attributes
    ----------
    training : its settings.
    model : the network that it left.
    curve, samples : over the training.
    steps, seconds, chars_per_s : number, time and speed of the training steps.
    val_nats : loss of the model on the validation part, nats per symbol; NaN without a validation part.
    word_share : share of the words that the model generates that occur in the text; NaN without words.
    """

    training: Training
    model: Model
    curve: Curve
    samples: tuple[Sample, ...]
    steps: int
    seconds: float
    chars_per_s: float
    val_nats: float
    word_share: float


@dataclass(frozen=True)
class TextFacts:
    """The text of a comparison: its name, symbols in all and distinct ones, and `fastlstm.text.fingerprint`."""

    name: str
    symbols: int
    distinct: int
    sha256: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """The results of a comparison.

    Attributes
    ----------
    plan, cells : its settings.
    text : what the networks read.
    started : date and time, ISO 8601.
    machine : versions of the software, and the processor, by name.
    trained : all trainings by name.
    before, after : gradients by lag of the networks with the first seed, by the names of their trainings: untrained,
        and trained.
    saturation, activations : of the trained networks with the first seed, by cell.
    recall : of networks trained on the recall task, by cell.
    recovery : of the assignment's networks, which are trained on the default text, and of those with the first seed, by
        the names of their trainings.
    chance_share : share of the words of the text that are words of the text once its symbols are shuffled.
    shown_part : the part of the text over which gradients, gates and cells are measured: "validation text", or "text"
        if that is too short.
    """

    plan: ComparisonPlan
    cells: tuple[CellName, ...]
    text: TextFacts
    started: str
    machine: Mapping[str, str]
    trained: Mapping[str, Trained]
    before: Mapping[str, GradientByLag]
    after: Mapping[str, GradientByLag]
    saturation: Mapping[CellName, GateSaturation]
    activations: Mapping[CellName, Activations]
    recall: Mapping[CellName, RecallCurve]
    recovery: Mapping[str, Recovery]
    chance_share: float
    shown_part: str

    @property
    def symbol(self) -> str:
        """What a symbol of the text is: "character" or "byte"."""
        return "byte" if self.of(self.cells[0])[0].model.vocab.is_bytes else "character"

    def of(self, cell: CellName) -> tuple[Trained, ...]:
        """The compared trainings of a cell, in the order of their seeds."""
        return tuple(
            one for one in self.trained.values() if one.training.role == "compared" and one.training.cell == cell
        )

    def losses(self, cell: CellName) -> NDArray[np.float64]:
        """Validation losses (seeds,) of a cell's networks, nats per symbol."""
        return np.array([one.val_nats for one in self.of(cell)])

    def to_dict(self) -> dict[str, Any]:
        """The results as plain values, ready for JSON; without the models and the activations of single cells."""
        return {
            "text": plain(self.text),
            "started": self.started,
            "machine": dict(self.machine),
            "plan": self.plan.to_dict(),
            "cells": list(self.cells),
            "trainings": {name: _written(one) for name, one in self.trained.items()},
            "gradient_by_lag": {
                name: {"before": plain(self.before[name]), "after": plain(self.after[name])} for name in self.after
            },
            "saturation": plain(self.saturation),
            "recall": plain(self.recall),
            "recovery": plain(self.recovery),
            "chance_word_share": plain(self.chance_share),
            "shown_part": self.shown_part,
        }


def compare(
    text: str | bytes,
    plan: ComparisonPlan | None = None,
    cells: Sequence[str] = (),
    *,
    name: str = "text",
    folder: str | os.PathLike[str] | None = None,
    origin: Mapping[str, Any] | None = None,
    watch: Watch | None = None,
    stop: Callable[[], bool] | None = None,
    started: float | None = None,
) -> Comparison:
    """Train networks of several cells on a text, and measure what they have learned.

    Parameters
    ----------
    text : its last part is used for validation.
    plan : settings; ``None``: the defaults.
    cells : names of the cells; empty: all.
    name : of the text, to be shown.
    folder : where each finished training is kept. If it has some of the same comparison already, they are not repeated.
    origin : where the text comes from, in any form that JSON can represent; it is kept in the folder.
    watch : its methods are called as the comparison progresses.
    stop : called before each training step; if it returns true, the comparison ends with `StoppedError`.
    started : `time.perf_counter` when the minutes of the plan began; ``None``: now.

    Raises
    ------
    TextError, ConfigError
        When the text is too short, a setting contradicts another, or the folder has another comparison.
    DivergenceError
        When a training diverges for good.
    ModelFileError
        When a file of the folder cannot be read or written.
    StoppedError
        When ``stop`` returned true.
    """
    began = time.perf_counter() if started is None else started
    kept = None if folder is None else ComparisonFolder(folder)
    run = _Run(text, plan or ComparisonPlan(), cells, name, kept, watch or Watch(), stop or (lambda: False))
    run.begin(origin or {})
    return run.result(began)


class _Source(NamedTuple):
    """What networks are trained on: a text, its vocabulary, ids (N,) and words."""

    text: str | bytes
    vocab: Vocab
    ids: IdArray
    words: frozenset[str]

    @classmethod
    def of(cls, text: str | bytes) -> _Source:
        """The source of a text."""
        vocab = Vocab.from_text(text)
        return cls(text, vocab, vocab.encode(text), known_words(text))


class _Run:
    """A comparison that is being made; the arguments are those of `compare`."""

    def __init__(
        self,
        text: str | bytes,
        plan: ComparisonPlan,
        cells: Sequence[str],
        name: str,
        folder: ComparisonFolder | None,
        watch: Watch,
        stop: Callable[[], bool],
    ) -> None:
        self.plan, self.cells = plan, comparison_plan.checked_cells(cells, plan)
        self.source = _Source.of(text)
        self.vocab, self.ids = self.source.vocab, self.source.ids
        if len(self.ids) < FEWEST_SYMBOLS:
            raise TextError(
                f"a comparison needs at least {FEWEST_SYMBOLS:,} characters, but the text has {len(self.ids):,}: give"
                " more text"
            )
        self.facts = TextFacts(name, len(self.ids), len(self.vocab), fingerprint(self.vocab, self.ids))
        self.models = comparison_plan.shapes(plan, self.cells, len(self.vocab))
        self.folder, self.watch, self.stop = folder, watch, stop
        self.record: dict[str, Any] = {}
        self._parts, self._total = 0, self._count_parts()
        self._end = math.nan

    def result(self, began: float) -> Comparison:
        """Make the comparison, which began at that time."""
        began += self._compile()
        if self.plan.usual_minutes is not None and self.record["steps"] is None:
            self._end = began + 60 * self.plan.usual_minutes
        recall = {cell: self._recall(cell) for cell in self.cells if self._recall_steps}
        done = [self._train(one) for one in self._of_assignment]
        done += [self._train(one) for one in self._later_trainings(self._planned_steps())]
        self._begin("exhibits of the trained networks")
        return self._measured({one.training.name: one for one in done}, recall)

    def begin(self, origin: Mapping[str, Any]) -> None:
        """Record the comparison in its folder, which is new or that of the same comparison."""
        self.record = {
            "plan": self.plan.to_dict(), "cells": list(self.cells), "text": plain(self.facts), "origin": dict(origin),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "steps": None,
        }  # fmt: skip
        found = None if self.folder is None else self.folder.read(PLAN)
        if found is None:
            self._write_record()
            return
        for key, what in (("text", "another text"), ("plan", "other settings"), ("cells", "other cells")):
            if found.get(key) != self.record[key]:
                raise ConfigError(f"the comparison in this folder has {what}: choose another folder with --out")
        self.record = found

    def _write_record(self) -> None:
        if self.folder is not None:
            self.folder.write(PLAN, self.record)

    def _count_parts(self) -> int:
        recalls = len(self.cells) if self._recall_steps else 0
        trainings = len(self._of_assignment) + len(self._later_trainings(dict.fromkeys(self.cells, 1)))
        return recalls + trainings + 1

    @functools.cached_property
    def _assignment_source(self) -> _Source:
        """The default text, on which the assignment's networks are trained whatever is compared."""
        return _Source.of(read_text([corpora.DEFAULT]))

    def _source(self, training: Training) -> _Source:
        return self._assignment_source if training.role == "assignment" else self.source

    @property
    def _of_assignment(self) -> list[Training]:
        return comparison_plan.of_assignment(self.plan, self.cells, len(self._assignment_source.vocab))

    def _check_stop(self) -> None:
        if self.stop():
            raise StoppedError

    def _begin(self, what: str) -> None:
        self._check_stop()
        self._parts += 1
        self.watch.began(what, self._parts, self._total, self._end - time.perf_counter())

    def _compile(self) -> float:
        """Compile the kernels or load them; returns the seconds of compiling."""
        began, announced = time.perf_counter(), []

        def compiling() -> None:
            announced.append(True)
            self.watch.compiling()

        for model in self.models.values():
            warm_up("fast", model, compiling, bf16=False)
        return time.perf_counter() - began if announced else 0.0

    @property
    def _recall_steps(self) -> int:
        """Training steps of each network of the recall task; 0: there is no such task."""
        if self.plan.recall_steps is not None:
            return self.plan.recall_steps
        minutes = self.plan.usual_minutes
        return _RECALL_STEPS if minutes is None else min(_RECALL_STEPS, math.ceil(_RECALL_STEPS_PER_MINUTE * minutes))

    def _recall(self, cell: CellName) -> RecallCurve:
        self._begin(f"recall task, {cell}: {self._recall_steps:,} steps")
        name = f"recall-{cell}.json"
        kept = None if self.folder is None else self.folder.read(name)
        if kept is not None:
            self.watch.ended("done before")
            with _kept_by(name):
                return RecallCurve(np.array(kept["distractors"]), np.array(kept["accuracy"]), kept["chance"])
        curve = recall_curve(
            cell, _RECALL_PARAMETERS, steps=self._recall_steps, lr=comparison_plan.RECALL_RATES[cell],
            seed=self.plan.seed, stop=self.stop,
        )  # fmt: skip
        if self.folder is not None:
            self.folder.write(name, plain(curve))
        self.watch.ended(f"{100 * curve.accuracy[-1]:.0f} % right after {curve.distractors[-1]} distractors")
        return curve

    def _planned_steps(self) -> dict[CellName, int]:
        """The steps of each cell's trainings: those of the record, else as many as the plan allows."""
        if self.record["steps"] is None:
            per_step = {cell: self._seconds_per_step(cell) for cell in self.cells}
            self.record["steps"] = self._affordable(per_step)
            self._write_record()
        steps: dict[CellName, int] = self.record["steps"]
        self.watch.planned(steps)
        return steps

    def _affordable(self, per_step: Mapping[CellName, float]) -> dict[CellName, int]:
        """The steps that the plan allows, with so many seconds per step."""
        plan, slowest = self.plan, max(per_step.values())
        relative = {cell: 1.0 if plan.equal == "steps" else slowest / per_step[cell] for cell in self.cells}
        trainings = self._later_trainings(dict.fromkeys(self.cells, 1))
        # The time of all trainings for each step of the slowest one.
        seconds = sum(relative[one.cell] * per_step[one.cell] for one in trainings)
        if plan.steps is None:
            at_end = _EXHIBIT_SECONDS + len(trainings) * self._validation_seconds()
            left = self._end - time.perf_counter() - at_end
            steps = max(_STEPS_SHARE * left / seconds, comparison_plan.POINTS)
        else:
            steps = plan.steps
            self._end = time.perf_counter() + steps * seconds / _STEPS_SHARE + _EXHIBIT_SECONDS
        return {cell: math.floor(steps * relative[cell]) for cell in self.cells}

    def _later_trainings(self, steps: Mapping[CellName, int]) -> list[Training]:
        """The trainings on the part of the text that leaves some for validation, each of the steps of its cell."""
        compared = comparison_plan.compared(self.plan, self.models, steps, len(self.ids))
        return compared + comparison_plan.forget_biases(self.plan, self.models, steps, len(self.ids))

    def _seconds_per_step(self, cell: CellName) -> float:
        """Measure the speed of a cell's training."""
        config = comparison_plan.train_config(self.plan, cell, MOST_STEPS, len(self.ids))
        trial = dataclasses.replace(config, checks=1, sample_every=0)
        first = math.nan
        for progress in Model(self.models[cell], self.vocab).trainer(self.ids, trial, stop=self.stop):
            if progress.step == _SETTLING_STEPS:
                first = progress.seconds
            if progress.seconds - first >= _MEASURED_SECONDS:
                return (progress.seconds - first) / (progress.step - _SETTLING_STEPS)
        raise StoppedError

    def _validation_seconds(self) -> float:
        """Estimated seconds of the last validation of a training."""
        model = Model(self.models[self.cells[-1]], self.vocab)
        part = self.ids[:_READ_SYMBOLS]
        model.evaluate(part, threads=self.plan.threads)  # the first evaluation allocates networks
        began = time.perf_counter()
        model.evaluate(part, threads=self.plan.threads)
        return (time.perf_counter() - began) * len(self._validation_ids) / len(part)

    def _train(self, training: Training) -> Trained:
        """Make a training, or read it if it is done."""
        self._begin(_described(training))
        kept = None if self.folder is None else self.folder.training(training.name, training.to_dict())
        if kept is not None:
            self.watch.ended("done before")
            with _kept_by(training.name):
                return _read(training, *kept)
        source = self._source(training)
        model = Model(training.model, source.vocab, seed=training.train.seed)
        recorder = _Recorder(self.watch, source.words)
        result = model.fit(source.ids, training.train, observer=recorder, stop=self.stop)
        if not result.finished:
            raise StoppedError
        nats = math.nan if result.val_nats is None else result.val_nats
        done = Trained(
            training, model, recorder.curve, tuple(recorder.samples), result.steps, result.seconds, result.chars_per_s,
            nats, self._word_share(model, source.words),
        )  # fmt: skip
        if self.folder is not None:
            self.folder.keep(training.name, model, _written(done))
        validation = "" if math.isnan(nats) else f"validation {nats:.4f} nats, "
        self.watch.ended(f"{validation}{result.seconds:.1f} s, {result.chars_per_s:,.0f} characters/s")
        return done

    def _word_share(self, model: Model, words: frozenset[str]) -> float:
        samples = model.continuations("", _SAMPLED, _SAMPLED_LENGTH, seed=self.plan.seed, threads=self.plan.threads)
        return word_share(" ".join(map(as_characters, samples)), words)

    @property
    def _validation_ids(self) -> IdArray:
        """The part of the text that no network is trained on; the whole text if that is short."""
        config = comparison_plan.train_config(self.plan, self.cells[0], 1, len(self.ids))
        part = split(self.ids, config.val_frac)[1]
        return part if len(part) >= FEWEST_SYMBOLS else self.ids

    def _measured(self, trained: dict[str, Trained], recall: dict[CellName, RecallCurve]) -> Comparison:
        """The exhibits of the trained networks."""
        first = {name: one for name, one in trained.items() if one.training.train.seed == self.plan.seed}
        on_text = {name: one for name, one in first.items() if one.training.role != "assignment"}
        sampled = {name: one for name, one in first.items() if one.training.role != "forget bias"}
        by_cell = {one.training.cell: one.model for one in first.values() if one.training.role == "compared"}
        ids = self._validation_ids
        return Comparison(
            plan=self.plan,
            cells=self.cells,
            text=self.facts,
            started=self.record["started"],
            machine=_machine(),
            trained=trained,
            before={name: self._by_lag(self._untrained(one.training)) for name, one in on_text.items()},
            after={name: self._by_lag(one.model) for name, one in on_text.items()},
            saturation={cell: gate_saturation(model, ids) for cell, model in by_cell.items()},
            activations={cell: activations(model, ids[:SHOWN_CHARS]) for cell, model in by_cell.items()},
            recall=recall,
            recovery={name: self._recovery(one) for name, one in sampled.items()},
            chance_share=shuffled_share(self.source.text, self.source.words),
            shown_part="text" if ids is self.ids else "validation text",
        )

    def _untrained(self, training: Training) -> Model:
        return Model(training.model, self.vocab, seed=training.train.seed)

    def _recovery(self, one: Trained) -> Recovery:
        self._check_stop()
        return recovery(one.model, self._source(one.training).text, seed=self.plan.seed)

    def _by_lag(self, model: Model) -> GradientByLag:
        self._check_stop()
        return gradient_by_lag(model, self._validation_ids, lags=LAGS, seed=self.plan.seed)


class _Recorder(Observer):
    """Records the losses and the samples of a training, in which it counts the known words."""

    def __init__(self, watch: Watch, words: frozenset[str]) -> None:
        self._watch, self._words = watch, words
        self._points: list[tuple[int, float, float, float, float]] = []
        self.samples: list[Sample] = []

    def stepped(self, progress: Progress) -> None:
        self._watch.advanced(progress)

    def validated(self, progress: Progress) -> None:
        assert progress.val_nats is not None  # it has just been measured
        self._points.append(
            (progress.step, progress.seconds, progress.train_nats, progress.val_nats, progress.val_error or 0.0)
        )

    def sampled(self, progress: Progress, text: str | bytes) -> None:
        self.samples.append(Sample(progress.step, as_characters(text), word_share(text, self._words)))

    def recovered(self, progress: Progress, reason: str) -> None:
        """The training goes on from an earlier step: forget what came after it."""
        self._points = [point for point in self._points if point[0] <= progress.step]
        self.samples = [sample for sample in self.samples if sample.step <= progress.step]

    @property
    def curve(self) -> Curve:
        """The losses so far."""
        return _curve(*zip(*self._points, strict=True)) if self._points else _curve((), (), (), (), ())


def _curve(*columns: Sequence[float]) -> Curve:
    step, *others = columns
    return Curve(np.array(step, np.int64), *(np.array(values, np.float64) for values in others))


def _described(training: Training) -> str:
    model, train = training.model, training.train
    return (
        f"{training.name}: {model.layers} x {model.hidden}, {model.parameter_count:,} parameters, {train.steps:,} steps"
    )


def _written(done: Trained) -> dict[str, Any]:
    """A training as plain values, without its model."""
    return {
        "settings": done.training.to_dict(),
        "parameters": done.training.model.parameter_count,
        "curve": plain(done.curve),
        "samples": [plain(sample) for sample in done.samples],
        "steps": done.steps,
        "seconds": done.seconds,
        "chars_per_s": done.chars_per_s,
        "val_nats": plain(done.val_nats),
        "word_share": plain(done.word_share),
    }


def _read(training: Training, model: Model, kept: Mapping[str, Any]) -> Trained:
    """The inverse of `_written`."""
    return Trained(
        training=training,
        model=model,
        curve=_curve(*(kept["curve"][field.name] for field in dataclasses.fields(Curve))),
        samples=tuple(Sample(one["step"], one["text"], _number(one["word_share"])) for one in kept["samples"]),
        steps=kept["steps"],
        seconds=kept["seconds"],
        chars_per_s=kept["chars_per_s"],
        val_nats=_number(kept["val_nats"]),
        word_share=_number(kept["word_share"]),
    )


@contextlib.contextmanager
def _kept_by(name: str) -> Iterator[None]:
    """While what is kept under a name is read: an error in its form is one of the file."""
    try:
        yield
    except (KeyError, TypeError, ValueError):
        raise ModelFileError(f"what is kept of {name} is damaged: remove its JSON file, and it is made again") from None


def _number(value: float | None) -> float:
    """A number from JSON, where NaN is null."""
    return math.nan if value is None else value


def plain(value: Any) -> Any:
    """Dataclasses, arrays and mappings as plain values, ready for JSON; what is not finite becomes ``None``."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _machine() -> dict[str, str]:
    """Versions of the software, and the processor."""
    return {
        "fastlstm": __version__,
        "Python": platform.python_version(),
        "NumPy": np.__version__,
        "numba": numba.__version__,
        "system": platform.platform(terse=True),
        "processor": _processor(),
    }


def _processor() -> str:
    """The name of the processor, as far as the system knows it, and the number of cores that may be used."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text("utf-8", "replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {usable_cores()} cores"
