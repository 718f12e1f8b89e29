"""The sweep over h: how the error of a numerical derivative depends on its step, along a random direction.

The error of a centred difference is a V. On the right its truncation falls with h, as ``h**2`` with two losses and as
``h**4`` with four; on the left the rounding of the losses, divided by h, grows. A complex step has the right side
alone. In float32 rounding takes over so early that the lowest point, near 1e-4, is as high as the error of many a bug.

**A bug is a flat line.** If the analytic gradient is wrong, no h brings the error below the size of the mistake: all
methods agree with each other and not with it.

Each method passes when its lowest error is within its tolerance. That is where the V of a correct gradient turns, with
a margin of a few powers of ten: with two losses near ``eps**(2/3)``, 4e-11, with four near ``eps**(4/5)``, 3e-13, both
times some constants of the network. Denominators are those of the checks of single entries.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from fastlstm.checking.differences import (
    COMPLEX_FLOOR,
    COMPLEX_TOLERANCE,
    STEP,
    TOLERANCE,
    Loss,
    complex_step,
    four_losses,
    relative_error,
    two_losses,
)
from fastlstm.checking.points import Point
from fastlstm.checking.reports import WIDTH, Report, aligned, largest, verdict
from fastlstm.config import BackendName
from fastlstm.params import FloatArray

#: The steps h of a sweep.
STEPS = tuple(float(f"1e-{n}") for n in range(1, 13))


@dataclasses.dataclass(frozen=True)
class Method:
    """The errors of one method.

    Attributes
    ----------
    name : ``two losses``, ``four losses``, ``complex step`` or ``float32``.
    errors : relative error for each h.
    allowed : the largest that the lowest of them may be; ``None``: the method is shown, not judged.
    """

    name: str
    errors: tuple[float, ...]
    allowed: float | None

    @property
    def label(self) -> str:
        """Its name."""
        return self.name

    @property
    def lowest(self) -> float:
        """The lowest error; NaN if any is NaN."""
        return float(np.min(self.errors))

    @property
    def passed(self) -> bool:
        """Whether the lowest error is allowed."""
        return self.allowed is None or self.lowest <= self.allowed


@dataclasses.dataclass(frozen=True)
class SweepReport(Report):
    """The result of a sweep.

    Attributes
    ----------
    backend : that was checked.
    steps : the values of h.
    methods : centred differences with two and with four losses, of the reference complex steps, and two losses in
        float32.
    """

    title: ClassVar[str] = "sweep over h"

    backend: BackendName
    steps: tuple[float, ...]
    methods: tuple[Method, ...]

    @property
    def items(self) -> tuple[Method, ...]:
        return self.methods

    @property
    def worst(self) -> float:
        """The largest of the lowest errors of the methods that are judged."""
        return largest([method.lowest for method in self.methods if method.allowed is not None])

    def __str__(self) -> str:
        """A table with h down and methods across, and what follows."""
        titles = ["h", *(method.name for method in self.methods), ""]
        errors = zip(*(method.errors for method in self.methods), strict=True)
        rows = [[f"{h:.0e}", *(f"{error:.1e}" for error in row), ""] for h, row in zip(self.steps, errors, strict=True)]
        lowest = ["lowest", *(f"{method.lowest:.1e}" for method in self.methods), ""]
        allowed = ["" if method.allowed is None else f"{method.allowed:.0e}" for method in self.methods]
        table = aligned([titles, *rows, lowest, ["allowed", *allowed, verdict(self.passed)]], left=1)
        title = f"{self.heading}: relative error along a random direction"
        return "\n".join([title, *table, textwrap.fill(self._conclusion(), WIDTH)])

    def _conclusion(self) -> str:
        if not self.passed:
            return "No h brings the errors down to where they belong: the gradient is wrong, not the step."
        single = self.methods[-1]
        h = self.steps[int(np.argmin(single.errors))]
        return (
            f"float32 cannot check gradients: at best, with h = {h:.0e}, its error is {single.lowest:.0e}, because"
            " losses are rounded to 7 digits before they are subtracted."
        )


def check_at(at: Point, direction: FloatArray, backend: BackendName, *, threads: int = 1) -> SweepReport:
    """Sweep over h at a point in float64, along ``direction``, an array like ``Parameters.flat``."""
    loss = Loss(backend, at, threads=threads)
    gradient = loss.gradient().flat
    analytic, floor = float(gradient @ direction), loss.floor(STEP)
    line = loss.along(direction)
    single = Loss(backend, at.astype("float32"), threads=threads).along(direction.astype(np.float32))

    def method(name: str, derivative: Callable[[float], float], floor: float, allowed: float | None) -> Method:
        numeric = np.array([derivative(h) for h in STEPS])
        errors = relative_error(np.array(analytic), numeric, floor, TOLERANCE if allowed is None else allowed)
        return Method(name, tuple(errors.tolist()), allowed)

    methods = [
        method("two losses", lambda h: two_losses(line, h), floor, TOLERANCE),
        method("four losses", lambda h: four_losses(line, h), floor, TOLERANCE),
    ]
    if backend == "reference":
        # The floor of an entry is relative to the largest; here to the norm, because the direction has length 1.
        of_sum = COMPLEX_FLOOR * max(1.0, float(np.linalg.norm(gradient)))
        methods.append(method("complex step", lambda h: complex_step(at, direction, h), of_sum, COMPLEX_TOLERANCE))
    methods.append(method("float32", lambda h: two_losses(single, h), floor, None))
    return SweepReport(backend, STEPS, tuple(methods))
