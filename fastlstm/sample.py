"""``python -m fastlstm.sample``: generate text with a model."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from fastlstm import cli
from fastlstm.config import SampleConfig, TrainConfig
from fastlstm.settings import add_options, given
from fastlstm.terminal import Printable

#: Defaults of this verb that differ from the declared ones: a text to read may be longer than a sample within a run.
_DEFAULTS: dict[str, Any] = {"length": 1000}


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser("sample", "Generate text with a model and write it to standard output as it is sampled.")
    made.add_argument("model", metavar="MODEL", help="the model file, or its run folder")
    text = made.add_argument_group("text")
    text.add_argument(
        "--prompt", type=cli.argument_text, default="", metavar="S", help="text to continue; it is written first"
    )
    settings = ("length", "num", "temperature", "top_k", "top_p", "min_p")
    add_options(text, SampleConfig, only=settings, defaults=_DEFAULTS)
    add_options(made.add_argument_group("computing"), TrainConfig)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Sample as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    computing = TrainConfig(**given(options, TrainConfig))
    sampling = SampleConfig(**(_DEFAULTS | given(options, SampleConfig)))
    import time

    from fastlstm.backend import warm_up
    from fastlstm.model import Model
    from fastlstm.precision import effective

    model = Model.load(options.model)
    prompt = model.vocab.decode(model.vocab.encode(options.prompt))
    precision = effective(computing.precision, model.config, computing.backend)
    warm_up(computing.backend, precision.applied(model.config), cli.say_compiling, bf16=precision.bf16)
    started = time.perf_counter()
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "seed": sampling.seed,
        "backend": computing.backend,
        "threads": computing.threads,
        "precision": precision.name,
    }
    if sampling.num == 1:
        pieces = model.stream(prompt, sampling.length, **settings)
        if not _write(itertools.chain([prompt], pieces)) and (options.json or sys.stdout.isatty()):
            print()
    else:
        _write_all(prompt, model.continuations(prompt, sampling.num, sampling.length, **settings))
    seconds = time.perf_counter() - started
    if options.json:
        chars = sampling.num * sampling.length
        speed = chars / seconds if seconds else 0.0
        cli.print_json({"chars": chars, "seconds": seconds, "chars_per_s": speed, "precision": precision.name})
    return 0


def _write_all(prompt: str | bytes, texts: Sequence[str | bytes]) -> None:
    """Write several continuations, each after a line with its number."""
    for number, text in enumerate(texts, start=1):
        print(f"--- {number} ---", flush=True)
        if not _write([prompt, text]):
            print(flush=True)


def _write(pieces: Iterable[str | bytes]) -> bool:
    """Write each piece as it arrives; returns whether the text ends with a newline."""
    ends_a_line = False
    for piece in _for_terminal(pieces) if sys.stdout.isatty() else pieces:
        if isinstance(piece, bytes):
            sys.stdout.buffer.write(piece)
        else:
            sys.stdout.write(piece)
        sys.stdout.flush()
        ends_a_line = piece[-1:] in ("\n", b"\n") or (ends_a_line and not piece)
    return ends_a_line


def _for_terminal(pieces: Iterable[str | bytes]) -> Iterator[str]:
    printable = Printable()
    for piece in pieces:
        yield printable(piece)
    yield printable(b"", final=True)


if __name__ == "__main__":
    cli.run(main)
