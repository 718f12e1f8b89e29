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
from fastlstm.checking.reports import verdict, with_names
from fastlstm.checking.rows import Row, RowsReport, compare


@dataclasses.dataclass(frozen=True)
class ComplexStepReport(RowsReport):
    """The result of a complex-step check, of the reference."""

    title: ClassVar[str] = "complex steps"

    def __str__(self) -> str:
        """One line, and the names of what is wrong."""
        line = f"{self.heading}: {self.judged:,} entries, worst {self.worst:.1e}, allowed {COMPLEX_TOLERANCE:.0e}"
        return with_names(f"{line} {verdict(self.passed)}", self.wrong)


def check_at(at: Point, rows: Sequence[Row]) -> ComplexStepReport:
    """Compare the reference's gradient at a point in float64 with complex steps, for the entries of ``rows``."""
    analytic = Loss("reference", at).gradient()
    finite = analytic.flat[np.isfinite(analytic.flat)]
    floor = COMPLEX_FLOOR * float(np.abs(finite).max(initial=1.0))
    results = []
    for row in rows:
        numeric = np.array([_derivative(at, place) for place in row.places])
        results.append(compare(row, analytic.flat[row.places], numeric, floor, COMPLEX_TOLERANCE))
    return ComplexStepReport("reference", tuple(results))


def _derivative(at: Point, place: int) -> float:
    """The derivative with respect to one entry of ``Parameters.flat``."""
    direction = np.zeros_like(at.parameters.flat)
    direction[place] = 1
    return complex_step(at, direction)
