"""Progress: plain lines in a pipe, a panel on a terminal, and no control codes of samples."""

import io
import math

import pytest
from rich.console import Console

from fastlstm.config import ModelConfig
from fastlstm.observers import Progress
from fastlstm.params import Parameters
from fastlstm.progress import Display, Lines, clock, nats_and_bits, observer
from fastlstm.run_state import RunState
from fastlstm.terminal import printable

HOSTILE = "a [bold]word[/bold] [/nonsense] \x1b[2J\x1b]0;title\x07 \x9b1m \r\b tab\there \ud800 \u202e end"


@pytest.fixture
def state():
    state = RunState.start(Parameters(ModelConfig(2, hidden=1, embedding=1)), 1, 1, first_loss=math.log(2))
    state.step, state.seconds = 50, 5.0
    state.val_nats, state.val_step = 2.0, 50
    return state


@pytest.fixture
def progress(state):
    return Progress(state, total=200, chars_per_step=50)


def run(shown, progress, sample):
    with shown:
        shown.compiling()
        shown.started(progress)
        shown.stepped(progress)
        shown.validated(progress)
        shown.sampled(progress, sample)


def test_lines_show_step_loss_validation_speed_and_time_left(progress):
    output = io.StringIO()
    run(Lines(output), progress, "a sample\n")
    assert output.getvalue().splitlines() == [
        "compiling kernels ...",
        "step 50/200  train 0.6931 nats (1.000 bits)  validation 2.000 nats (2.885 bits)  500 characters/s  0:15 left",
        "--- sample at step 50",
        "a sample",
        "---",
    ]


def test_lines_without_validation_come_with_the_samples(progress, state):
    output = io.StringIO()
    state.val_nats = state.val_step = None
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
def test_no_sample_controls_the_terminal(progress, width):
    console = terminal(width)
    run(Display(console), progress, HOSTILE)
    shown = console.file.getvalue()
    assert "\x1b[2J" not in shown
    assert not set("\x07\x08\x9b\ud800\u202e") & set(shown)
    if width == 100:
        assert "a [bold]word[/bold] [/nonsense]" in shown


def test_printable_keeps_ordinary_text():
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


def test_losses_are_shown_in_nats_and_bits():
    assert nats_and_bits(1.0) == "1.000 nats (1.443 bits)"
    assert [clock(0), clock(65.4), clock(3661), clock(math.nan)] == ["0:00", "1:05", "1:01:01", "-:--"]
