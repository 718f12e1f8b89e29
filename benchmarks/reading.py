"""How fast verbs read a text with a trained model, everything included: file, encoding, computing, output.

usage: python -m benchmarks.reading [--data TEXT] [--rounds N] [--json FILE] [--document docs/using.md]

The verbs run in turn, in one process, with a model of one layer of 128 units. With ``--document``, the table is put
between two marks of that file.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import output_file, positive
from benchmarks.table import insert, marks, rows
from benchmarks.timing import seconds_of
from fastlstm import Model
from fastlstm.backend import has_bf16
from fastlstm.text import read_text
from fastlstm.threads import default_threads

#: The name of the marks that enclose the table.
MARKS = "reading"

HIDDEN = 128

#: Reads a text file with the model in a file.
Read = Callable[[str, str], object]


def verb(name: str, *options: str) -> Read:
    """A verb that reads a text with a model; what it prints is discarded."""

    def read(model: str, text: str) -> None:
        main = importlib.import_module(f"fastlstm.{name}").main
        with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
            if main([model, text, *options]) != 0:
                raise RuntimeError(f"{name} {' '.join(options)} failed")

    return read


#: What is measured, by the command as users write it.
WORKLOADS: dict[str, Read] = {
    "evaluate": verb("evaluate"),
    "evaluate --lanes 64": verb("evaluate", "--lanes", "64"),
    "score": verb("score"),
    "score --top 5": verb("score", "--top", "5"),
}
if has_bf16("fast"):
    BF16 = ("--precision", "bf16")
    WORKLOADS["evaluate --lanes 64 --precision bf16"] = verb("evaluate", "--lanes", "64", *BF16)
    WORKLOADS["score --top 5 --precision bf16"] = verb("score", "--top", "5", *BF16)


def measured(text: str, rounds: int) -> dict[str, Any]:
    """Characters per second of each workload, the median over the rounds, and the conditions."""
    with tempfile.TemporaryDirectory() as folder:
        model, file = (str(Path(folder) / name) for name in ("model.safetensors", "text.txt"))
        Model.for_text(text, hidden=HIDDEN).save(model)
        Path(file).write_bytes(text.encode())
        for read in WORKLOADS.values():
            read(model, file)  # compiles kernels
        times: dict[str, list[float]] = {name: [] for name in WORKLOADS}
        for _ in range(rounds):
            for name, read in WORKLOADS.items():
                times[name].append(seconds_of(lambda read=read: read(model, file)))
    rates = {name: round(len(text) / statistics.median(found)) for name, found in times.items()}
    conditions = {"chars": len(text), "hidden": HIDDEN, "threads": default_threads(), "rounds": rounds}
    return {**conditions, "chars_per_s": rates}


def markdown(result: dict[str, Any]) -> str:
    """The table of a result, and its conditions."""
    table = rows([["", "characters/s"], *([f"`{name}`", f"{rate:,}"] for name, rate in result["chars_per_s"].items())])
    threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
    return (
        f"{table}\n\nA text of {result['chars']:,} characters and a model of 1 x {result['hidden']}, {threads}, from"
        f" the start of the verb to its end; medians of {result['rounds']} rounds (`python -m benchmarks.reading`)."
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reading", description="How fast verbs read a text with a trained model."
    )
    parser.add_argument("--data", default="tinyshakespeare", metavar="TEXT", help="a text (tinyshakespeare)")
    parser.add_argument("--rounds", type=positive, default=7, metavar="N", help="number of turns of each (7)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--document", type=Path, metavar="FILE", help=f"put them between {' and '.join(marks(MARKS))}")
    options = parser.parse_args(argv)
    result = measured(read_text([options.data]), options.rounds)
    print(markdown(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    if options.document:
        try:
            document = insert(options.document.read_text(encoding="utf-8"), markdown(result), MARKS)
            options.document.write_text(document, encoding="utf-8")
        except (OSError, ValueError) as error:
            sys.exit(f"{options.document}: {error}")


if __name__ == "__main__":
    main()
