"""What a whole run takes beyond its bare steps, in turn: checks, samples, checkpoints, metrics, log, display, events.

usage: python -m benchmarks.whole_runs [--rounds N] [--seconds S] [--json FILE]

A whole run is `Trainer` with the observers of ``train --tensorboard`` and a display on a terminal, from the first step
to the model in its folder, and the last sample and the exact last validation apart: these come once, however long a run
is. The bare steps are as many calls of `Steps.take`. The time outside of the steps of the whole run is also shown: it
does not suffer from how the speed of the machine changes between two turns.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.arguments import output_file, positive
from benchmarks.workloads import TRAINING
from fastlstm import Model, ModelConfig, TrainConfig
from fastlstm.batches import Lanes
from fastlstm.event_files import EventFiles
from fastlstm.observers import Observer, Observers, Progress
from fastlstm.progress import Display
from fastlstm.recorder import Log, Recorder, Saver
from fastlstm.run_checkpoint import Checkpoint
from fastlstm.run_folder import RunFolder
from fastlstm.run_state import RunState
from fastlstm.steps import Steps
from fastlstm.text import Vocab, read_ids, split
from fastlstm.trainer import Trainer

NAMES = ("b1-h32", "b1-h200", "b50-h128", "b50-h256", "b50-h512")


class Ends(Observer):
    """Notes when the steps of a run have been taken and saved."""

    def __init__(self) -> None:
        self.at = 0.0

    def ended(self, progress: Progress, checkpoint: Checkpoint) -> None:
        self.at = time.perf_counter()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.whole_runs", description="What a run takes beyond its bare steps."
    )
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="number of turns of each (5)")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="length of the bare steps (8)")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    vocab, ids = read_ids(["pydoc"])
    table = Table("workload", "steps", "whole / bare", "outside of steps")
    results: dict[str, dict[str, Any]] = {}
    for name in NAMES:
        run = _Run(name, vocab, ids, options.seconds)
        turns = [(*run.whole(), run.bare()) for _ in range(options.rounds)]
        results[name] = found = {
            "steps": run.config.steps,
            "ratio": statistics.median(whole / bare for whole, _, bare in turns),
            "outside": statistics.median(whole / steps - 1 for whole, steps, _ in turns),
            "turns": turns,
        }
        table.add_row(name, f"{found['steps']:,}", f"{found['ratio']:.3f}", f"{found['outside']:.1%}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


class _Run:
    """A run of a workload whose steps take about so many seconds."""

    def __init__(self, name: str, vocab: Vocab, ids: object, seconds: float) -> None:
        workload = TRAINING[name]
        self.ids, self.vocab = ids, vocab
        self.model = ModelConfig(len(vocab), workload.cell, workload.L, workload.H, workload.E)
        self.config = TrainConfig(seq_len=workload.T, batch=workload.B, steps=1)
        per_step = self._steps().seconds_per_step(self._state(), lambda: False)
        self.config = TrainConfig(seq_len=workload.T, batch=workload.B, steps=max(10, int(seconds / per_step)))

    def _state(self) -> RunState:
        model = Model(self.model, self.vocab)
        return RunState.start(model.parameters, self.config.batch, self.config.rule(0.0).slots)

    def _steps(self) -> Steps:
        train, _ = split(self.ids, self.config.val_frac)
        lanes = Lanes(train, self.config.seq_len, self.config.batch)
        return Steps(self.model, lanes, self.config, self.config.steps)

    def bare(self) -> float:
        """Seconds of the steps alone."""
        steps, state = self._steps(), self._state()
        for _ in range(3):
            steps.take(state)
        started = time.perf_counter()
        for _ in range(self.config.steps):
            steps.take(state)
        return time.perf_counter() - started

    def whole(self) -> tuple[float, float]:
        """Seconds of a run with everything, up to the checkpoint after its last step, and of its steps alone."""
        with tempfile.TemporaryDirectory() as parent, contextlib.ExitStack() as context:
            folder = context.enter_context(RunFolder(Path(parent, "run"), named=True, overwrite=False, say=print))
            trainer = Trainer(Model(self.model, self.vocab).content, self.ids, self.config)
            recorder = context.enter_context(contextlib.closing(Recorder(folder.path, print)))
            log = context.enter_context(contextlib.closing(Log(folder.path, print)))
            events = context.enter_context(EventFiles(folder.path / "tensorboard", print))
            display = context.enter_context(_on_a_terminal())
            size = trainer.content.parameters.flat.nbytes
            saver = Saver(folder, recorder, self.config, size, contextlib.nullcontext, print)
            ends = Ends()
            trainer.observer = Observers(display, log, events, recorder, saver, ends)
            steps = iter(trainer)
            for _ in range(3):
                next(steps)
            started, before = time.perf_counter(), trainer.state.seconds
            for _ in steps:
                pass
            share = self.config.steps / (self.config.steps - 3)
            return (ends.at - started) * share, (trainer.state.seconds - before) * share


@contextlib.contextmanager
def _on_a_terminal() -> Iterator[Display]:
    with Display(Console(file=io.StringIO(), force_terminal=True, width=80, height=24)) as display:
        yield display


if __name__ == "__main__":
    main()
