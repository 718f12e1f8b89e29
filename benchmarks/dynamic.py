"""What a trained model gains when it learns while it reads, `evaluate --dynamic`, on the last 10 % of a text.

usage: python -m benchmarks.dynamic [--data FILE] [--json FILE] [--write]
       python -m benchmarks.dynamic --table [--json FILE] [--write]

The learning rate is chosen where it is not measured: the last 10 % are left out, and of the rest the same is done for
several rates. Models are those of `train` with the settings that it chooses; it trains on the first 90 %. The text is
tiny-shakespeare by default. ``--write`` puts the sentence about the gain between its marks in README.md and
docs/using.md; ``--table`` measures nothing, and takes the recorded results.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import input_file
from benchmarks.compression import TEXT, name_of
from benchmarks.peers import cpu_name
from benchmarks.table import ROOT, insert
from fastlstm import Model, __version__, corpora, train
from fastlstm.learning import TRAINED

#: The recorded results, and the name of the marks that enclose the sentence in the pages.
FILE, MARKS = Path(__file__).with_name("results") / "dynamic.json", "dynamic"

PAGES = ("README.md", "docs/using.md")

#: The rates of which the best one is taken.
RATES = (1e-4, 2e-4, 3e-4, 5e-4, 1e-3)


def trained(text: str) -> Model:
    """A model of the first 90 % of a text, as `train` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        data, run = Path(folder, "text.txt"), Path(folder, "run")
        data.write_text(text, encoding="utf-8", newline="")
        if train.main(["--data", str(data), "--out", str(run), "--quiet"]) != 0:
            sys.exit("the training did not finish")
        return Model.load(run)


def bits(model: Model, text: str, rate: float) -> float:
    """Bits per character of a text for a copy of a model that learns with a rate."""
    return model.evaluate_dynamic(text, dataclasses.replace(TRAINED, lr=rate)).bits_per_char


def parts(text: str) -> tuple[str, str]:
    """The first part of a text, and its last 10 %, on which `train` does not train."""
    cut = len(text) - math.ceil(0.1 * len(text))
    return text[:cut], text[cut:]


def measure(text: str) -> dict[str, Any]:
    """The bits on the last 10 % of a text, and what led to the rate."""
    rest, last = parts(text)
    early, before = trained(rest), parts(rest)[1]
    rates = {rate: bits(early, before, rate) for rate in RATES}
    best = min(rates, key=rates.__getitem__)
    model = trained(text)
    return {
        "fixed_bits": model.evaluate(last).bits_per_char, "dynamic_bits": bits(model, last, best), "rate": best,
        "rates": {"fixed": early.evaluate(before).bits_per_char, **{f"{rate:g}": rates[rate] for rate in RATES}},
        "hidden": model.config.hidden, "layers": model.config.layers, "seq_len": TRAINED.seq_len,
    }  # fmt: skip


def sentence(result: dict[str, Any]) -> str:
    """The gain, in words."""
    fixed, learning = result["fixed_bits"], result["dynamic_bits"]
    return (
        f"A model of {result['layers']} x {result['hidden']}, trained by `train` on the first 90 % of {result['text']},"
        f" takes {fixed:.3f} bits per character for the last 10 %, and {learning:.3f} with `evaluate --dynamic --lr"
        f" {result['rate']:g}`: {100 * (1 - learning / fixed):.1f} % less. (The rate was chosen on another part of the"
        " text: `python -m benchmarks.dynamic`.)"
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.dynamic", description="What a model gains when it learns while it reads."
    )
    parser.add_argument("--data", type=input_file, metavar="FILE", help=f"the text ({TEXT})")
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE", help=f"the results (results/{FILE.name})")
    parser.add_argument("--write", action="store_true", help=f"put the sentence into {' and '.join(PAGES)}")
    parser.add_argument("--table", action="store_true", help="measure nothing: take the results from the file")
    options = parser.parse_args(argv)
    if not options.table:
        data = corpora.load(TEXT) if options.data is None else options.data.read_bytes()
        about = {"text": name_of(data, options.data), "cpu": cpu_name(), "version": __version__}
        result = about | measure(data.decode())
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = textwrap.fill(sentence(json.loads(options.json.read_text(encoding="utf-8"))), 120, break_on_hyphens=False)
    print(text)
    for page in (ROOT / name for name in PAGES if options.write):
        page.write_text(insert(page.read_text(encoding="utf-8"), text, MARKS), encoding="utf-8")


if __name__ == "__main__":
    main()
