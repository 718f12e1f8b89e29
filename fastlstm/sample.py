"""``python -m fastlstm.sample``: generate text with a model."""

from __future__ import annotations

import argparse
import base64
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.config import SampleConfig, TrainConfig
from fastlstm.errors import ConfigError
from fastlstm.settings import add_options, given
from fastlstm.streaming import whole_characters
from fastlstm.terminal import Printable

if TYPE_CHECKING:
    from fastlstm.text import Vocab

#: Defaults of this verb that differ from the declared ones: a text to read may be longer than a sample within a run.
_DEFAULTS: dict[str, Any] = {"length": 1000}
#: Settings of `SampleConfig` that are options of the text; the seed is one of computing.
_SETTINGS = ("length", "num", "temperature", "top_k", "top_p", "min_p")


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser("sample", "Generate text with a model and write it to standard output as it is sampled.")
    made.add_argument("model", metavar="MODEL", help="the model file, or its run folder")
    text = made.add_argument_group("text")
    prompt = text.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt", type=cli.argument_text, default="", metavar="S", help="text to continue; it is written first"
    )
    prompt.add_argument(
        "--prompt-file", type=cli.path, metavar="FILE",
        help="continue the text of a file, or of standard input ('-'), with the line end that it may have",
    )  # fmt: skip
    cli.add_encoding_option(text)
    cli.add_unknown_option(text)
    add_options(text, SampleConfig, only=_SETTINGS, defaults=_DEFAULTS)
    text.add_argument(
        "--stop", type=_stop_text, action="append", default=[], metavar="TEXT",
        help="end a continuation before this text when it appears; may be given several times",
    )  # fmt: skip
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
    from fastlstm.text import Encoder

    model = Model.load(options.model)
    prompt, encoder = _prompt(options, model.vocab), Encoder(model.vocab, options.unknown)
    start = encoder.encode(prompt)
    cli.warn_of_unknown("sample", encoder)
    precision = effective(computing.precision, model.config, computing.backend)
    warm_up(computing.backend, precision.applied(model.config), cli.say_compiling, bf16=precision.bf16)
    started = time.perf_counter()
    settings: dict[str, Any] = {name: getattr(sampling, name) for name in _SETTINGS if name != "num"}
    settings |= {
        "until": options.stop,
        "seed": sampling.seed,
        "backend": computing.backend,
        "threads": computing.threads,
        "precision": precision.name,
    }
    if sampling.num == 1:
        kept: list[Any] = []
        pieces = model.stream(start, **settings)
        _write(itertools.chain([prompt], _keeping(pieces, kept) if options.json else pieces))
        texts: list[Any] = [prompt[:0].join(kept)]
    else:
        texts = [*model.continuations(start, sampling.num, **settings)]
        _write_all(prompt, texts)
    seconds = time.perf_counter() - started
    if options.json:
        chars = sum(map(len, texts))
        speed = chars / seconds if seconds else 0.0
        measured = {"chars": chars, "seconds": seconds, "chars_per_s": speed, "precision": precision.name}
        cli.print_json(_as_json(prompt, texts) | measured)
    return 0


def _stop_text(argument: str) -> str:
    """The type of ``--stop``: not empty, as every text would end at once."""
    if not argument:
        raise argparse.ArgumentTypeError("the text is empty")
    return cli.argument_text(argument)


def _prompt(options: argparse.Namespace, vocab: Vocab) -> str | bytes:
    """The text to continue, of the kind that the vocabulary has; raises `ConfigError` when it needs no encoding."""
    from fastlstm.text import read_text, utf8

    if options.prompt_file is not None:
        return read_text([options.prompt_file], as_bytes=vocab.is_bytes, encoding=options.encoding)
    if options.encoding is not None:
        raise ConfigError("--encoding is that of a file: give --prompt-file, or leave it out")
    prompt: str = options.prompt
    return utf8(prompt) if vocab.is_bytes else prompt


def _keeping(pieces: Iterable[str | bytes], kept: list[Any]) -> Iterator[str | bytes]:
    """The same pieces, which are added to ``kept``."""
    for piece in pieces:
        kept.append(piece)
        yield piece


def _as_json(prompt: str | bytes, texts: Sequence[str | bytes]) -> dict[str, Any]:
    """Prompt and texts as values for JSON. Bytes are decoded, and the texts also given in base64, which loses none."""
    values: dict[str, Any] = {"prompt": _decoded(prompt), "texts": [_decoded(text) for text in texts]}
    exact = [base64.b64encode(text).decode() for text in texts if isinstance(text, bytes)]
    return values | ({"texts_base64": exact} if exact else {})


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def _write_all(prompt: str | bytes, texts: Sequence[str | bytes]) -> None:
    """Write several continuations, each after a line with its number."""
    for number, text in enumerate(texts, start=1):
        print(f"--- {number} ---", flush=True)
        _write([prompt, text])


def _write(pieces: Iterable[str | bytes]) -> None:
    """Write each piece as it arrives, and a newline at the end unless the text ends with one."""
    ends_a_line = False
    for piece in _for_terminal(pieces) if sys.stdout.isatty() else whole_characters(pieces):
        if isinstance(piece, bytes):
            sys.stdout.buffer.write(piece)
        else:
            sys.stdout.write(piece)
        sys.stdout.flush()
        ends_a_line = piece[-1:] in ("\n", b"\n") or (ends_a_line and not piece)
    if not ends_a_line:
        print(flush=True)


def _for_terminal(pieces: Iterable[str | bytes]) -> Iterator[str]:
    printable = Printable()
    for piece in pieces:
        yield printable(piece)
    yield printable(b"", final=True)


if __name__ == "__main__":
    cli.run(main)
