"""Progress: plain lines in a pipe, a panel on a terminal, and no sample that takes it over."""

import io
import math

import pytest
from rich.console import Console

from fastlstm.cli import printable
from fastlstm.progress import Display, Lines, clock, nats_and_bits, observer
from fastlstm.trainer import Progress

HOSTILE = "a [bold]word[/bold] [/nonsense] \x1b[2J\x1b]0;title\x07 \x9b1m \r\b tab\there \ud800 \u202e end"


@pytest.fixture
def progress():
    return Progress(total=200, chars_per_step=50, train_nats=math.log(2), step=50, val_nats=2.0, val_step=50, seconds=5)


def run(shown, progress, sample):
    with shown:
        shown.compiling()
        shown.started(progress)
        shown.stepped(progress)
        shown.validated(progress)
        shown.sampled(progress, sample)


def test_lines_say_step_loss_validation_speed_and_time_left(progress):
    output = io.StringIO()
    run(Lines(output), progress, "a sample\n")
    assert output.getvalue().splitlines() == [
        "compiling kernels ...",
        "step 50/200  train 0.6931 nats (1.000 bits)  validation 2.000 nats (2.885 bits)  500 characters/s  0:15 left",
        "--- a sample at step 50",
        "a sample",
        "---",
    ]


def test_lines_without_validation_come_with_the_samples(progress):
    output = io.StringIO()
    progress.val_nats = progress.val_step = None
    Lines(output).sampled(progress, b"bytes \xff")
    assert output.getvalue().startswith("step 50/200  train 0.6931 nats (1.000 bits)  500 characters/s")
    assert "bytes \N{REPLACEMENT CHARACTER}" in output.getvalue()


def terminal(width=100):
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=30, highlight=False, _environ={})


def test_a_terminal_shows_the_same(progress):
    console = terminal()
    run(Display(console), progress, "a sample")
    shown = console.file.getvalue()
    for part in ("step 50/200", "0.6931 nats (1.000 bits)", "2.000 nats", "500 characters/s", "0:15 left", "a sample"):
        assert part in shown


@pytest.mark.parametrize("width", [1, 20, 100])
def test_no_sample_takes_the_terminal_over(progress, width):
    console = terminal(width)
    run(Display(console), progress, HOSTILE)
    shown = console.file.getvalue()
    assert "\x1b[2J" not in shown
    assert not set("\x07\x08\x9b\ud800\u202e") & set(shown)
    if width == 100:
        assert "a [bold]word[/bold] [/nonsense]" in shown


def test_printable_keeps_what_people_write():
    text = "naïve\tcafé\n  «\u00a0oui\u00a0» नमस्ते 🙂\u200d🙂"
    assert printable(text) == text
    assert printable("line\r\nline") == "line\nline"
    assert not set("\x1b\x07\x9b\ud800\u202e") & set(printable(HOSTILE))


def test_the_observer_fits_the_output(monkeypatch):
    assert isinstance(observer(io.StringIO()), Lines)
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(observer(screen), Display)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(observer(screen), Lines)


def test_numbers_for_people():
    assert nats_and_bits(1.0) == "1.000 nats (1.443 bits)"
    assert [clock(0), clock(65.4), clock(3661), clock(math.nan)] == ["0:00", "1:05", "1:01:01", "-:--"]
