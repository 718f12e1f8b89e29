"""All checks of a network's gradients, of one backend or of both.

====================================  =================================================================
check                                 what it finds
====================================  =================================================================
`fastlstm.checking.centred`           which gradient is wrong
`fastlstm.checking.directional`       whether any is, from all entries at once
`fastlstm.checking.complex_step`      which is wrong, to rounding errors; of the reference
`fastlstm.checking.sweep`             whether the checks themselves work: errors must depend on h
`fastlstm.checking.equivalence`       mistakes of a forward pass, of which gradients may well be right
====================================  =================================================================
"""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fastlstm.certificate import Finding
from fastlstm.checking import centred, complex_step, directional, equivalence, sweep
from fastlstm.checking.differences import random_direction
from fastlstm.checking.points import Point, point
from fastlstm.checking.precision import compare_gradients
from fastlstm.checking.reports import WIDTH, Report
from fastlstm.checking.rows import Row, chosen
from fastlstm.config import BackendName, DType, ModelConfig, TrainConfig
from fastlstm.params import FloatArray, Parameters
from fastlstm.precision import Precision

BACKENDS: tuple[BackendName, ...] = ("fast", "reference")

#: Of one check, so many things that are wrong are named in the summary.
_NAMED = 6


@dataclasses.dataclass(frozen=True)
class FullReport:
    """The results of several checks.

    Attributes
    ----------
    backends : that were checked.
    seq_len, batch, seed : T, B, and the seed of the random point.
    reports : the result of each check, in the order in which they are shown.
    """

    backends: tuple[BackendName, ...]
    seq_len: int
    batch: int
    seed: int
    reports: tuple[Report, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(report.passed for report in self.reports)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What a certificate states, if all checks passed."""
        return tuple(Finding(report.heading, report.judged, report.worst) for report in self.reports)

    def __str__(self) -> str:
        """A section for each check, and what is wrong in a few lines."""
        sections = [str(report) for report in self.reports]
        if not self.passed:
            sections.append(textwrap.fill(f"wrong: {'; '.join(self._failed())}", WIDTH, subsequent_indent="  "))
        return _joined(sections)

    def _failed(self) -> Iterator[str]:
        """The checks that failed and what is wrong, which is not repeated when two checks find the same."""
        named = set[tuple[str, ...]]()
        for report in self.reports:
            if report.passed:
                continue
            yield report.heading if report.wrong in named else f"{report.heading} ({_shortened(report.wrong)})"
            named.add(report.wrong)

    def to_dict(self) -> dict[str, Any]:
        """The reports as plain values, ready for JSON."""
        return {
            "passed": self.passed,
            "backends": self.backends,
            "seq_len": self.seq_len,
            "batch": self.batch,
            "seed": self.seed,
            "checks": [report.to_dict() for report in self.reports],
        }


def _shortened(names: Sequence[str]) -> str:
    """The first names of a list."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _joined(sections: Sequence[str]) -> str:
    """Sections of an output, with an empty line before and after each that has several lines."""
    text = sections[0]
    for before, after in itertools.pairwise(sections):
        text += ("\n\n" if "\n" in before + after else "\n") + after
    return text


def check(
    model: ModelConfig | Parameters,
    *,
    seq_len: int = 8,
    batch: int = 2,
    backends: Sequence[BackendName] = BACKENDS,
    seed: int = 0,
    per_param: int | None = None,
    threads: int = 1,
) -> FullReport:
    """Run all checks on random symbols, in float64, without clipping and without dropout.

    Parameters
    ----------
    model : a configuration, for which parameters are drawn at random, or the parameters at which to check, such as
        ``Model.parameters`` (float32 is converted to float64). They are not changed.
    seq_len, batch : T and B of the random symbols. The check of chunks reads three times T; that of lanes, at least 2.
    backends : the implementations that are checked; both are also compared with each other.
    seed : of parameters, symbols, carried-in state, direction and the choice of entries.
    per_param : number of entries of each parameter to check one by one, see `fastlstm.checking.rows.chosen`; ``None``:
        all.
    threads : number of workers of the fast backend.

    Raises
    ------
    ConfigError
        When a size is out of range.
    """
    for backend in backends:
        TrainConfig(seq_len=seq_len, batch=batch, backend=backend, seed=seed, threads=threads)  # validates them
    rng = np.random.default_rng(seed)
    at = point(model, seq_len, batch, rng)
    rows = chosen(at.parameters.config, at.x, per_param, rng)
    direction = random_direction(at.parameters, rng)
    long = point(at.parameters, equivalence.CHUNKS * seq_len, max(batch, 2), rng)
    reports: list[Report] = []
    for backend in backends:
        reports += _derivatives(at, rows, direction, backend, threads)
    if set(backends) == set(BACKENDS):
        dtypes: tuple[DType, ...] = ("float64", "float32")
        reports += [equivalence.check_backends(at, dtype, threads=threads) for dtype in dtypes]
    for backend in backends:
        reports.append(equivalence.check_chunks(long, backend, threads=threads))
        reports.append(equivalence.check_lanes(long, backend, threads=threads))
    return FullReport(tuple(backends), seq_len, batch, seed, tuple(reports))


def _derivatives(
    at: Point, rows: Sequence[Row], direction: FloatArray, backend: BackendName, threads: int
) -> Iterator[Report]:
    """The checks of one backend's gradient against numerical ones."""
    yield centred.check_at(at, rows, backend, threads=threads)
    yield directional.check_at(at, direction, backend, threads=threads)
    if backend == "reference":
        yield complex_step.check_at(at, rows)
    yield sweep.check_at(at, direction, backend, threads=threads)


def compare(
    model: ModelConfig | Parameters,
    precision: Precision,
    *,
    seq_len: int = 8,
    batch: int = 2,
    backends: Sequence[BackendName] = BACKENDS,
    seed: int = 0,
    threads: int = 1,
) -> FullReport:
    """Compare the gradients of backends in bf16 or float32 with that in float64: `compare_gradients` of each."""
    reports = tuple(
        compare_gradients(model, precision, seq_len=seq_len, batch=batch, backend=backend, seed=seed, threads=threads)
        for backend in backends
    )
    return FullReport(tuple(backends), seq_len, batch, seed, reports)
