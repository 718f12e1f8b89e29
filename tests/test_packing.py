"""The verbs compress and decompress: files, standard streams, what they refuse."""

import itertools
import json
import re
import sys

import pytest
from programs import python
from screens import Screen

from fastlstm import Model, bar
from fastlstm.compress import main as compress
from fastlstm.decompress import main as decompress
from fastlstm.errors import ConfigError, FastlstmError

TEXT = b"so it goes, and so it went; and where it went nobody knows.\n" * 12
QUICK = ["--hidden=6", "--embedding=3", "--seq-len=8", "--lr=0.02"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with a file, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_bytes(TEXT)
    return tmp_path


def test_a_file_comes_back_under_its_name(folder, capsys):
    assert compress(["notes", *QUICK, "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    result, size = json.loads(said[-1]), (folder / "notes.flstm").stat().st_size
    assert said[0].startswith(
        f"720 bytes are {size} ({size / 720:.1%}, {8 * size / 720:.3f} bits a byte) in notes.flst"
    )
    assert result.pop("seconds") > 0
    assert result == {
        "bytes": 720, "compressed_bytes": size, "ratio": size / 720, "bits_per_byte": 8 * size / 720,
        "file": "notes.flstm", "mode": "new model",
    }  # fmt: skip
    (folder / "notes").unlink()
    assert decompress(["notes.flstm", "--threads=1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] == 720
    assert (folder / "notes").read_bytes() == TEXT


@pytest.mark.parametrize("dynamic", [[], ["--dynamic"]])
def test_a_given_model_is_needed_on_both_sides(dynamic, folder):
    Model.for_text(TEXT.decode(), hidden=6, embedding=3).save("model")
    assert compress(["notes", "--model=model", *dynamic, "-o", "a"]) == 0
    with pytest.raises(FastlstmError, match="compressed with a given model"):
        decompress(["a", "-o", "b"])
    assert decompress(["a", "-o", "b", "--model=model"]) == 0
    assert (folder / "b").read_bytes() == TEXT


def test_what_does_not_become_smaller_is_said_to_be_stored(folder, rng, capsys):
    (folder / "noise").write_bytes(rng.bytes(300))
    assert compress(["noise", *QUICK]) == 0
    assert ", stored as they are, " in capsys.readouterr().out
    assert compress(["notes", *QUICK]) == 0
    assert "stored" not in capsys.readouterr().out


def test_nothing_is_overwritten_unless_asked(folder):
    (folder / "notes.flstm").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"'notes.flstm' exists already: .*--out, or give --overwrite"):
        compress(["notes", *QUICK])
    assert (folder / "notes.flstm").read_bytes() == b"mine"
    assert compress(["notes", *QUICK, "--overwrite"]) == 0
    with pytest.raises(ConfigError, match="'notes' exists already"):
        decompress(["notes.flstm"])


def test_a_damaged_archive_leaves_no_file(folder):
    compress(["notes", *QUICK])
    content = bytearray((folder / "notes.flstm").read_bytes())
    content[100] ^= 1
    (folder / "damaged").write_bytes(content)
    with pytest.raises(FastlstmError, match="the archive is damaged"):
        decompress(["damaged", "-o", "result"])
    assert sorted(path.name for path in folder.iterdir()) == ["damaged", "notes", "notes.flstm"]


def test_standard_streams_take_the_place_of_files(folder):
    packed = python("-m", "fastlstm.compress", "-", "-o", "-", *QUICK, cwd=folder, input=TEXT)
    assert (packed.returncode, packed.stderr) == (0, b"")
    back = python("-m", "fastlstm.decompress", "-", "-o", "-", cwd=folder, input=packed.stdout)
    assert (back.returncode, back.stdout, back.stderr) == (0, TEXT, b"")


@pytest.mark.parametrize(
    ("run", "arguments", "message"),
    [
        (compress, ["-"], "needs a place: give it with --out"),
        (compress, ["notes", "-o", "-", "--json"], "--json cannot be given with --out -"),
        (compress, ["missing"], "there is no file 'missing': check the path"),
        (compress, ["."], "cannot read '.' "),
        (compress, ["notes", "-o", "missing/out", *QUICK], "cannot write 'missing/out'"),
        (compress, ["notes", "--dynamic"], "a new model always learns"),
        (decompress, ["notes"], "'notes' does not end with .flstm: name the result with --out"),
        (decompress, ["notes", "-o", "x"], "it is no archive"),
    ],
)
def test_what_is_wrong_is_said(run, arguments, message, folder):
    with pytest.raises(FastlstmError, match=message):
        run(arguments)


def test_a_bar_shows_the_progress_on_a_terminal_and_leaves_nothing(folder, monkeypatch):
    screen, seen, now = Screen(60, 24), [], itertools.count()

    def clock():  # each look at it is a second later
        seen.append(screen.text)
        return float(next(now))

    for name, value in (("TERM", "xterm"), ("COLUMNS", "60"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bar, "monotonic", clock)
    monkeypatch.setattr(sys, "stderr", screen)
    for run, arguments in ((compress, ["notes", *QUICK]), (decompress, ["notes.flstm", "-o", "back"])):
        seen.clear()
        assert run(arguments) == 0
        assert re.search(r"━+─+  50 %  .* symbols/s  \d:\d\d left$", "\n".join(seen), re.MULTILINE)
        assert screen.text.strip() == ""
