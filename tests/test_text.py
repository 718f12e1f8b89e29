"""Vocabularies and ids: any text round-trips, what is not valid is reported in one line, and a text is split."""

import contextlib
import json
import math
import sys
import tracemalloc
from collections import Counter
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

from fastlstm.errors import ConfigError, VocabularyError
from fastlstm.text import Encoder, Vocab, split

#: Any str, including astral characters, NUL and lone surrogates.
any_text = st.text(st.characters(exclude_categories=()))


def small_pieces(size):
    return mock.patch("fastlstm.text._CHUNK", size)


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
    one_more = Encoder(Vocab.from_text("a"), "skip")
    one_more.encode("".join(map(chr, range(98, 107))))
    assert one_more.report().endswith("'i' (U+0069) and 1 other")
    damaged = Encoder(Vocab.from_text("a"), "skip")
    damaged.encode(b"a\xff".decode("utf-8", "surrogateescape"))
    assert damaged.report().endswith(": the byte 0xFF")
    assert Encoder(Vocab.from_text("a")).report() == ""


def test_the_error_for_an_unknown_symbol_names_the_escape_where_there_is_one():
    for escape in (True, False):
        with pytest.raises(VocabularyError) as caught:
            Encoder(Vocab.from_text("a", escape=escape), "error").encode("ab")
        assert ("--unknown escape" in str(caught.value)) == escape


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
