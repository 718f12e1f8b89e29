"""The verb ``plot``: images of loss curves, whose files overwrite nothing else, and the same on a terminal."""

import io
import json
import math
import re
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
import run_folders
from run_folders import training, validation

from fastlstm import charts, extras, history, plot
from fastlstm.errors import FastlstmError

pytest.importorskip("matplotlib")
pytest.importorskip("plotext")


@pytest.fixture
def folder(tmp_path, monkeypatch, rng):
    """A folder with three runs, the current one: a finished one, one that overfits, and one that goes on."""
    run_folders.write(tmp_path / "good", run_folders.falling(rng, 1000), {"lr": 0.01})
    run_folders.write(tmp_path / "over", run_folders.falling(rng, 600, limit=1.2, overfit=0.4), {"lr": 0.05})
    run_folders.write(tmp_path / "on", run_folders.falling(rng, 1000, finished=False)[:300], {"lr": 0.02})
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def quickly(monkeypatch):
    """Write the marks of the images instead of drawing them, which takes most of the time."""
    monkeypatch.setattr(charts, "encode", lambda figure, format: f"{charts._MARK}: {format} {figure}".encode())


def read(*names):
    return [history.read(name) for name in names]


def pixels(path):
    from matplotlib import image

    return image.imread(path)


def test_one_run_is_drawn_into_its_folder_as_png_and_svg(folder, capsys):
    assert plot.main(["good"]) == 0
    assert capsys.readouterr().out == "the curves are in good/loss.png and good/loss.svg\n"
    assert pixels("good/loss.png").shape[:2] == (825, 1350)
    assert xml.etree.ElementTree.parse("good/loss.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert sorted(path.name for path in folder.iterdir()) == ["good", "on", "over"]


def test_several_runs_are_drawn_into_the_current_folder(folder, capsys):
    assert plot.main(["good", "over", "good", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["files"] == ["loss.png", "loss.svg"]
    assert [run["path"] for run in result["runs"]] == ["good", "over"]
    assert result["runs"][0]["best_nats"] == pytest.approx(1.5)
    assert (folder / "loss.png").stat().st_size > 10_000


def test_out_names_the_files(folder, quickly):
    (folder / "charts").mkdir()
    for out, path in (("both", "both"), ("one.png", "one"), ("v1.2", "v1.2"), ("charts", "charts/loss")):
        assert plot.main(["good", "--out", out]) == 0
        assert (folder / f"{path}.png").is_file()
        assert (folder / f"{path}.svg").is_file()


def test_only_files_of_the_verb_are_overwritten_unasked(folder):
    assert plot.main(["good", "over"]) == 0
    before = (folder / "loss.svg").read_bytes()
    assert plot.main(["good", "on"]) == 0
    drawn = (folder / "loss.png").read_bytes()
    assert (folder / "loss.svg").read_bytes() != before
    (folder / "loss.svg").write_text("drawn by hand")
    with pytest.raises(FastlstmError, match=r"'loss.svg' exists.*--overwrite"):
        plot.main(["good", "over"])
    assert (folder / "loss.svg").read_text() == "drawn by hand"
    assert (folder / "loss.png").read_bytes() == drawn
    assert plot.main(["good", "over", "--overwrite"]) == 0
    assert (folder / "loss.svg").read_bytes() == before


def test_what_cannot_be_drawn_or_written_is_one_clear_line(folder, quickly):
    run_folders.write(folder / "begun", [])
    for arguments, message in (
        (["begun"], "no loss to draw in 'begun' yet"),
        (["missing"], "no run in 'missing'"),
        (["good", "--out", "missing/loss"], r"cannot write 'missing/loss.png' \(No such file or directory\)"),
    ):
        with pytest.raises(FastlstmError, match=message):
            plot.main(arguments)
    assert plot.main(["good", "begun"]) == 0  # a run without a loss does not keep the others from being drawn


def axes_of(figure):
    (axes,) = figure.axes
    return axes


def test_the_left_axis_is_in_nats_and_the_right_one_in_bits(folder):
    axes = axes_of(charts.figure(read("good")))
    (right,) = axes.child_axes
    axes.figure.draw_without_rendering()
    assert (axes.get_ylabel(), right.get_ylabel()) == ("nats per character", "bits per character")
    assert np.array(right.get_ylim()) == pytest.approx(np.array(axes.get_ylim()) / math.log(2))


@pytest.mark.parametrize("name", ["good", "over", "on"])
def test_the_curves_are_those_of_the_history(name, folder):
    (run,) = read(name)
    axes = axes_of(charts.figure([run]))
    train, *_, best = axes.lines
    assert train.get_xydata() == pytest.approx(np.column_stack([run.training.step, run.training.train_nats]))
    assert best.get_xydata().tolist() == [[run.best_step, run.best_nats]]
    (bars,) = axes.containers
    points, _, (errors,) = bars.lines
    assert points.get_xydata() == pytest.approx(np.column_stack([run.validation.step, run.validation.val_nats]))
    lengths = [segment[:, 1].max() - segment[:, 1].min() if len(segment) else 0.0 for segment in errors.get_segments()]
    assert lengths == pytest.approx(2 * run.validation.val_error)  # none at an exact loss
    assert f"at step {run.best_step:,}" in axes.get_title()


@pytest.mark.parametrize(("axis", "per_step"), [("steps", 1.0), ("seconds", 0.5), ("epochs", 0.01)])
def test_the_x_axis_shows_steps_seconds_or_epochs(axis, per_step, folder):
    (run,) = read("good")
    axes = axes_of(charts.figure([run], axis))
    for line in (axes.lines[0], axes.lines[-1]):
        assert line.get_xdata()[-1] == pytest.approx(1000 * per_step)
    assert axes.containers[0].lines[0].get_xdata() == pytest.approx(run.validation.step * per_step)


def test_the_legend_names_runs_and_the_settings_that_differ(folder):
    runs = read("good", "over")
    texts = [text.get_text().replace("\n", " ") for text in axes_of(charts.figure(runs)).get_legend().get_texts()]
    assert texts[0] == "good: 1.500 nats (2.164 bits) at step 1,000; lr=0.01"
    assert texts[1].startswith("over: ")
    assert texts[1].endswith("; lr=0.05")
    assert "training, smoothed" in texts


def test_losses_before_the_curves_fall_may_be_above_the_chart(folder):
    low, high = axes_of(charts.figure(read("good", "over"))).get_ylim()
    assert low < 1.25
    assert 3.0 < high < 4.0  # the first loss is 4.35


def test_the_best_model_is_in_the_chart_even_without_other_validations(tmp_path):
    runs = read(run_folders.write(tmp_path / "run", [training(4, 1.1), training(5, 1.0), run_folders.end(5, 4.0, 5)]))
    low, high = axes_of(charts.figure(runs)).get_ylim()
    assert low < 1.0
    assert high > 4.0


def test_many_runs_with_strange_names_are_drawn_without_a_warning(tmp_path, rng):
    runs = []
    for n in range(12):
        settings = {f"setting_{k}": n * k for k in range(20)}
        runs += read(run_folders.write(tmp_path / f"_$x_{n}$ 字\x1b[2J", run_folders.falling(rng, 50), settings))
    figure = charts.figure(runs)
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 15
    assert charts.encode(figure, "png").startswith(b"\x89PNG")
    assert "\x1b" not in charts.text(runs, width=80, colours=False)


@pytest.mark.parametrize("axis", ["steps", "seconds", "epochs"])
@pytest.mark.parametrize(
    "lines",
    [
        [training(1, 4.0)],
        [validation(1, 4.0, (4.0, 1))],
        [validation(1, 4.0, (None, None)), training(2, None)],
        [training(0, 4.0), training(5, None), validation(5, None, (None, None))],
        [training(5, 1.0), run_folders.end(5, 4.0, 5)],
        [{"step": 3, "train_nats": 2.0}, {"step": 3, "val_nats": 2.0}],
    ],
)
def test_runs_of_a_few_lines_are_drawn(lines, axis, tmp_path):
    runs = read(run_folders.write(tmp_path / "run", lines))
    charts.figure(runs, axis).draw_without_rendering()
    assert charts.text(runs, axis, width=60, colours=False)


def test_the_same_runs_give_the_same_bytes(folder):
    for format in ("png", "svg"):
        first, second = (charts.encode(charts.figure(read("good", "over")), format) for _ in range(2))
        assert first == second


def test_the_terminal_shows_curves_marks_and_both_units(folder):
    output = charts.text(read("good", "over", "on"), width=80, colours=False).splitlines()
    assert output[0] == "nats (left) and bits (right) per character, by steps"
    chart = output[1:21]
    assert max(map(len, output)) <= 80
    assert {"1", "2", "*"} <= set("".join(line[5:75] for line in chart))
    assert any("\u2800" < character <= "\u28ff" for line in chart for character in line)
    marks = [line for line in chart if line[4:5] == "┤"]
    for line in marks:
        left, right = (float(re.search(pattern, line).group()) for pattern in (r"^[\d.]+", r"[\d.]+$"))
        assert right == pytest.approx(left / math.log(2), abs=0.01)
    assert len(marks) > 3
    assert output[21].startswith("1  good: 1.500 nats (2.164 bits) at step 1,000; lr=0.01")


def test_a_terminal_without_unicode_gets_ascii(folder):
    assert charts.text(read("good", "over"), width=80, colours=False, ascii_only=True).isascii()


def test_colours_are_used_only_if_wanted(folder):
    runs = read("good", "over")
    assert "\x1b[38;5;" in charts.text(runs, width=80, colours=True)
    assert "\x1b" not in charts.text(runs, width=80, colours=False)


@pytest.fixture
def shown(folder, quickly, monkeypatch):
    """A function that runs the verb; returns whether and how it draws on its output, which may be a terminal."""

    def shown(*arguments, terminal=True, platform="linux", **variables):
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        output.isatty = lambda: terminal
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", output)
            patch.setattr(sys, "platform", platform)
            for name, value in {"TERM": "xterm-256color", **variables}.items():
                patch.setenv(name, value)
            assert plot.main(["good", *arguments]) == 0
        output.flush()
        return output.buffer.getvalue().decode()

    return shown


def test_a_terminal_without_a_display_shows_the_curves(shown):
    assert "nats (left)" in shown()
    assert "nats (left)" not in shown(DISPLAY=":0")
    assert "nats (left)" not in shown(WAYLAND_DISPLAY="wayland-0")
    assert "nats (left)" not in shown(terminal=False)
    assert "nats (left)" in shown("--terminal", DISPLAY=":0")
    assert "nats (left)" in shown("--terminal", terminal=False)


def test_the_terminal_is_respected(shown):
    assert "\x1b[38;5;" in shown()
    for plain in (shown(NO_COLOR="1"), shown(TERM="dumb"), shown("--terminal", terminal=False)):
        assert "\x1b" not in plain
    assert max(map(len, shown(NO_COLOR="1", COLUMNS="60").splitlines()[:22])) == 60


@pytest.fixture
def without(monkeypatch):
    """A function that makes a library missing."""

    def without(library):
        for name in [name for name in sys.modules if name.partition(".")[0] == library]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, library, None)

    return without


def test_a_missing_library_is_one_line_that_names_the_extra(folder, without):
    without("matplotlib")
    with pytest.raises(FastlstmError, match=r"a chart needs matplotlib.*pip install 'fastlstm\[plot\]'"):
        plot.main(["good"])


def test_without_plotext_only_a_plot_that_was_asked_for_fails(shown, without, capsys):
    without("plotext")
    assert "nats (left)" not in shown()
    assert "needs plotext" in capsys.readouterr().err
    with pytest.raises(FastlstmError, match=r"needs plotext.*pip install 'fastlstm\[plot\]'"):
        plot.main(["good", "--terminal"])


def test_a_library_that_cannot_be_imported_is_named_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("raise TypeError('made for another one\\nthan this')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FastlstmError) as caught:
        extras.load("broken_library", extra="x", purpose="this")
    assert str(caught.value) == (
        "this needs broken_library, which cannot be imported (made for another one than this):"
        " pip install 'fastlstm[x]'"
    )
