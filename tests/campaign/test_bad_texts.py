"""Texts that are no texts, or unusual ones, given to ``train``."""

import gzip
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import become_nobody, judge, models_in, require_whole, run_in_child
from forks import fork
from harness import Outcome, part, require
from subjects import TEXT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

SMALL = ["--steps=3", "--hidden=4", "--embedding=3", "--sample-length=5", "--threads=1", "--out=run"]


class Text(NamedTuple):
    """A text, and what ``train`` has to say about it.

    Attributes
    ----------
    name : what it is.
    content : of the file ``notes.txt``, or a function that makes something else in the current folder.
    advice : what the error tells the user to do; ``None``: there is no error.
    arguments : after ``--data``.
    input : of the command.
    prepare : called in the process of the command.
    """

    name: str
    content: bytes | Callable[[], object] | None
    advice: str | None
    arguments: tuple[str, ...] = ("notes.txt",)
    input: bytes = b""
    prepare: Callable[[], object] = lambda: None


def make_folder():
    os.mkdir("notes.txt")


def as_gz(content):
    """A function that makes ``notes.gz``."""
    return lambda: Path("notes.gz").write_bytes(content)


def make_dangling_link():
    os.symlink("nowhere", "notes.txt")


def make_link_to_itself():
    os.symlink("notes.txt", "notes.txt")


def make_socket():
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("notes.txt")


def make_pipe():
    """A named pipe into which another process writes the text, like a shell's ``<(command)``."""
    os.mkfifo("notes.txt")
    fork(lambda: Path("notes.txt").write_text(TEXT) and 0)


def make_unreadable():
    Path("notes.txt").write_text(TEXT)
    os.chmod("notes.txt", 0)
    os.chmod(".", 0o777)


def close_input():
    sys.stdin = None


WORDS = TEXT.encode()
MANY_SCRIPTS = "Straße, Ελλάδα, עִבְרִית, 日本語, \N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}, e\N{COMBINING ACUTE ACCENT}."
CONVERT, MORE, PATH, NOT_EMPTY = "convert it to UTF-8", "give more text", "check the path", "give a file with text"
WHOLE = "get a whole one"
TEXTS = [
    Text("missing", None, PATH),
    Text("empty", b"", NOT_EMPTY),
    Text("nothing but a byte order mark", b"\xef\xbb\xbf", NOT_EMPTY),
    Text("one character", b"a", MORE),
    Text("two characters", b"ab", MORE),
    Text("three characters", b"abc", None),
    Text("one character again and again", b"a" * 1000, None),
    Text("shorter than a sequence", b"so it goes", None),
    Text("shorter than the sequence that was asked for", b"so it goes", "seq", ("notes.txt", "--seq-len=500")),
    Text("all for validation", WORDS, MORE, ("notes.txt", "--val-frac=0.9999")),
    Text("random bytes", bytes(range(256)) * 50, CONVERT),
    Text("an image", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10, CONVERT),
    Text("a compressed file", b"\x1f\x8b\x08\x00" + bytes(range(255, 0, -1)) * 10, CONVERT),
    Text("Latin-1", "Café crème. ".encode("latin-1") * 100, CONVERT),
    Text("a broken character in the middle", WORDS + b"\xe2\x82" + WORDS, CONVERT),
    Text("a character cut off at the end", WORDS + "€".encode()[:2], CONVERT),
    Text("a character encoded in too many bytes", WORDS + b"\xc0\xaf" + WORDS, CONVERT),
    Text("encoded surrogates", WORDS + b"\xed\xa0\xbd\xed\xb8\x80", CONVERT),
    Text("UTF-16 with a byte order mark", TEXT.encode("utf-16"), CONVERT),
    Text("UTF-16, big-endian, without one", TEXT.encode("utf-16-be"), CONVERT),
    Text("UTF-32", TEXT.encode("utf-32"), CONVERT),
    Text("nothing but NULs", bytes(1000), CONVERT),
    Text("a byte order mark", b"\xef\xbb\xbf" + WORDS, None),
    Text("line ends of Windows", WORDS.replace(b"\n", b"\r\n"), None),
    Text("line ends of old Macs", WORDS.replace(b"\n", b"\r"), None),
    Text("some NULs", WORDS.replace(b"so", b"\0"), None),
    Text("spaces and line ends", b" \n\t\n" * 200, None),
    Text("control characters", bytes(range(32)) * 30 + b"\x1b[31mred\x1b[0m\x07", None),
    Text("one long line", WORDS.replace(b"\n", b" ") * 500, None),
    Text("many scripts", MANY_SCRIPTS.encode() * 20, None),
    Text("20,000 different characters", "".join(map(chr, range(0x4E00, 0x9C20))).encode(), None),
    Text("random bytes as bytes", bytes(range(256)) * 50, None, ("notes.txt", "--bytes")),
    Text("UTF-16 in its encoding", TEXT.encode("utf-16"), None, ("notes.txt", "--encoding=utf-16")),
    Text("random bytes as UTF-16", bytes(range(256)) * 50, "byte order mark", ("notes.txt", "--encoding=utf-16")),
    Text("an encoding that does not exist", WORDS, "name one such as", ("notes.txt", "--encoding=uft-8")),
    Text("an encoding of bytes", WORDS, "leave out", ("notes.txt", "--encoding=utf-8", "--bytes")),
    Text("compressed", as_gz(gzip.compress(WORDS)), None, ("notes.gz",)),
    Text("compressed and cut short", as_gz(gzip.compress(WORDS)[:-9]), WHOLE, ("notes.gz",)),
    Text("compressed, says the name alone", as_gz(WORDS), WHOLE, ("notes.gz",)),
    Text("a pattern", WORDS, None, ("n*.txt",)),
    Text("a pattern that nothing matches", WORDS, PATH, ("n*.md",)),
    Text("a folder", make_folder, "name its files"),
    Text("a link to nowhere", make_dangling_link, PATH),
    Text("a link to itself", make_link_to_itself, "check the file"),
    Text("a socket", make_socket, "check the file"),
    Text("a pipe", make_pipe, None),
    Text("unreadable", make_unreadable, "permissions", prepare=become_nobody),
    Text("below a file", WORDS, "check the file", ("notes.txt/x",)),
    Text("a name that is too long", None, "check the file", ("x" * 300,)),
    Text("a name with a line end", None, PATH, ("no\nsuch",)),
    Text("a name that is no UTF-8", None, PATH, ("no\udcffsuch",)),
    Text("a corpus that does not exist", None, "name a corpus", ("inptu",)),
    Text("the null device", None, NOT_EMPTY, ("/dev/null",)),
    Text("two texts, one missing", WORDS, PATH, ("notes.txt", "more.txt")),
    Text("two texts, one empty", WORDS, None, ("notes.txt", "/dev/null")),
    Text("standard input", None, None, ("-",), input=WORDS),
    Text("empty standard input", None, NOT_EMPTY, ("-",)),
    Text("standard input that is no text", None, CONVERT, ("-",), input=b"\xff" * 100),
    Text("closed standard input", None, "name a file", ("-",), prepare=close_input),
]


@part("bad texts", full=len(TEXTS), small=len(TEXTS), seconds=60)
def test_a_bad_text_gives_one_line_that_says_what_to_do_or_works(trials):
    """A model, or status 1 or 2, one line with the advice, and no model."""
    trials.run(train_on)


def train_on(trial):
    text = TEXTS[trial.number]
    if isinstance(text.content, bytes):
        Path("notes.txt").write_bytes(text.content)
    elif text.content is not None:
        text.content()
    arguments = ["train", *SMALL, "--data", *text.arguments]
    ended = run_in_child(arguments, trial.folder, trial.part.seconds, text.input, text.prepare)
    outcome, models = judge(ended, text.name), models_in(trial.folder)
    if text.advice is None:
        require(outcome is Outcome.HELD and models, Outcome.WRONG, f"{text.name} does not work: {ended.errors!r}")
        require_whole(models[0])
    else:
        clear = outcome is Outcome.REFUSED and text.advice in ended.errors
        require(clear, Outcome.WRONG, f"{text.name} is not refused with {text.advice!r}: {ended.errors!r}")
        require(not models, Outcome.WRONG, f"{text.name} gives a model")
    return outcome
