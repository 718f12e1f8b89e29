"""Speed while other programs compete for the cores: the default number of threads against one thread.

usage: python -m benchmarks.busy [--runs N] [--seconds S] [--rounds N] [--json FILE] [--readme FILE]

In each situation the two train, or sample, in turn, for ``--seconds`` each and ``--rounds`` times. A turn's characters
per second are those of all its calls: while others compete, some calls take many times as long as most. The result is
the median of the ratios of neighbouring turns, because the system moves competitors from core to core, which changes
both rates by up to a factor of two for seconds. Before its first turn, each runs under the load for `SETTLING` seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arguments import output_file, positive
from benchmarks.networks import Training, model_of
from benchmarks.table import insert, rows
from benchmarks.workloads import SAMPLED, TRAINING, Workload

#: Seconds for which each runs under a load before its first turn.
SETTLING = 2.0

#: The program of a competitor: compute until its parent has ended.
COMPETITOR = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    sum(range(100_000))"


class Situation(NamedTuple):
    """The load on the machine, and the threads and cores of fastlstm.

    Attributes
    ----------
    name : name in the table.
    competitors, nice : number of processes that compute without a pause, and their niceness.
    threads : threads of fastlstm; ``None``: the default.
    cores : cores that fastlstm may use; ``None``: all.
    """

    name: str
    competitors: int = 0
    nice: int = 0
    threads: int | None = None
    cores: int | None = None


SITUATIONS = [
    Situation("idle"),
    Situation("1 competitor", 1),
    Situation("2 competitors", 2),
    Situation("1 at nice 19", 1, nice=19),
    Situation("2 at nice 19", 2, nice=19),
    Situation("2 threads on 1 core", threads=2, cores=1),
    Situation("4 threads on 2 cores", threads=4),
]

TRAINED = {
    "b1-h32": TRAINING["b1-h32"],
    "b1-h200": TRAINING["b1-h200"],
    "b32-h128": Workload(V=65, E=64, H=128, L=1, T=64, B=32),
    "b50-h512": TRAINING["b50-h512"],
}
SAMPLED_FROM = {"sampling h128": Workload(V=65, E=64, H=128, L=1, T=1, B=1)}
NAMES = [*TRAINED, *SAMPLED_FROM]


class Subject(NamedTuple):
    """A call that is repeated, and the number of characters it processes."""

    call: Callable[[], object]
    chars: int


def subject(name: str, threads: int | None) -> Subject:
    """A workload with ``threads`` threads."""
    if name in TRAINED:
        return Subject(Training(TRAINED[name], threads=threads).step, TRAINED[name].chars)
    model = model_of(SAMPLED_FROM[name])
    return Subject(lambda: model.sample(length=SAMPLED, threads=threads), SAMPLED)


def chars_per_s(measured: Subject, seconds: float) -> float:
    """Characters per second over about ``seconds`` of calls, counting all of them."""
    started, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - started) < seconds or not calls:
        measured.call()
        calls += 1
    return calls * measured.chars / elapsed


@contextlib.contextmanager
def competition(situation: Situation) -> Iterator[None]:
    """Run the competitors while this context is active."""
    command = [sys.executable, "-c", f"import os\nos.nice({situation.nice})\n{COMPETITOR}"]
    running = [subprocess.Popen(command) for _ in range(situation.competitors)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextlib.contextmanager
def affinity(cores: int | None) -> Iterator[None]:
    """Restrict this process to so many cores."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def compare(name: str, situation: Situation, seconds: float, rounds: int) -> dict[str, Any]:
    """Characters per second of a workload with the situation's threads, and with one, in turn."""
    # Threads inherit the affinity of the thread that starts them, so all are started here.
    with affinity(situation.cores), competition(situation):
        ours, one = subject(name, situation.threads), subject(name, 1)
        turns: dict[str, list[float]] = {"chars_per_s": [], "one_thread_chars_per_s": []}
        for measured in (ours, one):
            chars_per_s(measured, SETTLING)
        for _ in range(rounds):
            turns["chars_per_s"].append(chars_per_s(ours, seconds))
            turns["one_thread_chars_per_s"].append(chars_per_s(one, seconds))
    medians = {key: statistics.median(values) for key, values in turns.items()}
    ratio = statistics.median(many / one for many, one in zip(*turns.values(), strict=True))
    return {"workload": name, "situation": situation.name, **medians, "ratio": ratio, "turns": turns}


def markdown(runs: Sequence[Sequence[dict[str, Any]]]) -> str:
    """A row for each situation: the ratios of each workload, one number for each run."""
    found = {(result["workload"], result["situation"]): [] for run in runs for result in run}
    for run in runs:
        for result in run:
            found[result["workload"], result["situation"]].append(f"{result['ratio']:.2f}")
    workloads, situations = (list(dict.fromkeys(key[n] for key in found)) for n in (0, 1))
    lines = [[name, *(", ".join(found.get((workload, name), [])) for workload in workloads)] for name in situations]
    return rows([["default threads / one thread", *workloads], *lines])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.busy", description="Speed while other programs compete for the cores."
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--runs", type=positive, default=2, metavar="N", help="how often everything is measured (2)")
    parser.add_argument("--rounds", type=positive, default=10, metavar="N", help="number of turns of each (10)")
    parser.add_argument("--seconds", type=float, default=0.4, metavar="S", help="length of a turn (0.4)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table between its marks in FILE")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.workloads if name not in NAMES]:
        parser.error(f"no workload {unknown[0]!r}: there are {', '.join(NAMES)}")
    runs: list[list[dict[str, Any]]] = []
    for n in range(options.runs):
        runs.append([])
        for situation in SITUATIONS:
            for name in options.workloads or NAMES:
                result = compare(name, situation, options.seconds, options.rounds)
                runs[-1].append(result)
                print(
                    f"run {n + 1}  {situation.name:<22} {name:<14} {result['chars_per_s']:>11,.0f} characters/s,"
                    f" one thread {result['one_thread_chars_per_s']:>11,.0f}, ratio {result['ratio']:.2f}",
                    flush=True,
                )
    print(f"\n{markdown(runs)}")
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n")
    if options.readme:
        text = options.readme.read_text(encoding="utf-8")
        options.readme.write_text(insert(text, markdown(runs), "busy"), encoding="utf-8")


if __name__ == "__main__":
    main()
