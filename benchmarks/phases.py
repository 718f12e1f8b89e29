"""Where a training step spends its time: each phase alone, compared with the limit of the machine.

usage: python -m benchmarks.phases WORKLOAD [...] [--cell NAME] [--optimizer NAME] [--bf16] [--threads N] [--seconds S]
                                   [--json FILE]

Each phase of a step runs in a separate call, in order, so that it works with the values and the cache contents that the
phases before it left. The time of a call without phases, for waking the workers and for Python, is subtracted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks import peak
from benchmarks.arguments import output_file, positive
from benchmarks.networks import Training, with_cell
from benchmarks.timing import seconds_of, warm_up
from benchmarks.workloads import TRAINING, Workload
from fastlstm.cells import CELLS
from fastlstm.kernels import step
from fastlstm.kernels.host import vector_width
from fastlstm.kernels.network import FastNetwork
from fastlstm.kernels.recurrent import teams_of
from fastlstm.kernels.tile.shape import VECTORS
from fastlstm.optimizers import OPTIMIZERS, OptimizerName
from fastlstm.threads import default_threads

#: The phases of `fastlstm.kernels.step`, in the order of execution.
NAMES = (
    "CLEAR", "PREPARE", "TABLE", "INPUTS", "LAYERS", "OUTPUT", "OUTPUT_BACK", "TRANSPOSE", "LAYERS_BACK",
    "INPUTS_BACK", "WEIGHTS", "EMBEDDING", "NORM", "UPDATE",
)  # fmt: skip

#: Minimum number of steps measured, even if they take longer than the time given.
FEWEST = 5


class Cost(NamedTuple):
    """The minimum work of a phase.

    Attributes
    ----------
    flops : floating-point operations of its products; 0 if there are none.
    bytes : bytes read and written, in any cache: operands that stay in registers or in L1 count once.
    resident : bytes of the working set, which the workers access repeatedly, summed over workers that have separate
        data. They decide which level of cache determines the bandwidth.
    """

    flops: int
    bytes: int
    resident: int


class Timing(NamedTuple):
    """Measurement of a phase: its seconds, its cost, and the minimum seconds within the limits of the machine."""

    name: str
    seconds: float
    cost: Cost
    limit: float


class Profile(NamedTuple):
    """All phases of a step.

    Attributes
    ----------
    timings : of each phase.
    step, empty : seconds of a whole step in one call, and of a call without phases.
    workers : number of workers.
    peak : multiply-adds of all workers, in GFLOP/s.
    """

    timings: list[Timing]
    step: float
    empty: float
    workers: int
    peak: float


def costs(network: FastNetwork, parameters: int, slots: int) -> dict[str, Cost]:
    """The cost of each phase, from the layouts of `fastlstm.kernels.workspace` and the slots of the update rule."""
    plan = network.plan
    T, B, L, V, E, H, N, Hp, Vp = (getattr(plan, name) for name in ("T", "B", "L", "V", "E", "H", "N", "Hp", "Vp"))
    gates, rows, distinct = plan.G * H, T * B, int(network.buffers.counts[0])
    workers = network.workers.count
    # Bytes of a number, and of an operand of products, which bf16 rounds; its copy of h is written in addition.
    number, operand = network.buffers.arena.itemsize, network.buffers.operands.itemsize
    copies = L * rows * Hp if network.bf16 else 0
    teams = teams_of.py_func(workers, B)
    strips = -(-N // (VECTORS * vector_width(number)))
    table = E * N + distinct * E
    above = (L - 1) * rows

    def cost(multiply_adds: int, moved: int, resident: int) -> Cost:
        return Cost(2 * multiply_adds, moved, resident)

    return {
        "CLEAR": cost(0, number * V * E, number * V * E),
        "PREPARE": cost(0, 2 * (number + operand) * parameters, (number + 2 * operand) * parameters),
        "TABLE": cost(
            distinct * E * gates, operand * table + number * distinct * N, operand * table + number * distinct * N
        ),
        "INPUTS": cost(
            above * H * gates, operand * ((L - 1) * N * H + above * H) + number * above * 2 * N,
            operand * workers * N * H,
        ),
        # The recurrent weights once per time step and team; gates in, gates out, h and c.
        "LAYERS": cost(
            L * rows * H * gates, operand * (L * T * teams * N * H + copies) + number * L * rows * (2 * N + 3 * Hp),
            operand * teams * N * H,
        ),
        "OUTPUT": cost(
            rows * H * V, operand * (Vp * H + rows * H) + number * rows * Vp, operand * workers * Vp * H
        ),
        "OUTPUT_BACK": cost(
            rows * H * V, operand * (Vp * Hp + rows * Vp) + number * rows * (Hp + Vp), operand * workers * Vp * H
        ),
        "TRANSPOSE": cost(0, operand * 2 * L * rows * H, operand * 2 * L * rows * H),
        # The gates in, `da` out and in.
        "LAYERS_BACK": cost(
            L * rows * H * gates,
            operand * L * (T * teams * N * Hp + rows * 2 * N) + number * L * rows * (N + 5 * Hp),
            operand * teams * N * Hp,
        ),
        "INPUTS_BACK": cost(
            above * H * gates, operand * ((L - 1) * N * H + above * 2 * N) + number * above * H,
            operand * workers * N * H,
        ),
        # Each strip of columns reads all of h, and above the first layer also h of the layer below. Run alone, without
        # the bit CLEAR, the phase adds to the gradients: it also reads them, while a training step only writes them.
        "WEIGHTS": cost(
            rows * H * (gates * (2 * L - 1) + V) + distinct * E * gates,
            operand * ((2 * L - 1) * strips * rows * H + L * rows * N) + number * 2 * parameters,
            operand * workers * rows * H,
        ),
        "EMBEDDING": cost(
            distinct * E * gates, operand * (distinct * N + E * N) + number * distinct * E,
            operand * (distinct * N + E * N) + number * distinct * E,
        ),
        "NORM": cost(0, number * parameters, number * parameters),
        "UPDATE": cost(0, number * (3 + 2 * slots) * parameters, number * (2 + slots) * parameters),
    }  # fmt: skip


def run_phases(training: Training, phases: int) -> None:
    """Run some phases of a training step, in one call."""
    network = training.network
    assert isinstance(network, FastNetwork)
    network._run(
        phases, training.parameters.flat, training.gradients.flat, training.slots,
        training.x, training.y, training.state, 1.0 / training.workload.chars, training.rule,
    )  # fmt: skip


def bit(name: str) -> int:
    """The bit of a phase."""
    return int(getattr(step, name))


def profile(
    workload: Workload, threads: int, seconds: float, optimizer: OptimizerName = "adagrad", *, bf16: bool = False
) -> Profile:
    """Measure the phases of a workload's step for about ``seconds``; medians."""
    training = Training(workload, threads=threads, optimizer=optimizer, bf16=bf16)
    network = training.network
    assert isinstance(network, FastNetwork)
    workers = network.workers.count
    network.workers.adaptive = False
    warm_up(training.step)
    # The peak is measured before and after: other programs can only make the machine appear slower than it is.
    dtype = peak.BFLOAT16 if bf16 else "float32"
    rate = peak.multiply_add_rate(workers, dtype)
    times = _times(training, seconds)
    rate = max(rate, peak.multiply_add_rate(workers, dtype))
    medians = {name: statistics.median(values) for name, values in times.items()}
    found = costs(network, len(training.parameters.flat), training.rule.slots)
    timings = []
    for name in NAMES:
        if found[name].bytes:
            cost = found[name]
            limit = max(cost.flops / rate, cost.bytes / peak.read_rate(cost.resident, workers)) / 1e9
            timings.append(Timing(name, max(medians[name] - medians["empty"], 0.0), cost, limit))
    return Profile(timings, medians["step"], medians["empty"], workers, rate)


def _times(training: Training, seconds: float) -> dict[str, list[float]]:
    """Seconds of every phase, of a call without phases and of a whole step, in turn."""
    times: dict[str, list[float]] = {name: [] for name in (*NAMES, "empty", "step")}
    end = time.perf_counter() + seconds
    while len(times["step"]) < FEWEST or time.perf_counter() < end:
        for name in NAMES:
            times[name].append(seconds_of(partial(run_phases, training, bit(name))))
        times["empty"].append(seconds_of(partial(run_phases, training, 0)))
        times["step"].append(seconds_of(training.step))
    return times


def table(name: str, measured: Profile) -> Table:
    """A profile as a table for the terminal."""
    made = Table(
        "phase", "us", "share", "GFLOP/s", "of the peak", "GB/s", "of the limit",
        title=f"{name}: {1e6 * measured.step:,.0f} us per step, {measured.workers} workers,"
        f" {1e6 * measured.empty:.1f} us per call",
    )  # fmt: skip
    for column in made.columns[1:]:
        column.justify = "right"
    for timing in measured.timings:
        made.add_row(timing.name, *_cells(timing, measured))
    total = sum(timing.seconds for timing in measured.timings)
    limit = sum(timing.limit for timing in measured.timings)
    made.add_section()
    made.add_row("all", f"{1e6 * total:,.1f}", f"{total / measured.step:.0%}", "", "", "", f"{limit / total:.0%}")
    return made


def _cells(timing: Timing, measured: Profile) -> list[str]:
    if timing.seconds == 0.0:
        return ["0", "0%", "", "", "", ""]
    flops, of_the_peak = "", ""
    if timing.cost.flops:
        gflops = 1e-9 * timing.cost.flops / timing.seconds
        flops, of_the_peak = f"{gflops:.1f}", f"{gflops / measured.peak:.0%}"
    moved = f"{1e-9 * timing.cost.bytes / timing.seconds:.1f}"
    share, limit = timing.seconds / measured.step, timing.limit / timing.seconds
    return [f"{1e6 * timing.seconds:,.1f}", f"{share:.1%}", flops, of_the_peak, moved, f"{limit:.0%}"]


def as_json(name: str, precision: str, measured: Profile) -> dict[str, Any]:
    """A profile as plain values."""
    phases = [
        {
            "phase": timing.name, "us": 1e6 * timing.seconds, "flops": timing.cost.flops, "bytes": timing.cost.bytes,
            "limit_us": 1e6 * timing.limit,
        }
        for timing in measured.timings
    ]  # fmt: skip
    return {
        "workload": name, "precision": precision, "workers": measured.workers, "step_us": 1e6 * measured.step,
        "call_us": 1e6 * measured.empty, "peak_gflops": measured.peak, "phases": phases,
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.phases", description="Time the phases of a training step, each alone."
    )
    parser.add_argument("workloads", nargs="+", choices=TRAINING, metavar="WORKLOAD", help=", ".join(TRAINING))
    parser.add_argument("--cell", choices=CELLS, default="lstm", help="cell of the models (lstm)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adagrad", help="optimizer (adagrad)")
    parser.add_argument("--bf16", action="store_true", help="round the operands of products to bfloat16")
    parser.add_argument("--threads", type=positive, default=default_threads(), metavar="N", help="workers (all cores)")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S", help="time for each workload (3)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    reports = []
    precision = "bf16" if options.bf16 else "fp32"
    for name in options.workloads:
        workload = with_cell(TRAINING[name], options.cell)
        measured = profile(workload, options.threads, options.seconds, options.optimizer, bf16=options.bf16)
        Console().print(table(f"{name}, {precision}", measured))
        reports.append(as_json(name, precision, measured))
    if options.json:
        options.json.write_text(json.dumps(reports, indent=1) + "\n")


if __name__ == "__main__":
    main()
