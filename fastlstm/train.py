"""``python -m fastlstm.train``: train a model on a text."""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastlstm import cli, signals, terminal
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.defaults import choosable
from fastlstm.presets import PRESETS, UNFAIR
from fastlstm.settings import add_options, given

if TYPE_CHECKING:
    from fastlstm.checkpoint import Content
    from fastlstm.event_files import EventFiles
    from fastlstm.recorder import Saver
    from fastlstm.run_checkpoint import Checkpoint
    from fastlstm.run_folder import RunFolder
    from fastlstm.train_settings import Given
    from fastlstm.trainer import Trainer, TrainResult


def parser() -> cli.Parser:
    """The verb's arguments."""
    own = dict.fromkeys(choosable(), "chosen")
    made = cli.parser("train", "Train a character-level language model on a text.")
    text = cli.add_text_options(made)
    text.add_argument(
        "--escape",
        action=argparse.BooleanOptionalAction,
        help="give a model of characters one entry for all other characters (default: yes, but not with --preset);"
        " a model of bytes needs none",
    )
    add_options(text, TrainConfig, defaults=own)
    start = made.add_argument_group("start")
    start.add_argument(
        "--resume", type=cli.path, metavar="DIR", help="go on with the run in this folder, as if it had not stopped"
    )
    start.add_argument(
        "--init-from",
        type=cli.path,
        metavar="MODEL",
        help="start from this model, also with a text that has other symbols",
    )
    start.add_argument(
        "--config",
        type=cli.path,
        metavar="FILE",
        help="read settings from a TOML file, or from a run's folder; options override them",
    )
    model = made.add_argument_group("model")
    model.add_argument(
        "--preset", choices=PRESETS, help="exactly the settings of the assignment; other options override them"
    )
    add_options(model, ModelConfig, defaults=own)
    add_options(made.add_argument_group("training"), TrainConfig, defaults=own)
    add_options(made.add_argument_group("computing"), TrainConfig)
    progress = made.add_argument_group("progress and result")
    progress.add_argument(
        "--out",
        type=cli.path,
        metavar="DIR",
        help="run folder (default: runs/NAME, named after the first text, or the next free one)",
    )
    progress.add_argument(
        "--overwrite",
        action="store_true",
        help="replace the run in that folder when this one ends; a finished one only when this run is finished",
    )
    progress.add_argument(
        "--tensorboard",
        action="store_true",
        help="write event files of TensorBoard (pip install 'fastlstm[tensorboard]')",
    )
    progress.add_argument("--quiet", action="store_true", help="print only warnings and errors, and --json")
    add_options(progress, TrainConfig)
    return made


#: What users of processors without fused multiply-add should know.
_SLOW = (
    "note: this processor has no fused multiply-add. Training takes some 15 times as long as it could, to give the bits"
    " of other processors in float32; FASTLSTM_FMA=fast does without them"
)


class _Start(NamedTuple):
    """A run that is about to begin, or to go on.

    Attributes
    ----------
    given : what the user gives.
    make : makes the trainer; takes the arguments ``observer``, ``stop`` and ``started``.
    lines : a description, to be printed.
    positions : lengths of the files that the run has written before, see `Checkpoint.positions`.
    record : what config.toml records of the run; empty for a new one.
    command : the command line.
    step : at which the run goes on.
    """

    given: Given
    make: Callable[..., Trainer]
    lines: list[str]
    positions: dict[str, int]
    record: dict[str, Any]
    command: str = ""
    step: int = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Train a model as given by the arguments; returns the exit status."""
    started = time.perf_counter()
    options = parser().parse_args(argv)
    options.arguments = list(sys.argv[1:] if argv is None else argv)
    if options.resume:
        _check_alone(options)
        return _resume(options, started)
    from fastlstm.train_settings import Given

    wanted = Given.by(options, options.config)
    _check(wanted)
    start = _begin(wanted)
    from fastlstm.run_folder import RunFolder

    path = _output_folder(options.out, wanted.data)
    with RunFolder(path, named=bool(options.out), overwrite=options.overwrite, say=_teller(options)) as folder:
        return _train(start, folder, started, options)


def _check(wanted: Given) -> None:
    """Refuse invalid settings before the text is read."""
    from fastlstm.precision import settled

    model, train = wanted.completed(1)
    settled(TrainConfig(**train), ModelConfig(vocab_size=1, **model))


def _check_alone(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing when a run is resumed."""
    from fastlstm.errors import ConfigError

    made = parser()
    for name in ("config", "init_from", "preset", "out", "overwrite", "bytes", "escape"):
        if getattr(options, name) != made.get_default(name):
            raise ConfigError(
                f"--{name.replace('_', '-')} cannot be given with --resume: the run has its own text, settings and"
                " folder"
            )
    if model := given(options, ModelConfig):
        raise ConfigError(f"{next(iter(model))} cannot be given with --resume: the run has its own model")


def _output_folder(out: str | None, data: list[str]) -> Path:
    """The folder given by ``--out``, else ``runs/NAME`` with the name of the first text."""
    from fastlstm import sources

    return Path(out) if out else Path("runs", sources.title(data))


def _begin(wanted: Given) -> _Start:
    """A new run: read the text, choose what is not given, and make the model."""
    from fastlstm.precision import settled
    from fastlstm.text import read_ids
    from fastlstm.trainer import Trainer

    source = _loaded(wanted)
    as_bytes = wanted.as_bytes if source is None else source.vocab.is_bytes
    vocab, ids = read_ids(wanted.data, as_bytes=as_bytes, encoding=wanted.encoding, escape=wanted.escape)
    distinct = "" if as_bytes else f", {len(vocab.symbols):,} of them distinct"
    lines = [f"text: {len(ids):,} {'bytes' if as_bytes else 'characters'}{distinct}"]
    if source is None:
        model_values, train_values = wanted.completed(len(ids))
        model = _new(model_values, vocab, train_values.get("seed", TrainConfig.seed))
    else:
        from fastlstm.fine_tuning import adapted

        model, changes = adapted(source, vocab, ids)
        wanted = wanted._replace(model=model.config.to_dict())
        model_values, train_values = wanted.completed(len(ids))
        lines.append(
            f"fine-tuning {wanted.init_from}: {changes.kept:,} symbols kept, {changes.new:,} new"
            f" ({100 * changes.new_share:.2g} % of the text), {changes.lost:,} dropped"
        )
    config = settled(wanted.fitted(TrainConfig(**train_values), ids).in_effect(), model.config)
    lines.append(_described(model, config))
    if wanted.is_complete:
        lines.append(f"note: {UNFAIR}")
    chosen = wanted.chosen(model_values, train_values | {"seq_len": config.seq_len, "batch": config.batch})
    if config.is_bf16 and wanted.train.get("precision", "auto") == "auto":
        chosen.append("--precision bf16")
    lines += [f"chosen: {' '.join(chosen)}; options that are given win"] if chosen else []
    return _Start(wanted, functools.partial(Trainer, model, ids, config), lines, {}, {})


def _new(values: dict[str, Any], vocab: Any, seed: int) -> Content:
    from fastlstm.model import Model

    return Model(ModelConfig(len(vocab), **values), vocab, seed=seed).content


def _loaded(wanted: Given) -> Content | None:
    """The model to start from, in the dtype of the precision; ``None``: a new one.

    Raises
    ------
    ConfigError
        When another shape is given, or this processor lacks the precision.
    """
    if wanted.init_from is None:
        return None
    from fastlstm import run_checkpoint
    from fastlstm.errors import ConfigError
    from fastlstm.precision import effective

    source = run_checkpoint.load_model(wanted.init_from)
    if wanted.as_bytes and not source.vocab.is_bytes:
        raise ConfigError(f"the model {wanted.init_from!r} is one of characters: leave --bytes out")
    for name, value in wanted.model.items():
        if value != getattr(source.config, name):
            raise ConfigError(
                f"{name} of the model {wanted.init_from!r} is {getattr(source.config, name)}, not {value}: leave it out"
            )
    train = TrainConfig(**wanted.train)
    return source.astype(effective(train.precision, source.config, train.backend).dtype)


def _resume(options: argparse.Namespace, started: float) -> int:
    """Go on with a run."""
    from fastlstm import config_file, run_checkpoint
    from fastlstm.errors import ConfigError
    from fastlstm.run_folder import CONFIG, METRICS, SAMPLES, RunFolder
    from fastlstm.run_text import located
    from fastlstm.train_settings import Given

    path = Path(options.resume)
    with RunFolder.resumed(path, _teller(options)) as folder:
        has_config = (path / CONFIG).exists()
        wanted = Given.by(options, path if has_config else None)
        record = config_file.record(path) if has_config else {}
        wanted = wanted._replace(data=[located(source, record) for source in wanted.data])
        if not (path / run_checkpoint.FILE_NAME).exists() and folder.model.exists():
            raise ConfigError(
                f"{str(path)!r} contains a model, but no {run_checkpoint.FILE_NAME} to go on from: train the model"
                " further with --init-from"
            )
        if (path / run_checkpoint.FILE_NAME).exists():
            start = _go_on(run_checkpoint.read(path), wanted, given(options, TrainConfig), path)
        else:  # it was killed before its first checkpoint
            start = _begin(wanted)
            start.lines.insert(0, f"{path} has no checkpoint yet: the run starts again from its first step")
            start = start._replace(positions=dict.fromkeys((METRICS, SAMPLES), 0))
        return _train(start._replace(record=_continued(record, start, options)), folder, started, options)


def _continued(record: dict[str, Any], start: _Start, options: argparse.Namespace) -> dict[str, Any]:
    """The record of a run, with the command that resumes it."""
    at = f"step {start.step:,}: {_command(options)}"
    return record | {"resumed": [*record.get("resumed", []), at]}


def _go_on(checkpoint: Checkpoint, wanted: Given, train: dict[str, Any], path: Path) -> _Start:
    """A run that goes on from a checkpoint, with these fields of `TrainConfig` changed."""
    import dataclasses

    from fastlstm.errors import TextError
    from fastlstm.text import Encoder, read_ids
    from fastlstm.trainer import Trainer

    # Not the vocabulary of the text: that of a run of bytes had only those of its text in earlier versions.
    encoder = Encoder(checkpoint.vocab, "skip")
    vocab, ids = read_ids(wanted.data, encoding=wanted.encoding, encoder=encoder)
    if encoder.lacking:
        raise TextError(
            f"the text is not that of the run, or has changed: {sum(encoder.lacking.values()):,} of its symbols do not"
            " occur in that of the run: resume with the same text, or train its model on this one with --init-from"
        )
    config = dataclasses.replace(checkpoint.config, **train)
    make = functools.partial(Trainer.resumed, checkpoint, vocab, ids, config)
    lines = [f"resuming {path}", _described(checkpoint.last, checkpoint.config)]
    return _Start(wanted, make, lines, dict(checkpoint.positions), {}, step=checkpoint.state.step)


def _described(model: Content, config: TrainConfig) -> str:
    shape, count = model.config, len(model.parameters.flat)
    layers = "1 layer" if shape.layers == 1 else f"{shape.layers} layers"
    precision = ", bf16" if config.is_bf16 else ""
    return (
        f"model: {shape.cell}, {layers} of {shape.hidden}, embedding {shape.embedding}, {count:,} parameters;"
        f" {config.batch} x {config.seq_len} characters per step{precision}"
    )


def _tell(line: str) -> None:
    """Print a line; if the reader of the output has left, saving must still go on."""
    with contextlib.suppress(OSError):
        print(terminal.wrapped(line) if sys.stdout.isatty() else line, flush=True)


def _teller(options: argparse.Namespace) -> Callable[[str], None]:
    """The function that prints lines; with ``--quiet`` it does nothing."""
    return (lambda line: None) if options.quiet else _tell


def _say(message: str) -> None:
    cli.note("train", message)


def _train(start: _Start, folder: RunFolder, started: float, options: argparse.Namespace) -> int:
    """Train, save and print the summary; returns the exit status."""
    with signals.cleanup(folder.close), signals.Stop() as stop:
        try:
            trainer = _run(start, folder, started, options, stop)
            result = trainer.result
            if folder.failure is not None:
                raise folder.failure
            _summarise(result, folder, bool(start.given.train.get("minutes")) and not options.resume, _teller(options))
            _warn_of_failure(result, trainer.content.config.vocab_size)
            if options.json:
                cli.print_json(_json(trainer, result, folder))
        except OSError:
            if not stop.status:  # else: the terminal was closed, which also sent the signal
                raise
    return stop.status


def _run(start: _Start, folder: RunFolder, started: float, options: argparse.Namespace, stop: signals.Stop) -> Trainer:
    """Train, and save what the run leaves; if an error ends it after its first step, save before it is raised."""
    from fastlstm import progress
    from fastlstm.backend import is_slow
    from fastlstm.observers import Observers
    from fastlstm.recorder import Log, Recorder, Saver, WhenPlanned

    trainer = start.make(stop=stop, started=started)
    for line in start.lines:
        _teller(options)(line)
    if is_slow(trainer.config.backend):
        _say(_SLOW)
    size = trainer.content.parameters.flat.nbytes
    with contextlib.ExitStack() as context:
        write_config = functools.partial(_write_config, start._replace(command=_command(options)), trainer, folder)
        write_config()  # before all other files: with it, a run that is killed can be resumed
        more = [context.enter_context(_event_files(folder))] if options.tensorboard or _has_events(folder) else []
        recorder = context.enter_context(contextlib.closing(Recorder(folder.path, _say, start.positions)))
        log = context.enter_context(contextlib.closing(Log(folder.path, _say)))
        saver = Saver(folder, recorder, trainer.config, size, stop.saving, _say)
        stop.lost = saver.lost
        log.note(_command(options))
        display = context.enter_context(progress.observer(sys.stdout, quiet=options.quiet))
        trainer.observer = Observers(WhenPlanned(write_config), display, log, *more, recorder, saver)
        before = trainer.training
        try:
            trainer.run()
        except Exception as error:  # of whatever type, also of an observer: what was done is saved, then it is raised
            if trainer.training is not before:
                _rescue(trainer, folder, saver, stop, error)
            raise
        with stop.saving():
            folder.save_somewhere(lambda: folder.save(trainer.content))
            recorder.over(trainer.result)
            recorder.close()
            log.close()
            folder.replace(finished=trainer.result.finished)
        stop.done()
    return trainer


def _has_events(folder: RunFolder) -> bool:
    """Whether a run that is resumed has written event files."""
    from fastlstm.run_folder import EVENTS

    return (folder.path / EVENTS).is_dir()


def _event_files(folder: RunFolder) -> EventFiles:
    from fastlstm.event_files import EventFiles
    from fastlstm.run_folder import EVENTS

    return EventFiles(folder.path / EVENTS, _say)


def _rescue(trainer: Trainer, folder: RunFolder, saver: Saver, stop: signals.Stop, error: Exception) -> None:
    """Save what there is when an error has ended a run; after a divergence, the model that was restored."""
    from fastlstm.errors import DivergenceError, ModelFileError

    with stop.saving():
        try:
            if isinstance(error, DivergenceError):
                folder.save_somewhere(lambda: folder.save(trainer.content))
            else:
                saver.ended(trainer.progress, trainer.checkpoint)
        except ModelFileError as failure:
            _say(str(failure))
    if folder.saved is not None and not isinstance(error, OSError):  # else the reader of the output has left
        _say(f"the model of step {folder.saved.step:,} is in {folder.saved.path}")


def _command(options: argparse.Namespace) -> str:
    return f"{cli.command('train')} {shlex.join(options.arguments)}"


def _write_config(start: _Start, trainer: Trainer, folder: RunFolder) -> None:
    """Write all settings of a run, and a record of it."""
    from fastlstm import __version__, config_file

    content, text = trainer.content, trainer.text
    record = {
        "fastlstm": __version__,
        "text_sha256": text.sha256,
        "symbols": text.symbols,
        "distinct": len(content.vocab.symbols),
        "parameters": content.parameters.flat.size,
        "total_steps": trainer.progress.total or None,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "folder": os.getcwd(),
        "command": start.command,
    }
    record |= {
        name: value for name, value in start.record.items() if name in ("started", "folder", "command", "resumed")
    }
    folder.write_config(
        config_file.text(
            content.config, trainer.config, data=start.given.data, as_bytes=content.vocab.is_bytes,
            encoding=start.given.encoding, escape=content.vocab.escape, init_from=start.given.init_from,
            record=record,
        )
    )  # fmt: skip


def _summarise(result: TrainResult, folder: RunFolder, planned: bool, tell: Callable[[str], None]) -> None:
    from fastlstm.progress import nats_and_bits
    from fastlstm.run_folder import CONFIG

    path = folder.path
    validation = "" if result.val_nats is None else f", validation {nats_and_bits(result.val_nats)}"
    tell(
        f"{result.steps:,} steps in {result.seconds:.1f} s, {result.chars_per_s:,.0f} characters/s:"
        f" train {nats_and_bits(result.train_nats)}{validation} per character"
    )
    if result.model_step != result.steps:
        tell(f"the best model is that of step {result.model_step:,}")
    tell(f"the model is in {folder.model}; to sample from it:\n  {cli.command('sample')} {shlex.quote(str(path))}")
    if not result.finished:
        tell(f"to go on with the run:\n  {cli.command('train')} --resume {shlex.quote(str(path))}")
    elif planned:
        tell(f"to repeat the run:\n  {cli.command('train')} --config {shlex.quote(str(path / CONFIG))}")


def _warn_of_failure(result: TrainResult, vocab_size: int) -> None:
    from fastlstm.recovery import worse_than_guessing

    if worse_than_guessing(result.train_nats, vocab_size):
        _say(
            f"the model predicts worse than uniform guessing ({math.log(vocab_size):.4g} nats per character):"
            " lower the learning rate, or clip gradients harder"
        )


def _json(trainer: Trainer, result: TrainResult, folder: RunFolder) -> dict[str, Any]:
    values = {
        "steps": result.steps,
        "seconds": result.seconds,
        "chars_per_s": result.chars_per_s,
        "compile_seconds": result.compile_seconds,
        "train_nats": result.train_nats,
        "val_nats": result.val_nats,
        "model_step": result.model_step,
        "finished": result.finished,
        "parameters": result.parameters,
        "model": str(folder.model),
        "settings": {**trainer.content.config.to_dict(), **trainer.config.to_dict()},
    }
    if result.val_nats is None:
        del values["val_nats"]
    return values


if __name__ == "__main__":
    cli.run(main)
