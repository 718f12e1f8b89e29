"""``python -m fastlstm.train``: train a model on a text."""

from __future__ import annotations

import argparse
import contextlib
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from fastlstm import cli, signals
from fastlstm.config import (
    ASSIGNMENT_MODEL,
    ASSIGNMENT_TRAIN,
    BackendName,
    Cell,
    DType,
    ModelConfig,
    Schedule,
    TrainConfig,
)

if TYPE_CHECKING:
    from fastlstm.model import Model
    from fastlstm.run_folder import RunFolder
    from fastlstm.text import IdArray
    from fastlstm.trainer import TrainResult

#: Options that are fields of `ModelConfig` and of `TrainConfig`. One that is not given is `None`.
_MODEL_OPTIONS = ("cell", "layers", "hidden", "embedding", "forget_bias", "dtype")
_TRAIN_OPTIONS = (
    "seq_len", "batch", "lr", "schedule", "clip_value", "clip_norm", "steps", "epochs", "val_frac", "eval_every",
    "sample_every", "sample_length", "threads", "backend", "seed",
)  # fmt: skip


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser("train", "Train a character-level language model on a text.")
    data = made.add_argument_group("text")
    data.add_argument(
        "--data", nargs="+", action="extend", metavar="TEXT",
        help="files, '-' for standard input, or corpora by name: input (the default), pydoc, tinyshakespeare",
    )  # fmt: skip
    data.add_argument("--bytes", action="store_true", help="model bytes instead of characters")
    data.add_argument(
        "--val-frac", type=float, metavar="X", help=f"share at the end kept for validation ({TrainConfig.val_frac})"
    )
    _add_model_options(made.add_argument_group("model"))
    _add_training_options(made.add_argument_group("training"))
    progress = made.add_argument_group("progress and result")
    progress.add_argument(
        "--out", metavar="DIR", help="folder of the model (runs/NAME after the first text, or the next that is free)"
    )
    progress.add_argument(
        "--overwrite", action="store_true", help="replace the model in that folder, once this one is finished"
    )
    progress.add_argument(
        "--eval-every", type=int, metavar="N", help="steps between validations (about ten a run); 0: only at the end"
    )
    progress.add_argument(
        "--sample-every", type=int, metavar="N", help="steps between samples (about ten a run); 0: only at the end"
    )
    progress.add_argument(
        "--sample-length", type=int, metavar="N", help=f"characters in a sample ({TrainConfig.sample_length})"
    )
    return made


def _add_model_options(model: argparse._ArgumentGroup) -> None:
    model.add_argument("--preset", choices=["assignment"], help="the assignment to the letter; other options override")
    model.add_argument("--cell", choices=get_args(Cell), help=f"kind of the recurrent cell ({ModelConfig.cell})")
    model.add_argument("--layers", type=int, metavar="N", help=f"layers ({ModelConfig.layers})")
    model.add_argument("--hidden", type=int, metavar="N", help=f"hidden units of a layer ({ModelConfig.hidden})")
    model.add_argument(
        "--embedding", type=int, metavar="N", help=f"length of a character's vector ({ModelConfig.embedding})"
    )
    model.add_argument(
        "--forget-bias", type=float, metavar="X", help=f"initial bias of the forget gate ({ModelConfig.forget_bias})"
    )
    model.add_argument("--dtype", choices=get_args(DType), help=f"of all numbers ({ModelConfig.dtype})")


def _add_training_options(training: argparse._ArgumentGroup) -> None:
    training.add_argument("--seq-len", type=int, metavar="T", help=f"characters of a sequence ({TrainConfig.seq_len})")
    training.add_argument("--batch", type=int, metavar="B", help=f"sequences trained in parallel ({TrainConfig.batch})")
    training.add_argument("--lr", type=float, metavar="X", help=f"learning rate of Adagrad ({TrainConfig.lr})")
    training.add_argument(
        "--schedule", choices=get_args(Schedule), help=f"of the learning rate ({TrainConfig.schedule})"
    )
    clip = training.add_mutually_exclusive_group()
    clip.add_argument("--clip-value", type=float, metavar="X", help="bound on each entry of the gradient; inf: none")
    clip.add_argument(
        "--clip-norm",
        type=float,
        metavar="X",
        help=f"bound on the norm of the gradient ({TrainConfig.clip_norm}); inf: none",
    )
    length = training.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="steps of the run")
    length.add_argument(
        "--epochs", type=float, metavar="X", help=f"passes over the text ({TrainConfig.DEFAULT_EPOCHS:g})"
    )
    training.add_argument("--threads", type=int, metavar="N", help="worker threads (all cores)")
    training.add_argument("--backend", choices=get_args(BackendName), help=f"what computes ({TrainConfig.backend})")


def model_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of `ModelConfig`: the preset's, overridden by the options that are given."""
    preset = ASSIGNMENT_MODEL[options.cell or "lstm"] if options.preset else {}
    return preset | _given(options, _MODEL_OPTIONS)


def train_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of `TrainConfig`: the preset's, overridden by the options that are given."""
    preset = ASSIGNMENT_TRAIN[options.cell or "lstm"] if options.preset else {}
    given = _given(options, _TRAIN_OPTIONS)
    for bound in ("clip_value", "clip_norm"):
        if given.get(bound) == math.inf:
            given[bound] = None
    if "clip_value" in given:
        given["clip_norm"] = None
    elif "clip_norm" in given:
        given["clip_value"] = None
    return preset | given


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def output_folder(options: argparse.Namespace) -> Path:
    """The folder asked for, else ``runs/<name>`` with the name of the first text."""
    if options.out:
        return Path(options.out)
    first = options.data[0] if options.data else "input"
    return Path("runs") / ("stdin" if first == "-" else Path(first).stem or "text")


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    options = parser().parse_args(argv)
    model_values, config = model_settings(options), TrainConfig(**train_settings(options))
    ModelConfig(vocab_size=1, **model_values)  # what is wrong with it is better known before the text is read
    from fastlstm.run_folder import RunFolder

    model, ids = _model_and_ids(options, model_values)
    config = _fitted(options, config, ids)
    wanted, named = output_folder(options), bool(options.out)
    with (
        RunFolder(wanted, named=named, overwrite=options.overwrite, say=_tell) as folder,
        signals.cleanup(folder.tidy),
    ):
        _introduce(model, ids, config)
        return _train(model, ids, config, folder, as_json=options.json)


def _tell(line: str) -> None:
    """Print a line for whoever still reads; what is being saved does not depend on that."""
    with contextlib.suppress(OSError):
        print(line, flush=True)


def _say(message: str) -> None:
    cli.note("train", message)


def _model_and_ids(options: argparse.Namespace, settings: dict[str, Any]) -> tuple[Model, IdArray]:
    from fastlstm.model import Model
    from fastlstm.text import read_ids

    vocab, ids = read_ids(options.data or [], as_bytes=options.bytes)
    return Model(ModelConfig(len(vocab), **settings), vocab, seed=options.seed), ids


def _fitted(options: argparse.Namespace, config: TrainConfig, ids: IdArray) -> TrainConfig:
    """Lower the lanes that the user did not ask for to what a short text can feed."""
    import dataclasses

    from fastlstm.batches import fit_lanes
    from fastlstm.text import split

    count = len(split(ids, config.val_frac)[0])
    if count < 2:
        return config  # too short for any: the trainer says so
    seq_len, batch = fit_lanes(count, config.seq_len, config.batch)
    return dataclasses.replace(config, seq_len=options.seq_len or seq_len, batch=options.batch or batch)


def _introduce(model: Model, ids: IdArray, config: TrainConfig) -> None:
    shape, count = model.config, len(model.parameters.flat)
    layers = "1 layer" if shape.layers == 1 else f"{shape.layers} layers"
    print(f"text: {len(ids):,} characters, {len(model.vocab):,} of them distinct")
    print(
        f"model: {shape.cell}, {layers} of {shape.hidden}, embedding {shape.embedding}, {count:,} parameters;"
        f" {config.batch} x {config.seq_len} characters a step",
        flush=True,
    )


def _train(model: Model, ids: IdArray, config: TrainConfig, folder: RunFolder, *, as_json: bool) -> int:
    """Train, save and tell; returns the exit status."""
    with signals.Stop() as stop:
        try:
            result = _fit(model, ids, config, folder, stop)
            with stop.saving():
                path = folder.save_somewhere(model)
            stop.done()
            _summarise(result, path)
            _warn_of_failure(result, len(model.vocab))
            if as_json:
                cli.print_json(_json(result, path))
        except OSError:
            if not stop.status:  # else it went with the terminal, which had sent the signal
                raise
    return stop.status


def _fit(model: Model, ids: IdArray, config: TrainConfig, folder: RunFolder, stop: signals.Stop) -> TrainResult:
    """Train; whatever ends it, what was learned is saved, unless that is nothing."""
    from fastlstm import progress
    from fastlstm.run_folder import Saver
    from fastlstm.trainer import Observers

    saver = Saver(folder, model.parameters.flat.nbytes, stop.saving, _say)
    stop.lost = saver.lost
    try:
        with progress.observer(sys.stdout) as display:
            return model.fit(ids, config, observer=Observers(display, saver), stop=stop)
    except Exception as error:
        if model.training and model.training["steps"]:
            with stop.saving():
                path = folder.save_somewhere(model)
            if not isinstance(error, OSError):  # to a reader that has left there is nothing to say
                _say(f"the model of step {model.training['steps']:,} is {path}")
        raise


def _summarise(result: TrainResult, path: Path) -> None:
    from fastlstm.progress import nats_and_bits

    validation = "" if result.val_nats is None else f", validation {nats_and_bits(result.val_nats)}"
    print(
        f"{result.steps:,} steps in {result.seconds:.1f} s, {result.chars_per_s:,.0f} characters/s:"
        f" train {nats_and_bits(result.train_nats)}{validation} a character"
    )
    print(f"the model is {path}; let it write:\n  {cli.command('sample')} {shlex.quote(str(path.parent))}", flush=True)


def _warn_of_failure(result: TrainResult, vocab_size: int) -> None:
    from fastlstm.trainer import worse_than_guessing

    if worse_than_guessing(result.train_nats, vocab_size):
        _say(
            f"the model predicts worse than guessing, which takes {math.log(vocab_size):.4g} nats a character:"
            " lower the learning rate, or clip gradients harder"
        )


def _json(result: TrainResult, path: Path) -> dict[str, Any]:
    values = {
        "steps": result.steps,
        "seconds": result.seconds,
        "chars_per_s": result.chars_per_s,
        "compile_seconds": result.compile_seconds,
        "train_nats": result.train_nats,
        "val_nats": result.val_nats,
        "parameters": result.parameters,
        "model": str(path),
    }
    if result.val_nats is None:
        del values["val_nats"]
    return values


if __name__ == "__main__":
    cli.run(main)
