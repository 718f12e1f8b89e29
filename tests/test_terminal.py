"""Lines for a terminal are broken between words, and commands to be copied are not."""

import pytest

from fastlstm.terminal import wrapped


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")


def test_a_line_is_broken_between_words_and_not_at_hyphens():
    line = "chosen: --dropout-output 0.6 --weight-decay 0.1; options that are given win"
    found = wrapped(line).split("\n")
    assert max(map(len, found)) <= 30
    assert " ".join(part.strip() for part in found) == line
    assert found[1].startswith("  ")


def test_a_command_is_not_broken():
    text = "to go on with the run:\n  python -m fastlstm.train --resume runs/of-a-long-name"
    assert wrapped(text) == text


def test_a_short_line_stays_as_it_is():
    assert wrapped("short\n\nlines") == "short\n\nlines"
