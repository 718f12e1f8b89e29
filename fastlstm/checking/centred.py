"""The gradient check: every parameter against centred differences of the loss, in float64.

`fastlstm.checking.differences` has the formula and what an error is measured by.
"""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from fastlstm.checking.differences import STEP, TOLERANCE, Loss, four_losses
from fastlstm.checking.points import Point, point
from fastlstm.checking.reports import WIDTH, with_names
from fastlstm.checking.rows import Row, RowsReport, chosen, compare, lines
from fastlstm.config import BackendName, ModelConfig, TrainConfig
from fastlstm.dropout import Dropout
from fastlstm.errors import ConfigError
from fastlstm.params import Parameters


@dataclasses.dataclass(frozen=True)
class GradientReport(RowsReport):
    """The result of a gradient check.

    Attributes
    ----------
    backend, parameters : see `RowsReport`.
    loss : in nats, summed over the T*B symbols.
    floor : estimated rounding error of a numerical gradient, in nats (see `fastlstm.checking.differences`).
    """

    title: ClassVar[str] = "centred differences"

    loss: float
    floor: float

    def __str__(self) -> str:
        """A table with one line for each parameter and gate."""
        return "\n".join([f"{self.heading}: {self.judged:,} entries, float64", *lines(self.parameters)])


@dataclasses.dataclass(frozen=True)
class OneStepReport(RowsReport):
    """Where to search for a mistake: the check of one time step, in which nothing has been passed back.

    In a sequence, one wrong gate makes all parameters below it wrong, because the time loop passes the error on.
    """

    title: ClassVar[str] = "one time step"

    def __str__(self) -> str:
        """What is wrong, or what it means that nothing is."""
        if self.passed:
            about = "all right: the mistake is in the loop over time, or in what one step passes to another"
            return textwrap.fill(f"{self.heading}: {about}", WIDTH, subsequent_indent=" " * 4)
        return with_names(f"{self.heading}: no step passes errors on; nearest to the loss first", self.wrong)


def check_gradients(
    model: ModelConfig | Parameters,
    *,
    seq_len: int = 8,
    batch: int = 2,
    backend: BackendName = "fast",
    seed: int = 0,
    per_param: int | None = None,
    step: float = STEP,
    threads: int = 1,
    gradient: Callable[[Parameters], None] | None = None,
    dropout: Dropout | None = None,
) -> GradientReport:
    """Compare the analytic gradient of the loss on random symbols with a numerical one, in float64, without clipping.

    Parameters
    ----------
    model : a configuration, for which parameters are drawn at random, or the parameters at which to check, such as
        ``Model.parameters`` (float32 is converted to float64). They are not changed.
    seq_len, batch : T and B of the random symbols.
    backend, threads : the implementation that is checked, and its number of workers.
    seed : of parameters, symbols, carried-in state and the choice of entries.
    per_param : number of entries of each parameter to check, see `fastlstm.checking.rows.chosen`; ``None``: all.
    step : h.
    gradient : called with the analytic gradients before the comparison; a negative control changes them in place.
    dropout : whose masks of step 0 are applied in all passes; ``None``: no dropout.

    Returns
    -------
    GradientReport
        ``report.passed`` is the verdict; ``print(report)`` shows one line for each parameter and gate.

    Raises
    ------
    ConfigError
        When a size is out of range.
    """
    TrainConfig(seq_len=seq_len, batch=batch, backend=backend, seed=seed, threads=threads)  # validates them
    if not (math.isfinite(step) and step > 0):
        raise ConfigError(f"step must be a finite number above 0, not {step!r}")
    rng = np.random.default_rng(seed)
    at = point(model, seq_len, batch, rng)
    rows = chosen(at.parameters.config, at.x, per_param, rng)
    return check_at(at, rows, backend, step=step, threads=threads, gradient=gradient, dropout=dropout)


def check_one_step(at: Point, rows: Sequence[Row], backend: BackendName, *, threads: int = 1) -> OneStepReport:
    """The check of the first time step alone, at a point in float64."""
    first = at._replace(x=at.x[:1], y=at.y[:1])
    return OneStepReport(backend, check_at(first, rows, backend, threads=threads).parameters)


def check_at(
    at: Point,
    rows: Sequence[Row],
    backend: BackendName,
    *,
    step: float = STEP,
    threads: int = 1,
    gradient: Callable[[Parameters], None] | None = None,
    dropout: Dropout | None = None,
) -> GradientReport:
    """`check_gradients` at a point in float64, of the entries of ``rows``."""
    loss = Loss(backend, at, threads=threads, dropout=dropout)
    analytic, floor = loss.gradient(), loss.floor(step)
    if gradient is not None:
        gradient(analytic)
    results = []
    for row in rows:
        numeric = np.array([four_losses(loss.along_entry(place), step) for place in row.places])
        results.append(compare(row, analytic.flat[row.places], numeric, floor, TOLERANCE))
    return GradientReport(backend, tuple(results), loss.nats, floor)
