"""A chart of sweeps over h; it needs matplotlib, of the extra ``plot``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastlstm import extras
from fastlstm.checking.differences import TOLERANCE
from fastlstm.checking.sweep import SweepReport

#: Width and height of the chart of one backend, in inches.
_SIZE = (5.5, 4.5)

#: Colour and marker of each method.
_STYLES = {"two losses": "C0o", "four losses": "C1s", "complex step": "C2D", "float32": "C3^"}

#: An error of 0, which a logarithmic axis lacks, is drawn as a rounding error.
_SMALLEST = float(np.finfo(np.float64).eps)

#: Where the error axis ends: a larger error is as wrong as 1.
_LARGEST = 10.0


def figure(sweeps: Sequence[SweepReport]) -> Any:
    """Draw the errors of sweeps against h, both on logarithmic axes, a panel for each backend.

    Parameters
    ----------
    sweeps : at least one.

    Returns
    -------
    A ``matplotlib.figure.Figure``; `fastlstm.charts.write` writes it into a file.

    Raises
    ------
    FastlstmError
        When matplotlib is missing.
    """
    module = extras.load("matplotlib.figure", extra="plot", purpose="a chart")
    made = module.Figure((_SIZE[0] * len(sweeps), _SIZE[1]), layout="constrained")
    panels = made.subplots(1, len(sweeps), squeeze=False, sharey=True)[0]
    for axes, sweep in zip(panels, sweeps, strict=True):
        _draw(axes, sweep)
    panels[0].set_ylabel("relative error")
    return made


def _draw(axes: Any, sweep: SweepReport) -> None:
    for method in sweep.methods:
        errors = np.clip(method.errors, _SMALLEST, _LARGEST)
        axes.loglog(sweep.steps, errors, f"{_STYLES[method.name]}-", markersize=4, linewidth=1.4, label=method.name)
    axes.axhline(TOLERANCE, color="0.4", linestyle="--", linewidth=1, label="allowed of differences")
    axes.set_title(f"{sweep.backend}: derivative along a random direction", fontsize=10)
    axes.set_xlabel("step h")
    axes.set_ylim(_SMALLEST / 3, _LARGEST * 3)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
