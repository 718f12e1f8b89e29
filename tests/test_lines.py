"""Lines arrive in blocks: whole, numbered, as soon as they are there, also from files that grow and are replaced."""

import itertools
import os

import numpy as np
import pytest

from fastlstm import lines
from fastlstm.errors import ConfigError, StoppedError, TextError
from fastlstm.lines import Block, decoded, follow, line_starts, read, whole_lines
from fastlstm.text import codes_of


def never():
    return False


def random_text(rng, size):
    return "".join(rng.choice(list("ab\n"), size, p=[0.4, 0.4, 0.2]))


def cut(text, rng):
    """A text in pieces of random length, some of them empty."""
    bounds = [0, *np.sort(rng.integers(0, len(text) + 1, 12)).tolist(), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(bounds)]


def lines_of(blocks):
    """Number and text of each line."""
    found = []
    for text, number in blocks:
        starts = line_starts(codes_of(text)).tolist()
        for start, stop in itertools.pairwise(starts):
            found.append((number, text[start:stop]))
            number += "\n" in text[start:stop] if isinstance(text, str) else b"\n" in text[start:stop]
    return found


@pytest.mark.parametrize("encode", [str, str.encode])
def test_blocks_have_the_lines_of_the_text_whatever_its_pieces(encode, rng):
    for size in (0, 1, 2, 50, 200):
        text = random_text(rng, size)
        expected = [(n, encode(line)) for n, line in enumerate(text.splitlines(keepends=True), start=1)]
        assert lines_of(whole_lines([encode(piece) for piece in cut(text, rng)])) == expected


def test_a_piece_completes_its_lines_at_once():
    assert next(whole_lines(iter(["one\ntw"]))) == Block("one\n", 1)


def test_long_lines_are_cut_at_the_same_places_whatever_the_pieces(rng, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 5)
    for _ in range(50):
        text = random_text(rng, 60).replace("b", "aaa")
        expected = [
            (n, line[start : start + 5])
            for n, line in enumerate(text.splitlines(keepends=True), start=1)
            for start in range(0, len(line), 5)
        ]
        assert lines_of(whole_lines(cut(text, rng))) == expected


def test_any_bytes_are_decoded_and_damage_becomes_symbols_that_no_text_has(rng):
    text = "aé→😀\n" * 20
    for chunks in ([text.encode()], [bytes([byte]) for byte in b"\xef\xbb\xbf" + text.encode()]):
        assert "".join(decoded(chunks, "-")) == text
    assert "".join(decoded([b"a\xff\xc3", b"\n"], "-")) == "a\udcff\udcc3\n"
    noise = rng.bytes(5000)
    assert "".join(decoded([noise], "-")).encode("utf-8", "surrogateescape") == noise


def test_other_encodings_are_decoded_too():
    assert "".join(decoded([b"\xe9"], "-", "latin-1")) == "é"
    coded = "né\n".encode("utf-16")
    assert "".join(decoded([coded[:3], coded[3:]], "-", "utf-16")) == "né\n"
    assert "".join(decoded([b"\x81\x81"], "-", "ascii")) == "\ufffd\ufffd"
    for wrong in ("latin-99", "base64"):
        with pytest.raises(ConfigError, match=wrong):
            list(decoded([b"a"], "-", wrong))


def test_a_wrong_byte_order_mark_is_an_error_and_text_without_one_does_not_wait_for_more():
    coded = "né\n".encode("utf-16")
    for chunks in ([coded], [coded[:1], coded[1:]]):
        with pytest.raises(TextError, match="looks like UTF-16"):
            list(decoded(chunks, "some.log"))
    with pytest.raises(TextError, match="'some\\.log' is not UTF-16 with a byte order mark"):
        list(decoded([b"no mark"], "some.log", "utf-16"))
    with pytest.raises(TextError, match="is not IDNA"):
        list(decoded([b"xn--\xff.\n"], "some.log", "idna"))
    delivered = iter([b"a", b"b"])
    assert next(decoded(delivered, "-")) == "a"
    assert next(delivered) == b"b"


def test_what_a_pipe_delivers_is_read_without_waiting_for_more(monkeypatch):
    source, sink = os.pipe()
    with open(source, "rb") as pipe:
        arriving = read(f"/dev/fd/{source}", never)
        for chunk in (b"one\n", b"two\n"):
            os.write(sink, chunk)
            assert next(arriving) == chunk
        os.close(sink)
        assert list(arriving) == []
    assert pipe.closed


def test_a_file_is_read_to_its_end(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(lines, "_BLOCK", 1000)
    content = rng.bytes(3500)
    (tmp_path / "log").write_bytes(content)
    chunks = list(read(str(tmp_path / "log"), never))
    assert b"".join(chunks) == content
    assert max(map(len, chunks)) == 1000


def test_reading_stops_while_nothing_arrives():
    source, sink = os.pipe()
    calls = iter([False, False, True])
    with open(source, "rb"), open(sink, "wb"), pytest.raises(StoppedError):
        next(read(f"/dev/fd/{source}", lambda: next(calls)))


@pytest.mark.parametrize("name", ["missing", ".", "a\0b"])
def test_a_source_that_cannot_be_read_is_an_error_of_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for reading in (read, follow):
        with pytest.raises(TextError) as caught:
            next(iter(reading(name, never)))
        assert "\n" not in str(caught.value)


@pytest.fixture
def log(tmp_path):
    """A growing log, and what follows it: an iterator over chunks, and None where a file has been replaced."""
    path = tmp_path / "log"
    path.write_bytes(b"one\n")

    def chunks():
        for file in follow(str(path), never):
            yield from file
            yield None

    return path, chunks()


def append(path, text):
    with open(path, "ab") as file:
        file.write(text)


def test_what_is_added_to_a_file_is_read(log):
    path, chunks = log
    assert next(chunks) == b"one\n"
    for added in (b"two\n", b"th", b"ree\n"):
        append(path, added)
        assert next(chunks) == added


@pytest.mark.parametrize("at_once", [True, False])
def test_a_rotated_file_is_read_to_its_end_and_then_the_next_one(log, at_once):
    path, chunks = log
    assert next(chunks) == b"one\n"
    moved = path.rename(path.with_suffix(".1"))
    if at_once:
        path.write_bytes(b"new\n")
    append(moved, b"last\n")
    assert next(chunks) == b"last\n"
    if not at_once:
        path.write_bytes(b"new\n")
    assert next(chunks) is None
    assert next(chunks) == b"new\n"


def test_a_file_that_became_shorter_is_read_from_its_start(log):
    path, chunks = log
    assert next(chunks) == b"one\n"
    path.write_bytes(b"1\n")
    assert next(chunks) is None
    assert next(chunks) == b"1\n"


def test_what_cannot_be_read_later_is_an_error_of_one_line_too(log):
    path, chunks = log
    assert next(chunks) == b"one\n"
    path.unlink()
    path.mkdir()
    assert next(chunks) is None
    with pytest.raises(TextError, match=r"^cannot read .*log"):
        next(chunks)


def test_a_failure_of_the_file_system_while_following_is_an_error_of_one_line(log, monkeypatch):
    _, chunks = log
    assert next(chunks) == b"one\n"
    monkeypatch.setattr(lines, "_is_replaced", lambda file, path: os.stat(f"{path}/below"))
    with pytest.raises(TextError, match=r"^cannot read .*log"):
        next(chunks)


def test_a_file_that_is_missing_for_a_while_is_waited_for(log, monkeypatch):
    path, chunks = log
    assert next(chunks) == b"one\n"
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"new\n")
    slept = iter([path.unlink, lambda: path.write_bytes(b"newer\n")])
    original = os.path.samestat
    monkeypatch.setattr(lines.os.path, "samestat", lambda *two: next(slept, bool)() or original(*two))
    monkeypatch.setattr(lines.time, "sleep", lambda _: next(slept, bool)())
    assert next(chunks) is None
    assert next(chunks) == b"newer\n"
