"""The text of a run is found again, and is the one that the run was trained on."""

import pytest

from fastlstm import train
from fastlstm.errors import TextError, VocabularyError
from fastlstm.run_text import RunText, located, read
from fastlstm.text import Vocab

TEXT = "to be or not to be\n" * 30
QUICK = ["--steps", "2", "--hidden", "2", "--embedding", "2", "--backend", "reference", "--quiet", "--out", "run"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that trains on a text, notes.txt, as the settings say; it is the current folder's run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text(TEXT)

    def run(*arguments):
        assert train.main(["--data", "notes.txt", *QUICK, *arguments]) == 0

    return run


def test_the_parts_are_those_of_the_run(run):
    run("--val-frac", "0.2")
    assert read("run", Vocab.from_text(TEXT)) == RunText(TEXT[:456], TEXT[456:])  # 0.8 of 570


def test_bytes_are_read_as_bytes(run):
    run("--bytes")
    assert read("run", Vocab.from_text(TEXT.encode())) == RunText(TEXT[:513].encode(), TEXT[513:].encode())


def test_it_is_found_from_another_folder(run, tmp_path, monkeypatch):
    run()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read("../run", Vocab.from_text(TEXT)).train == TEXT[:513]
    assert located("notes.txt", {}) == "notes.txt"
    assert located("notes.txt", {"folder": str(tmp_path)}) == str(tmp_path / "notes.txt")
    assert located("missing.txt", {"folder": str(tmp_path)}) == "missing.txt"
    assert located("notes.txt", {"folder": 3}) == "notes.txt"


def test_another_text_is_refused(run, tmp_path):
    run()
    vocab = Vocab.from_text(TEXT)
    (tmp_path / "notes.txt").write_text(TEXT[::-1])
    with pytest.raises(TextError, match=r"\(notes.txt; 570 symbols\) is not the one .* --data"):
        read("run", vocab)
    (tmp_path / "kept.txt").write_text(TEXT)
    assert read("run", vocab, ["kept.txt"]).train == TEXT[:513]
    (tmp_path / "notes.txt").write_text("new letters")
    with pytest.raises(VocabularyError):
        read("run", vocab)
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(TextError, match="no file"):
        read("run", vocab)


def test_standard_input_cannot_be_read_again(run, tmp_path):
    run()
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('"notes.txt"', '"-"'))
    with pytest.raises(TextError, match="from standard input: give the text with --data"):
        read("run", Vocab.from_text(TEXT))
