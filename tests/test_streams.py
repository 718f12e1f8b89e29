"""Standard streams: closed, full, with an encoding that lacks a character, and terminals with escape codes."""

import os
import pty

import numpy as np
import pytest
from programs import ENVIRONMENT, QUICK, as_written, last_json, python

from fastlstm import Model, Vocab
from fastlstm.config import ModelConfig
from fastlstm.terminal import Printable, printable

VERBS = {
    "train": ["--data", "notes.txt", *QUICK],
    "sample": ["run", "--length", 20],
    "evaluate": ["run", "notes.txt"],
    "score": ["run", "notes.txt"],
    "gradcheck": ["--hidden", 2, "--seq-len", 2],
}


@pytest.fixture
def folder(tmp_path, run_folder):
    """A folder with a text, notes.txt, and the link ``run`` to a run."""
    (tmp_path / "notes.txt").write_text("The sea was loud.\n" * 60)
    (tmp_path / "run").symlink_to(run_folder)
    return tmp_path


def closing(*descriptors):
    return lambda: [os.close(descriptor) for descriptor in descriptors]


@pytest.mark.parametrize(
    ("verb", "closed"),
    [
        ("train", (1,)), ("train", (0, 1, 2)), ("sample", (1,)), ("sample", (2,)), ("evaluate", (1,)),
        ("score", (0, 1)), ("gradcheck", (0, 1, 2)),
    ],
)  # fmt: skip
def test_verbs_work_with_closed_streams(verb, closed, folder):
    done = python("-m", f"fastlstm.{verb}", *VERBS[verb], cwd=folder, preexec_fn=closing(*closed))
    assert (done.returncode, done.stderr) == (0, b"")
    assert bool(done.stdout) == (1 not in closed)
    if verb == "train":
        assert Model.load(folder / "runs" / "notes").training["finished"]


def test_an_error_with_closed_standard_error_is_only_a_status(folder):
    done = python("-m", "fastlstm.sample", "missing", cwd=folder, preexec_fn=closing(2))
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device here that is always full")
@pytest.mark.parametrize("verb", ["train", "sample", "score", "--version"])
def test_an_output_that_cannot_be_written_is_one_line(verb, folder):
    arguments = [verb, *VERBS.get(verb, [])]
    with open("/dev/full", "w") as full:
        done = python("-m", "fastlstm", *arguments, cwd=folder, capture_output=False, stdout=full, stderr=-1)
    assert done.returncode == 1
    assert done.stderr.startswith(b"fastlstm")
    assert done.stderr.count(b"\n") == 1
    assert b"No space left" in done.stderr


def test_python_m_fastlstm_is_the_console_script(folder):
    done = python("-m", "fastlstm", "sample", "run", "--length", 9, cwd=folder)
    assert done.stdout.decode() == as_written(Model.load(folder / "run").sample("", 9))
    assert python("-m", "fastlstm", "sample", "--help", cwd=folder).stdout.startswith(
        b"usage: python -m fastlstm sample "
    )
    done = python("-m", "fastlstm", "train", *VERBS["train"], cwd=folder)
    assert b"python -m fastlstm sample runs/notes" in done.stdout
    assert python("-m", "fastlstm", cwd=folder).returncode == 2


@pytest.fixture
def german(tmp_path):
    """A folder with a model that generates only ä, ö and ü."""
    vocab = Vocab.from_text("äöü")
    Model(ModelConfig(3, hidden=2, embedding=2), vocab).save(tmp_path / "model.safetensors")
    return tmp_path


def test_characters_that_an_encoding_lacks_are_counted(german):
    env = ENVIRONMENT | {"PYTHONIOENCODING": "ascii"}
    done = python("-m", "fastlstm.sample", ".", "--prompt", "ö", "--length", 29, "--json", cwd=german, env=env)
    assert done.returncode == 0
    assert done.stdout.startswith(b"?" * 30 + b"\n")
    assert last_json(done.stdout.decode())["chars"] == 29
    assert done.stderr.count(b"\n") == 1
    assert (
        b"30 characters were written as '?', because the encoding of standard output (ascii) lacks them" in done.stderr
    )
    assert b"PYTHONIOENCODING=utf-8" in done.stderr
    assert python("-m", "fastlstm.sample", ".", "--length", 30, cwd=german).stderr == b""


def test_an_ascii_locale_accepts_a_prompt_of_the_models_characters(german):
    env = ENVIRONMENT | {
        "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONIOENCODING": "utf-8",
    }  # fmt: skip
    done = python("-m", "fastlstm.sample", ".", "--prompt", "ö", "--length", 2, cwd=german, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == as_written("ö" + Model.load(german).sample("ö", 2))


def test_a_terminal_gets_no_escape_codes_from_a_model_of_bytes(tmp_path):
    """It does get complete characters of several bytes, although the bytes are drawn one by one."""
    symbols = np.frombuffer(bytes(sorted("\x1b[2J\x9b\x07é字".encode())), np.uint8).astype(np.uint32)
    vocab = Vocab(np.unique(symbols), is_bytes=True)
    model = Model(ModelConfig(len(vocab), hidden=2, embedding=2), vocab)
    model.save(tmp_path / "model.safetensors")
    arguments = ["-m", "fastlstm.sample", ".", "--length", 2000, "--prompt", "é字"]
    raw = python(*arguments, cwd=tmp_path).stdout
    assert raw == as_written("é字".encode() + model.sample("é字", 2000))
    assert b"\x1b" in raw
    ours, its = pty.openpty()
    done = python(*arguments, cwd=tmp_path, capture_output=False, stdout=its)
    os.close(its)
    shown = b""
    while piece := read_terminal(ours):
        shown += piece
    os.close(ours)
    assert done.returncode == 0
    assert not set(b"\x1b\x07") & set(shown)
    assert shown.decode().replace("\r\n", "\n").rstrip("\n") == printable(raw).rstrip("\n")


def read_terminal(terminal):
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # everything is read, and the other end is closed
        return b""


@pytest.mark.parametrize("as_bytes", [False, True])
def test_printable_does_not_depend_on_the_pieces(as_bytes):
    text = "naïve 字 🙂\r\n\x1b[2J\r\rend\r"
    whole = printable(text)
    assert "naïve 字 🙂\n" in whole
    assert not set("\x1b\r") & set(whole)
    text = text.encode() if as_bytes else text
    for size in (1, 2, 3):
        next_piece = Printable()
        pieces = [text[n : n + size] for n in range(0, len(text), size)]
        assert "".join([*map(next_piece, pieces), next_piece(b"", final=True)]) == whole
    assert printable(b"caf\xc3") == "caf\N{REPLACEMENT CHARACTER}"
