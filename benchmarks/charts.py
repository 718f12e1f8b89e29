"""Charts of the results. matplotlib is imported when one is drawn."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.libraries import OURS
from benchmarks.table import Result, conditions, measured

#: The limits of a result and their lines: the machine's multiply-adds in both precisions.
LIMITS = (
    ("limit_chars_per_s", "dashed", "limit: fp32 multiply-adds"),
    ("bf16_limit_chars_per_s", "dotted", "limit: bf16 multiply-adds"),
)

#: Width of a bar, and of the space for a workload at least, in inches.
BAR, WORKLOAD = 0.16, 1.3


def _pyplot() -> Any:
    """matplotlib's pyplot with a backend that draws to files only."""
    importlib.import_module("matplotlib").use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def draw_peers(results: Sequence[Result], path: Path) -> None:
    """Bars: characters per second by workload and library, and the limits given by the machine's multiply-adds."""
    plt = _pyplot()
    libraries = measured(results)
    inches = max(WORKLOAD, 1.25 * BAR * len(libraries))
    figure, axes = plt.subplots(figsize=(inches * len(results) + 2, 5), layout="constrained")
    width = 0.8 / len(libraries)
    for n, library in enumerate(libraries):
        drawn = [(place, result) for place, result in enumerate(results) if result.get(library.field) is not None]
        places = [place - 0.4 + (n + 0.5) * width for place, _ in drawn]
        speeds = [1e3 * result["chars"] / result[library.field] for _, result in drawn]
        axes.bar(places, speeds, width, label=library.label, color=library.colour)
    for field, style, label in LIMITS:
        known = [(place, result[field]) for place, result in enumerate(results) if result.get(field) is not None]
        if known:
            places, limits = zip(*known, strict=True)
            left, right = [place - 0.45 for place in places], [place + 0.45 for place in places]
            axes.hlines(limits, left, right, colors="black", linestyles=style, label=label)
    axes.set_yscale("log")
    axes.set_xticks(range(len(results)), [result["workload"] for result in results])
    axes.set_ylabel("characters per second")
    axes.set_title(textwrap.fill(conditions(results), int(14 * inches * len(results)) + 30), fontsize=8)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_scaling(points: Sequence[dict[str, Any]], path: Path) -> None:
    """A panel for each size that is varied: time per character, measured and according to the number of operations."""
    plt = _pyplot()
    varied = list(dict.fromkeys(point["varied"] for point in points))
    columns = min(3, len(varied))
    rows = -(-len(varied) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(4 * columns, 3.2 * rows), layout="constrained", squeeze=False)
    for axes, name in zip(grid.flat, varied, strict=False):
        chosen = [point for point in points if point["varied"] == name]
        values = [point["value"] for point in chosen]
        axes.loglog(values, [point["us"] for point in chosen], "o-", color=OURS.colour, label="measured")
        axes.loglog(values, [point["limit_us"] for point in chosen], "k--", label="flops / measured peak")
        axes.set_xlabel(name)
        axes.set_ylabel("us per character")
        axes.set_xticks(values, [str(value) for value in values], fontsize=7, rotation=60)
        axes.set_xticks([], minor=True)
    for axes in grid.flat[len(varied) :]:
        axes.set_visible(False)
    grid.flat[0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)
