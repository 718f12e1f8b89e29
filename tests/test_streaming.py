"""Texts that arrive in pieces end at the same place, and have the same characters, however they are divided."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import Model
from fastlstm.errors import ConfigError
from fastlstm.streaming import Ending, whole_characters

few_letters = st.text("ab", max_size=30)
few_stops = st.text("ab", min_size=1, max_size=5)


def pieces_of(text, cuts):
    """The text, divided at ``cuts``; pieces may be empty."""
    places = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[start:stop] for start, stop in itertools.pairwise(places)]


def ended_text(text, stops):
    """The definition: the shortest beginning that ends with one of ``stops``, without the longest such one."""
    for length in range(len(text) + 1):
        if found := [stop for stop in stops if text[:length].endswith(stop)]:
            return text[: length - max(map(len, found))], True
    return text, False


@given(
    text=few_letters, stops=st.lists(st.text("ab", min_size=1, max_size=5), max_size=3), cuts=st.lists(st.integers(0))
)
def test_a_text_ends_before_the_first_of_several_texts_however_it_is_divided(text, stops, cuts):
    ending, given_out = Ending(stops, ""), ""
    for piece in pieces_of(text, cuts):
        given_out += ending(piece)
        if ending.ended:
            break
    assert (given_out + ending.rest(), ending.ended) == ended_text(text, stops)


@given(text=few_letters, stops=st.lists(few_stops, min_size=1, max_size=3))
def test_only_what_may_begin_one_of_the_texts_is_held_back(text, stops):
    ending, given_out = Ending(stops, ""), ""
    for n, letter in enumerate(text, start=1):
        given_out += ending(letter)
        if ending.ended:
            break
        held = text[len(given_out) : n]
        assert held == ending.rest()
        assert not held or any(stop.startswith(held) for stop in stops)


@given(text=st.text("aé字😀\n", max_size=20), cuts=st.lists(st.integers(0)))
def test_pieces_of_utf8_are_whole_characters(text, cuts):
    pieces = list(whole_characters(pieces_of(text.encode(), cuts)))
    assert "".join(piece.decode() for piece in pieces) == text


def begins_a_character(data):
    """Whether more bytes can make these one character of UTF-8."""
    for more in range(1, 4):
        with contextlib.suppress(UnicodeDecodeError):
            return len((data + more * b"\x80").decode()) == 1
    return False


@given(data=st.lists(st.sampled_from([b"a", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x98\x80", b"\xff"]), max_size=20))
def test_bytes_that_are_not_utf8_pass_through_once_they_cannot_become_a_character(data):
    given_out = b""
    for n, piece in enumerate(whole_characters(data), start=1):
        given_out += piece
        waiting = b"".join(data[:n])[len(given_out) :]
        assert not waiting or begins_a_character(waiting)
    assert given_out == b"".join(data)


def test_characters_pass_through():
    assert list(whole_characters(["é", "", "\ud800"])) == ["é", "", "\ud800"]


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_a_sample_ends_before_a_text_of_until(backend):
    """Each lane for itself, in a stream too; what follows the end makes no difference to other lanes."""
    model = Model.for_text("ab\n", hidden=3, embedding=2)
    how = {"seed": 2, "backend": backend}
    for until in (["ab"], ["bbb", "a\n"], ["\n\n", "never"], ["never"]):
        whole = model.continuations("a", 6, 40, **how)
        expected = [ended_text(text, until)[0] for text in whole]
        assert model.continuations("a", 6, 40, until=until, **how) == expected
        assert model.sample("a", 40, until=until, **how) == ended_text(model.sample("a", 40, **how), until)[0]
        assert "".join(model.stream("a", 40, until=until, **how)) == model.sample("a", 40, until=until, **how)


def test_sampling_stops_drawing_once_every_text_has_ended():
    model, looks = Model.for_text("ab\n", hidden=3, embedding=2), []
    model.continuations("a", 3, 10**8, until=["a", "b", "\n"], stop=lambda: looks.append(1))
    assert len(looks) == 1
    assert list(model.stream("a", 10**8, until=["a", "b", "\n"])) == []


def test_a_model_of_bytes_ends_at_bytes_or_the_utf8_of_a_text():
    model = Model.for_text(b"", hidden=3, embedding=2)
    model.parameters["output.W"][:] = 0
    model.parameters["output.b"][[0x61, *"é".encode()]] = 30
    whole = model.sample("a", 60)
    assert "é".encode() in whole
    expected = whole[: whole.index("é".encode())]
    assert model.sample("a", 60, until=["é"]) == model.sample("a", 60, until=["é".encode()]) == expected


@pytest.mark.parametrize("until", ["ab", [""], [b"ab"], [1]])
def test_a_wrong_until_is_refused_before_anything_is_drawn(until):
    model = Model.for_text("ab\n", hidden=3, embedding=2)
    with pytest.raises(ConfigError, match=r"^until "):
        model.stream("a", 5, until=until)
    with pytest.raises(ConfigError, match=r"^until "):
        model.continuations("a", 2, 5, until=until)
