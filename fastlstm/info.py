"""``python -m fastlstm.info``: what a model is, how it was trained and on what, and how its gradients were checked."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.errors import FastlstmError

if TYPE_CHECKING:
    from fastlstm.certificate import Certificate
    from fastlstm.checkpoint import Content
    from fastlstm.config import ModelConfig
    from fastlstm.history import History
    from fastlstm.text import Vocab

#: Columns that the output takes at most.
_WIDTH = 80

#: Symbols of a vocabulary that are shown.
_SHOWN_SYMBOLS = 120

#: Settings of the training that are shown, in this order.
_SHOWN_SETTINGS = ("seq_len", "batch", "optimizer", "lr", "schedule", "seed", "precision")

#: A fact: its name, and its value in lines.
Fact = tuple[str, list[str]]


@dataclasses.dataclass(frozen=True)
class _Found:
    """What is at a path.

    Attributes
    ----------
    file : of the model.
    content : of the file.
    history : of the run, if the path is a run folder that has one, or the model file in it.
    text : fingerprint and number of symbols of the text, and where known the names of its files.
    """

    file: Path
    content: Content
    history: History | None
    text: dict[str, Any]


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "info",
        "Show what a model is: its configuration, size and vocabulary, how it was trained and on which text, and the"
        " certificate of its gradients.",
    )
    made.add_argument(
        "model", metavar="MODEL", type=cli.path, help="the model file, its run folder, or the checkpoint of a run"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Show a model as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    found = _found(Path(options.model))
    _print(_facts(found))
    if options.json:
        cli.print_json(_json(found))
    return 0


def _found(path: Path) -> _Found:
    """Read what is at a path; a damaged history is reported, and left out."""
    from fastlstm import checkpoint, run_checkpoint

    if path.is_dir() or path.name == checkpoint.FILE_NAME:
        folder = path if path.is_dir() else path.parent
        content, history = checkpoint.load(path), _history(folder)
        text = _text_of_model(content) if history is None else _text_of_run(history)
        return _Found(folder / checkpoint.FILE_NAME, content, history, text)
    content = run_checkpoint.load_model(path)
    return _Found(path, content, None, _text_of_model(content))


def _history(folder: Path) -> History | None:
    """The history of a run folder, if there is one that can be read."""
    from fastlstm import config_file, history

    if not (folder / config_file.FILE_NAME).exists():
        return None
    try:
        return history.read(folder)
    except FastlstmError as error:
        cli.note("info", str(error))
        return None


def _text_of_model(content: Content) -> dict[str, Any]:
    """The text of a model without its run, as far as the record in its file tells; it has no names of files."""
    recorded = (content.training or {}).get("text")
    return recorded if isinstance(recorded, dict) else {}


def _text_of_run(history: History) -> dict[str, Any]:
    """The text of a run, as far as its record tells."""
    recorded = {
        "data": history.settings.get("data"),
        "sha256": history.record.get("text_sha256"),
        "symbols": history.record.get("symbols"),
    }
    return {name: value for name, value in recorded.items() if value is not None}


def _facts(found: _Found) -> list[Fact]:
    """All that is shown."""
    content = found.content
    noun = "bytes" if content.vocab.is_bytes else "characters"
    facts = [
        ("model", [str(found.file)]),
        ("cell", [_shape(content.config)]),
        ("size", [_size(found)]),
        ("vocabulary", _vocabulary(content.vocab, noun)),
        ("training", _training(content.training or {}, found.history)),
        ("settings", [_settings(content.training or {})]),
        ("text", [_text(found.text, noun)]),
        ("fingerprint", [str(found.text.get("sha256", ""))]),
        ("versions", _versions(found)),
        ("certificate", _certificate(content.certificate)),
    ]
    return [(name, lines) for name, lines in facts if any(lines)]


def _shape(config: ModelConfig) -> str:
    layers = "1 layer" if config.layers == 1 else f"{config.layers:,} layers"
    return f"{config.cell}, {layers} of {config.hidden:,} units, embeddings of {config.embedding:,}"


def _size(found: _Found) -> str:
    config = found.content.config
    return f"{config.parameter_count:,} parameters of {config.dtype}, a file of {found.file.stat().st_size:,} bytes"


def _vocabulary(vocab: Vocab, noun: str) -> list[str]:
    """Number of symbols, the symbols themselves, and whether there is an entry for all others."""
    if vocab == vocab.of_bytes():
        return ["all 256 bytes"]
    others = [f"and one entry for all other {noun}"] if vocab.escape else []
    return [f"{len(vocab.symbols):,} {noun}", _symbols(vocab), *others]


def _symbols(vocab: Vocab) -> str:
    """The symbols, each by itself or as an escape; of a large vocabulary the first ones."""
    from fastlstm.terminal import spelled

    shown = [spelled(int(code), vocab.is_bytes) for code in vocab.symbols[:_SHOWN_SYMBOLS]]
    more = len(vocab.symbols) - len(shown)
    return " ".join(shown) + (f" and {more:,} more" if more else "")


def _training(record: Mapping[str, Any], history: History | None) -> list[str]:
    """How far training went, and the losses of the model."""
    from fastlstm.progress import nats_and_bits

    lines = [_extent(record, history)]
    losses = [("training", _number(record, "train_nats")), ("validation", _number(record, "val_nats"))]
    lines += [f"{name} loss {nats_and_bits(nats)} per symbol" for name, nats in losses if nats is not None]
    step, steps = _number(record, "model_step"), _number(record, "steps")
    if step is not None and step != steps:
        lines.append(f"the model is that of step {step:,}, the best")
    return lines


def _extent(record: Mapping[str, Any], history: History | None) -> str:
    """Steps, passes over the text and time of a training; empty if there is no record of any."""
    steps = _number(record, "steps") if history is None else history.step
    if steps is None:
        return ""
    parts = [f"{steps:,} steps" if history is None or not history.total else f"{steps:,} of {history.total:,} steps"]
    if history is not None:
        parts += [f"{history.training.epoch[-1]:,.2f} epochs"] if len(history.training.epoch) else []
        parts.append(f"{history.seconds:,.1f} s")
    finished = record.get("finished") is True if history is None else history.finished
    return f"{', '.join(parts)}, {'finished' if finished else 'not finished'}"


def _settings(record: Mapping[str, Any]) -> str:
    from fastlstm.history import shown

    settings = record.get("config")
    if not isinstance(settings, dict):
        return ""
    return ", ".join(f"{name} {shown(settings[name])}" for name in _SHOWN_SETTINGS if settings.get(name) is not None)


def _text(text: Mapping[str, Any], noun: str) -> str:
    """The names of a text, and its length."""
    from fastlstm.history import shown

    symbols = _number(text, "symbols")
    named = [shown(text["data"])] if "data" in text else []
    return ", ".join(named if symbols is None else [*named, f"{symbols:,} {noun}"])


def _versions(found: _Found) -> list[str]:
    record = (found.content.training or {}) if found.history is None else found.history.record
    version = record.get("fastlstm")
    return [] if version is None else [f"trained by fastlstm {version}"]


def _certificate(certificate: Certificate | None) -> list[str]:
    if certificate is None:
        return ["none: the gradients of these parameters were not checked"]
    return certificate.lines()


def _number(values: Mapping[str, Any], name: str) -> int | float | None:
    """A number of a record that anyone may have written; ``None`` if it is missing, not finite, or no number."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -sys.float_info.max <= value <= sys.float_info.max else None


def _print(facts: Iterable[Fact]) -> None:
    """Print facts in two columns, the lines of the second folded."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fastlstm.terminal import printable

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, lines in facts:
        safe = [" ".join(printable(line).split()) for line in lines if line]
        table.add_row(name, Text("\n".join(safe)))
    plain = io.StringIO()
    width = min(_WIDTH, max(40, shutil.get_terminal_size().columns))
    Console(file=plain, width=width, color_system=None, highlight=False).print(table)
    print("\n".join(line.rstrip() for line in plain.getvalue().splitlines()), flush=True)


def _json(found: _Found) -> dict[str, Any]:
    content, history = found.content, found.history
    run = None
    if history is not None:
        names = ("step", "total", "seconds", "best_nats", "best_step", "finished")
        run = {name: getattr(history, name) for name in names} | {
            "settings": history.settings,
            "record": history.record,
        }
    return {
        "model": str(found.file),
        "bytes": found.file.stat().st_size,
        "config": content.config.to_dict(),
        "parameters": content.config.parameter_count,
        "vocabulary": json.loads(content.vocab.to_json()),
        "training": content.training,
        "run": run,
        "text": found.text or None,
        "certificate": None if content.certificate is None else content.certificate.to_dict(),
    }


if __name__ == "__main__":
    cli.run(main)
