"""``python -m fastlstm.evaluate``: measure how well a model predicts a text."""

from __future__ import annotations

from collections.abc import Sequence

from fastlstm import cli
from fastlstm.config import TrainConfig
from fastlstm.settings import add_options, given


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "evaluate", "Measure how well a model predicts a text, in one pass over every character but the first."
    )
    made.add_argument("model", metavar="MODEL", help="the model file, or its run folder")
    made.add_argument("file", metavar="FILE", help="the text: a file, '-' for standard input, or the name of a corpus")
    cli.add_unknown_option(made.add_argument_group("text"))
    add_options(made.add_argument_group("computing"), TrainConfig)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a model as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    computing = TrainConfig(**given(options, TrainConfig))
    from fastlstm.backend import warm_up
    from fastlstm.inference import check_length
    from fastlstm.model import Model
    from fastlstm.precision import effective
    from fastlstm.text import Encoder, read_ids

    model = Model.load(options.model)
    encoder = Encoder(model.vocab, options.unknown)
    _, ids = read_ids([options.file], encoder=encoder)
    cli.warn_of_unknown("evaluate", encoder)
    check_length(ids)
    precision = effective(computing.precision, model.config, computing.backend)
    warm_up(computing.backend, precision.applied(model.config), cli.say_compiling, bf16=precision.bf16)
    result = model.evaluate(ids, backend=computing.backend, threads=computing.threads, precision=precision.name)
    print(
        f"{result.chars:,} characters: {result.nats_per_char:.4f} nats, {result.bits_per_char:.4f} bits per character,"
        f" perplexity {result.perplexity:.3f}"
    )
    if options.json:
        cli.print_json(
            {
                "chars": result.chars,
                "nats_per_char": result.nats_per_char,
                "bits_per_char": result.bits_per_char,
                "perplexity": result.perplexity,
                "precision": precision.name,
            }
        )
    return 0


if __name__ == "__main__":
    cli.run(main)
