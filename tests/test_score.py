"""The verb score: names odd lines of a log first, follows files, reads pipes as they deliver, and heeds signals."""

import gzip
import json
import math
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from programs import ENVIRONMENT, begun, last_json, python

from fastlstm import Model, ModelConfig, TrainConfig, Vocab, score
from fastlstm.errors import ConfigError, TextError, VocabularyError

ROUTES = ["/index.html", "/login", "/static/app.js", "/favicon.ico"]
#: An error, an unknown character, binary junk, a stack trace, swapped words, a stray character.
ODD = [
    "2026-11-07T10:11:12 ERROR disk /dev/sda1 is failing",
    "2026-11-07T10:11:12 INFO  http 10.0.1.7 GET /login 200 in 3 mß",
    "\x00\x7fELF\x02\x01\x01",
    "Traceback (most recent call last):",
    "2026-11-07T10:11:12 INFO  http 10.0.1.7 /login GET 200 in 3 ms",
    "2026-11-07T10:11:12 INFO  cache hit ;ratio 0.93",
]


def ordinary_line(rng):
    """A line of a log as a server writes it; its numbers are random."""
    day, hour, minute, second = (int(rng.integers(*bounds)) for bounds in ((1, 29), (0, 24), (0, 60), (0, 60)))
    start = f"2026-11-{day:02}T{hour:02}:{minute:02}:{second:02}"
    address, route, ms = f"10.0.{rng.integers(4)}.{rng.integers(256)}", rng.choice(ROUTES), rng.integers(90)
    events = [
        f"INFO  http {address} GET {route} 200 in {ms} ms",
        f"INFO  cache hit ratio 0.{rng.integers(80, 99)}",
        f"WARN  pool {rng.integers(8)} of 8 connections busy",
    ]
    return f"{start} {events[rng.integers(3)]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model that has learned a log, ``model.safetensors``, and a log with odd lines, ``some.log``."""
    rng, folder = np.random.default_rng(5), tmp_path_factory.mktemp("logs")
    text = "".join(ordinary_line(rng) + "\n" for _ in range(2000))
    vocab = Vocab.from_text(text, escape=True)
    model = Model(ModelConfig(len(vocab), hidden=32, embedding=12), vocab)
    model.fit(text, TrainConfig(epochs=6, batch=16, seq_len=64, lr=0.01, optimizer="adam", sample_length=0, val_frac=0))
    model.save(folder / "model.safetensors")
    lines = [ordinary_line(rng) for _ in range(600)]
    for n, odd in enumerate(ODD):
        lines.insert(90 * n + 40, odd)
    (folder / "some.log").write_text("".join(line + "\n" for line in lines))
    return folder


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture
def run(capsys):
    """A function that runs the verb in this process with the model; returns standard output and standard error."""

    def run(*arguments):
        assert score.main([".", *map(str, arguments)]) == 0
        return capsys.readouterr()

    return run


@pytest.mark.parametrize("by", ["max", "mean", "total"])
def test_planted_odd_lines_come_first(by, run):
    found = last_json(run("some.log", "--top", len(ODD), "--by", by, "--json").out)["top"]
    assert {line["text"] for line in found} == set(ODD)


def test_standard_input_is_scored_as_a_file_and_places_are_marked(folder):
    with open(folder / "some.log", "rb") as log:
        done = python("-m", "fastlstm.score", ".", "--top", 6, cwd=folder, stdin=log)
    assert done.returncode == 0
    assert b"warning: " in done.stderr
    assert b"12 characters that the model does not know" in done.stderr
    output = done.stdout.decode().splitlines()
    assert sorted(int(re.search(r"line (\d+):", line)[1]) for line in output[::3]) == [90 * n + 41 for n in range(6)]
    stray = next(n for n, line in enumerate(output) if ";ratio" in line)
    assert output[stray][output[stray + 1].index("^")] == ";"


def test_rows_have_number_bits_and_line(run, folder):
    scored = list(Model.load(".").score((folder / "some.log").read_text()))
    rows = [row.split("\t") for row in run("some.log").out.split("\n")[:-1]]
    assert len(rows) == len(scored)
    for (number, bits, mean, text), line in zip(rows, scored, strict=True):
        assert (int(number), text) == (line.number, line.text[:-1])
        assert float(bits) == pytest.approx(line.bits, abs=0.006)  # printed with two decimals
        assert float(mean) == pytest.approx(line.bits_per_char, abs=0.0006)
    files = run("some.log", "some.log").out.splitlines()
    assert files == 2 * ["some.log\t" + row for row in run("some.log").out.splitlines()]


def test_every_character_has_a_row(run, folder):
    (folder / "few.log").write_bytes(b"a\tb\\\n\xff")
    rows = [row.split("\t") for row in run("few.log", "--per-char").out.splitlines()]
    assert [row[:3] for row in rows] == [
        ["1", "1", "a"], ["1", "2", r"\t"], ["1", "3", "b"], ["1", "4", r"\\"], ["1", "5", r"\n"],
        ["2", "1", r"\udcff"],
    ]  # fmt: skip
    nats = np.concatenate([line.nats for line in Model.load(".").score("a\tb\\\n\udcff")])
    assert [float(row[3]) for row in rows] == pytest.approx(nats / math.log(2), abs=0.0006)


def test_only_lines_of_so_many_bits_are_printed(run):
    printed = run("some.log", "--min-bits", 3).out.splitlines()
    assert 0 < len(printed) < 20
    assert all(float(row.split("\t")[2]) >= 3 for row in printed)
    ranked = last_json(run("some.log", "--min-bits", 3, "--top", 100, "--json").out)["top"]
    assert len(ranked) == len(printed)


def test_json_adds_up(run, folder):
    result = last_json(run("some.log", "--json").out)
    scored = list(Model.load(".").score((folder / "some.log").read_text()))
    assert (result["lines"], result["chars"]) == (606, sum(len(line.text) for line in scored))
    assert result["bits"] == pytest.approx(sum(line.bits for line in scored), rel=1e-9)
    assert result["bits_per_char"] == result["bits"] / result["chars"]
    assert result["unknown"] > 0


def test_colours_are_for_terminals(run, monkeypatch):
    plain = run("some.log", "--top", 3).out
    assert "\x1b" not in plain + run("some.log").out
    coloured = run("some.log", "--top", 3, "--color", "always").out
    without = re.sub(r"\x1b\[[\d;]*m", "", coloured)
    assert without.splitlines() == [line for line in plain.splitlines() if line.strip() != "^"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b[" in run("some.log", "--top", 3).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("some.log", "--top", 3).out


def test_nothing_in_a_line_is_a_command_for_a_terminal(run, folder, monkeypatch):
    (folder / "evil.log").write_bytes(b"\x1b[2J\x07\x9b\r\n")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for shown in (["--top", 1], ["--color", "always"], ["--color", "never"]):
        output = run("evil.log", *shown).out
        assert re.search(r"[␛\ufffd]\[2J[␇\ufffd]", re.sub(r"\x1b\[[\d;]*m", "", output))
        assert not re.search(r"[\x07\r]|\x1b\[2J", output)


def test_any_bytes_are_lines(run, folder, rng):
    (folder / "noise.log").write_bytes(rng.bytes(3000))
    result = run("noise.log", "--json")
    assert last_json(result.out)["lines"] == (folder / "noise.log").read_bytes().count(b"\n") + 1
    assert "does not know" in result.err


@pytest.mark.parametrize("content", [b"", b"\n", b"\n\n\n", b"no end"])
def test_short_texts_are_texts(content, run, folder):
    (folder / "short.log").write_bytes(content)
    assert run("short.log").out.count("\n") == len(content.splitlines())
    assert run("short.log", "--top", 3, "--json").err == ""


def test_a_line_that_is_too_long_is_cut_with_one_warning(run, folder, monkeypatch):
    for module in ("lines", "scoring"):
        monkeypatch.setattr(f"fastlstm.{module}.LONGEST", 100)
    (folder / "long.log").write_text("0" * 1000)
    output, errors = run("long.log")
    assert (output.count("\n"), errors.count("\n")) == (10, 1)
    assert "cut" in errors


def test_compressed_files_patterns_and_encodings_are_read_as_elsewhere(run, folder):
    text = "2026-11-07 GET 2 µs\n"
    (folder / "x1.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "x2").write_text(text, encoding="utf-8")
    first, second = run("x[12]*").out.splitlines()
    assert (first.removeprefix("x1.gz\t"), second.removeprefix("x2\t")) == tuple(run("x2").out.splitlines() * 2)
    (folder / "x3").write_text(text, encoding="utf-16")
    assert run("x3", "--encoding", "utf-16").out == run("x2").out


def test_a_model_without_escape_leaves_unknown_symbols_out_and_says_so(capsys, folder, tmp_path):
    model = Model(ModelConfig(3, hidden=4, embedding=2), Vocab.from_text("ab\n"))
    model.save(tmp_path / "model.safetensors")
    (folder / "known.log").write_text("ab→\nab\n")
    assert score.main([str(tmp_path), "known.log"]) == 0
    output, errors = capsys.readouterr()
    first, second = (line.split("\t")[1] for line in output.splitlines())
    assert first == second
    assert "left out" in errors
    with pytest.raises(VocabularyError):
        score.main([str(tmp_path), "known.log", "--unknown", "error"])


def test_wrong_arguments_are_errors(folder):
    (folder / "some.log.gz").write_bytes(gzip.compress(b"2026\n"))
    for arguments in (
        ["--follow"],
        ["--follow", "-"],
        ["-f", "some.log", "some.log"],
        ["-f", "some.*"],
        ["-f", "some.log.gz"],
        ["--encoding", "nope", "some.log"],
    ):
        with pytest.raises(ConfigError):
            score.main([".", *arguments])
    with pytest.raises(TextError, match="missing"):
        score.main([".", "missing"])
    for arguments in (["--top", "0"], ["--top", "x"], ["--min-bits", "nan"], ["--top", "1", "--per-char"]):
        with pytest.raises(SystemExit) as ended:
            score.main([".", *arguments])
        assert ended.value.code == 2


def test_a_line_is_scored_as_soon_as_a_pipe_delivers_it(folder):
    with begun("-m", "fastlstm.score", ".", cwd=folder, stdin=subprocess.PIPE) as process:
        for number in (1, 2):
            process.stdin.write("2026\n20")
            process.stdin.flush()
            assert process.stdout.readline().startswith(f"{number}\t")
        rest, errors = process.communicate()
    assert (rest.split("\t")[0], errors, process.returncode) == ("3", "", 0)


def test_a_growing_log_is_followed_through_rotation_until_a_signal(folder):
    path = folder / "growing.log"
    path.write_text("one\n")
    with begun("-m", "fastlstm.score", ".", "growing.log", "--follow", "--json", cwd=folder) as process:
        assert process.stdout.readline().endswith("\tone\n")
        with open(path, "a") as log:
            log.write("two\nthr")
        assert process.stdout.readline().endswith("\ttwo\n")
        path.rename(folder / "growing.log.1")
        path.write_text("new\n")
        assert process.stdout.readline().endswith("\tthr\n")
        assert process.stdout.readline().startswith("1\t")
        path.write_text("1\n")
        assert process.stdout.readline().endswith("\t1\n")
        with open(path, "a") as log:
            log.write("unfinished")
        time.sleep(0.3)  # until it is read
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert json.loads(rest)["lines"] == 5
    assert "Traceback" not in errors


def test_a_signal_while_standard_input_is_silent_ends_with_the_result(folder):
    with begun("-m", "fastlstm.score", ".", "--json", cwd=folder, stdin=subprocess.PIPE) as process:
        process.stdin.write("2026\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 128 + signal.SIGTERM
        assert last_json(process.stdout.read())["lines"] == 1


def test_a_reader_that_has_enough_ends_the_verb(folder):
    command = f"{sys.executable} -m fastlstm.score . some.log some.log --per-char | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 141
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_a_missing_file_does_not_lose_the_most_surprising_lines_of_those_before_it(run, capsys):
    expected = run("some.log", "some.log", "--top", 2).out
    with pytest.raises(TextError, match="no file 'missing'"):
        score.main([".", "some.log", "missing", "--top", "1"])
    assert capsys.readouterr().out == expected.split("2. ")[0]
