"""The page of one training run: its curves and samples, the gates and cells of its model, and what it copied."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm import __version__, checkpoint, config_file, history, recorder, run_text
from fastlstm.backend import warm_up
from fastlstm.bar import clock
from fastlstm.cells import CellName
from fastlstm.config import BackendName, ModelConfig, PrecisionName, TrainConfig
from fastlstm.errors import FastlstmError
from fastlstm.exhibits.activations import activations
from fastlstm.exhibits.copies import copied
from fastlstm.exhibits.saturation import gate_saturation
from fastlstm.exhibits.words import known_words, shuffled_share, word_share
from fastlstm.history import History, shown
from fastlstm.model import Model
from fastlstm.pages import curves, gates
from fastlstm.pages.cells import cells
from fastlstm.pages.figures import COLOURS, draw
from fastlstm.pages.page import MARK, Figure, Section, fill, render
from fastlstm.pages.passages import lengths, passages
from fastlstm.pages.phrases import percent
from fastlstm.precision import effective
from fastlstm.progress import nats_and_bits
from fastlstm.run_text import RunText
from fastlstm.terminal import printable, printable_line
from fastlstm.text import Encoder, read_text

#: Symbols of the fresh sample, and the most of the training text in which words and passages are searched for, and of
#: the validation text whose words are counted: together they take seconds.
_SAMPLED, _MOST_SEARCHED, _MOST_COUNTED = 2000, 8_000_000, 200_000

#: Symbols of the text over which cells are shown.
_OVER = 500

#: How the titles of reports begin, and where: it tells them from other pages.
_TITLE, _FIRST_BYTES = "Report of the run ", 1000

#: Most samples of the run that are shown.
_MOST_SAMPLES = 6


@dataclass(frozen=True, eq=False)
class Report:
    """A report.

    Attributes
    ----------
    html : the page.
    figures : of the page, in its order.
    numbers : what was measured, by name: shares from 0 to 1, lengths in symbols, losses in nats per symbol.
    missing : why parts of the page are missing, a sentence each.
    """

    html: str
    figures: tuple[Figure, ...]
    numbers: dict[str, float]
    missing: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Run:
    """What a report is made from, and what was measured for it so far.

    Attributes
    ----------
    history : of the run.
    settings : of its training.
    cell, symbol : name of the cell, and what a symbol is: "character" or "byte".
    samples : of the run, by their steps.
    model : the best so far; ``None``: none has been saved yet.
    text : of the run; ``None``: it is not available.
    searched : the part of its training text in which words and passages are searched for.
    words : of that part.
    numbers, missing : as in `Report`.
    """

    history: History
    settings: TrainConfig
    cell: CellName
    symbol: str
    samples: dict[int, str]
    model: Model | None
    text: RunText | None
    missing: tuple[str, ...]
    numbers: dict[str, float] = field(default_factory=dict)

    @functools.cached_property
    def searched(self) -> str | bytes:
        return b"" if self.text is None else self.text.train[:_MOST_SEARCHED]

    @functools.cached_property
    def words(self) -> frozenset[str]:
        return known_words(self.searched)


def report(
    folder: str | os.PathLike[str],
    *,
    data: Sequence[str] | None = None,
    over: str | None = None,
    seed: int = 0,
    compiling: Callable[[], None] = lambda: None,
    backend: BackendName = "fast",
    threads: int | None = None,
    precision: PrecisionName = "auto",
) -> Report:
    """Make the report of a run, which may be unfinished, or going on.

    Parameters
    ----------
    folder : the run folder.
    data : the text of the run, as in `fastlstm.text.read_text`; ``None``: as its settings name it. If it is not found
        there, what needs it is left out.
    over : the text over which cells are shown, a source as in ``data``; its first 500 symbols are used. ``None``: the
        beginning of the validation part.
    seed : of the sample that is drawn and compared with the training text.
    compiling : called before kernels are compiled, if they are.
    backend, threads, precision : with which the sample is drawn, as of `Model.sample`.

    Raises
    ------
    FastlstmError
        When there is no run, a file of it is damaged, ``data`` is not the text of the run, or a library of the extra
        ``plot`` is missing.
    TextError, VocabularyError
        When ``over`` cannot be read, or has a symbol that the model does not know.
    """
    run = _read(Path(folder), data)
    if run.model is not None:
        found = effective(precision, run.model.config, backend)
        warm_up(backend, found.applied(run.model.config), compiling, bf16=found.bf16)
    computing = {"seed": seed, "backend": backend, "threads": threads, "precision": precision}
    sections = [section for section in _sections(run, over, computing) if section is not None]
    page = render(f"{_TITLE}{printable_line(run.history.name)}", _lead(run), sections, _facts(run))
    figures = tuple(figure for section in sections for figure in section.figures)
    return Report(page, figures, run.numbers, run.missing)


def is_report(path: Path) -> bool:
    """Whether a file is the page of a report; false for what cannot be read."""
    try:
        with open(path, "rb") as file:
            beginning = file.read(_FIRST_BYTES).decode("utf-8", "replace")
    except OSError:
        return False
    return MARK in beginning and f"<title>{_TITLE}" in beginning


def _read(folder: Path, data: Sequence[str] | None) -> _Run:
    """Read all files of a run."""
    found, configuration = history.read(folder), config_file.read(folder)
    settings, samples = TrainConfig(**configuration.train), recorder.read_samples(folder)
    if not os.path.lexists(folder / checkpoint.FILE_NAME):
        missing = "The run has saved no model yet: gates, cells and copied passages are shown when it has."
        cell: CellName = configuration.model.get("cell", ModelConfig.cell)
        symbol = "byte" if configuration.as_bytes else "character"
        return _Run(found, settings, cell, symbol, samples, None, None, (missing,))
    model = Model.load(folder)
    text, missing_text = _text(folder, model, data)
    symbol = "byte" if model.vocab.is_bytes else "character"
    return _Run(found, settings, model.config.cell, symbol, samples, model, text, missing_text)


def _text(folder: Path, model: Model, data: Sequence[str] | None) -> tuple[RunText | None, tuple[str, ...]]:
    """The text of a run, or why it is missing."""
    try:
        return run_text.read(folder, model.vocab, data), ()
    except FastlstmError as error:
        if data is not None:
            raise
        return None, (f"What needs the text of the run is left out (give it with --data): {error}",)


def _sections(run: _Run, over: str | None, computing: dict[str, Any]) -> Iterator[Section | None]:
    yield _missing(run)
    yield _training(run)
    yield _samples(run)
    if run.model is not None:
        yield _gates(run, run.model)
        yield _cells(run, run.model, over)
        yield _copies(run, run.model, computing)


def _missing(run: _Run) -> Section | None:
    if not run.missing:
        return None
    return Section("What is missing", "missing", tuple(printable_line(sentence) for sentence in run.missing))


def _training(run: _Run) -> Section:
    """The curves of the run."""
    found, settings = run.history, run.settings
    if not len(found.training.step) and not len(found.validation.step):
        return Section("Training", "training", ("The run has recorded no loss yet.",))
    figures = [curves.loss(found, run.cell, run.symbol)]
    if len(found.training.step):
        figures += [
            curves.rate(found, run.cell),
            curves.norm(found, run.cell, settings.clip_norm),
            curves.throughput(found, run.cell, settings.batch * settings.seq_len, run.symbol),
        ]
    return Section("Training", "training", (" ".join(_about_training(run)),), tuple(figures))


def _about_training(run: _Run) -> Iterator[str]:
    found, limit = run.history, run.settings.clip_norm
    if found.best_nats is not None:
        run.numbers["best_nats"] = found.best_nats
        yield f"The best model is that of step {found.best_step:,}: {nats_and_bits(found.best_nats)} per {run.symbol}."
    norms = found.training.norm[np.isfinite(found.training.norm)]
    if limit is not None and norms.size:
        run.numbers["clipped"] = share = float((norms > limit).mean())
        yield f"The gradient was clipped to a norm of {limit:g} in {percent(share)} of the recorded steps."
    _, speed = curves.speeds(found, run.settings.batch * run.settings.seq_len)
    if speed.size:
        run.numbers["chars_per_s"] = median = float(np.median(speed))
        yield f"The median throughput is {median:,.0f} {run.symbol}s per second."


def _samples(run: _Run) -> Section:
    """Samples over time, with the share of real words."""
    if not run.samples:
        return Section("Samples", "samples", ("The run has written no sample yet.",))
    chosen = sorted({round(n) for n in np.linspace(0, len(run.samples) - 1, _MOST_SAMPLES).tolist()})
    steps = [list(run.samples)[n] for n in chosen]
    about = f"{len(steps)} of the {len(run.samples)} samples of the run."
    shares = {} if run.text is None else {step: word_share(text, run.words) for step, text in run.samples.items()}
    said = {step: f"{percent(share)} real words" for step, share in shares.items()}
    samples = [(f"Step {step:,}", said.get(step, ""), printable(run.samples[step])) for step in steps]
    html = fill("samples.html", samples=samples)
    if run.text is None:
        return Section("Samples", "samples", (about,), html=html)
    run.numbers["word_share"] = list(shares.values())[-1]
    about += (
        f" A word is real if it occurs in {_the_training_text(run)}. The lines show what share of words is real in the"
        " validation text, and in a text whose letters are in random order."
    )
    levels = {
        "random order": shuffled_share(run.searched, run.words),
        "validation text": word_share(run.text.val[:_MOST_COUNTED], run.words),
    }
    return Section("Samples", "samples", (about,), (_word_figure(run, shares, levels),), html)


def _the_training_text(run: _Run) -> str:
    """What is searched for words and passages."""
    if run.text is None or len(run.searched) == len(run.text.train):
        return "the training text"
    return f"the first {len(run.searched):,} {run.symbol}s of the training text"


def _word_figure(run: _Run, shares: dict[int, float], levels: dict[str, float]) -> Figure:
    def paint(axes: Any) -> None:
        axes.plot(list(shares), [100 * share for share in shares.values()], color=COLOURS[run.cell], marker="o")
        for name, share in levels.items():
            if math.isnan(share):  # there are no words
                continue
            axes.axhline(100 * share, color=COLOURS["muted"], linestyle="--", linewidth=1.2)
            axes.annotate(
                name, (1, 100 * share), (-4, -4), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
                ha="right", va="top", color=COLOURS["muted"], fontsize="small",
            )  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_ylim(0, 102)
        axes.set_xlabel("steps")
        axes.xaxis.set_major_formatter("{x:,.10g}")
        axes.set_ylabel("real words, %")

    return draw(
        "words",
        "Real words in the samples",
        "The share of the words of each sample that occur in the training text, against the training step.",
        "A point for each sample of the run; short samples have few words.",
        paint,
    )


def _gates(run: _Run, model: Model) -> Section | None:
    if run.text is None:
        return None
    part, name = (run.text.val, "validation") if len(run.text.val) > 1 else (run.text.train, "training")
    found = gate_saturation(model, part)
    about = f"Measured over windows of the {name} text, each read from the zero state."
    if not model.config.structure.keeps_gates:
        about += " This cell has no gates; shown are the values of h, its state."
    return Section("Saturation of gates", "gates", (about,), (gates.saturation({run.cell: found}),))


def _cells(run: _Run, model: Model, over: str | None) -> Section | None:
    if over is not None:
        text, name = read_text([over], as_bytes=model.vocab.is_bytes), "text that was given"
    elif run.text is None:
        return None
    elif len(run.text.val) > _OVER:
        text, name = _whole_lines(run.text.val), "validation text"
    else:
        text, name = run.text.train, "training text"
    encoder = Encoder(model.vocab, "escape" if model.vocab.escape else "skip")
    found = activations(model, encoder.encode(text[:_OVER]))
    about = (
        f"The first {len(found.ids):,} {run.symbol}s of the {name}, read from the zero state. The colour of each is the"
        " value of one unit after it was read, or of a gate when it was read, or the surprise: how unexpected it was."
    )
    if unknown := encoder.report():
        about += f" The text has {unknown}."
    return Section("Cells over a text", "cells", (about,), html=cells({run.cell: found}))


def _whole_lines(text: str | bytes) -> str | bytes:
    """A part of a text from the beginning of a line on, if a line begins soon."""
    within = len(text) - _OVER  # so that enough is left
    end = text.find("\n", 0, within) if isinstance(text, str) else text.find(b"\n", 0, within)
    return text[end + 1 :] if end < _OVER else text


def _copies(run: _Run, model: Model, computing: dict[str, Any]) -> Section | None:
    """A fresh sample compared with the training text, beside validation text of the same length."""
    if run.text is None:
        return None
    sample: Any = model.sample(length=_SAMPLED, **computing)
    text: Any = run.searched
    found = {"sample": copied(sample, text)}
    if run.text.val:
        found["validation text"] = copied(run.text.val[:_SAMPLED], text)
    for name, one in found.items():
        run.numbers[f"longest_match_{name.partition(' ')[0]}"] = int(one.lengths.max(initial=0))
        run.numbers[f"mean_match_{name.partition(' ')[0]}"] = float(one.lengths.mean())
    share = word_share(sample, run.words)
    about = (
        f"{_SAMPLED:,} {run.symbol}s, seed {computing['seed']}; {percent(share)} real words; its longest passages are"
        " marked"
    )
    html = passages(sample, text, found["sample"], run.symbol, about)
    return Section("Copied passages", "copies", (" ".join(_about_copies(run)),), (lengths(found, run.symbol),), html)


def _about_copies(run: _Run) -> Iterator[str]:
    numbers, unit = run.numbers, f"{run.symbol}s"
    longest, mean = numbers["longest_match_sample"], numbers["mean_match_sample"]
    yield (
        f"A fresh sample is compared with {_the_training_text(run)}. The longest passage that both have is of {longest}"
        f" {unit}; the longest match that begins at a position is of {mean:.1f} {unit} on average."
    )
    assert run.text is not None
    if "mean_match_validation" in numbers:
        longest_new, mean_new = numbers["longest_match_validation"], numbers["mean_match_validation"]
        yield (
            f"For comparison, {min(_SAMPLED, len(run.text.val)):,} {unit} of the validation text, which nobody copied:"
            f" {longest_new} {unit}, and {mean_new:.1f} on average. {_verdict(numbers)}"
        )


def _verdict(numbers: dict[str, float]) -> str:
    """Whether a sample shares more with the training text than the validation text does."""
    larger = [numbers[f"{name}_match_sample"] > numbers[f"{name}_match_validation"] for name in ("longest", "mean")]
    if not any(larger):
        return "The sample copies no more than a new text does."
    return f"By {'both' if all(larger) else 'one'} of these numbers the sample copies more than a new text does."


def _lead(run: _Run) -> str:
    found = run.history
    of = f" of {found.total:,}" if found.total and not found.finished else ""
    steps = f"{found.step:,}{of} steps"
    took = "" if math.isnan(found.seconds) else f" in {clock(found.seconds)}"
    loss = "" if found.best_nats is None else f": {nats_and_bits(found.best_nats)} per {run.symbol}"
    return f"{_shape(run)}, after {steps}{took}{loss}."


def _shape(run: _Run) -> str:
    if run.model is None:
        return run.cell.upper()
    c = run.model.config
    layers = "1 layer" if c.layers == 1 else f"{c.layers} layers"
    return f"{c.cell.upper()}, {layers} of {c.hidden:,} units, {c.parameter_count:,} parameters"


def _facts(run: _Run) -> dict[str, str]:
    """The settings and the record of the run, and of this report."""
    facts = {"state": "finished" if run.history.finished else "unfinished when this report was made"}
    facts |= {name: printable_line(shown(value)) for name, value in (run.history.record | run.history.settings).items()}
    if run.model is not None and run.model.certificate is not None:
        facts["certificate"] = "; ".join(run.model.certificate.lines())
    return facts | {"report": f"fastlstm {__version__}, {time.strftime('%Y-%m-%d %H:%M')}"}
