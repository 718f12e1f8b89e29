"""Words of a sample that are words of a text: a measure of what a model has learned of spelling.

A word is a maximal run of letters, with apostrophes between them: ``o'er`` is one word, ``'tis'`` is ``tis``, and
``well-born`` are two. Upper and lower case are not told apart. Bytes are decoded as UTF-8; invalid ones end a word.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import numpy as np

_WORD = re.compile(r"[^\W\d_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W\d_]+)*")


def known_words(text: str | bytes) -> frozenset[str]:
    """The distinct words of a text, in lower case."""
    return frozenset(_words(text))


def word_share(sample: str | bytes, words: frozenset[str]) -> float:
    """Share of a sample's words, repeated ones counted each time, that are among ``words``; NaN if it has no word.

    The first and the last word of a sample may be cut; they count like the others.

    Parameters
    ----------
    sample : the text whose words are counted.
    words : of `known_words`.
    """
    hits = [word in words for word in _words(sample)]
    return sum(hits) / len(hits) if hits else math.nan


def shuffled_share(text: str | bytes, words: frozenset[str], *, symbols: int = 100_000, seed: int = 0) -> float:
    """The share of guessing: `word_share` of a text whose symbols are in random order; NaN if it has no word.

    Short words such as "a" are hit by chance, so that it is not 0.

    Parameters
    ----------
    text : only its first ``symbols`` are used.
    words : of `known_words`.
    symbols : the most characters, or bytes, that are shuffled.
    seed : of the order.
    """
    order = np.random.default_rng(seed).permutation(min(len(text), symbols)).tolist()
    shuffled = bytes(text[i] for i in order) if isinstance(text, bytes) else "".join(text[i] for i in order)
    return word_share(shuffled, words)


def as_characters(text: str | bytes) -> str:
    """A text as characters: bytes are decoded as UTF-8, invalid ones to replacement characters."""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _words(text: str | bytes) -> Iterator[str]:
    return (match.group().lower() for match in _WORD.finditer(as_characters(text)))
