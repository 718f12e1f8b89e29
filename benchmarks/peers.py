"""fastlstm, PyTorch, JAX and ONNX Runtime on the same workloads, alternating in one run.

usage: python -m benchmarks.peers [WORKLOAD ...] [--verb train|sample|read] [--bf16] [--json FILE] [--png FILE] ...

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
from typing import Any, NamedTuple, Self

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import output_file, positive
from benchmarks.charts import draw_peers
from benchmarks.libraries import LIBRARIES, ONNX, OURS, OURS_BF16, TORCH_BF16, TORCH_BF16_ALONE, Library, libraries
from benchmarks.peak import BFLOAT16, multiply_add_rate
from benchmarks.protocol import Job, request_line
from benchmarks.table import BUSY, Result, cells, conditions, header
from benchmarks.workloads import READING, SAMPLING, TRAINING, Workload, chars_per_call, flops_per_char, workloads

ROOT = Path(__file__).resolve().parent.parent

#: Seconds before a turn in which the thread pools of the previous library stop spinning and go to sleep.
SETTLE = 0.3
#: Seconds after that, while all libraries sleep, in which the load of other programs is measured.
LISTEN = 0.3

#: Minimum number of rounds for a meaningful median.
FEWEST_ROUNDS = 5


class PeerError(Exception):
    """A library could not be started, or could not run a job."""


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
    """Measurements of a workload by turn.

    Attributes
    ----------
    times : milliseconds of each library.
    peaks, bf16_peaks : peaks in GFLOP/s; that of bf16 only if fastlstm was measured in bf16.
    others : cores used by other programs.
    """

    times: dict[Library, list[float]]
    peaks: list[float]
    bf16_peaks: list[float]
    others: list[float]


def run_rounds(
    peers: dict[str, Peer], wanted: Sequence[Library], verb: str, workload: Workload, options: argparse.Namespace
) -> Rounds:
    """Run all libraries in turn, in each round; a library that fails is left out, and a line reports it."""
    found = Rounds({library: [] for library in wanted}, [], [], [])
    for _ in range(options.rounds):
        for library in list(found.times):
            if (others := cores_of_others()) is not None:
                found.others.append(others)
            job = Job(verb, workload, library.threads or options.threads, library.precision, library.variant)
            try:
                found.times[library].append(peers[library.peer].milliseconds(job, options.seconds))
            except PeerError as error:
                if library == OURS:
                    raise
                say(f"{library.label} is left out: {error}")
                del found.times[library]
        time.sleep(SETTLE)
        found.peaks.append(multiply_add_rate(options.threads))
        if OURS_BF16 in found.times:
            found.bf16_peaks.append(multiply_add_rate(options.threads, BFLOAT16))
    return found


def result(name: str, verb: str, workload: Workload, threads: int, measured: Rounds) -> Result:
    """The result of a workload for the table, the chart and the JSON file."""
    medians = {library: statistics.median(times) for library, times in measured.times.items()}
    chars, per_char = chars_per_call(verb, workload), flops_per_char(verb, workload)
    return {
        "workload": name, "verb": verb, "sizes": workload._asdict(), "threads": threads, "precision": OURS.precision,
        **{library.field: medians.get(library) for library in LIBRARIES}, **ratios(medians),
        "chars": chars, "flops_per_char": per_char,
        **rates(medians[OURS], chars, per_char, measured.peaks),
        **_bf16(rates(medians.get(OURS_BF16), chars, per_char, measured.bf16_peaks)),
        "rounds": len(measured.peaks),
        "cores_of_others": statistics.mean(measured.others) if measured.others else None,
        "each_round_ms": {library.field: times for library, times in measured.times.items()},
    }  # fmt: skip


def _bf16(found: dict[str, float]) -> dict[str, float]:
    return {f"bf16_{name}": value for name, value in found.items()}


def ratios(medians: dict[Library, float]) -> dict[str, Any]:
    """How many times as fast as others fastlstm is; ``None`` where one of the two was not measured.

    Of a library that runs with all threads and with one, the faster of the two counts, but of fastlstm the former.
    """
    ours, ours_bf16 = medians[OURS], medians.get(OURS_BF16)
    fastest = fastest_of(medians, [one for one in LIBRARIES if not one.ours and one.precision == OURS.precision])
    peer = None if fastest is None else medians[fastest]
    onnx = fastest_of(medians, [one for one in LIBRARIES if one.peer == ONNX.peer and not one.variant])
    onnx_ms = None if onnx is None else medians[onnx]
    bf16 = fastest_of(medians, [TORCH_BF16, TORCH_BF16_ALONE])
    bf16_ms = None if bf16 is None else medians[bf16]
    return {
        "ratio": _ratio(peer, ours), "fastest_peer": None if fastest is None else fastest.field.removesuffix("_ms"),
        "ratio_bf16": _ratio(bf16_ms, ours_bf16), "ratio_bf16_float32": _ratio(peer, ours_bf16),
        "ratio_onnx": _ratio(onnx_ms, ours), "ratio_onnx_bf16": _ratio(onnx_ms, ours_bf16),
        "ours_float32_over_bf16": _ratio(ours, ours_bf16),
    }  # fmt: skip


def fastest_of(medians: dict[Library, float], candidates: Sequence[Library]) -> Library | None:
    """The fastest of the candidates that were measured."""
    return min((one for one in candidates if one in medians), key=medians.__getitem__, default=None)


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours


def rates(ms: float | None, chars: int, flops_per_char: int, peaks: Sequence[float]) -> dict[str, float]:
    """What follows from the time of a call, and from the peaks of the rounds; nothing without a time."""
    if ms is None:
        return {}
    speed, peak = 1e3 * chars / ms, statistics.median(peaks)
    gflops = 1e-9 * flops_per_char * speed
    return {
        "chars_per_s": speed, "gflops": gflops, "peak_gflops": peak, "share_of_peak": gflops / peak,
        "limit_chars_per_s": 1e9 * peak / flops_per_char,
    }  # fmt: skip


def start(stack: ExitStack, wanted: Sequence[Library], options: argparse.Namespace) -> dict[str, Peer]:
    """Start every wanted library that is installed; report those that are not."""
    pythons = {
        "fastlstm": sys.executable, "torch": options.torch_python, "jax": options.jax_python,
        "onnxruntime": options.onnx_python,
    }  # fmt: skip
    peers = {}
    for name in dict.fromkeys(library.peer for library in wanted):
        try:
            peers[name] = stack.enter_context(Peer(name, pythons[name], options.threads))
        except PeerError as error:
            say(f"{name} is left out: {error} (benchmarks/README.md explains how to install it)")
    return peers


def compare(names: Sequence[str], options: argparse.Namespace) -> list[Result]:
    """Measure all workloads."""
    wanted = libraries(options.verb, bf16=options.bf16)
    with ExitStack() as stack:
        peers = start(stack, wanted, options)
        if OURS.peer not in peers:
            sys.exit("fastlstm itself does not start")
        installed = [library for library in wanted if library.peer in peers]
        about = {"cpu": cpu_name(), "versions": {name: peer.version for name, peer in peers.items()}}
        results = []
        for name in names:
            workload = workloads(options.verb)[name]
            measured = run_rounds(peers, installed, options.verb, workload, options)
            results.append(result(name, options.verb, workload, options.threads, measured) | about)
            say(_progress(results[-1]))
        return results


def _progress(found: Result) -> str:
    ratio = "" if found["ratio"] is None else f", {found['ratio']:.2f} times as fast as {found['fastest_peer']}"
    bf16 = "" if found["ours_bf16_ms"] is None else f"; bf16 {found['ours_bf16_ms']:.3f} ms"
    return f"{found['workload']}: {found['ours_ms']:.3f} ms{ratio}{bf16}"


def say(message: str) -> None:
    """Print a line about the run to standard error."""
    print(message, file=sys.stderr, flush=True)


def table(results: Sequence[Result]) -> Table:
    """The results as a table for the terminal, with a column for each workload: there are more libraries than those."""
    made = Table(title=conditions(results))
    names, *rows = zip(header(results), *(cells(found, results) for found in results), strict=True)
    for name in names:
        made.add_column(name, justify="left" if name == names[0] else "right")
    for row in rows:
        made.add_row(*row)
    return made


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description="Measure fastlstm and its peers in turn."
    )
    known = {"training": TRAINING, "sampling": SAMPLING, "reading": READING}
    names = "; ".join(f"{verb}: {', '.join(these)}" for verb, these in known.items()) + " (default: all of the verb)"
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=names)
    parser.add_argument("--verb", choices=["train", "sample", "read"], default="train", help="what to measure (train)")
    parser.add_argument("--bf16", action="store_true", help="also measure fastlstm and PyTorch in bfloat16")
    parser.add_argument("--threads", type=positive, default=2, metavar="N", help="threads (2)")
    parser.add_argument("--rounds", type=positive, default=FEWEST_ROUNDS, metavar="N", help=f"rounds ({FEWEST_ROUNDS})")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="length of a turn (1)")
    parser.add_argument("--torch-python", default=".peers/torch/bin/python", metavar="FILE", help="Python with torch")
    parser.add_argument("--jax-python", default=".peers/jax/bin/python", metavar="FILE", help="Python with JAX")
    parser.add_argument(
        "--onnx-python", default=".peers/onnx/bin/python", metavar="FILE", help="Python with ONNX Runtime"
    )
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the results to FILE")
    parser.add_argument("--png", type=output_file, metavar="FILE", help="draw the results to FILE")
    options = parser.parse_args(argv)
    available = workloads(options.verb)
    if unknown := [name for name in options.workloads if name not in available]:
        parser.error(f"no workload {unknown[0]!r} for {options.verb}: there are {', '.join(available)}")
    options.workloads = options.workloads or list(available)
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
