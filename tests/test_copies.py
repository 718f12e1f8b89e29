"""The longest substrings that a sample shares with a text."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from fastlstm.exhibits.copies import Passage, copied

#: Few symbols, so that matches are long and many.
TEXTS = strategies.text("ab", max_size=25)


def longest_match(sample, text):
    """By trying all lengths."""
    return max(length for length in range(len(sample) + 1) if sample[:length] in text)


@hypothesis.given(TEXTS, TEXTS)
def test_lengths_are_those_of_trying_all_substrings(sample, text):
    expected = [longest_match(sample[start:], text) for start in range(len(sample))]
    assert copied(sample, text).lengths.tolist() == expected
    assert copied(sample.encode(), text.encode()).lengths.tolist() == expected


@hypothesis.given(TEXTS, TEXTS)
def test_passages_occur_in_the_text_do_not_overlap_and_fall_in_length(sample, text):
    found = copied(sample, text, most=4)
    covered = np.zeros(len(sample), int)
    for start, length, place in found.passages:
        assert sample[start : start + length] == text[place : place + length]
        assert place == text.find(sample[start : start + length])
        assert length == found.lengths[start]
        covered[start : start + length] += 1
    assert covered.max(initial=0) <= 1
    lengths = [passage.length for passage in found.passages]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths, default=0) == found.lengths.max(initial=0)


def test_a_copied_sentence_is_found_where_it_stands():
    found = copied("Zounds! to be or not 42", "What a question: to be or not to be.", most=2)
    assert found.passages[0] == Passage(start=7, length=14, place=16)
    assert found.lengths[7:10].tolist() == [14, 13, 12]
    assert found.lengths[0] == 0
    assert len(found.passages) == 2


def test_nothing_is_shared_with_an_empty_text():
    assert copied("abc", "").lengths.tolist() == [0, 0, 0]
    assert copied("abc", "").passages == ()
    assert copied("", "abc").lengths.shape == (0,)


def test_characters_and_bytes_do_not_compare():
    with pytest.raises(TypeError):
        copied(b"abc", "abc")
