"""``python -m fastlstm.evaluate``: measure how well a model predicts texts."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.config import EvaluationConfig, TrainConfig
from fastlstm.errors import ConfigError, TextError, VocabularyError
from fastlstm.learning import TRAINED, Learning
from fastlstm.settings import add_options, given

if TYPE_CHECKING:
    from rich.table import Table

    from fastlstm.evaluation import Assessment, Cost, Report
    from fastlstm.model import Model
    from fastlstm.text import Encoder, IdArray, Vocab

#: The settings of learning while reading that have options.
LEARNING = ("seq_len", "lr")

#: Columns that the tables take at most.
_WIDTH = 80


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "evaluate",
        "Measure how well a model predicts texts: every character of each but the first, in one pass, or in parallel"
        " with --lanes.",
    )
    made.add_argument("model", metavar="MODEL", help="the model file, or its run folder")
    made.add_argument(
        "file",
        nargs="+",
        metavar="FILE",
        help="texts: files, patterns of them, '-' for standard input, or names of corpora",
    )
    text = made.add_argument_group("text")
    cli.add_encoding_option(text)
    cli.add_unknown_option(text)
    add_options(text, EvaluationConfig)
    learning = made.add_argument_group("learning while reading")
    learning.add_argument(
        "--dynamic", action="store_true", help="also let a copy of the model learn from each text while it reads it"
    )
    add_options(learning, Learning, only=LEARNING, defaults={"lr": TRAINED.lr})
    add_options(made.add_argument_group("computing"), TrainConfig)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a model as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    computing = TrainConfig(**given(options, TrainConfig))
    settings = EvaluationConfig(**given(options, EvaluationConfig))
    learning = _learning(options)
    from fastlstm.backend import warm_up
    from fastlstm.bar import Bar
    from fastlstm.model import Model
    from fastlstm.precision import effective
    from fastlstm.sources import expanded
    from fastlstm.text import Encoder

    model = Model.load(options.model)
    encoder = Encoder(model.vocab, options.unknown)
    files = [file for name in options.file for file in expanded(name)]
    texts = [_read(file, options.encoding, encoder, alone=len(files) == 1) for file in files]
    cli.warn_of_unknown("evaluate", encoder)
    precision = effective(computing.precision, model.config, computing.backend)
    warm_up(computing.backend, precision.applied(model.config), cli.say_compiling, bf16=precision.bf16)
    with Bar(sys.stderr, sum(len(ids) - 1 for ids in texts), "characters") as advance:
        report = model.assess(
            texts, lanes=settings.lanes, hardest=settings.hardest, backend=computing.backend,
            threads=computing.threads, precision=precision.name, advance=advance,
        )  # fmt: skip
    if len(texts) > 1:
        _print_files(files, report.texts)
    _print_total(report.total)
    how: dict[str, Any] = {"lanes": settings.lanes, "precision": precision.name}
    if learning is not None:
        how["dynamic"] = _dynamic(model, files, texts, learning, computing, report.total)
    _print_hardest(report, model.vocab)
    if options.json:
        cli.print_json(_json(files, report, model.vocab) | how)
    return 0


def _learning(options: argparse.Namespace) -> Learning | None:
    """How the model learns while it reads; ``None``: it does not."""
    chosen = {name: value for name, value in given(options, Learning).items() if name in LEARNING}
    if not options.dynamic:
        if chosen:
            raise ConfigError("--seq-len and --lr say how a model learns while it reads: give --dynamic, too")
        return None
    if options.lanes is not None:
        raise ConfigError("--lanes cannot be given with --dynamic: a model that learns reads a text in one pass")
    return dataclasses.replace(TRAINED, **chosen)


def _dynamic(
    model: Model,
    files: Sequence[str],
    texts: Sequence[IdArray],
    learning: Learning,
    computing: TrainConfig,
    fixed: Assessment,
) -> dict[str, Any]:
    """Evaluate the model while it learns from each text, and print what that gains."""
    from fastlstm.bar import Bar
    from fastlstm.inference import Evaluation

    with Bar(sys.stderr, fixed.chars, "characters") as advance:
        found = [
            model.evaluate_dynamic(
                ids, learning, backend=computing.backend, threads=computing.threads,
                precision=computing.precision, advance=advance,
            )
            for ids in texts
        ]  # fmt: skip
    total = Evaluation(fixed.chars, sum(one.chars * one.nats_per_char for one in found) / fixed.chars)
    gain = 1 - total.nats_per_char / fixed.nats_per_char
    print(
        f"learning while reading: {total.nats_per_char:.4f} nats, {total.bits_per_char:.4f} bits per character,"
        f" perplexity {total.perplexity:.3f}; {abs(gain):.1%} {'less' if gain >= 0 else 'more'}"
    )
    return {
        "nats_per_char": total.nats_per_char,
        "bits_per_char": total.bits_per_char,
        "gain": gain,
        "files": [
            {"file": file, "chars": one.chars, "nats_per_char": one.nats_per_char, "bits_per_char": one.bits_per_char}
            for file, one in zip(files, found, strict=True)
        ],
        "learning": dataclasses.asdict(learning),
    }


def _read(file: str, encoding: str | None, encoder: Encoder, *, alone: bool) -> IdArray:
    """The ids of a text; an error names the file, unless it is the only one."""
    from fastlstm.inference import check_length
    from fastlstm.text import read_ids

    with contextlib.nullcontext() if alone else _naming(file):
        _, ids = read_ids([file], encoding=encoding, encoder=encoder)
        check_length(ids)
    return ids


@contextlib.contextmanager
def _naming(file: str) -> Iterator[None]:
    """Begin the message of an error in a text with the name of its file."""
    try:
        yield
    except (TextError, VocabularyError) as error:
        raise type(error)(f"{file}: {error}") from None


def _print_files(files: Sequence[str], texts: Sequence[Assessment]) -> None:
    """Print one line for each file, and the names of the columns."""
    from fastlstm.terminal import printable_line

    print(f"{'characters':>13}  {'bits':>8}  {'top-1':>6}  file")
    for file, one in zip(files, texts, strict=True):
        print(f"{one.chars:13,}  {one.bits_per_char:8.4f}  {one.top1:6.1%}  {printable_line(file)}")


def _print_total(total: Assessment) -> None:
    """Print the result for all texts together."""
    print(
        f"{total.chars:,} characters: {total.nats_per_char:.4f} nats, {total.bits_per_char:.4f} bits per character,"
        f" perplexity {total.perplexity:.3f}"
    )
    unknown = f"; {total.unknown:,} unknown" if total.unknown else ""
    print(f"the most probable one {total.top1:.1%}, among the five most probable {total.top5:.1%}{unknown}")
    if total.error:
        print(f"measured error of reading in lanes: {total.error:.1g} nats per character")


def _print_hardest(report: Report, vocab: Vocab) -> None:
    """Print the hardest characters beside the hardest contexts."""
    if not report.symbols:
        return
    from rich.console import Console
    from rich.table import Table

    tables = Table.grid(padding=(0, 3))
    noun = "byte" if vocab.is_bytes else "character"
    tables.add_row(_table(noun, report.symbols, vocab, shares=True), _table("after", report.contexts, vocab))
    plain = io.StringIO()
    Console(file=plain, width=_WIDTH, color_system=None, highlight=False).print(tables)
    print(f"hardest {noun}s, by their share of all bits, and contexts, by bits")
    print("\n".join(line.rstrip() for line in plain.getvalue().splitlines()), flush=True)


def _table(title: str, costs: Sequence[Cost], vocab: Vocab, *, shares: bool = False) -> Table:
    """Costs, one in each row."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title, box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in ("count", "bits", "top-1", *["share"] * shares):
        table.add_column(name, justify="right", no_wrap=True)
    for cost in costs:
        numbers = [f"{cost.count:,}", f"{cost.bits_per_char:.2f}", f"{cost.top1:.0%}"]
        table.add_row(Text(" ".join(_spelled(cost, vocab))), *numbers, *[f"{cost.share:.1%}"] * shares)
    return table


def _spelled(cost: Cost, vocab: Vocab) -> list[str]:
    """The symbol, or those of the context."""
    from fastlstm.terminal import spelled

    return [
        "unknown" if place == vocab.escape_id else spelled(int(vocab.symbols[place]), vocab.is_bytes)
        for place in cost.ids
    ]


def _json(files: Sequence[str], report: Report, vocab: Vocab) -> dict[str, Any]:
    """All results."""
    return {
        **_numbers(report.total),
        "files": [{"file": file, **_numbers(one)} for file, one in zip(files, report.texts, strict=True)],
        "hardest_characters": [_cost(cost, vocab) for cost in report.symbols],
        "hardest_contexts": [_cost(cost, vocab) for cost in report.contexts],
    }


def _numbers(one: Assessment) -> dict[str, Any]:
    return {
        "chars": one.chars,
        "nats_per_char": one.nats_per_char,
        "bits_per_char": one.bits_per_char,
        "perplexity": one.perplexity,
        "top1": one.top1,
        "top5": one.top5,
        "unknown": one.unknown,
        "error_nats": one.error,
    }


def _exact(place: int, vocab: Vocab) -> str | int | None:
    """A symbol as JSON has it: a character, the value of a byte, or null for the unknown ones."""
    if place == vocab.escape_id:
        return None
    code = int(vocab.symbols[place])
    return code if vocab.is_bytes else chr(code)


def _cost(cost: Cost, vocab: Vocab) -> dict[str, Any]:
    return {
        "symbols": [_exact(place, vocab) for place in cost.ids],
        "count": cost.count,
        "bits_per_char": cost.bits_per_char,
        "share": cost.share,
        "top1": cost.top1,
    }


if __name__ == "__main__":
    cli.run(main)
