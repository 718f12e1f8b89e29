"""The text of a run is found again, and is the one that the run was trained on."""

import pytest

from fastlstm import config_file, train
from fastlstm.errors import ConfigError, TextError
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
    assert read("run", Vocab.from_text(TEXT, escape=True)) == RunText(TEXT[:456], TEXT[456:])  # 0.8 of 570


def test_bytes_are_read_as_bytes(run):
    run("--bytes")
    assert read("run", Vocab.from_text(TEXT.encode())) == RunText(TEXT[:513].encode(), TEXT[513:].encode())


def test_it_is_found_from_another_folder(run, tmp_path, monkeypatch):
    run()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read("../run", Vocab.from_text(TEXT, escape=True)).train == TEXT[:513]
    assert located("notes.txt", {}) == "notes.txt"
    assert located("notes.txt", {"folder": str(tmp_path)}) == str(tmp_path / "notes.txt")
    assert located("missing.txt", {"folder": str(tmp_path)}) == "missing.txt"
    assert located("notes.txt", {"folder": 3}) == "notes.txt"


def test_the_text_is_read_in_the_encoding_of_the_run(run, tmp_path):
    text = "naïve\n" * 95
    (tmp_path / "notes.txt").write_bytes(text.encode("utf-16-be"))
    run("--encoding", "utf-16-be")
    assert config_file.read("run").encoding == "utf-16-be"
    assert "".join(read("run", Vocab.from_text(text, escape=True))) == text
    assert train.main(["--resume", "run", "--steps", "3", "--quiet"]) == 0
    assert config_file.read("run").encoding == "utf-16-be"


def test_a_copy_of_the_text_may_have_another_encoding(run, tmp_path):
    run()
    (tmp_path / "copy.txt").write_bytes(TEXT.encode("utf-16-be"))
    again = ["--resume", "run", "--steps", "3", "--quiet", "--data", "copy.txt"]
    with pytest.raises(TextError, match="looks like UTF-16"):
        train.main(again)
    assert train.main([*again, "--encoding", "utf-16-be"]) == 0
    assert train.main(["--config", "run", "--quiet"]) == 0
    assert config_file.read("runs/copy")[:3] == (["copy.txt"], False, "utf-16-be")


def test_an_encoding_and_bytes_exclude_each_other(run):
    with pytest.raises(ConfigError, match="bytes are read as they are: leave out the encoding"):
        run("--bytes", "--encoding", "utf-16")


def test_a_pattern_is_found_from_another_folder(tmp_path, monkeypatch):
    start = tmp_path / "with [brackets]"
    (start / "logs").mkdir(parents=True)
    (start / "logs" / "a.txt").write_text(TEXT[:300])
    (start / "logs" / "b.txt").write_text(TEXT[300:])
    monkeypatch.chdir(start)
    assert train.main(["--data", "logs/*.txt", *QUICK]) == 0
    assert config_file.read("run").data == ["logs/*.txt"]
    monkeypatch.chdir(tmp_path)
    assert "".join(read(start / "run", Vocab.from_text(TEXT, escape=True))) == TEXT
    (start / "logs" / "c.txt").write_text("another")
    with pytest.raises(TextError, match="is not the one that the run was trained on"):
        read(start / "run", Vocab.from_text(TEXT, escape=True))


def test_another_text_is_refused(run, tmp_path):
    run()
    vocab = Vocab.from_text(TEXT, escape=True)
    (tmp_path / "notes.txt").write_text(TEXT[::-1])
    with pytest.raises(TextError, match=r"\(notes.txt; 570 symbols\) is not the one .* --data"):
        read("run", vocab)
    (tmp_path / "kept.txt").write_text(TEXT)
    assert read("run", vocab, ["kept.txt"]).train == TEXT[:513]
    (tmp_path / "notes.txt").write_text("new letters")
    with pytest.raises(TextError, match=r"\(notes.txt; 11 symbols\) is not the one"):  # "w" is not in the vocabulary
        read("run", vocab)
    (tmp_path / "notes.txt").unlink()
    with pytest.raises(TextError, match="no file"):
        read("run", vocab)


def test_standard_input_cannot_be_read_again(run, tmp_path):
    run()
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace('"notes.txt"', '"-"'))
    with pytest.raises(TextError, match="from standard input: give the text with --data"):
        read("run", Vocab.from_text(TEXT, escape=True))
