"""``python -m fastlstm.decompress``: the file that was compressed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fastlstm import cli, packing
from fastlstm.errors import ConfigError


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "decompress", "Decompress a file that compress has written. A damaged one is an error, and nothing is written."
    )
    packing.add_file_options(made, "FILE without .flstm")
    made.add_argument_group("model").add_argument(
        "--model", type=cli.path, metavar="MODEL", help="the model with which the file was compressed, if one was given"
    )
    packing.add_threads(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Decompress a file as given by the arguments; returns the exit status."""
    options = parser().parse_args(argv)
    threads = packing.threads(options)
    import time

    from fastlstm import archive
    from fastlstm.bar import Bar

    output = packing.Output(options, _decompressed)
    packed, model = packing.read(options.file), packing.load_model(options.model)
    started = time.perf_counter()
    with Bar(sys.stderr, 0, "symbols") as bar:
        data = archive.decompress(packed, model, threads=threads, progress=bar.reached, compiling=cli.say_compiling)
    seconds = time.perf_counter() - started
    output.write(data)
    output.say(f"{len(packed):,} bytes are {len(data):,} in {output.path}, after {seconds:.1f} s")
    if options.json:
        cli.print_json({"bytes": len(data), "compressed_bytes": len(packed), "seconds": seconds, "file": output.path})
    return 0


def _decompressed(file: str) -> str:
    """The name of a compressed file without its suffix."""
    from fastlstm.archive import SUFFIX

    if not file.endswith(SUFFIX) or file == SUFFIX:
        raise ConfigError(f"{file!r} does not end with {SUFFIX}: name the result with --out")
    return file.removesuffix(SUFFIX)


if __name__ == "__main__":
    cli.run(main)
