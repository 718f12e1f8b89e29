"""Words of a sample that occur in a text."""

import math

import pytest

from fastlstm.exhibits.words import known_words, shuffled_share, word_share


def test_a_word_is_a_run_of_letters_with_apostrophes_inside():
    text = "'Tis o'er, well-born KING of 1492_a!\nÀ l\N{RIGHT SINGLE QUOTATION MARK}été."
    assert known_words(text) == {
        "tis",
        "o'er",
        "well",
        "born",
        "king",
        "of",
        "a",
        "à",
        "l\N{RIGHT SINGLE QUOTATION MARK}été",
    }


def test_the_share_counts_every_repetition():
    words = known_words("The king sleeps.")
    assert word_share("the kong the king", words) == 0.75
    assert word_share("THE", words) == 1.0
    assert word_share("sleep", words) == 0.0


def test_a_sample_without_words_has_no_share():
    assert math.isnan(word_share("12 -- !", known_words("one")))
    assert math.isnan(word_share("", known_words("one")))
    assert math.isnan(shuffled_share("123", known_words("one")))


def test_bytes_are_read_as_utf8_and_invalid_ones_end_a_word():
    assert known_words("été".encode()) == {"été"}
    assert known_words(b"un\xffdone") == {"un", "done"}
    assert word_share("l'été".encode(), known_words("l'été")) == 1.0


@pytest.mark.parametrize("convert", [str, str.encode])
def test_a_text_in_random_order_hits_fewer_words_than_the_text(convert, default_text):
    text = convert(default_text)
    words = known_words(text)
    share = shuffled_share(text, words)
    assert 0 < share < 0.6 < word_share(text, words) == 1.0
    assert share == shuffled_share(text, words)
    assert share != shuffled_share(text, words, seed=1)
