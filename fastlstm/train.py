"""``python -m fastlstm.train``: train a model on a text."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import cli, signals
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.defaults import choosable, chosen
from fastlstm.presets import PRESETS, preset
from fastlstm.settings import add_options, as_arguments, given

if TYPE_CHECKING:
    from fastlstm.checkpoint import Content
    from fastlstm.model import Model
    from fastlstm.run_folder import RunFolder
    from fastlstm.text import IdArray, Vocab
    from fastlstm.trainer import TrainResult


def parser() -> cli.Parser:
    """The verb's arguments."""
    own = dict.fromkeys(choosable(), "chosen")
    made = cli.parser("train", "Train a character-level language model on a text.")
    text = made.add_argument_group("text")
    text.add_argument(
        "--data", nargs="+", action="extend", metavar="TEXT",
        help="files, '-' for standard input, or names of corpora: input (the default), pydoc, tinyshakespeare",
    )  # fmt: skip
    text.add_argument("--bytes", action="store_true", help="use bytes as symbols instead of characters")
    add_options(text, TrainConfig, defaults=own)
    model = made.add_argument_group("model")
    model.add_argument(
        "--preset", choices=PRESETS, help="exactly the settings of the assignment; other options override them"
    )
    add_options(model, ModelConfig, defaults=own)
    add_options(made.add_argument_group("training"), TrainConfig, defaults=own)
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


Values = dict[str, Any]


def configuration(options: argparse.Namespace) -> tuple[Values, Values]:
    """Given fields of `ModelConfig` and of `TrainConfig`: those of the preset, overridden by the options."""
    model, train = given(options, ModelConfig), given(options, TrainConfig)
    if options.preset:
        values = preset(options.preset, options.cell or ModelConfig.cell)
        model, train = {**values.model, **model}, {**values.train, **train}
    return model, train


def completed(options: argparse.Namespace, symbols: int) -> tuple[Values, Values]:
    """All fields of `ModelConfig` and `TrainConfig` that are given or chosen; with a preset nothing is chosen."""
    model, train = configuration(options)
    if options.preset:
        return model, train
    choice = chosen(symbols, model, train)
    return {**choice.model, **model}, {**choice.train, **train}


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
    model_values, train_values = completed(options, 1)
    ModelConfig(vocab_size=1, **model_values), TrainConfig(**train_values)  # validate them before the text is read
    from fastlstm.run_folder import RunFolder
    from fastlstm.text import read_ids

    vocab, ids = read_ids(options.data or [], as_bytes=options.bytes)
    model_values, train_values = completed(options, len(ids))
    model = _model(vocab, model_values, train_values.get("seed", TrainConfig.seed))
    config = _fitted(options, TrainConfig(**train_values), ids)
    train_values |= {"seq_len": config.seq_len, "batch": config.batch}
    wanted, named = output_folder(options), bool(options.out)
    with (
        RunFolder(wanted, named=named, overwrite=options.overwrite, say=_tell) as folder,
        signals.cleanup(folder.tidy),
    ):
        _introduce(model, ids, config)
        _print_choice(options, model_values, train_values)
        repeat = functools.partial(_repeating, options, model_values, train_values) if options.minutes else None
        return _train(model, ids, config, folder, started, repeat, as_json=options.json)


def _tell(line: str) -> None:
    """Print a line; if the reader of the output has left, saving must still go on."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _say(message: str) -> None:
    cli.note("train", message)


def _model(vocab: Vocab, values: dict[str, Any], seed: int) -> Model:
    from fastlstm.model import Model

    return Model(ModelConfig(len(vocab), **values), vocab, seed=seed)


def _print_choice(options: argparse.Namespace, model: Values, train: Values) -> None:
    """Print what has been chosen, as it would be given on the command line."""
    model_given, train_given = configuration(options)
    arguments = as_arguments({name: model[name] for name in model if name not in model_given}, ModelConfig)
    arguments += as_arguments({name: train[name] for name in train if name not in train_given}, TrainConfig)
    if arguments:
        print(f"chosen: {' '.join(arguments)}; options that are given win", flush=True)


def _repeating(options: argparse.Namespace, model: Values, train: Values, steps: int) -> str:
    """The command that repeats a run of so many minutes, which was planned to take ``steps`` steps."""
    train = {name: value for name, value in train.items() if name != "minutes"} | {"steps": steps}
    arguments = ["--data", *options.data] if options.data else []
    arguments += ["--bytes"] if options.bytes else []
    arguments += as_arguments(model, ModelConfig) + as_arguments(train, TrainConfig)
    return f"{cli.command('train')} {shlex.join(arguments)}"


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


def _train(
    model: Model,
    ids: IdArray,
    config: TrainConfig,
    folder: RunFolder,
    started: float,
    repeat: Callable[[int], str] | None,
    *,
    as_json: bool,
) -> int:
    """Train, save and print the summary; returns the exit status.

    ``repeat`` makes the command that repeats the run, from the planned number of steps; ``None``: it is not printed.
    """
    with signals.Stop() as stop:
        try:
            result, last = _fit(model, ids, config, folder, stop, started)
            with stop.saving():
                path, path_of_last = _save(folder, model, last)
            stop.done()
            _summarise(result, path, path_of_last)
            if repeat is not None and result.finished:
                print(f"to repeat this run:\n  {repeat(_record(model)['config']['steps'])}", flush=True)
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


def _save(folder: RunFolder, model: Model, last: Content | None) -> tuple[Path, Path | None]:
    """Save the model, and that of the last step if it is another one, also if the folder had to be another."""
    try:
        path = folder.save_somewhere(model.content)
    finally:
        path_of_last = _save_last(folder, last)
    return path, path_of_last


def _save_last(folder: RunFolder, last: Content | None) -> Path | None:
    from fastlstm.errors import ModelFileError

    try:
        return folder.save_last(last)
    except ModelFileError as error:  # the better model has been saved
        _say(f"the model of the last step is not saved: {error}")
        return None


def _summarise(result: TrainResult, path: Path, path_of_last: Path | None) -> None:
    from fastlstm.progress import nats_and_bits

    validation = "" if result.val_nats is None else f", validation {nats_and_bits(result.val_nats)}"
    print(
        f"{result.steps:,} steps in {result.seconds:.1f} s, {result.chars_per_s:,.0f} characters/s:"
        f" train {nats_and_bits(result.train_nats)}{validation} per character"
    )
    if path_of_last is not None:
        print(f"the best model is that of step {result.model_step:,}; the last one is in {path_of_last}")
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


def _record(model: Model) -> dict[str, Any]:
    """The record of the run, which a model has after it."""
    assert model.training is not None
    return model.training


def _json(model: Model, result: TrainResult, path: Path) -> dict[str, Any]:
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
        "settings": {**model.config.to_dict(), **_record(model)["config"]},
    }
    if result.val_nats is None:
        del values["val_nats"]
    return values


if __name__ == "__main__":
    cli.run(main)
