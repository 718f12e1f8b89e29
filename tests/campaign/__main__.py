"""Run the reliability campaign, and record its results.

usage: python -m tests.campaign [-k EXPRESSION] [--scale X] [--seed N] [--table]

The counts of the parts that were run are recorded in `tests/campaign/results.json`; other parts keep their older ones.
The table of what is promised is printed. With ``--table`` nothing is run, and it is put into docs/reliability.md.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
import results

from benchmarks.table import insert


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description="Run the reliability campaign.")
    parser.add_argument("-k", metavar="EXPRESSION", default="", help="run only tests whose names match, as in pytest")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="factor on the number of trials")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of all trials")
    parser.add_argument("--table", action="store_true", help="run nothing; put the results into docs/reliability.md")
    options = parser.parse_args()
    if options.table:
        page = results.PAGE.read_text(encoding="utf-8")
        results.PAGE.write_text(insert(page, results.table(results.read()), results.MARKS), encoding="utf-8")
        return 0
    status, counts = run(options.k, options.scale, options.seed)
    entries = results.add(counts, results.about() | {"scale": options.scale, "seed": options.seed})
    print(f"\n{results.table(entries)}")
    return status


def run(expression, scale, seed):
    """Run the campaign; returns the exit status, and the counts of the parts that were run to their end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "counts.json")
        arguments = [f"--campaign-scale={scale}", f"--campaign-seed={seed}", f"--campaign-counts={file}"]
        selection = ["-m", "campaign", "-k", expression, str(Path(__file__).parent)]
        status = pytest.main([f"--rootdir={results.ROOT}", *arguments, *selection])
        return int(status), json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
