"""The complex-step check of the reference: every parameter against the imaginary part of a loss.

`fastlstm.checking.differences` explains it. It reaches 1e-15, and so leaves no room for small mistakes: a bug in a
derivative is at least a hundred thousand times the error allowed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from fastlstm.checking.differences import COMPLEX_FLOOR, COMPLEX_TOLERANCE, Loss, complex_step
from fastlstm.checking.points import Point
from fastlstm.checking.reports import Report, largest, verdict, with_names
from fastlstm.checking.rows import ParameterCheck, Row, compare
from fastlstm.config import BackendName


@dataclasses.dataclass(frozen=True)
class ComplexStepReport(Report):
    """The result of a complex-step check.

    Attributes
    ----------
    backend : the reference, always.
    parameters : the result for each parameter, in a layer for each gate.
    """

    title: ClassVar[str] = "complex steps"

    backend: BackendName
    parameters: tuple[ParameterCheck, ...]

    @property
    def items(self) -> tuple[ParameterCheck, ...]:
        return self.parameters

    @property
    def judged(self) -> int:
        return sum(check.entries for check in self.parameters)

    @property
    def worst(self) -> float:
        return largest([check.worst for check in self.parameters])

    def __str__(self) -> str:
        """One line, and the names of what is wrong."""
        line = f"{self.heading}: {self.judged:,} entries, worst {self.worst:.1e}, allowed {COMPLEX_TOLERANCE:.0e}"
        return with_names(f"{line} {verdict(self.passed)}", self.wrong)


def check_at(at: Point, rows: Sequence[Row]) -> ComplexStepReport:
    """Compare the reference's gradient at a point in float64 with complex steps, for the entries of ``rows``."""
    analytic = Loss("reference", at).gradient()
    results = []
    for row in rows:
        numeric = np.array([_derivative(at, place) for place in row.places])
        floor = COMPLEX_FLOOR * float(np.abs(analytic[row.parameter.name]).max())
        results.append(compare(row, analytic.flat[row.places], numeric, floor, COMPLEX_TOLERANCE))
    return ComplexStepReport("reference", tuple(results))


def _derivative(at: Point, place: int) -> float:
    """The derivative with respect to one entry of ``Parameters.flat``."""
    direction = np.zeros_like(at.parameters.flat)
    direction[place] = 1
    return complex_step(at, direction)
