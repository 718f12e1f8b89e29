"""``python -m fastlstm.train``: train a model on a text."""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import cli, signals
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.defaults import chosen
from fastlstm.presets import PRESETS, Preset, preset
from fastlstm.settings import add_options, given, settings_of

if TYPE_CHECKING:
    from fastlstm.checkpoint import Content
    from fastlstm.model import Model
    from fastlstm.run_folder import RunFolder
    from fastlstm.text import IdArray, Vocab
    from fastlstm.trainer import TrainResult


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser("train", "Train a character-level language model on a text.")
    text = made.add_argument_group("text")
    text.add_argument(
        "--data", nargs="+", action="extend", metavar="TEXT",
        help="files, '-' for standard input, or names of corpora: input (the default), pydoc, tinyshakespeare",
    )  # fmt: skip
    text.add_argument("--bytes", action="store_true", help="use bytes as symbols instead of characters")
    add_options(text, TrainConfig)
    model = made.add_argument_group("model")
    model.add_argument(
        "--preset", choices=PRESETS, help="exactly the settings of the assignment; other options override them"
    )
    add_options(model, ModelConfig)
    add_options(made.add_argument_group("training"), TrainConfig)
    add_options(made.add_argument_group("computing"), TrainConfig)
    progress = made.add_argument_group("progress and result")
    progress.add_argument(
        "--out", metavar="DIR", help="run folder (default: runs/NAME, named after the first text, or the next free one)"
    )
    progress.add_argument(
        "--overwrite",
        action="store_true",
        help="overwrite the model in that folder; a finished one only when this run is finished",
    )
    add_options(progress, TrainConfig)
    return made


def configuration(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of `ModelConfig` and of `TrainConfig`: those of the preset, overridden by the options."""
    model, train = given(options, ModelConfig), given(options, TrainConfig)
    if options.preset:
        values = preset(options.preset, options.cell or ModelConfig.cell)
        model, train = {**values.model, **model}, {**values.train, **train}
    return model, train


def output_folder(options: argparse.Namespace) -> Path:
    """The folder given by ``--out``, else ``runs/NAME`` with the name of the first text."""
    if options.out:
        return Path(options.out)
    first = options.data[0] if options.data else "input"
    return Path("runs") / ("stdin" if first == "-" else Path(first).stem or "text")


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model as given by the arguments; returns the exit status."""
    started = time.perf_counter()
    options = parser().parse_args(argv)
    model_values, train_values = configuration(options)
    ModelConfig(vocab_size=1, **model_values), TrainConfig(**train_values)  # validate them before the text is read
    from fastlstm.run_folder import RunFolder
    from fastlstm.text import read_ids

    vocab, ids = read_ids(options.data or [], as_bytes=options.bytes)
    choice = None if options.preset else chosen(len(ids), model_values, train_values)
    if choice is not None:
        model_values, train_values = {**choice.model, **model_values}, {**choice.train, **train_values}
    model = _model(vocab, model_values, train_values.get("seed", TrainConfig.seed))
    config = _fitted(options, TrainConfig(**train_values), ids)
    wanted, named = output_folder(options), bool(options.out)
    with (
        RunFolder(wanted, named=named, overwrite=options.overwrite, say=_tell) as folder,
        signals.cleanup(folder.tidy),
    ):
        _introduce(model, ids, config)
        if choice is not None and (choice.model or choice.train):
            print(f"chosen: {_as_options(choice)}; options that are given win", flush=True)
        return _train(model, ids, config, folder, started, as_json=options.json)


def _tell(line: str) -> None:
    """Print a line; if the reader of the output has left, saving must still go on."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _say(message: str) -> None:
    cli.note("train", message)


def _model(vocab: Vocab, values: dict[str, Any], seed: int) -> Model:
    from fastlstm.model import Model

    return Model(ModelConfig(len(vocab), **values), vocab, seed=seed)


def _as_options(choice: Preset) -> str:
    """What has been chosen, as it would be given on the command line."""
    settings = settings_of(ModelConfig) | settings_of(TrainConfig)
    values = {settings[name].option: value for name, value in {**choice.model, **choice.train}.items()}
    return " ".join(
        f"{option} {value:.6g}" if isinstance(value, float) else f"{option} {value}" for option, value in values.items()
    )


def _fitted(options: argparse.Namespace, config: TrainConfig, ids: IdArray) -> TrainConfig:
    """Reduce T and B to what a short text can fill, except those given by the user."""
    import dataclasses

    from fastlstm.batches import fit_lanes
    from fastlstm.text import split

    count = len(split(ids, config.val_frac)[0])
    if count < 2:
        return config  # too short to train on: the trainer raises the error
    seq_len, batch = fit_lanes(count, config.seq_len, config.batch)
    return dataclasses.replace(config, seq_len=options.seq_len or seq_len, batch=options.batch or batch)


def _introduce(model: Model, ids: IdArray, config: TrainConfig) -> None:
    shape, count = model.config, len(model.parameters.flat)
    layers = "1 layer" if shape.layers == 1 else f"{shape.layers} layers"
    print(f"text: {len(ids):,} characters, {len(model.vocab):,} of them distinct")
    print(
        f"model: {shape.cell}, {layers} of {shape.hidden}, embedding {shape.embedding}, {count:,} parameters;"
        f" {config.batch} x {config.seq_len} characters per step",
        flush=True,
    )


def _train(model: Model, ids: IdArray, config: TrainConfig, folder: RunFolder, started: float, *, as_json: bool) -> int:
    """Train, save and print the summary; returns the exit status."""
    with signals.Stop() as stop:
        try:
            result, last = _fit(model, ids, config, folder, stop, started)
            with stop.saving():
                path = folder.save_somewhere(model.content)
                _save_last(folder, last)
            stop.done()
            _summarise(result, path)
            _warn_of_failure(result, len(model.vocab))
            if as_json:
                cli.print_json(_json(model, result, path))
        except OSError:
            if not stop.status:  # else: the terminal was closed, which also sent the signal
                raise
    return stop.status


def _fit(
    model: Model, ids: IdArray, config: TrainConfig, folder: RunFolder, stop: signals.Stop, started: float
) -> tuple[TrainResult, Content | None]:
    """Train; returns the result, and the model of the last step if another was better.

    If an error ends the run after its first step, the model is saved before it is raised.
    """
    from fastlstm import progress
    from fastlstm.observers import Observers
    from fastlstm.run_folder import Saver

    saver = Saver(folder, model.parameters.flat.nbytes, stop.saving, _say)
    stop.lost = saver.lost
    try:
        with progress.observer(sys.stdout) as display:
            result = model.fit(ids, config, observer=Observers(display, saver), stop=stop, started=started)
        return result, saver.last
    except Exception as error:
        if model.training and model.training["model_step"]:
            with stop.saving():
                path = folder.save_somewhere(model.content)
            if not isinstance(error, OSError):  # else the reader of the output has left
                _say(f"the model of step {model.training['model_step']:,} is in {path}")
        raise


def _save_last(folder: RunFolder, last: Content | None) -> None:
    from fastlstm.errors import ModelFileError

    try:
        folder.save_last(last)
    except ModelFileError as error:  # the better model has been saved
        _say(f"the model of the last step could not be saved: {error}")


def _summarise(result: TrainResult, path: Path) -> None:
    from fastlstm.progress import nats_and_bits
    from fastlstm.run_folder import LAST_NAME

    validation = "" if result.val_nats is None else f", validation {nats_and_bits(result.val_nats)}"
    print(
        f"{result.steps:,} steps in {result.seconds:.1f} s, {result.chars_per_s:,.0f} characters/s:"
        f" train {nats_and_bits(result.train_nats)}{validation} per character"
    )
    if result.model_step != result.steps:
        print(f"the best model, of step {result.model_step:,}, is kept; the last one is {LAST_NAME} beside it")
    print(
        f"the model is in {path}; to sample from it:\n  {cli.command('sample')} {shlex.quote(str(path.parent))}",
        flush=True,
    )


def _warn_of_failure(result: TrainResult, vocab_size: int) -> None:
    from fastlstm.recovery import worse_than_guessing

    if worse_than_guessing(result.train_nats, vocab_size):
        _say(
            f"the model predicts worse than uniform guessing ({math.log(vocab_size):.4g} nats per character):"
            " lower the learning rate, or clip gradients harder"
        )


def _json(model: Model, result: TrainResult, path: Path) -> dict[str, Any]:
    assert model.training is not None
    values = {
        "steps": result.steps,
        "seconds": result.seconds,
        "chars_per_s": result.chars_per_s,
        "compile_seconds": result.compile_seconds,
        "train_nats": result.train_nats,
        "val_nats": result.val_nats,
        "model_step": result.model_step,
        "parameters": result.parameters,
        "model": str(path),
        "settings": {**model.config.to_dict(), **model.training["config"]},
    }
    if result.val_nats is None:
        del values["val_nats"]
    return values


if __name__ == "__main__":
    cli.run(main)
