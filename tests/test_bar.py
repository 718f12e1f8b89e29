"""The bar of a long operation: in one line of a terminal while it lasts, and nowhere else."""

import io

import pytest
from screens import Screen

from fastlstm import bar


@pytest.fixture
def now(monkeypatch):
    """The time that the module sees: ``now[0]``, to be changed by the test."""
    now = [100.0]
    monkeypatch.setattr(bar, "monotonic", lambda: now[0])
    for name, value in (("TERM", "xterm"), ("COLUMNS", "60"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    return now


def test_a_bar_is_shown_after_a_second_and_leaves_nothing(now):
    screen = Screen(60, 24)
    with bar.Bar(screen, 10_000, "characters") as advance:
        advance(1000)
        assert screen.text == ""
        now[0] += 2
        advance(1500)
        assert screen.text == "━" * 5 + "─" * 18 + "  25 %  1,250 characters/s  0:06 left"
        assert len(screen.text) <= 60
    assert screen.rows == [""]


def test_a_bar_is_nowhere_but_on_a_terminal(now):
    output = io.StringIO()
    with bar.Bar(output, 10_000, "characters") as advance:
        now[0] += 2
        advance(5000)
    assert output.getvalue() == ""


def test_a_bar_fits_a_narrow_terminal(now, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen(20, 24)
    with bar.Bar(screen, 10_000, "characters") as advance:
        now[0] += 2
        advance(20_000)
        assert screen.text.startswith("  100 %")
        assert len(screen.rows) == 1
        assert len(screen.rows[0]) <= 20


def test_a_total_may_become_known_with_the_first_progress(now):
    screen = Screen(60, 24)
    with bar.Bar(screen, 0, "symbols") as progress:
        progress.reached(1000, 4000)
        now[0] += 2
        progress.reached(3000, 4000)
        assert screen.text.endswith("  75 %  1,500 symbols/s  0:01 left")
