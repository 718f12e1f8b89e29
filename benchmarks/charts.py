"""Charts of the results. matplotlib is imported when one is drawn."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import LIBRARIES, Result, conditions

COLOURS = {
    "ours_ms": "#d1495b", "ours_1_thread_ms": "#e8a0aa", "torch_ms": "#30638e", "torch_1_thread_ms": "#7d9cb8",
    "jax_ms": "#edae49", "torch_bf16_ms": "#8fb8de",
}  # fmt: skip


def _pyplot() -> Any:
    """matplotlib's pyplot with a backend that draws to files only."""
    importlib.import_module("matplotlib").use("Agg")
    return importlib.import_module("matplotlib.pyplot")


def draw_peers(results: Sequence[Result], path: Path) -> None:
    """Bars: characters per second by workload and library, and the limit given by the machine's multiply-adds."""
    plt = _pyplot()
    keys = [key for key in LIBRARIES if any(result.get(key) is not None for result in results)]
    figure, axes = plt.subplots(figsize=(1.3 * len(results) + 2, 5), layout="constrained")
    width = 0.8 / len(keys)
    for n, key in enumerate(keys):
        measured = [(place, result) for place, result in enumerate(results) if result.get(key) is not None]
        places = [place - 0.4 + (n + 0.5) * width for place, _ in measured]
        speeds = [1e3 * result["chars"] / result[key] for _, result in measured]
        axes.bar(places, speeds, width, label=LIBRARIES[key].rstrip(","), color=COLOURS[key])
    limits = [result["limit_chars_per_s"] for result in results]
    left, right = [n - 0.45 for n in range(len(results))], [n + 0.45 for n in range(len(results))]
    axes.hlines(limits, left, right, colors="black", linestyles="dashed", label="limit: fp32 multiply-adds")
    axes.set_yscale("log")
    axes.set_xticks(range(len(results)), [result["workload"] for result in results])
    axes.set_ylabel("characters per second")
    axes.set_title(textwrap.fill(conditions(results), 18 * len(results) + 30), fontsize=8)
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
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
        axes.loglog(values, [point["us"] for point in chosen], "o-", color=COLOURS["ours_ms"], label="measured")
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
