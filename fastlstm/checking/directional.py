"""The directional check: all parameters at once, along a random direction, for the price of a few losses.

The gradient times the direction is compared with a centred difference along it. An error in any entry shows, unless the
direction is by chance nearly orthogonal to it; which entry it is does not show.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np

from fastlstm.checking.differences import STEP, TOLERANCE, Loss, four_losses, relative_error
from fastlstm.checking.points import Point
from fastlstm.checking.reports import Report, verdict
from fastlstm.config import BackendName
from fastlstm.params import FloatArray


@dataclasses.dataclass(frozen=True)
class DirectionalReport(Report):
    """The result of a directional check, which judges a single number: itself.

    Attributes
    ----------
    backend : that was checked.
    analytic, numeric : derivatives along the direction, in nats.
    error : the relative error (see `fastlstm.checking.differences`).
    """

    title: ClassVar[str] = "random direction"
    label: ClassVar[str] = "all parameters"

    backend: BackendName
    analytic: float
    numeric: float
    error: float

    @property
    def worst(self) -> float:
        return self.error

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCE

    @property
    def items(self) -> tuple[DirectionalReport, ...]:
        return (self,)

    def __str__(self) -> str:
        """One line: the analytic and the numeric derivative, and the error."""
        numbers = f"{self.analytic:.3e} and {self.numeric:.3e}, error {self.error:.1e}"
        return f"{self.heading}: {numbers} {verdict(self.passed)}"


def check_at(at: Point, direction: FloatArray, backend: BackendName, *, threads: int = 1) -> DirectionalReport:
    """Compare the gradient at a point in float64 with a centred difference.

    ``direction`` is an array like ``Parameters.flat``.
    """
    loss = Loss(backend, at, threads=threads)
    analytic = float(loss.gradient().flat @ direction)
    numeric = four_losses(loss.along(direction), STEP)
    error = relative_error(np.array(analytic), np.array(numeric), loss.floor(STEP), TOLERANCE)
    return DirectionalReport(backend, analytic, numeric, float(error))
