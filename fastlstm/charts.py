"""Charts of the loss curves of runs: as a figure of matplotlib, and as text on a terminal.

The libraries are those of the extra ``plot``, and are imported when a chart is drawn.
"""

from __future__ import annotations

import io
import math
import os
import string
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastlstm import atomic, extras
from fastlstm.errors import FastlstmError
from fastlstm.history import History, differing, shown
from fastlstm.progress import nats_and_bits
from fastlstm.terminal import printable

Axis = Literal["steps", "seconds", "epochs"]
Format = Literal["png", "svg"]

_LABELS: dict[Axis, str] = {"steps": "steps", "seconds": "seconds of training", "epochs": "epochs"}

#: What every image contains among its first bytes, in its metadata: it tells the images of fastlstm from others.
_MARK, _FIRST_BYTES = "by fastlstm", 2000

#: Fraction of the x axis, at its beginning, where training losses may be above the chart: a run begins at the loss of
#: guessing, and a chart up to there would show little of the rest.
_CUT = 0.03

#: Width and height of a chart, in inches, and the most runs with a colour of their own.
_SIZE, _COLOURS = (9.0, 5.5), 10

#: Characters in a line of the legend, most lines of one inside of the chart, and inches of a line of one below it.
_LEGEND_WIDTH, _MOST_INSIDE, _LINE_HEIGHT = 90, 10, 0.165

#: The height of a chart on a terminal, in lines without its legend.
_TEXT_HEIGHT = 20

#: Marks of runs on a terminal.
_MARKS = "123456789" + string.ascii_lowercase

#: Colours on a terminal, as numbers of the 256 that terminals have.
_TERMINAL_COLOURS = (33, 208, 34, 160, 134, 37, 220, 205, 130, 245)

#: Replacements for the lines that plotext draws.
_ASCII = str.maketrans("┌┐└┘─│┤├┬┴┼", "++++-|+++++")


@dataclass(frozen=True, eq=False)
class _Curves:
    """What is drawn of a run: positions along the x axis, and losses in nats per symbol.

    ``x, y`` are of the training curve, ``at, losses, errors`` of the validation curve, ``best`` of the best model.
    """

    name: str
    settings: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    at: NDArray[np.float64]
    losses: NDArray[np.float64]
    errors: NDArray[np.float64]
    best: tuple[float, float] | None
    best_step: int

    @property
    def label(self) -> str:
        """The legend's text: name, best loss, and the settings that differ."""
        loss = f"{nats_and_bits(self.best[1])} at step {self.best_step:,}" if self.best else "no validation"
        return f"{self.name}: {loss}" + (f"; {self.settings}" if self.settings else "")


def _curves(runs: Sequence[History], axis: Axis) -> list[_Curves]:
    """The curves of the runs that have recorded a loss.

    Raises
    ------
    FastlstmError
        When none of them has.
    """
    names = differing(runs)
    found = [_curves_of(run, axis, names) for run in runs if len(run.training.step) or len(run.validation.step)]
    if not found:
        which = f"{str(runs[0].path)!r}" if len(runs) == 1 else "any of these runs"
        raise FastlstmError(f"there is no loss to draw in {which} yet: wait for its first steps")
    return found


def _curves_of(run: History, axis: Axis, names: Sequence[str]) -> _Curves:
    training, validation = run.training, run.validation
    best = None
    if run.best_nats is not None and run.best_step is not None:
        best = (_position(run, axis, run.best_step), run.best_nats)
    return _Curves(
        name=_line(run.name),
        settings=_line(", ".join(f"{name}={shown(run.settings[name])}" for name in names if name in run.settings)),
        x={"steps": training.step.astype(float), "seconds": training.seconds, "epochs": training.epoch}[axis],
        y=training.train_nats,
        at=np.array([_position(run, axis, step) for step in validation.step.tolist()]),
        losses=validation.val_nats,
        errors=validation.val_error,
        best=best,
        best_step=run.best_step or 0,
    )


def _position(run: History, axis: Axis, step: int) -> float:
    """The position of a step along the x axis."""
    if axis == "seconds":
        return run.seconds_at(step)
    return step * run.training.epochs_per_step if axis == "epochs" else float(step)


def _line(text: object) -> str:
    """A path, or a text from a file, as a line that is safe to show."""
    return " ".join(printable(str(text)).split())


def _range(curves: Sequence[_Curves]) -> tuple[float, float]:
    """The lowest and the highest loss of the chart, nats per symbol, with a margin."""
    begin = _CUT * _end(curves)
    best = [one.best[1] for one in curves if one.best]
    later = np.concatenate([best] + [part for one in curves for part in (one.y[one.x >= begin], one.losses)])
    every = np.concatenate([later] + [one.y for one in curves])
    later, every = later[np.isfinite(later)], every[np.isfinite(every)]
    if not every.size:
        return 0.0, 1.0
    low, high = float(every.min()), float((later if later.size else every).max())
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def _end(curves: Sequence[_Curves]) -> float:
    """The end of the x axis; at least a little more than 0."""
    positions = np.concatenate([part for one in curves for part in (one.x, one.at)])
    return max(float(np.max(positions, initial=0.0, where=np.isfinite(positions))), 1e-6)


def figure(runs: Sequence[History], axis: Axis = "steps") -> Any:
    """Draw the loss curves of runs: smoothed training loss, validations with their standard errors, the best models.

    Parameters
    ----------
    runs : at least one.
    axis : what the x axis shows; losses are in nats on the left and in bits on the right.

    Returns
    -------
    A ``matplotlib.figure.Figure``; `encode` makes the content of an image file from it.

    Raises
    ------
    FastlstmError
        When matplotlib is missing, or no run has recorded a loss.
    """
    curves = _curves(runs, axis)
    made = _matplotlib(".figure").Figure(_SIZE, layout="constrained")
    axes = made.subplots()
    for one, colour in zip(curves, _colours(len(curves)), strict=True):
        _draw_run(axes, one, colour)
    axes.set_xlim(left=0)
    axes.set_ylim(*_range(curves))
    axes.set_xlabel(_LABELS[axis])
    axes.xaxis.set_major_formatter("{x:,.10g}")
    axes.set_ylabel(f"nats per {_symbol(runs)}")
    right = axes.secondary_yaxis("right", functions=(_bits, lambda bits: bits * math.log(2)))
    right.set_ylabel(f"bits per {_symbol(runs)}")
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    _add_legend(made, axes, curves)
    return made


def _matplotlib(module: str = "") -> Any:
    """The library, or a module of it."""
    return extras.load(f"matplotlib{module}", extra="plot", purpose="a chart")


def _colours(count: int) -> list[Any]:
    """A colour for each run."""
    if count <= _COLOURS:
        return [f"C{n}" for n in range(count)]
    return list(_matplotlib().colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def _symbol(runs: Sequence[History]) -> str:
    kinds = {run.settings.get("bytes") is True for run in runs}
    return "symbol" if len(kinds) > 1 else "byte" if kinds == {True} else "character"


def _draw_run(axes: Any, one: _Curves, colour: Any) -> None:
    axes.plot(one.x, one.y, color=colour, linewidth=1, alpha=0.55)
    errors = np.where(one.errors > 0, one.errors, np.nan)  # no bar at an exact loss
    axes.errorbar(
        one.at, one.losses, errors, color=colour, marker="o", markersize=4, linewidth=1.4, elinewidth=1, capsize=2
    )
    if one.best is not None:
        axes.plot(*one.best, color=colour, marker="*", markersize=14, markeredgecolor="white", zorder=5)


def _add_legend(made: Any, axes: Any, curves: Sequence[_Curves]) -> None:
    """Name the runs, a single one in the title, and what is training and validation."""
    line = _matplotlib(".lines").Line2D
    entries = {}
    if len(curves) == 1:
        axes.set_title(textwrap.fill(curves[0].label, _LEGEND_WIDTH), fontsize=10, parse_math=False)
    else:
        for one, colour in zip(curves, _colours(len(curves)), strict=True):
            entries[textwrap.fill(one.label, _LEGEND_WIDTH)] = line([], [], color=colour, linewidth=3)
    colour = "C0" if len(curves) == 1 else "0.35"
    entries["training, smoothed"] = line([], [], color=colour, linewidth=1, alpha=0.55)
    entries["validation, with its standard error"] = line([], [], color=colour, marker="o", markersize=4, linewidth=1.4)
    entries["best model"] = line([], [], color=colour, marker="*", markersize=12, markeredgecolor="white", linewidth=0)
    lines = sum(label.count("\n") + 1 for label in entries)
    if lines <= _MOST_INSIDE:
        legend = axes.legend(entries.values(), entries, loc="upper right", fontsize=8)
    else:
        made.set_size_inches(_SIZE[0], _SIZE[1] + lines * _LINE_HEIGHT)
        legend = made.legend(entries.values(), entries, loc="outside lower center", fontsize=8)
    for text in legend.get_texts():
        text.set_parse_math(False)


def encode(made: Any, format: Format) -> bytes:
    """The content of an image file: PNG, or SVG. The same figure always gives the same bytes.

    Parameters
    ----------
    made : a figure of matplotlib.
    format : of the image.
    """
    about = f"chart {_MARK}"
    context = _matplotlib().rc_context
    metadata = {"png": {"Software": about}, "svg": {"Creator": about, "Date": None}}[format]
    file = io.BytesIO()
    with context({"svg.hashsalt": _MARK}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # in the name of a run
        made.savefig(file, format=format, dpi=150, metadata=metadata)
    return file.getvalue()


def is_chart(path: Path) -> bool:
    """Whether a file was made by `encode`; false for what cannot be read."""
    try:
        with open(path, "rb") as file:
            return _MARK.encode() in file.read(_FIRST_BYTES)
    except OSError:
        return False


def refuse_foreign(paths: Iterable[Path]) -> None:
    """Raise `FastlstmError` if there is a file that was not made by `encode`."""
    for path in paths:
        if os.path.lexists(path) and not is_chart(path):
            raise FastlstmError(
                f"{str(path)!r} exists, and is no chart of fastlstm: give --overwrite, or choose another name"
            )


def write(made: Any, path: Path, format: Format) -> None:
    """Write a figure of matplotlib into a file, atomically; an existing one is replaced.

    Raises
    ------
    FastlstmError
        When the file cannot be written.
    """
    try:
        atomic.write(path, [encode(made, format)], overwrite=True)
    except OSError as error:
        why = error.strerror or error
        raise FastlstmError(f"cannot write {str(path)!r} ({why}): choose another path") from None


def text(runs: Sequence[History], axis: Axis = "steps", *, width: int, colours: bool, ascii_only: bool = False) -> str:
    """Draw the loss curves of runs as text: training losses as a line of dots, validations as characters.

    Parameters
    ----------
    runs : at least one.
    axis : what the x axis shows; losses are in nats on the left and in bits on the right.
    width : of the chart, in characters.
    colours : whether the text contains the control codes of colours.
    ascii_only : whether to draw with no characters beyond ASCII; names and settings remain as they are.

    Raises
    ------
    FastlstmError
        When plotext is missing, or no run has recorded a loss.
    """
    curves = _curves(runs, axis)
    plt = extras.load("plotext", extra="plot", purpose="a chart on a terminal")
    low, high = _range(curves)
    plt.clear_figure()
    plt.limit_size(False, False)  # to the size of the terminal, which is unknown in a pipe
    plt.plotsize(width, _TEXT_HEIGHT)
    plt.theme("clear")
    plt.xlim(0, _end(curves))
    plt.ylim(low, high, yside="left")
    plt.ylim(_bits(low), _bits(high), yside="right")
    for n, one in enumerate(curves):
        _draw_text(plt, one, "." if ascii_only else "braille", _mark(n, curves), _terminal_colour(n))
    losses = f"nats (left) and bits (right) per {_symbol(runs)}, by {_LABELS[axis]}"
    lines = [losses, *plt.build().splitlines(), *_text_legend(plt, curves, width)]
    chart = "\n".join(line.rstrip() for line in lines)
    chart = chart if colours else plt.uncolorize(chart)
    return chart.translate(_ASCII) if ascii_only else chart


def _draw_text(plt: Any, one: _Curves, dots: str, mark: str, colour: int) -> None:
    """Draw a run in nats, and the same in bits: an axis has numbers only if something is drawn for it."""
    best = np.array([one.best] if one.best else []).reshape(-1, 2)
    parts = ((plt.plot, one.x, one.y, dots), (plt.scatter, one.at, one.losses, mark), (plt.scatter, *best.T, "*"))
    for draw, x, y, marker in parts:
        known = np.isfinite(x) & np.isfinite(y)
        if known.any():
            draw(x[known].tolist(), y[known].tolist(), marker=marker, color=colour, yside="left")
            draw(x[known].tolist(), _bits(y[known]).tolist(), marker=marker, color=colour, yside="right")


def _text_legend(plt: Any, curves: Sequence[_Curves], width: int) -> list[str]:
    lines = []
    for n, one in enumerate(curves):
        first, *rest = textwrap.wrap(one.label, max(width - 3, 20))
        lines += [f"{plt.colorize(_mark(n, curves), _terminal_colour(n))}  {first}", *(f"   {line}" for line in rest)]
    return [*lines, "*  best model"]


def _bits(nats: Any) -> Any:
    return nats / math.log(2)


def _mark(n: int, curves: Sequence[_Curves]) -> str:
    """The character of a run's validations: its number, if there are several runs, as far as one character goes."""
    return "o" if len(curves) == 1 else _MARKS[n % len(_MARKS)]


def _terminal_colour(n: int) -> int:
    return _TERMINAL_COLOURS[n % len(_TERMINAL_COLOURS)]
