"""Figures of a run's history: losses, learning rate, gradient norm, throughput."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.cells import CellName
from fastlstm.history import History
from fastlstm.pages.figures import COLOURS, draw
from fastlstm.pages.page import Figure

#: Fraction of the steps, at the beginning, whose training losses may be above the figure, as in `fastlstm.charts`.
_CUT = 0.03

#: Most points of the throughput's curve.
_WINDOWS = 60

#: Seconds from which a time axis is in minutes.
_MINUTES_FROM = 300


def loss(run: History, cell: CellName, symbol: str) -> Figure:
    """The loss curves of a run that has recorded a loss.

    Parameters
    ----------
    run : its history.
    cell : whose colour is used.
    symbol : "character" or "byte".
    """
    training, validation = run.training, run.validation

    def paint(axes: Any) -> None:
        axes.plot(training.step, training.train_nats, color=COLOURS["mid"], linewidth=1.4, label="training, smoothed")
        # Exact losses are of the whole part: a line to them from the estimates, which are of a sample, would tell of a
        # change that is none.
        exact = validation.val_error == 0
        if not exact.all():
            axes.errorbar(
                validation.step[~exact], validation.val_nats[~exact], validation.val_error[~exact], color=COLOURS[cell],
                marker="o", markersize=4, elinewidth=1, capsize=2, label="validation, estimated",
            )  # fmt: skip
        if exact.any():
            axes.plot(
                validation.step[exact], validation.val_nats[exact], color=COLOURS[cell], marker="D", markersize=9,
                markerfacecolor="none", linewidth=1, clip_on=False, label="validation, exact",
            )  # fmt: skip
        if run.best_nats is not None:
            axes.plot(
                run.best_step, run.best_nats, color=COLOURS[cell], marker="*", markersize=8, linewidth=0, clip_on=False,
                markeredgecolor=COLOURS["ground"], zorder=5, label="best model",
            )  # fmt: skip
        _steps(axes)
        axes.set_ylim(*_range(run))
        axes.set_ylabel(f"loss, nats per {symbol}")
        bits = axes.secondary_yaxis("right", functions=(lambda nats: nats / math.log(2), lambda b: b * math.log(2)))
        bits.set_ylabel(f"bits per {symbol}")
        axes.legend(loc="upper right")

    return draw(
        "loss",
        "Loss",
        "Training and validation loss against the training step.",
        "The smoothed loss of training, and the validations. Estimates are from a sample of the validation text, with"
        " their standard errors; an exact loss is of all of it, so it may be off the line.",
        paint,
    )


def _range(run: History) -> tuple[float, float]:
    """The lowest and the highest loss of the figure; a run's first losses may be above it."""
    training = run.training
    begin = _CUT * training.step[-1] if len(training.step) else 0
    best = [] if run.best_nats is None else [run.best_nats]
    shown = np.concatenate([training.train_nats[training.step >= begin], run.validation.val_nats, best])
    shown = shown[np.isfinite(shown)]
    if not shown.size:
        return 0.0, 1.0
    margin = 0.05 * float(np.ptp(shown)) or 0.1
    return float(shown.min()) - margin, float(shown.max()) + margin


def rate(run: History, cell: CellName) -> Figure:
    """The learning rate of the recorded steps."""

    def paint(axes: Any) -> None:
        axes.plot(run.training.step, run.training.rate, color=COLOURS[cell])
        _steps(axes)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("learning rate")

    return draw(
        "rate", "Learning rate", "The learning rate against the training step.", "Of the recorded steps.", paint
    )


def norm(run: History, cell: CellName, limit: float | None) -> Figure:
    """The gradient's norm at the recorded steps, and the limit to which it is clipped, if there is one."""

    def paint(axes: Any) -> None:
        axes.plot(run.training.step, run.training.norm, color=COLOURS[cell], linewidth=0.9)
        if limit is not None:
            axes.axhline(limit, color=COLOURS["ink"], linewidth=1.2, linestyle="--")
        if np.nanmax(run.training.norm, initial=0.0) > 0:
            axes.set_yscale("log")
            axes.yaxis.get_major_locator().set_params(subs=(1, 2, 5))  # most norms are within a decade or two
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        _steps(axes)
        axes.set_ylabel("norm of the gradient")

    about = "On a logarithmic axis."
    if limit is not None:
        about = f"Before clipping, on a logarithmic axis. Dashed: {limit:g}, to which larger ones are clipped."
    return draw("norm", "Gradient norm", "The norm of the gradient against the training step.", about, paint)


def throughput(run: History, cell: CellName, symbols_per_step: int, symbol: str) -> Figure:
    """Symbols per second over the time spent in training steps; of a run with at least two recorded steps."""
    seconds, speed = speeds(run, symbols_per_step)
    is_long = len(seconds) > 0 and seconds[-1] >= _MINUTES_FROM

    def paint(axes: Any) -> None:
        axes.plot(seconds / 60 if is_long else seconds, speed, color=COLOURS[cell], drawstyle="steps-pre")
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter("{x:,.10g}")
        axes.set_xlabel(f"{'minutes' if is_long else 'seconds'} of training")
        axes.set_ylabel(f"{symbol}s per second")

    return draw(
        "throughput",
        "Throughput",
        f"{symbol.capitalize()}s per second against the time of training.",
        "Averages over parts of the run. The time is that of training steps, without validations and samples.",
        paint,
    )


def speeds(run: History, symbols_per_step: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The speed of a run in up to 60 parts of it.

    Returns
    -------
    seconds : (N,) the end of each part, in seconds of training.
    speed : (N,) symbols per second in it.
    """
    step, seconds = run.training.step, run.training.seconds
    known = np.isfinite(seconds)
    step, seconds = np.append(0, step[known]), np.append(0.0, np.maximum.accumulate(seconds[known]))
    # Times are recorded in milliseconds: of the steps that have the same one, the last counts.
    later = np.append(np.diff(seconds) > 0, True)
    step, seconds = step[later], seconds[later]
    ends = np.unique(np.linspace(0, len(step) - 1, _WINDOWS + 1).astype(int))
    return seconds[ends[1:]], symbols_per_step * np.diff(step[ends]) / np.diff(seconds[ends])


def _steps(axes: Any) -> None:
    """The x axis of all curves over steps."""
    axes.set_xlim(left=0)
    axes.set_xlabel("steps")
    axes.xaxis.set_major_formatter("{x:,.10g}")
