"""``python -m fastlstm.compress``: compress a file without loss."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fastlstm import cli, packing
from fastlstm.config import ModelConfig
from fastlstm.learning import Learning
from fastlstm.settings import add_options, given

#: The settings of a new model, and of how it learns, that have options.
SHAPE, LEARNING = (
    ("cell", "layers", "hidden", "embedding"),
    ("seq_len", "lanes", "replay", "lr", "final_rate", "seed"),
)

#: What the help shows as the default of settings that follow from the length of the file.
CHOSEN = "chosen for the file"


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "compress",
        "Compress a file without loss, by arithmetic coding under a model: a new one, which learns from the file as it"
        " reads, or a given one. Any bytes can be compressed; those that do not become fewer are stored.",
    )
    packing.add_file_options(made, "FILE.flstm")
    model = made.add_argument_group("model")
    model.add_argument(
        "--model", type=cli.path, metavar="MODEL",
        help="code the file with this model, a file or a run folder; decompress needs it, too",
    )  # fmt: skip
    model.add_argument("--dynamic", action="store_true", help="let the model of --model learn as it reads")
    add_options(model, ModelConfig, only=SHAPE, defaults=dict.fromkeys(SHAPE, CHOSEN))
    learning = made.add_argument_group("learning while reading")
    add_options(learning, Learning, only=LEARNING, defaults=dict.fromkeys(LEARNING[:-1], CHOSEN))
    packing.add_threads(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Compress a file as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    threads = packing.threads(options)
    import time

    from fastlstm import archive, archive_file
    from fastlstm.bar import Bar

    output = packing.Output(options, lambda file: file + archive.SUFFIX)
    data, model = packing.read(options.file), packing.load_model(options.model)
    started = time.perf_counter()
    with Bar(sys.stderr, 0, "symbols") as bar:
        packed = archive.compress(
            data, model, dynamic=options.dynamic, shape=given(options, ModelConfig), learning=given(options, Learning),
            threads=threads, progress=bar.reached, compiling=cli.say_compiling,
        )  # fmt: skip
    seconds = time.perf_counter() - started
    output.write(packed)
    coding = archive_file.decode(packed).coding
    ratio = len(packed) / len(data) if data else None
    share = "" if ratio is None else f" ({ratio:.1%}, {8 * ratio:.3f} bits a byte)"
    stored = ", stored as they are" if isinstance(coding, archive_file.Stored) else ""
    output.say(f"{len(data):,} bytes are {len(packed):,}{share} in {output.path}{stored}, after {seconds:.1f} s")
    if options.json:
        cli.print_json(
            {
                "bytes": len(data), "compressed_bytes": len(packed), "ratio": ratio,
                "bits_per_byte": None if ratio is None else 8 * ratio, "seconds": seconds, "file": output.path,
                "mode": archive_file.name_of(coding),
            }
        )  # fmt: skip
    return 0


if __name__ == "__main__":
    cli.run(main)
