"""Training runs of settings on texts, with several seeds: which settings reach the lowest validation loss.

usage: python -m benchmarks.sweep [--texts A,B] [--minutes M] [--seeds N] [--grid FILE.toml] --out RESULTS.json
       python -m benchmarks.sweep --table RESULTS.json [--readme FILE]

A run is ``python -m fastlstm.train --json`` in a process of its own, one after another. Each result is written at once:
the same command goes on where an interrupted one stopped. A grid names lists of options of `fastlstm.train`:

    default = []
    "dropout 0.2" = ["--dropout-output", "0.2"]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from benchmarks import texts
from benchmarks.arguments import input_file, output_file, positive
from benchmarks.peers import ROOT, busy_seconds, cpu_name, say
from benchmarks.table import BUSY, insert, rows
from fastlstm import __version__, atomic
from fastlstm.errors import TextError
from fastlstm.terminal import COMPILING

#: The name of the marks in the README that enclose the table of a sweep.
MARKS = "sweep"

#: The grid without ``--grid``: the settings that the program chooses itself.
DEFAULT_GRID: dict[str, list[str]] = {"default": []}

Result = dict[str, Any]


class RunError(Exception):
    """A training run failed; the message is the last line that it printed."""


class Job(NamedTuple):
    """One run: a text and its file, the name of the setting and its options, and the seed."""

    text: str
    path: Path
    sha256: str
    setting: str
    options: list[str]
    seed: int

    @property
    def key(self) -> tuple[str, tuple[str, ...], int]:
        """What determines the run, except for the machine and the version; see `key_of`."""
        return self.sha256, tuple(self.options), self.seed


def key_of(result: Result) -> tuple[str, tuple[str, ...], int]:
    """The `Job.key` of the run with a result."""
    return result["sha256"], tuple(result["options"]), result["seed"]


def jobs(paths: dict[str, Path], grid: dict[str, list[str]], budget: Sequence[str], seeds: int) -> Iterator[Job]:
    """All runs: those of the first seed come first, so that an interrupted sweep has tried every setting.

    ``budget``: options that precede those of each setting.
    """
    hashes = {text: hashlib.sha256(path.read_bytes()).hexdigest() for text, path in paths.items()}
    for seed in range(seeds):
        for text, path in paths.items():
            for setting, options in grid.items():
                yield Job(text, path, hashes[text], setting, [*budget, *options], seed)


def run(job: Job) -> Result:
    """Train, once more if kernels were compiled, so that the time of the command is that of the training.

    Raises
    ------
    RunError
        When the run fails, or ends without a validation loss.
    """
    result, compiled = _train(job)
    return _train(job)[0] if compiled else result


def _train(job: Job) -> tuple[Result, bool]:
    """The result of a run, and whether kernels were compiled in it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "fastlstm.train", *job.options, "--data", str(job.path.resolve()),
            "--seed", str(job.seed), "--out", f"{folder}/run", "--json",
        ]  # fmt: skip
        busy, own, started = busy_seconds(), _children_seconds(), time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
        wall, own = time.perf_counter() - started, _children_seconds() - own
        after = busy_seconds()
    lines = done.stdout.splitlines()
    if done.returncode:
        raise RunError((done.stderr.strip().splitlines() or [f"its exit status is {done.returncode}"])[-1])
    trained = json.loads(lines[-1])
    if "val_nats" not in trained:
        raise RunError("the run has no validation loss")
    del trained["model"]  # it was in a temporary folder
    return {
        "text": job.text, "sha256": job.sha256, "bytes": job.path.stat().st_size, "setting": job.setting,
        "options": job.options, "seed": job.seed, "val_nats": trained["val_nats"], "steps": trained["steps"],
        "wall_seconds": wall, "trained": trained,
        "cores_of_others": None if busy is None or after is None else max(0.0, (after - busy - own) / wall),
        "cpu": cpu_name(), "versions": versions(),
    }, COMPILING in done.stdout + done.stderr  # fmt: skip


def _children_seconds() -> float:
    """CPU seconds of all processes that this one has started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def versions() -> dict[str, str]:
    """Versions of what a result depends on, with the commit of a source checkout."""
    git = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    return {
        "fastlstm": f"fastlstm {__version__}" + (f" ({commit})" if commit else ""),
        "numba": f"numba {importlib.metadata.version('numba')}",
        "python": f"Python {platform.python_version()}",
    }


def load(path: Path) -> list[Result]:
    """The results in a file; none if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def sweep(wanted: Sequence[Job], path: Path, run: Callable[[Job], Result] = run) -> int:
    """Run the jobs that a file has no result of, and write each result to it at once.

    Returns
    -------
    failures : number of runs that failed; the file has no result of them.
    """
    results = load(path)
    done = {key_of(result) for result in results}
    left = [job for job in wanted if job.key not in done]
    say(f"{len(left)} of {len(wanted)} runs are left")
    failures = 0
    for n, job in enumerate(left, 1):
        about = f"{n}/{len(left)}  {job.text}, {job.setting}, seed {job.seed}"
        try:
            result = run(job)
        except RunError as error:
            failures += 1
            say(f"{about}: failed, and is tried again by the next sweep: {error}")
            continue
        results.append(result)
        atomic.write(path, [json.dumps(results, indent=1).encode() + b"\n"], overwrite=True)
        say(f"{about}: {_nats(result['val_nats'])} nats, {result['wall_seconds'] / 60:.2f} minutes")
    return failures


def markdown(results: Sequence[Result]) -> str:
    """A row for each text and setting, in the order of their first results, after a line about the conditions."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result["text"], result["sha256"], " ".join(result["options"])), []).append(result)
    header = ["text", "setting", "options", "minutes", "val_nats", "lowest to highest", "seeds", "steps"]
    about = "Mean over the seeds of the validation loss, of the minutes of the whole command, and of the steps"
    return f"{about} ({conditions(results)}):\n\n{rows([header, *map(_row, groups.values())], words=3)}"


def _row(group: Sequence[Result]) -> list[str]:
    first = group[0]
    options = f"`{' '.join(first['options'])}`" if first["options"] else ""
    minutes = statistics.mean(result["wall_seconds"] for result in group) / 60
    steps = statistics.mean(result["steps"] for result in group)
    return [
        first["text"], first["setting"], options, f"{minutes:.2f}", *mean_and_spread(group), str(len(group)),
        f"{steps:,.0f}",
    ]  # fmt: skip


def mean_and_spread(group: Sequence[Result]) -> tuple[str, str]:
    """The mean of the validation losses of a group, and the lowest and the highest."""
    losses = [result["val_nats"] for result in group]
    if diverged := losses.count(None):
        return "", f"{diverged} not finite"
    return _nats(statistics.mean(losses)), f"{_nats(min(losses))} to {_nats(max(losses))}"


def _nats(value: float | None) -> str:
    """A loss; a JSON file has null for one that is not finite."""
    return "not finite" if value is None else f"{value:.4f}"


def conditions(results: Sequence[Result]) -> str:
    """All machines and versions, and the load of other programs unless it is negligible."""
    machines = dict.fromkeys(result["cpu"] for result in results)
    used = dict.fromkeys(version for result in results for version in result["versions"].values())
    others = max((result["cores_of_others"] or 0.0 for result in results), default=0.0)
    busy = [f"while other programs kept up to {others:.1f} cores busy"] if others > BUSY else []
    return ", ".join([*machines, *used, *busy])


def grid_file(text: str) -> dict[str, list[str]]:
    """A grid from a TOML file: named lists of options."""
    try:
        grid = tomllib.loads(input_file(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text} is not TOML: {error}") from None
    for name, options in grid.items():
        if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
            raise argparse.ArgumentTypeError(f'{text}: {name} must be a list of options, such as ["--hidden", "256"]')
    if not grid:
        raise argparse.ArgumentTypeError(f"{text} names no setting")
    return grid


def text_names(text: str) -> list[str]:
    """Names of texts, separated by commas."""
    names = text.split(",")
    if unknown := [name for name in names if name not in texts.TEXTS]:
        raise argparse.ArgumentTypeError(f"no text {unknown[0]!r}: there are {', '.join(texts.TEXTS)}")
    return names


def minutes(text: str) -> str:
    """A number above 0, as it is given."""
    try:
        valid = 0 < float(text) < float("inf")
    except ValueError:
        valid = False
    if not valid:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return text


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sweep", description="Train with settings on texts, and compare validation losses."
    )
    parser.add_argument(
        "--texts", type=text_names, default=texts.names("tune"), metavar="A,B",
        help="names of benchmarks.texts (default: all to tune on)",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, metavar="DIR", help="folder of the texts (default: the user's cache)")
    parser.add_argument("--minutes", type=minutes, metavar="M", help="pass --minutes M to every run")
    parser.add_argument("--seeds", type=positive, default=3, metavar="N", help="train with seeds 0 to N-1 (3)")
    parser.add_argument(
        "--grid", type=grid_file, default=DEFAULT_GRID, metavar="FILE.toml",
        help="named lists of options (default: one without options)",
    )  # fmt: skip
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=output_file, metavar="FILE.json", help="add the results to FILE")
    action.add_argument("--table", type=input_file, metavar="FILE.json", help="print the table of the results in FILE")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table between its marks in FILE")
    return parser.parse_args(argv)


def compare_settings(
    name: str,
    about: str,
    grid: dict[str, list[str]],
    markdown: Callable[[Sequence[Result]], str],
    argv: Sequence[str] | None,
    *,
    steps: int,
    seeds: int = 3,
) -> None:
    """The program ``benchmarks.NAME``: train with each setting of a grid for the same steps, and report a table.

    ``steps, seeds`` are the defaults; ``name`` is also that of the marks in the README that enclose the table.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("--text", choices=texts.TEXTS, default="shakespeare", metavar="NAME", help="text (shakespeare)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="folder of the texts (default: the user's cache)")
    parser.add_argument("--steps", type=positive, default=steps, metavar="N", help=f"steps of each run ({steps})")
    parser.add_argument(
        "--seeds", type=positive, default=seeds, metavar="N", help=f"train with seeds 0 to N-1 ({seeds})"
    )
    parser.add_argument("--out", type=output_file, required=True, metavar="FILE.json", help="add the results to FILE")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table between its marks in FILE")
    options = parser.parse_args(argv)
    try:
        path = texts.ensure(options.text, options.folder or texts.default_folder())
    except (TextError, OSError) as error:
        sys.exit(f"error: {error}")
    wanted = list(jobs({options.text: path}, grid, ["--steps", str(options.steps)], options.seeds))
    try:
        failures = sweep(wanted, options.out)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on from here")
    keys = {job.key for job in wanted}
    report(markdown, [one for one in load(options.out) if key_of(one) in keys], options.readme, name, failures)


def report(
    markdown: Callable[[Sequence[Result]], str],
    results: Sequence[Result],
    readme: Path | None,
    marks: str,
    failures: int,
) -> NoReturn:
    """Print the table of results, insert it between its marks in ``readme`` if that is given, and end the program."""
    if not results:
        sys.exit("there are no results")
    table = markdown(results)
    print(table)
    if readme:
        readme.write_text(insert(readme.read_text(encoding="utf-8"), table, marks), encoding="utf-8")
    sys.exit(f"{failures} runs failed" if failures else 0)


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    failures = 0
    if options.out:
        try:
            folder = options.folder or texts.default_folder()
            paths = {name: texts.ensure(name, folder) for name in options.texts}
        except (TextError, OSError) as error:
            sys.exit(f"error: {error}")
        budget = ["--minutes", options.minutes] if options.minutes else []
        try:
            failures = sweep(list(jobs(paths, options.grid, budget, options.seeds)), options.out)
        except KeyboardInterrupt:
            sys.exit("interrupted: the same command goes on from here")
    report(markdown, load(options.out or options.table), options.readme, MARKS, failures)


if __name__ == "__main__":
    main()
