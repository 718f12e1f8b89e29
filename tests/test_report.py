"""The verb ``report``: one self-contained page of a run, whatever its texts contain and however far it has come."""

import itertools
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import run_folders
from documents import assert_self_contained

from fastlstm import Model, certificate, history, report, train
from fastlstm.errors import ConfigError, FastlstmError, TextError
from fastlstm.pages import curves, figures
from fastlstm.pages import report as page

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

HOSTILE = "</script><script>alert('&')</script> <b>bold</b>\n\"It's late,\" she said; I know.\n"
SECTIONS = ["training", "samples", "gates", "cells", "copies", "facts"]


def trained(folder, *arguments, text=HOSTILE * 40):
    """Train a tiny network in a folder, on notes.txt; the run is in runs/notes."""
    (folder / "notes.txt").write_text(text, encoding="utf-8")
    small = ["--hidden", "6", "--embedding", "3", "--steps", "12", "--seq-len", "16", "--batch", "4"]
    quiet = ["--backend", "reference", "--quiet", "--data", "notes.txt", "--out", "runs/notes"]
    assert train.main([*small, *quiet, *arguments]) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run, and its report."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        trained(folder, "--layers", "2")
        assert report.main(["runs/notes", "--backend", "reference"]) == 0
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of that folder, the current one."""
    copy = shutil.copytree(made, tmp_path / "copy")
    config = copy / "runs/notes/config.toml"
    config.write_text(config.read_text().replace(str(made), str(copy)))
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(autouse=True)
def quickly(made, monkeypatch):
    """From here on, sample less, and leave out what takes most of the time: to render what was drawn."""
    images = {"svg": b'<svg viewBox="0 0 1 1"></svg>', "png": (made / "runs/notes/report/loss.png").read_bytes()}
    monkeypatch.setattr(figures, "_encoded", lambda figure, format, **how: images[format])
    monkeypatch.setattr(page, "_SAMPLED", 200)


def run_report(*arguments):
    assert report.main(["runs/notes", "--backend", "reference", *arguments]) == 0


def document(folder, name="runs/notes/report.html"):
    return (folder / name).read_text(encoding="utf-8")


def anchors(document):
    return re.findall(r'<h2 id="([^"]+)"', document)


def test_the_page_has_all_sections_and_is_self_contained(folder):
    html = document(folder)
    assert_self_contained(html)
    assert anchors(html) == SECTIONS
    images = {path.name for path in (folder / "runs/notes/report").iterdir()}
    assert images == {f"{name}.png" for name in (
        "loss", "rate", "norm", "throughput", "words", "saturation", "matches"
    )}  # fmt: skip
    assert html.count("<svg") == len(images)


def test_hostile_texts_are_escaped(folder):
    html = document(folder)
    assert "<b>" not in html
    assert html.count("<script") == 2  # the data of the cells, and their code
    (folder / "runs/notes/samples.txt").write_text("--- step 3\n<tt>\x1b[2J\u202e</tt>\n", encoding="utf-8")
    config = folder / "runs/notes/config.toml"
    config.write_text(config.read_text() + '\nnote = "<u>\\u001b</u>"\n')
    run_report()
    html = document(folder)
    assert "<tt>" not in html
    assert "<u>" not in html
    assert "&lt;tt&gt;\N{REPLACEMENT CHARACTER}[2J" in html
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", html)


def test_the_page_shows_what_was_measured(folder, capsys):
    run_report("--json", "--seed", "3")
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])["numbers"]
    model, text = Model.load(folder / "runs/notes"), HOSTILE * 40
    sample = model.sample(length=page._SAMPLED, seed=3, backend="reference")
    html = document(folder)

    def is_shared(length):
        return any(sample[n : n + length] in text for n in range(len(sample) + 1 - length))

    longest = max(itertools.takewhile(is_shared, itertools.count()))
    assert numbers["longest_match_sample"] == longest
    assert f"The longest passage that both have is of {longest} characters" in html
    assert numbers["longest_match_validation"] >= 100  # the text repeats itself
    assert numbers["best_nats"] == model.training["val_nats"]
    assert f"{numbers['best_nats']:.3f} nats" in html


def test_a_run_without_a_model_has_a_page_of_its_curves(tmp_path, rng, capsys):
    run_folders.write(tmp_path / "on", run_folders.falling(rng, 200, finished=False)[:120], {"cell": "gru"})
    assert report.main([str(tmp_path / "on")]) == 0
    html = document(tmp_path, "on/report.html")
    assert anchors(html) == ["missing", "training", "samples", "facts"]
    assert "GRU, after 1" in html
    assert "of 1,000 steps" in html
    assert "has saved no model yet" in capsys.readouterr().err


def test_a_run_that_has_recorded_nothing_has_a_page(tmp_path):
    run_folders.write(tmp_path / "begun", [])
    assert report.main([str(tmp_path / "begun")]) == 0
    assert "The run has recorded no loss yet." in document(tmp_path, "begun/report.html")


@pytest.mark.parametrize(
    "lines",
    [
        [run_folders.training(1, 4.0)],
        [run_folders.training(1, None, norm=None, rate=None), run_folders.training(2, None, norm=0.0)],
        [run_folders.validation(1, 4.0, (4.0, 1))],
        [run_folders.training(5, 1.0, per_step=0), run_folders.end(5, 4.0, 5)],
    ],
)
def test_runs_of_a_few_lines_have_a_page(lines, tmp_path):
    run_folders.write(tmp_path / "run", lines, {"clip_norm": 1.0})
    assert "training" in anchors(page.report(tmp_path / "run").html)


def test_without_its_text_a_run_has_a_page_that_says_how_to_name_it(folder, capsys):
    (folder / "notes.txt").rename(folder / "moved.txt")
    run_report()
    html = document(folder)
    assert anchors(html) == ["missing", "training", "samples", "facts"]
    assert "--data" in html
    assert "--data" in capsys.readouterr().err
    run_report("--data", "moved.txt")
    assert anchors(document(folder)) == SECTIONS
    (folder / "notes.txt").write_text("late")
    with pytest.raises(TextError, match="not the one that the run was trained on"):
        run_report("--data", "notes.txt")


def test_cells_are_shown_over_the_text_of_choice(folder):
    (folder / "notes.txt").unlink()
    (folder / "mine.txt").write_text("she knows " * 60)
    (folder / "other.txt").write_text("she~")
    run_report("--text", "other.txt")
    unknown = "The text has 1 character that the model does not know (read as unknown): &#39;~&#39; (U+007E)."
    assert unknown in document(folder)
    run_report("--text", "mine.txt")
    html = document(folder)
    assert anchors(html) == ["missing", "training", "samples", "cells", "facts"]
    data = json.loads(re.search(r'class="cells-data">(.*?)</script>', html, re.DOTALL).group(1))
    assert "".join(data["symbols"]) == "she knows " * 50
    assert "The first 500 characters of the text that was given" in html


def test_of_a_long_text_the_beginning_is_searched_and_the_page_says_so(folder, monkeypatch):
    monkeypatch.setattr(page, "_MOST_SEARCHED", 90)
    run_report()
    html = document(folder)
    assert "if it occurs in the first 90 characters of the training text" in html
    assert "compared with the first 90 characters of the training text" in html


def test_the_throughput_of_a_run_of_milliseconds_counts_all_steps():
    steps = np.arange(1, 61)
    run = SimpleNamespace(training=SimpleNamespace(step=steps, seconds=np.round(steps * 1e-4, 3)))
    _, speed = curves.speeds(run, 64)
    # A millisecond has 10 steps, or 9 or 11 where rounding is a tie.
    assert np.median(speed) == pytest.approx(64 / 1e-4, rel=0.1)


def test_a_certificate_is_shown(folder):
    assert "worst error" not in document(folder)
    model = Model.load(folder / "runs/notes")
    finding = certificate.Finding("centred differences, fast", 40, 2.5e-9)
    model.certificate = certificate.of(
        model.parameters, [finding], seq_len=8, batch=2, seed=0, per_param=9, backends=["fast"], version="0.1.0"
    )
    model.save(folder / "runs/notes/model.safetensors")
    run_report()
    assert "centred differences, fast: worst error 2.5e-09 of 40" in document(folder)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_a_run_of_bytes_has_a_page_in_bytes(cell, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(tmp_path, "--bytes", "--cell", cell, text="été, <b>là</b>\n" * 80)
    run_report()
    html = document(tmp_path)
    assert anchors(html) == SECTIONS
    assert_self_contained(html)
    assert "bits) per byte" in html
    assert "per character" not in html
    assert ("no gates" in html) == (cell == "rnn")


def test_a_run_without_validation_and_samples_has_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained(tmp_path, "--val-frac", "0", "--sample-length", "0", text="0123456789\n" * 100)  # it has no words either
    run_report()
    html = document(tmp_path)
    assert anchors(html) == SECTIONS
    assert "no sample yet" in html
    assert "the training text, read from the zero state" in html


def test_only_files_of_the_verb_are_overwritten_unasked(folder, capsys):
    run_report()
    image = folder / "runs/notes/report/loss.png"
    image.write_bytes(b"drawn by hand")
    before = document(folder)
    with pytest.raises(FastlstmError, match=r"loss.png' exists.*--overwrite"):
        run_report("--seed", "9")
    assert image.read_bytes() == b"drawn by hand"
    assert document(folder) == before
    run_report("--overwrite")
    assert image.read_bytes().startswith(b"\x89PNG")
    (folder / "index.html").write_text('<meta name="generator" content="fastlstm"><title>a comparison</title>')
    with pytest.raises(FastlstmError, match=r"index.html' exists"):
        run_report("--out", "index.html")


def test_out_names_the_page_and_the_folder_of_its_figures(folder):
    run_report("--out", "pages/one.html")
    assert anchors(document(folder, "pages/one.html")) == SECTIONS
    assert (folder / "pages/one/loss.png").is_file()
    run_report("--out", "pages")
    assert (folder / "pages/report.html").is_file()
    for name in ("one", "runs/notes/model.safetensors"):
        with pytest.raises(ConfigError, match="names no page"):
            run_report("--out", name, "--overwrite")
    with pytest.raises(FastlstmError, match=r"cannot write 'notes.txt/one.html' \(.*\): choose another"):
        run_report("--out", "notes.txt/one.html")


def test_what_is_no_run_is_one_clear_line(tmp_path):
    with pytest.raises(FastlstmError, match="no run in"):
        report.main([str(tmp_path)])


@pytest.mark.parametrize(("longest", "mean", "verdict"), [
    (20, 6.0, "The sample copies no more"), (40, 6.0, "By one of these"), (20, 9.0, "By one of these"),
    (40, 9.0, "By both of these"),
])  # fmt: skip
def test_the_verdict_on_copies_follows_the_numbers(longest, mean, verdict):
    numbers = {"longest_match_sample": longest, "mean_match_sample": mean}
    assert page._verdict(numbers | {"longest_match_validation": 22, "mean_match_validation": 8.0}).startswith(verdict)


def test_an_exact_loss_is_not_joined_to_the_estimates(tmp_path, rng, monkeypatch):
    run = history.read(run_folders.write(tmp_path / "run", run_folders.falling(rng, 200)))
    painted = []
    monkeypatch.setattr(curves, "draw", lambda *arguments: painted.append(arguments[-1]))
    curves.loss(run, "lstm", "character")
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    painted[0](axes)
    lines = {line.get_label(): line.get_xdata().tolist() for line in axes.get_lines()}
    bars = next(bars for bars in axes.containers if bars.get_label() == "validation, estimated")
    exact = run.validation.step[run.validation.val_error == 0].tolist()
    assert lines["validation, exact"] == exact == [200]
    assert bars[0].get_xdata().tolist() == run.validation.step[:-1].tolist()
