"""Texts: readable ones are read unchanged, others are reported in one clear line, and ids round-trip."""

import contextlib
import io
import json
import math
import os
import sys
import tracemalloc
from collections import Counter
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import corpora
from fastlstm.errors import ConfigError, TextError, VocabularyError
from fastlstm.text import Encoder, Vocab, read_ids, read_text, split

#: Any str, including astral characters, NUL and lone surrogates.
any_text = st.text(st.characters(exclude_categories=()))


@pytest.fixture
def write(tmp_path):
    """A function that writes bytes to a new file and returns its path."""

    def write(data, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


def assert_refused(error, message, function, *args, **kwargs):
    with pytest.raises(error, match=message) as caught:
        function(*args, **kwargs)
    assert len(str(caught.value).splitlines()) == 1


# Reading


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"a\r\nb\rc\n", "a\r\nb\rc\n", id="line ends"),
        pytest.param(b"\xef\xbb\xbfab", "ab", id="byte order mark"),
        pytest.param("a\ufeffb".encode(), "a\ufeffb", id="mark within"),
        pytest.param(b"a\0b", "a\0b", id="NUL"),
        pytest.param("é→𝄞".encode(), "é→𝄞", id="beyond ASCII"),
        pytest.param(b"a", "a", id="one character"),
    ],
)
def test_a_file_is_read_unchanged_except_for_a_byte_order_mark(write, data, text):
    path = write(data)
    assert read_text([path]) == text
    assert read_text([path], as_bytes=True) == data


def test_sources_are_joined_in_order_without_their_byte_order_marks(write):
    one, two = write(b"\xef\xbb\xbfone", "1"), write(b"\xef\xbb\xbftwo", "2")
    assert read_text([one, two, one]) == "onetwoone"


def test_a_dash_is_standard_input(write, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\ufeffé\r\n".encode())))
    assert read_text([write(b"a"), "-"]) == "aé\r\n"


def test_closed_standard_input_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert_refused(TextError, "standard input is closed", read_text, ["-"])


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"ab\xff", "byte 0xFF at offset 2"),
        (b"\xef\xbb\xbfab\xe9", "byte 0xE9 at offset 5"),
        (b"abc\xe2\x82", "byte 0xE2 at offset 3"),
        (b"a\xed\xa0\x80", "byte 0xED at offset 1"),
    ],
    ids=["Latin-1", "after a mark", "cut short", "surrogate"],
)
def test_the_error_for_text_that_is_not_utf8_names_file_and_offset_and_it_can_be_read_as_bytes(write, data, place):
    path = write(data, "odd\nname.txt")
    for read in (read_text, read_ids):
        message = rf"odd\\nname.txt' is not UTF-8 \({place}\): convert it to UTF-8.*--bytes"
        assert_refused(TextError, message, read, [path])
    assert read_text([path], as_bytes=True) == data


def test_the_error_for_invalid_bytes_names_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x80")))
    assert_refused(TextError, "^standard input is not UTF-8", read_text, ["-"])


@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_empty_text_is_one_line(write, as_bytes):
    assert_refused(TextError, "empty .*text.txt", read_text, [write(b"")], as_bytes=as_bytes)


def test_nothing_but_a_byte_order_mark_is_empty(write):
    assert_refused(TextError, "empty", read_text, [write(b"\xef\xbb\xbf")])


def test_one_empty_source_among_others_is_fine(write):
    assert read_text([write(b"", "1"), write(b"a", "2")]) == "a"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing\n.txt", r"no file .*missing\\n.txt.*name a corpus \(input, pydoc, tinyshakespeare\)"),
        ("", "is a folder"),
        ("nul\0", "cannot be the path"),
        ("lone\ud800", "cannot be the path"),
        ("x" * 5000, "cannot read .*File name too long"),
    ],
)
def test_a_path_without_a_text_is_one_line(tmp_path, name, message):
    assert_refused(TextError, message, read_text, [os.path.join(tmp_path, name)])


def test_an_unreadable_file_is_one_line(write, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(b"a")
    monkeypatch.setattr("builtins.open", refuse)  # root may read a file of any mode
    assert_refused(TextError, r"text.txt' \(Permission denied\): check", read_text, [path])


def test_a_corpus_is_read_by_name_and_the_default_one_without_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "load", lambda name: f"corpus {name}é".encode())
    assert read_text([]) == "corpus inputé"
    assert read_text(["pydoc"], as_bytes=True) == "corpus pydocé".encode()


def test_an_existing_file_takes_precedence_over_a_corpus_of_its_name_but_a_folder_does_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "load", lambda name: b"corpus")
    (tmp_path / "pydoc").write_text("file")
    (tmp_path / "input").mkdir()
    assert read_text(["pydoc"]) == "file"
    assert read_text(["input"]) == "corpus"


def test_reading_a_file_takes_no_more_than_its_bytes_and_its_text(write):
    path = write(b"x" * 8_000_000)
    tracemalloc.start()
    try:
        text = read_text([path])
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) == 8_000_000
    assert left < 1.05 * len(text)
    assert peak < 2.05 * len(text)


ENGLISH = "It was a quiet evening, and the tide was out.\n" * 50
RUSSIAN = "Был тихий вечер, и море отступило далеко.\n" * 50


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN, "quietly!"], ids=["English", "Russian", "short"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no mark", "mark"])
def test_utf16_and_utf32_are_refused_and_not_read_as_nuls(write, words, width, order, mark):
    path = write((mark + words).encode(f"utf-{width}-{order}"))
    for read in (read_text, read_ids):
        assert_refused(TextError, "text.txt' is not UTF-8 but looks like UTF-16.*convert it.*--bytes", read, [path])
    assert len(read_ids([path], as_bytes=True)[1]) == os.path.getsize(path)


@pytest.mark.parametrize(
    "words",
    [
        "a\0b",
        "\0" * 7,
        ENGLISH.replace("\n", "\0"),
        ENGLISH.replace(" ", "\0"),
        ENGLISH + "\0" * 20,
        "four\0" * 500,
    ],
)
def test_a_text_with_some_nuls_is_a_text(write, words):
    assert read_text([write(words.encode())]) == words


# Reading ids


def small_pieces(size):
    return mock.patch("fastlstm.text._CHUNK", size)


def blocks_of(data, size):
    return [data[start : start + size] for start in range(0, len(data), size)]


def outcome(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except TextError as error:
        return str(error)


@given(st.lists(st.text(), min_size=1, max_size=4), st.booleans(), st.integers(1, 9), st.integers(1, 30))
def test_ids_of_sources_are_those_of_their_text(texts, as_bytes, size, block):
    contents = {str(number): ("\ufeff" * (number % 2) + text).encode() for number, text in enumerate(texts)}
    ref = outcome(read_whole, contents, as_bytes)
    with mock.patch("fastlstm.text._read", lambda name: blocks_of(contents[name], block)), small_pieces(size):
        assert outcome(read_text, list(contents), as_bytes=as_bytes) == ref
        comp = outcome(read_ids, list(contents), as_bytes=as_bytes)
        if isinstance(comp, str):
            assert comp == ref
            return
        vocab, ids = comp
        assert vocab == Vocab.from_text(ref)
        assert ids.dtype == vocab.encode(ref).dtype
        assert vocab.decode(ids) == ref
        larger = Vocab(np.arange(256 if as_bytes else 0x110000, dtype=np.uint32), as_bytes)
        same, ids = read_ids(list(contents), encoder=Encoder(larger))
        assert same is larger
        assert larger.decode(ids) == ref


def read_whole(contents, as_bytes):
    """`read_text`, with each source in one block and one piece."""
    with mock.patch("fastlstm.text._read", lambda name: [contents[name]]):
        return read_text(list(contents), as_bytes=as_bytes)


#: Bytes that begin, continue and break characters of every length.
mostly_utf8 = st.lists(
    st.sampled_from(
        [b"a", "é".encode(), "→".encode(), "🙂".encode(), b"\x80", b"\xc3", b"\xe2\x86", b"\xf0\x9f", b"\xff"]
    )
).map(b"".join)


@given(mostly_utf8, st.integers(1, 9), st.integers(1, 30))
def test_bytes_that_are_not_utf8_are_found_at_the_same_offset_in_pieces_of_any_size(data, size, block):
    ref = outcome(read_whole, {"x": data}, as_bytes=False)
    with mock.patch("fastlstm.text._read", return_value=blocks_of(data, block)), small_pieces(size):
        comp = outcome(read_ids, ["x"])
    assert (comp if isinstance(comp, str) else comp[0].decode(comp[1])) == ref


def test_ids_have_the_errors_of_texts(write, monkeypatch):
    assert_refused(TextError, "empty .*1'.*2'", read_ids, [write(b"", "1"), write(b"\xef\xbb\xbf", "2")])
    assert_refused(TextError, "no file", read_ids, ["missing"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x80")))
    assert_refused(TextError, "^standard input is not UTF-8", read_ids, ["-"])


def test_an_unknown_symbol_is_named_with_its_position_in_all_sources_together(write):
    sources = [write("né".encode(), "1"), write(b"\xef\xbb\xbf" + b"n" * 700_000 + b"z", "2")]
    vocab = Vocab.from_text("né")
    assert_refused(VocabularyError, r"'z' \(U\+007A\) at position 700002 ", read_ids, sources, encoder=Encoder(vocab))
    nothing = Vocab.from_text("")
    assert_refused(VocabularyError, "'n'", read_ids, sources, encoder=Encoder(nothing))


def test_standard_input_is_read_once_and_the_default_text_has_no_name(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("abbaé".encode())))
    vocab, ids = read_ids(["-"])
    assert vocab.decode(ids) == "abbaé"
    vocab, ids = read_ids([])
    assert vocab.decode(ids) == read_text([])


@pytest.mark.parametrize("given", [False, True], ids=["own vocabulary", "given vocabulary"])
@pytest.mark.parametrize("last", ["", "🙂"], ids=["ASCII", "one emoji"])
def test_reading_ids_takes_no_more_than_the_encoded_text_and_the_ids(write, last, given):
    path = write(("ab\n" * 5_000_000 + last).encode())
    vocab = Vocab.from_text("ab\n" + last) if given else None
    tracemalloc.start()
    try:
        _, ids = read_ids([path], encoder=None if vocab is None else Encoder(vocab))
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ids.nbytes == 15_000_000 + len(last)
    assert left < ids.nbytes + 100_000
    # Pieces of 2**18 symbols, whose largest copy in NumPy has 8 bytes per symbol, and a boolean for each code point.
    assert peak < os.path.getsize(path) + ids.nbytes + 7_000_000


@pytest.mark.parametrize("files", [1, 4])
def test_the_bytes_of_a_text_are_freed_while_its_ids_are_made(files, write, monkeypatch):
    monkeypatch.setattr("fastlstm.text._BLOCK", 4_000_000)
    sources = [write(b"ab" * (8_000_000 // files), str(number)) for number in range(files)]
    left = []
    encode = Encoder.encode_pieces

    def watched(self, pieces, length):
        def each():
            for piece in pieces:
                left.append(tracemalloc.get_traced_memory()[0])
                yield piece

        return encode(self, each(), length)

    tracemalloc.start()
    try:
        with mock.patch.object(Encoder, "encode_pieces", watched):
            read_ids(sources)
    finally:
        tracemalloc.stop()
    # Three of four blocks are freed; the temporaries of a piece, absent at the start, take 5 bytes per symbol.
    assert left[-1] < left[0] - 3 * 4_000_000 + 2_000_000


# The vocabulary


@given(any_text)
def test_any_text_round_trips(text):
    vocab = Vocab.from_text(text)
    assert vocab.symbols.tolist() == sorted({ord(character) for character in text})
    assert vocab.decode(vocab.encode(text)) == text
    assert Vocab.from_json(vocab.to_json()) == vocab


@given(st.binary())
def test_any_bytes_round_trip(data):
    vocab = Vocab.from_text(data)
    assert vocab.symbols.tolist() == list(range(256))
    assert vocab.decode(vocab.encode(data)) == data
    assert Vocab.from_json(vocab.to_json()) == vocab


def test_every_code_point_at_once_round_trips():
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    vocab = Vocab.from_text(text)
    assert len(vocab) == sys.maxunicode + 1
    assert vocab.decode(vocab.encode(text)) == text
    assert Vocab.from_json(vocab.to_json()) == vocab


@pytest.mark.parametrize(("size", "dtype"), [(1, "u1"), (256, "u1"), (257, "u2"), (65536, "u2"), (65537, "u4")])
def test_ids_take_the_smallest_type_that_holds_them(size, dtype):
    vocab = Vocab(np.arange(size, dtype=np.uint32))
    ids = vocab.encode(chr(size - 1))
    assert (ids.dtype, ids.tolist()) == (np.dtype(dtype), [size - 1])


def test_a_text_of_many_pieces_is_encoded_like_a_short_one(rng):
    codes = rng.integers(32, 120, 1_000_003)
    text = "".join(map(chr, codes))
    vocab = Vocab.from_text(text)
    np.testing.assert_array_equal(vocab.symbols[vocab.encode(text)], codes)


def test_encoding_takes_little_more_memory_than_the_ids():
    text = "ab" * 2_000_000
    tracemalloc.start()
    try:
        ids = Vocab.from_text(text).encode(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ids.nbytes == len(text)
    assert peak < ids.nbytes + 10_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("abzy", r"character 'z' \(U\+007A\) at position 2 "),
        ("!ab", r"character '!' \(U\+0021\) at position 0 "),
        ("ab\n", r"character '\\n' \(U\+000A\) at position 2 "),
        ("a" * 1_000_000 + "\u2028", r"character '\\u2028' \(U\+2028\) at position 1000000 "),
        ("\U0001d11e", r"character '𝄞' \(U\+1D11E\) at position 0 "),
        ("\ud800", r"character '\\ud800' \(U\+D800\) at position 0 "),
    ],
    ids=["after", "before", "line feed", "far", "astral", "surrogate"],
)
def test_an_unknown_character_is_named_with_its_position(text, message):
    assert_refused(VocabularyError, message, Vocab.from_text("abd").encode, text)


def test_an_unknown_byte_is_named_with_its_position():
    assert_refused(
        VocabularyError, "byte 0xE9 at position 2 ", Vocab(np.array([97, 98], np.uint32), True).encode, b"ab\xe9"
    )


def test_an_empty_vocabulary_has_no_characters():
    assert_refused(VocabularyError, "'a'", Vocab.from_text("").encode, "a")


@pytest.mark.parametrize(
    ("text", "data"), [("é", b"\xc3\xa9"), ("a\udce9", b"a\xe9"), ("\ud800\udce9", b"\xed\xa0\x80\xed\xb3\xa9")]
)
def test_a_vocabulary_of_bytes_takes_text_as_utf8_and_escaped_bytes_as_themselves(text, data):
    vocab = Vocab(np.arange(256, dtype=np.uint32), is_bytes=True)
    assert vocab.decode(vocab.encode(text)) == data


def test_a_vocabulary_of_characters_refuses_bytes():
    with pytest.raises(TypeError, match="not bytes"):
        Vocab.from_text("a").encode(b"a")


@pytest.mark.parametrize("ids", [[3], [-1], np.array([0, 255], np.uint8), [0, 1 << 40]])
def test_an_id_out_of_range_is_one_line(ids):
    assert_refused(VocabularyError, "outside this vocabulary of 3", Vocab.from_text("abc").decode, ids)


def test_ids_that_are_not_integers_are_refused():
    with pytest.raises(TypeError, match="float64"):
        Vocab.from_text("abc").decode(np.zeros(3))


# The escape


@given(any_text, any_text)
def test_with_an_escape_any_text_has_ids_and_only_unknown_characters_become_the_escape(known, text):
    vocab = Vocab.from_text(known, escape=True)
    assert len(vocab) == len(set(known)) + 1
    ids = vocab.encode(text)
    assert vocab.decode(ids) == "".join(c if c in known else "\ufffd" for c in text)
    assert [id_ == vocab.escape_id for id_ in ids] == [c not in known for c in text]
    assert Vocab.from_json(vocab.to_json()) == vocab
    assert np.all(np.diff(vocab.codes.astype(int)) > 0)


@given(any_text, any_text, st.integers(1, 9))
def test_what_is_skipped_leaves_the_text_of_the_known_characters(known, text, size):
    encoder = Encoder(Vocab.from_text(known), "skip")
    with small_pieces(size):
        ids = encoder.encode(text)
    assert encoder.vocab.decode(ids) == "".join(c for c in text if c in known)
    assert encoder.lacking == Counter(ord(c) for c in text if c not in known)


def test_unknown_symbols_are_named_by_frequency_with_their_number():
    encoder = Encoder(Vocab.from_text("abc", escape=True))
    encoder.encode("axx")
    encoder.encode("b→x")
    said = "4 characters that the model does not know (read as unknown): 'x' (U+0078) 3 times, '→' (U+2192)"
    assert encoder.report() == said
    many = Encoder(Vocab.from_text("a"), "skip")
    many.encode("".join(map(chr, range(98, 110))))
    assert many.report().endswith("'i' (U+0069) and 4 others")
    assert Encoder(Vocab.from_text("a")).report() == ""


def test_an_escape_needs_the_bits_that_name_a_symbol_among_those_it_stands_for():
    assert Vocab.from_text("ab", escape=True).naming_nats == pytest.approx(math.log(0x110000 - 2), rel=1e-15)
    assert Vocab.from_text("ab").naming_nats == 0
    assert Vocab.of_bytes().naming_nats == 0


def test_what_a_vocabulary_cannot_do_with_unknown_symbols_is_refused():
    assert_refused(ConfigError, "no entry that stands for unknown", Encoder, Vocab.from_text("a"), "escape")
    assert_refused(ConfigError, "one of error, skip, escape", Encoder, Vocab.from_text("a"), "drop")
    assert_refused(VocabularyError, "bytes has no escape", Vocab, np.arange(3, dtype=np.uint32), True, True)
    assert_refused(VocabularyError, "'b'", Vocab.from_text("a", escape=True).encode, "b", "error")


def test_a_vocabulary_without_an_escape_is_stored_as_in_older_files():
    assert Vocab.from_text("ab").to_json() == '{"bytes":false,"symbols":[97,98]}'
    assert not Vocab.from_json('{"bytes":false,"symbols":[97,98]}').escape


def test_vocabularies_are_equal_when_symbols_and_kind_are():
    vocab = Vocab.from_text("abc")
    assert vocab == Vocab.from_text("cbacba")
    assert hash(vocab) == hash(Vocab.from_text("cba"))
    assert vocab != Vocab.from_text("abd")
    assert vocab != Vocab.from_text("abc", escape=True)
    assert Vocab(np.array([97, 98], np.uint32)) != Vocab(np.array([97, 98], np.uint32), True)
    assert vocab != "abc"


def test_a_vocabulary_cannot_change():
    symbols = np.array([1, 2], np.uint32)
    vocab = Vocab(symbols)
    symbols[0] = 0
    assert vocab.symbols.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        vocab.symbols[0] = 0


def test_symbols_must_be_a_row_of_uint32():
    assert_refused(VocabularyError, "uint32, not int64", Vocab, np.array([1, 2]))
    assert_refused(VocabularyError, "shape", Vocab, np.zeros((1, 1), np.uint32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[97]",
        "{}",
        '{"bytes":false,"symbols":[97}',
        '{"bytes":false}',
        '{"bytes":false,"symbols":[97],"more":1}',
        '{"bytes":0,"symbols":[97]}',
        '{"bytes":false,"symbols":"a"}',
        '{"bytes":[97],"symbols":false}',
        '{"bytes":false,"symbols":["a"]}',
        '{"bytes":false,"symbols":[97.0]}',
        '{"bytes":false,"symbols":[true]}',
        '{"bytes":false,"symbols":[NaN]}',
        '{"bytes":false,"symbols":[-1]}',
        '{"bytes":false,"symbols":[98,97]}',
        '{"bytes":false,"symbols":[97,97]}',
        '{"bytes":false,"symbols":[1114112]}',
        '{"bytes":true,"symbols":[256]}',
        '{"bytes":false,"symbols":[' + "9" * 5000 + "]}",
        '{"bytes":false,"symbols":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"bytes":false,"symbols":[' + "0," * 6_000_000 + "0]}",
    ],
    ids=lambda text: text[:40],
)
def test_json_that_is_not_a_vocabulary_is_one_line(text):
    assert_refused(VocabularyError, ".", Vocab.from_json, text)


@given(any_text, st.data())
def test_damaged_json_gives_a_vocabulary_or_its_error(text, data):
    stored = Vocab.from_text(text).to_json()
    place = data.draw(st.integers(0, len(stored) - 1))
    damaged = stored[:place] + data.draw(any_text) + stored[place + data.draw(st.integers(0, 3)) :]
    with contextlib.suppress(VocabularyError):
        Vocab.from_json(damaged)


def test_json_is_plain():
    assert json.loads(Vocab.from_text("cab").to_json()) == {"bytes": False, "symbols": [97, 98, 99]}


# The split


@given(st.integers(0, 1000), st.floats(0, 1, exclude_max=True))
def test_the_parts_of_a_split_make_up_the_whole_in_order_and_are_views(n, val_frac):
    ids = np.arange(n, dtype=np.uint16)
    train, val = split(ids, val_frac)
    np.testing.assert_array_equal(np.concatenate([train, val]), ids)
    assert n * val_frac <= len(val) <= n * val_frac + 1
    assert (len(val) == 0) == (n * val_frac == 0)
    assert all(part.size == 0 or np.shares_memory(part, ids) for part in (train, val))


def test_the_usual_split_of_tinyshakespeare():
    train, val = split(np.zeros(1_115_394, np.uint8), 0.1)
    assert (len(train), len(val)) == (1_003_854, 111_540)


@pytest.mark.parametrize("val_frac", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_out_of_range_is_one_line(val_frac):
    assert_refused(ConfigError, "val_frac must be", split, np.zeros(10, np.uint8), val_frac)


@pytest.mark.parametrize("ids", [[[0, 1], [1, 0]], np.zeros((0, 2), np.int64), 1])
def test_only_a_row_of_ids_is_decoded(ids):
    with pytest.raises(TypeError, match="a one-dimensional array"):
        Vocab.from_text("ab").decode(ids)
