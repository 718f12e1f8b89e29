"""Any bytes are spelled with any vocabulary, and come back."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from fastlstm.spelling import Spelled, Spelling
from fastlstm.text import Vocab

CODES = strategies.one_of(strategies.integers(0, 127), strategies.integers(0, 0x10FFFF))
TEXTS = strategies.one_of(
    strategies.binary(max_size=40),
    strategies.text(max_size=20).map(lambda text: text.encode()),
    strategies.lists(strategies.sampled_from([b"a", b"\xc3", b"\xa9", "é".encode(), b"\xed\xb2\x80", b"\xff"])).map(
        b"".join
    ),
)


def vocab(codes, *, is_bytes=False, escape=False):
    return Vocab(np.array(sorted(codes), np.uint32), is_bytes, escape)


@hypothesis.given(data=TEXTS, codes=strategies.sets(CODES, max_size=20), escape=strategies.booleans())
def test_characters(data, codes, escape):
    codes |= set() if escape or codes else {97}
    check(data, vocab(codes, escape=escape))


@hypothesis.given(data=TEXTS, codes=strategies.sets(strategies.integers(0, 255), min_size=1))
def test_bytes(data, codes):
    check(data, vocab(codes, is_bytes=True))


def check(data, of):
    spelling = Spelling(of)
    spelled = spelling.spell(data)
    assert spelling.unspell(spelled) == data
    assert spelling.count_unknown(spelled.symbols) == len(spelled.numbers)
    assert spelled.symbols.size == 0 or spelled.symbols.max() < spelling.choices
    read = spelling.read_as(spelled.symbols)
    assert read.size == 0 or read.max() < len(of)


def test_every_code_without_an_entry_has_its_number():
    spelling = Spelling(vocab(set(range(256)) - {0, 7, 255}, is_bytes=True))
    spelled = spelling.spell(bytes([255, 7, 0, 7]))
    assert spelled.numbers.tolist() == [2, 1, 0, 1]
    with pytest.raises(ValueError, match="does not exist"):
        spelling.unspell(spelled._replace(numbers=np.array([2, 3, 0, 1])))


def test_an_unknown_symbol_is_read_as_the_escape_or_as_the_first_symbol():
    with_escape, without = (Spelling(vocab({97, 98}, escape=escape)) for escape in (True, False))
    for spelling, read in ((with_escape, [1, 2]), (without, [1, 0])):
        spelled = spelling.spell(b"bz")
        assert spelled.symbols.tolist() == [1, 2]
        assert spelling.read_as(spelled.symbols).tolist() == read
        assert spelling.choices == 3


def test_symbols_that_are_no_bytes_are_an_error():
    """A lone surrogate that stands for no byte: only a damaged archive contains one."""
    spelling = Spelling(vocab({0xD800}))
    with pytest.raises(ValueError, match="surrogates"):
        spelling.unspell(Spelled(np.zeros(1, np.uint8), np.zeros(0, np.int64)))
