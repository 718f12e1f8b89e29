"""fastlstm, PyTorch and JAX on the same workloads, alternating in one run.

usage: python -m benchmarks.peers [WORKLOAD ...] [--verb train|sample] [--bf16] [--json FILE] [--png FILE] ...

Each library runs in a separate process and environment (`benchmarks.protocol`). The process lasts for the whole run and
sleeps during the turns of the others: fastlstm, PyTorch, JAX, fastlstm, PyTorch, JAX ... The result is the median over
the rounds of each turn's median, and the ratio of two libraries in one run, because times of separate runs drift.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Self

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import output_file, positive
from benchmarks.charts import draw_peers
from benchmarks.peak import multiply_add_rate
from benchmarks.protocol import Job, request_line
from benchmarks.table import BUSY, Result, cells, conditions, header
from benchmarks.workloads import SAMPLED, SAMPLING, TRAINING, Workload, flops_per_char, workloads

ROOT = Path(__file__).resolve().parent.parent

#: Seconds before a turn in which the thread pools of the previous library stop spinning and go to sleep.
SETTLE = 0.3
#: Seconds after that, while all libraries sleep, in which the load of other programs is measured.
LISTEN = 0.3

#: Minimum number of rounds for a meaningful median.
FEWEST_ROUNDS = 5


class PeerError(Exception):
    """A library could not be started, or could not run a job."""


class Library(NamedTuple):
    """One column of the table: its field, the peer, the precision, and the number of threads unless it is the usual."""

    field: str
    peer: str
    precision: str
    threads: int | None = None


OURS = Library("ours_ms", "fastlstm", "fp32")
TORCH = Library("torch_ms", "torch", "fp32")
JAX = Library("jax_ms", "jax", "fp32")
TORCH_BF16 = Library("torch_bf16_ms", "torch", "bf16")

#: Sampling is also measured with one thread: a single character has little work to share.
OURS_ALONE = Library("ours_1_thread_ms", "fastlstm", "fp32", 1)
TORCH_ALONE = Library("torch_1_thread_ms", "torch", "fp32", 1)


def environment(threads: int) -> dict[str, str]:
    """Environment variables of a peer's process: CPU only, and the number of threads."""
    return {
        **os.environ, "JAX_PLATFORMS": "cpu", "NPROC": str(threads), "OMP_NUM_THREADS": str(threads),
        "FASTLSTM_THREADS": str(threads),
    }  # fmt: skip


class Peer:
    """A library's process. Raises `PeerError` when it does not start."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        self.name = name
        try:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.peer_{name}"], cwd=ROOT, env=environment(threads),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        except OSError as error:
            raise PeerError(f"{python}: {error.strerror}") from None
        self.version: str = self._reply()["version"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait()

    def milliseconds(self, job: Job, seconds: float) -> float:
        """Median time of the job's call, measured for ``seconds``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request_line(job, seconds))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError("its process has ended") from None
        return float(self._reply()["ms"])

    def _reply(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PeerError(f"its process ended with status {self._process.wait()}")
        reply: dict[str, str] = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        return reply


def cpu_name() -> str:
    """Name of the processor, and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name} ({cores} cores)"


def busy_seconds() -> float | None:
    """CPU seconds used by all programs since the machine started, on Linux; else ``None``."""
    try:
        user, nice, system = (int(ticks) for ticks in Path("/proc/stat").read_text().split()[1:4])
    except (OSError, ValueError):
        return None
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def cores_of_others() -> float | None:
    """Number of cores kept busy by other programs, measured while all peers sleep; ``None`` if unknown."""
    time.sleep(SETTLE)
    before = busy_seconds()
    time.sleep(LISTEN)
    after = busy_seconds()
    return None if before is None or after is None else (after - before) / LISTEN


class Rounds(NamedTuple):
    """Measurements of a workload by turn: milliseconds of each library, peak in GFLOP/s, cores used by others."""

    times: dict[Library, list[float]]
    peaks: list[float]
    others: list[float]


def run_rounds(
    peers: dict[str, Peer], libraries: Sequence[Library], verb: str, workload: Workload, options: argparse.Namespace
) -> Rounds:
    """Run all libraries in turn, in each round; a library that fails is left out, and a line reports it."""
    found = Rounds({library: [] for library in libraries}, [], [])
    for _ in range(options.rounds):
        for library in list(found.times):
            if (others := cores_of_others()) is not None:
                found.others.append(others)
            job = Job(verb, workload, library.threads or options.threads, library.precision)
            try:
                found.times[library].append(peers[library.peer].milliseconds(job, options.seconds))
            except PeerError as error:
                if library == OURS:
                    raise
                say(f"{library.peer} {library.precision} is left out: {error}")
                del found.times[library]
        time.sleep(SETTLE)
        found.peaks.append(multiply_add_rate(options.threads))
    return found


def result(name: str, verb: str, workload: Workload, threads: int, measured: Rounds) -> Result:
    """The result of a workload for the table, the chart and the JSON file."""
    medians = {library.field: statistics.median(times) for library, times in measured.times.items()}
    ours, peak = medians[OURS.field], statistics.median(measured.peaks)
    rivals = {field: ms for field, ms in medians.items() if field in (TORCH.field, TORCH_ALONE.field, JAX.field)}
    fastest = min(rivals, key=rivals.__getitem__, default=None)
    chars = workload.chars if verb == "train" else SAMPLED
    per_char = flops_per_char(verb, workload)
    speed = 1e3 * chars / ours
    return {
        "workload": name, "verb": verb, "sizes": workload._asdict(), "threads": threads, "precision": OURS.precision,
        "ours_ms": ours, "ours_1_thread_ms": medians.get(OURS_ALONE.field),
        "torch_ms": medians.get(TORCH.field), "torch_1_thread_ms": medians.get(TORCH_ALONE.field),
        "jax_ms": medians.get(JAX.field), "torch_bf16_ms": medians.get(TORCH_BF16.field),
        "ratio": None if fastest is None else rivals[fastest] / ours,
        "fastest_peer": None if fastest is None else fastest.removesuffix("_ms"),
        "chars": chars, "chars_per_s": speed, "flops_per_char": per_char, "gflops": 1e-9 * per_char * speed,
        "peak_gflops": peak, "share_of_peak": 1e-9 * per_char * speed / peak,
        "limit_chars_per_s": 1e9 * peak / per_char,
        "rounds": len(measured.peaks),
        "cores_of_others": statistics.mean(measured.others) if measured.others else None,
        "each_round_ms": {library.field: times for library, times in measured.times.items()},
    }  # fmt: skip


def start(stack: ExitStack, options: argparse.Namespace) -> dict[str, Peer]:
    """Start fastlstm and every peer that is installed; report those that are not."""
    pythons = {"fastlstm": sys.executable, "torch": options.torch_python}
    if options.verb == "train":
        pythons["jax"] = options.jax_python
    peers = {}
    for name, python in pythons.items():
        try:
            peers[name] = stack.enter_context(Peer(name, python, options.threads))
        except PeerError as error:
            say(f"{name} is left out: {error} (benchmarks/README.md explains how to install it)")
    return peers


def compare(names: Sequence[str], options: argparse.Namespace) -> list[Result]:
    """Measure all workloads."""
    with ExitStack() as stack:
        peers = start(stack, options)
        if "fastlstm" not in peers:
            sys.exit("fastlstm itself does not start")
        wanted = [OURS, TORCH, JAX] if options.verb == "train" else [OURS, OURS_ALONE, TORCH, TORCH_ALONE]
        wanted += [TORCH_BF16] if options.bf16 else []
        libraries = [library for library in wanted if library.peer in peers]
        about = {"cpu": cpu_name(), "versions": {name: peer.version for name, peer in peers.items()}}
        results = []
        for name in names:
            workload = workloads(options.verb)[name]
            measured = run_rounds(peers, libraries, options.verb, workload, options)
            results.append(result(name, options.verb, workload, options.threads, measured) | about)
            say(_progress(results[-1]))
        return results


def _progress(found: Result) -> str:
    ratio = "" if found["ratio"] is None else f", {found['ratio']:.2f} times as fast as {found['fastest_peer']}"
    return f"{found['workload']}: {found['ours_ms']:.3f} ms{ratio}"


def say(message: str) -> None:
    """Print a line about the run to standard error."""
    print(message, file=sys.stderr, flush=True)


def table(results: Sequence[Result]) -> Table:
    """The results as a table for the terminal."""
    made = Table(*header(results), title=conditions(results))
    for column in made.columns[1:]:
        column.justify = "right"
    for found in results:
        made.add_row(*cells(found, results))
    return made


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Measure fastlstm, PyTorch and JAX in turn."
    )
    names = f"training: {', '.join(TRAINING)}; sampling: {', '.join(SAMPLING)} (default: all of the verb)"
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=names)
    parser.add_argument("--verb", choices=["train", "sample"], default="train", help="what to measure (train)")
    parser.add_argument("--bf16", action="store_true", help="also measure PyTorch with bfloat16 autocast")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="threads (2)")
    parser.add_argument("--rounds", type=positive, default=FEWEST_ROUNDS, metavar="N", help=f"rounds ({FEWEST_ROUNDS})")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of a turn (1)")
    parser.add_argument("--torch-python", default=".peers/torch/bin/python", metavar="FILE", help="Python with torch")
    parser.add_argument("--jax-python", default=".peers/jax/bin/python", metavar="FILE", help="Python with JAX")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--png", type=output_file, metavar="FILE", help="draw the results to FILE")
    options = parser.parse_args(argv)
    known = workloads(options.verb)
    if unknown := [name for name in options.workloads if name not in known]:
        parser.error(f"no workload {unknown[0]!r} for {options.verb}: there are {', '.join(known)}")
    options.workloads = options.workloads or list(known)
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv)
    results = compare(options.workloads, options)
    Console().print(table(results))
    if any((found["cores_of_others"] or 0.0) > BUSY for found in results):
        say("other programs kept cores busy: this slows libraries that spin at barriers most, so measure again")
    if options.rounds < FEWEST_ROUNDS:
        say(f"fewer than {FEWEST_ROUNDS} rounds: do not quote these results")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.png:
        draw_peers(results, options.png)


if __name__ == "__main__":
    main()
