"""The size of a compressed text and the time for it, next to other programs.

usage: python -m benchmarks.compression [--data FILE] [--threads N] [--json FILE] [--page docs/using.md]
       python -m benchmarks.compression --table [--json FILE] [--page docs/using.md]

The text, tiny-shakespeare by default, is compressed and decompressed as it is by `fastlstm.compress` and `.decompress`,
and by those programs that Python's standard library has. Without ``--page`` the table is printed; with it, it is also
inserted between two marks in the file. ``--table`` measures nothing, and takes the recorded results.
"""

from __future__ import annotations

import argparse
import bz2
import hashlib
import json
import lzma
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.arguments import input_file, positive
from benchmarks.peers import cpu_name
from benchmarks.table import insert, rows
from fastlstm import __version__, archive, corpora
from fastlstm.backend import warm_up
from fastlstm.config import ModelConfig
from fastlstm.threads import default_threads

#: The recorded results, and the name of the marks that enclose the table.
FILE, MARKS = Path(__file__).with_name("results") / "compression.json", "compression"

TEXT = "tinyshakespeare"


class Peer(NamedTuple):
    """Another program that is measured here."""

    name: str
    compress: Callable[[bytes], bytes]
    decompress: Callable[[bytes], bytes]


PEERS = (
    Peer("bzip2 -9", lambda data: bz2.compress(data, 9), bz2.decompress),
    Peer("xz -9e", lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
)

#: Programs that are not measured here: what they made of tiny-shakespeare, and in how many seconds on one core, as
#: recorded once. lstm-compress (3 layers of 90, C++) is also an LSTM that learns as it reads.
RECORDED = (
    {"name": "lstm-compress", "bytes": 330_726, "compress_seconds": 114.0, "decompress_seconds": None},
    {"name": "zstd -22", "bytes": 368_313, "compress_seconds": None, "decompress_seconds": None},
)


def measured(
    name: str, data: bytes, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]
) -> dict[str, Any]:
    """Bytes and seconds of one program, whose result must be the very text."""
    started = time.perf_counter()
    packed = compress(data)
    middle = time.perf_counter()
    back = decompress(packed)
    ended = time.perf_counter()
    if back != data:
        sys.exit(f"{name} does not give the text back")
    return {
        "name": name, "bytes": len(packed), "compress_seconds": middle - started, "decompress_seconds": ended - middle
    }  # fmt: skip


def measure(data: bytes, threads: int) -> list[dict[str, Any]]:
    """What every program makes of a text."""
    own = measured(
        "fastlstm", data, lambda text: archive.compress(text, threads=threads),
        lambda packed: archive.decompress(packed, threads=threads),
    )  # fmt: skip
    return [own, *(measured(peer.name, data, peer.compress, peer.decompress) for peer in PEERS)]


def name_of(data: bytes, path: Path | None) -> str:
    """The name of a text: that of its file, unless it is the usual one."""
    is_usual = hashlib.sha256(data).hexdigest() == corpora.TINYSHAKESPEARE_SHA256
    return TEXT if path is None or is_usual else path.name


def markdown(result: dict[str, Any]) -> str:
    """The table, with a line about its conditions."""
    lines = [["program", "bytes", "bits per byte", "compressed in s", "decompressed in s"]]
    programs = [*result["programs"], *(RECORDED if result["text"] == TEXT else ())]
    for program in sorted(programs, key=lambda one: one["bytes"]):
        bits = 8 * program["bytes"] / result["bytes"]
        seconds = (program["compress_seconds"], program["decompress_seconds"])
        shown = ["" if value is None else f"{value:.1f}" for value in seconds]
        lines.append([program["name"], f"{program['bytes']:,}", f"{bits:.3f}", *shown])
    recorded = ", ".join(str(program["name"]) for program in RECORDED)
    about = f"{result['text']}, {result['bytes']:,} bytes; {result['cpu']}, {result['threads']} threads"
    others = f"; {recorded}: measured elsewhere" if result["text"] == TEXT else ""
    return f"({about}, fastlstm {result['version']}{others})\n\n{rows(lines)}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compression", description="The size of a compressed text, and the time for it."
    )
    parser.add_argument("--data", type=input_file, metavar="FILE", help=f"the text ({TEXT})")
    parser.add_argument("--threads", type=positive, default=default_threads(), metavar="N", help="workers (all cores)")
    parser.add_argument("--json", type=Path, default=FILE, metavar="FILE", help=f"the results (results/{FILE.name})")
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"put the table between the marks {MARKS} of a page")
    parser.add_argument("--table", action="store_true", help="measure nothing: take the results from the file")
    options = parser.parse_args(argv)
    if not options.table:
        data = corpora.load(TEXT) if options.data is None else options.data.read_bytes()
        warm_up("fast", ModelConfig(1), lambda: None)
        result = {
            "text": name_of(data, options.data), "bytes": len(data), "cpu": cpu_name(),
            "threads": options.threads, "version": __version__, "programs": measure(data, options.threads),
        }  # fmt: skip
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table = markdown(json.loads(options.json.read_text(encoding="utf-8")))
    print(table)
    if options.page:
        page = options.page.read_text(encoding="utf-8")
        options.page.write_text(insert(page, table, MARKS), encoding="utf-8")


if __name__ == "__main__":
    main()
