"""Progress: plain lines in a pipe, a picture on a terminal, next to nothing if quiet; no control codes of samples."""

import io
import math
import re

import pytest
from screens import Screen

from fastlstm import progress as module
from fastlstm.bar import clock
from fastlstm.config import ModelConfig
from fastlstm.observers import Progress
from fastlstm.params import Parameters
from fastlstm.picture import Picture
from fastlstm.progress import Display, Lines, Quiet, nats_and_bits, observer
from fastlstm.run_state import RunState
from fastlstm.terminal import printable

HOSTILE = "a [bold]word[/bold] [/nonsense] \x1b[2J\x1b]0;title\x07 \x9b1m \r\b tab\there \ud800 \u202e end"
SAMPLE = "The tide went out before the lamps were lit, and nobody on the quay\n\tsaid anything.\n\n" * 6


class FixedProgress(Progress):
    """Progress with times that do not depend on a clock."""

    epoch, elapsed, seconds_left = 2.5, 65.0, 15.0


@pytest.fixture
def state():
    state = RunState.start(Parameters(ModelConfig(2, hidden=1, embedding=1)), 1, 1, first_loss=math.log(2))
    state.step, state.seconds = 50, 5.0
    state.val_nats, state.val_error, state.val_step = 2.0, 0.0125, 50
    state.best_nats, state.best_step = 1.75, 40
    return state


@pytest.fixture
def progress(state):
    progress = FixedProgress(state, total=200, chars_per_step=50)
    progress.rate = 0.0123
    return progress


@pytest.fixture
def now(monkeypatch):
    """The time that the module sees: ``now[0]``, to be changed by the test."""
    now = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def run(shown, progress, sample):
    with shown:
        shown.compiling()
        shown.started(progress)
        shown.stepped(progress)
        shown.validated(progress)
        shown.sampled(progress, sample)


def train(shown, state, progress, now, steps, seconds, validate_every=0):
    """Take so many steps, which take so many seconds each, and reduce the loss."""
    for _ in range(steps):
        now[0] += seconds
        state.step, state.seconds = state.step + 1, state.seconds + seconds
        state.loss = 0.5 + 3 / state.step
        state.smooth(0.5)
        shown.stepped(progress)
        if validate_every and state.step % validate_every == 0:
            state.val_nats, state.val_step = state.loss + 0.2, state.step
            shown.validated(progress)


def test_lines_show_loss_validation_best_rate_speed_and_time_left(progress):
    output = io.StringIO()
    run(Lines(output), progress, "a sample\n")
    assert output.getvalue().splitlines() == [
        "compiling kernels ...",
        "resumed at step 50",
        "step 50/200  train 0.6931 nats (1.000 bits)  validation 2.000 +- 0.013 nats (2.885 bits)"
        "  best 1.750 at step 40  rate 0.0123  500 characters/s  0:15 left",
        "--- sample at step 50",
        "a sample",
        "---",
    ]


def test_lines_without_validation_come_with_the_samples(progress, state):
    output = io.StringIO()
    state.val_nats = state.val_error = state.val_step = state.best_nats = state.best_step = None
    progress.rate = math.nan  # before the first step of this process
    Lines(output).sampled(progress, b"bytes \xff")
    assert output.getvalue().startswith(
        "step 50/200  train 0.6931 nats (1.000 bits)  500 characters/s  0:15 left\n--- sample"
    )
    assert "bytes \N{REPLACEMENT CHARACTER}" in output.getvalue()


def test_lines_come_every_ten_seconds_between_validations(progress, state, now):
    output = io.StringIO()
    train(Lines(output), state, progress, now, steps=100, seconds=0.5)
    assert [int(step) for step in re.findall(r"^step (\d+)", output.getvalue(), re.MULTILINE)] == [
        70,
        90,
        110,
        130,
        150,
    ]
    assert "validation" not in output.getvalue()  # it was of an earlier step
    assert "best 1.750" in output.getvalue()


@pytest.mark.parametrize("kind", [Lines, Display])
def test_an_exact_loss_is_not_compared_with_estimates(kind, progress, state):
    """The loss of the last validation is exact; the best one of the estimates may be lower, or of the same model."""
    screen = Screen(100, 30)
    shown = kind(screen if kind is Lines else screen.console)
    with shown:
        shown.started(progress)
        shown.validated(progress)
        state.step, state.val_nats, state.val_error, state.val_step = 200, 1.85, None, 200
        shown.validated(progress)
    end = screen.text[screen.text.index("step 200/200") :]
    assert "1.850 nats" in end
    assert "best" not in end


def test_a_new_run_is_not_called_resumed(progress, state):
    state.step = 0
    output, screen = io.StringIO(), Screen(80, 24)
    run(Lines(output), progress, "")
    run(Display(screen.console), progress, "")
    assert "resumed" not in output.getvalue() + screen.getvalue()


def test_a_quiet_run_tells_only_of_divergences(progress):
    output = io.StringIO()
    run(observer(output, quiet=True), progress, "a sample")
    assert output.getvalue() == ""
    shown = observer(output, quiet=True)
    assert isinstance(shown, Quiet)
    shown.recovered(progress, "the loss is not finite")
    assert output.getvalue() == "the loss is not finite; going on from step 50 with a lower rate\n"


def test_a_terminal_shows_the_same_and_more(progress):
    screen = Screen(100, 30)
    with Display(screen.console) as shown:
        shown.started(progress)
        shown.validated(progress)
        shown.stepped(progress)
        assert screen.text.splitlines() == [
            "resumed at step 50",
            "step 50/200  " + 20 * "━" + 61 * "─" + "  25 %",
            "train      0.6931 nats (1.000 bits)",
            "validation 2.000 +- 0.013 nats (2.885 bits)",
            "best       1.750 nats (2.525 bits), step 40",
            "rate       0.0123   500 characters/s",
            "epoch      2.50     1:05 elapsed, 0:15 left",
        ]


@pytest.mark.parametrize("height", [1, 5, 12, 24])
@pytest.mark.parametrize("width", [20, 40, 50, 80, 120])
def test_the_picture_fits_the_terminal(progress, state, now, width, height):
    screen = Screen(width, height)
    with Display(screen.console) as shown:
        shown.started(progress)
        shown.sampled(progress, SAMPLE)
        train(shown, state, progress, now, steps=50, seconds=1, validate_every=10)
        first = next(n for n, row in enumerate(screen.rows) if row.startswith("step 100/200"[:width]))
        picture = screen.rows[first:]
        assert len(picture) <= height
        assert max(map(len, picture)) <= width
        assert screen.text.count("train") == (height > 1)


@pytest.mark.parametrize("width", [50, 71, 80])
def test_the_numbers_of_a_long_run_are_not_cut(state, width):
    progress = FixedProgress(state, total=1_234_567, chars_per_step=50)
    progress.rate, progress.epoch, progress.elapsed, progress.seconds_left = 0.000123456, 12345.67, 35999, 359999
    state.step = state.best_step = 1_234_566
    state.seconds, state.val_error = 100.0, 0.00123
    screen = Screen(width, 24)
    with Display(screen.console) as shown:
        shown.started(progress)
        for row in (
            "step 1,234,566/1,234,567  ",
            "  99 %",
            "validation 2.000 +- 0.0012 nats (2.885 bits)",
            "best       1.750 nats (2.525 bits), step 1,234,566",
            "rate       0.000123 617,283 characters/s",
            "epoch      12345.67 9:59:59 elapsed, 99:59:59 left",
        ):
            assert row in screen.text


@pytest.mark.parametrize("width", [40, 49])
def test_a_narrow_terminal_shows_nats_only(progress, width):
    screen = Screen(width, 24)
    with Display(screen.console) as shown:
        shown.started(progress)
        shown.validated(progress)
        assert screen.text.splitlines()[2:] == [
            "train      0.6931 nats",
            "validation 2.000 +- 0.013 nats",
            "best       1.750 nats, step 40",
            "rate       0.0123",
            "speed      500 characters/s",
            "epoch      2.50",
            "time       1:05 elapsed, 0:15 left",
        ]


@pytest.mark.parametrize(
    ("width", "height", "has_curve", "lines_of_the_sample"),
    [(80, 24, True, 16), (120, 40, True, 17), (50, 24, True, 13), (80, 12, True, 4), (50, 12, False, 4)],
)
def test_curve_and_sample_fit_in(progress, state, now, width, height, has_curve, lines_of_the_sample):
    screen = Screen(width, height)
    with Display(screen.console) as shown:
        shown.started(progress)
        shown.sampled(progress, SAMPLE)
        train(shown, state, progress, now, steps=50, seconds=1, validate_every=10)
        picture = screen.text
    assert ("\N{BULLET}" in picture) is has_curve
    assert bool(re.search("[\u2801-\u28ff]", picture)) is has_curve
    panel = picture[picture.index("╭") :].splitlines()
    assert panel[0].startswith("╭─ sample at step 50 ──")
    assert panel[0].endswith("─╮")
    assert panel[-1].startswith("╰──")
    assert panel[-1].endswith("─╯")
    inner = [line[1:-1].strip() for line in panel[1:-1]]
    assert len(inner) == lines_of_the_sample
    words = " ".join(inner).split()
    assert words == SAMPLE.split()[: len(words)]
    more = re.search(r" ([0-9]+) more lines ─╯", picture)
    assert (more is None) is (len(words) == len(SAMPLE.split()))


def test_the_last_picture_is_whole(progress, state, now):
    screen = Screen(50, 12)
    with Display(screen.console) as shown:
        shown.started(progress)
        shown.sampled(progress, SAMPLE)
        train(shown, state, progress, now, steps=150, seconds=1, validate_every=10)
    lines = screen.text.splitlines()
    assert screen.text.count("step 200/200") == 1
    assert lines[lines.index("resumed at step 50") + 1].endswith("━━  100 %")
    assert "1:05 elapsed" in screen.text
    assert "left" not in screen.text
    assert "\N{BULLET}" in screen.text
    assert " ".join(line[1:-1] for line in lines if line.startswith("│")).split() == SAMPLE.split()
    assert lines[-1].startswith("╰")
    assert screen.text.endswith("\n")
    assert not screen.text.endswith("\n\n")


def test_a_divergence_is_reported_above_and_leaves_the_curve(progress, state, now):
    screen = Screen(80, 24)
    with Display(screen.console) as shown:
        shown.started(progress)
        train(shown, state, progress, now, steps=20, seconds=1)
        now[0], state.step, state.loss_sum = now[0] + 1, state.step + 1, state.loss_weight * 987.0
        shown.stepped(progress)
        assert re.search(r" 987\. +[\u2801-\u28ff]", screen.text)
        state.step, state.loss_sum = 60, state.loss_weight * 0.5
        shown.recovered(progress, "the loss is not finite")
        train(shown, state, progress, now, steps=1, seconds=1)
        assert screen.rows[1].rstrip() == "the loss is not finite; going on from step 60 with a lower rate"
        assert screen.rows[2].startswith("step 61/200")
        assert re.search(r" [0-9]\.[0-9]+ +[\u2801-\u28ff]", screen.text)
        assert not re.search(r"[0-9]{3}\.$", screen.text, re.MULTILINE)


@pytest.mark.parametrize("cost", [0.0, 0.001, 0.03])
def test_pictures_take_half_a_percent_of_the_time_and_come_five_times_a_second_at_most(
    progress, state, now, monkeypatch, cost
):
    drawn = []

    def draw(self, lines):
        drawn.append(now[0])
        now[0] += cost

    shown = Display(Screen(80, 24).console)
    monkeypatch.setattr(Picture, "draw", draw)
    shown.started(progress)
    began, drawn[:] = now[0], []
    state.step, state.seconds = 0, 0.0
    train(shown, state, progress, now, steps=20_000, seconds=0.005, validate_every=1)
    took = now[0] - began
    assert len(drawn) <= 5 * took + 1
    assert len(drawn) * cost <= 0.005 * took
    assert len(drawn) >= min(4.5, 0.003 / max(cost, 1e-9)) * took


def test_a_picture_that_was_held_up_does_not_stop_the_display(progress, state, now, monkeypatch):
    drawn = []

    def draw(self, lines):
        drawn.append(now[0])
        now[0] += 60 if len(drawn) == 1 else 0

    shown = Display(Screen(80, 24).console)
    monkeypatch.setattr(Picture, "draw", draw)
    train(shown, state, progress, now, steps=150, seconds=0.1)
    assert 60 < drawn[1] - drawn[0] < 71


def test_what_happens_between_long_steps_is_shown_at_once(progress, state, now):
    screen = Screen(80, 24)
    with Display(screen.console) as shown:
        shown.started(progress)
        state.seconds = 2.0 * state.step
        shown.stepped(progress)
        state.val_nats = 1.125
        shown.validated(progress)
        assert "1.125 +- 0.013 nats" in screen.text
        shown.sampled(progress, "a sample")
        assert "a sample" in screen.text


@pytest.mark.parametrize("width", [1, 20, 100])
def test_no_sample_controls_the_terminal(progress, width):
    screen = Screen(width, 30)
    run(Display(screen.console), progress, HOSTILE)
    shown = screen.getvalue()
    assert "\x1b[2J" not in shown
    assert not set("\x07\x08\x9b\ud800\u202e") & set(shown)
    if width == 100:
        assert "a [bold]word[/bold] [/nonsense]" in shown


def test_printable_keeps_ordinary_text():
    text = "naïve\tcafé\n  «\u00a0oui\u00a0» नमस्ते 🙂\u200d🙂"
    assert printable(text) == text
    assert printable("line\r\nline") == "line\nline"
    assert not set("\x1b\x07\x9b\ud800\u202e") & set(printable(HOSTILE))


def shown_by(screen, state, progress, now):
    """What the observer of a screen makes of a run in which everything happens."""
    with observer(screen) as shown:
        shown.compiling()
        shown.planned(progress, 500.0)
        shown.started(progress)
        shown.sampled(progress, "a sample\n")
        train(shown, state, progress, now, steps=50, seconds=1, validate_every=10)
        shown.recovered(progress, "the loss is not finite")
    return shown


def test_no_color_leaves_no_colours_and_no_dim_text(progress, state, now, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured, plain = Screen(80, 25), Screen(80, 25)
    assert isinstance(shown_by(coloured, state, progress, now), Display)
    assert "m" in coloured.codes
    monkeypatch.setenv("NO_COLOR", "1")
    assert isinstance(shown_by(plain, state, progress, now), Display)
    assert "m" not in plain.codes
    assert "A" in plain.codes  # it is a picture nevertheless
    assert "\N{BULLET}" in plain.text


@pytest.mark.parametrize(("term", "encoding"), [("xterm", "ascii"), ("xterm", "iso-8859-1"), ("linux", "utf-8")])
def test_a_terminal_without_the_characters_gets_ascii(progress, state, now, monkeypatch, term, encoding):
    monkeypatch.setenv("TERM", term)
    screen = Screen(80, 25, encoding)
    assert isinstance(shown_by(screen, state, progress, now), Display)
    assert screen.getvalue().isascii()
    assert re.search(r"(?m)^step \d+/200  =+-+  \d+ %$", screen.text)
    assert re.search(r"\+- sample at step 50 -+\+\n\| a sample +\|\n\+-+\+", screen.text)
    drawn = "".join(row[57:] for row in screen.rows if row.startswith(("train", "validation", "best", "rate", "epoch")))
    assert drawn.count("o") == 5
    assert "''" in drawn


def test_lines_contain_no_escape_sequence(progress, state, now, monkeypatch):
    for variable in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.setenv(variable, "1")
    output = io.StringIO()
    assert isinstance(shown_by(output, state, progress, now), Lines)
    assert "\x1b" not in output.getvalue()


def test_the_observer_fits_the_output(monkeypatch):
    assert isinstance(observer(io.StringIO()), Lines)
    screen = Screen(80, 24)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(observer(screen), Display)
    for term in ("dumb", "unknown"):
        monkeypatch.setenv("TERM", term)
        assert isinstance(observer(screen), Lines)


def test_losses_are_shown_in_nats_and_bits():
    assert nats_and_bits(1.0) == "1.000 nats (1.443 bits)"
    assert [clock(0), clock(65.4), clock(3661), clock(math.nan)] == ["0:00", "1:05", "1:01:01", "-:--"]
