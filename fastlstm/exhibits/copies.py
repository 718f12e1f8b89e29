"""How much of a sample is copied from a text: the longest substrings that both have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import AnyStr, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Passage(NamedTuple):
    """A substring of the sample that occurs in the text; places and lengths are in symbols.

    Attributes
    ----------
    start : where it begins in the sample.
    length : of the substring.
    place : where it occurs in the text first.
    """

    start: int
    length: int
    place: int


@dataclass(frozen=True, eq=False)
class Copies:
    """What a sample shares with a text.

    Attributes
    ----------
    lengths : (N,) int64, for each position of the sample, the length of the longest substring of the text that starts
        there, in symbols.
    passages : the longest shared substrings that do not overlap, longest first.
    """

    lengths: NDArray[np.int64]
    passages: tuple[Passage, ...]


def copied(sample: AnyStr, text: AnyStr, *, most: int = 10) -> Copies:
    """Find what a sample shares with a text.

    A number means little by itself: any two texts of a language share phrases. Compare with the same statistic of a
    text of the same length that nobody copied, such as the validation part.

    Parameters
    ----------
    sample : N symbols, characters or bytes.
    text : of the same type. Time is proportional to N times its length: a second or so for 2,000 and a million.
    most : the most passages to return.
    """
    lengths = np.array(_longest_matches(sample, text), np.int64)
    return Copies(lengths, tuple(_passages(lengths, sample, text, most)))


def _longest_matches(sample: AnyStr, text: AnyStr) -> list[int]:
    """Length of the longest match at each position of the sample.

    A match that ends at some place has a match of all but its first symbol, which ends there too: so the end never
    moves back. A longer substring occurs first no earlier than a shorter one with the same start: so the search for it
    goes on from there.
    """
    lengths, end = [], 0
    for start in range(len(sample)):
        end, place = max(end, start), 0
        while end < len(sample) and (place := text.find(sample[start : end + 1], place)) >= 0:
            end += 1
        lengths.append(end - start)
    return lengths


def _passages(lengths: NDArray[np.int64], sample: AnyStr, text: AnyStr, most: int) -> list[Passage]:
    """The longest matches that overlap none of the longer ones; of equal ones the first."""
    found: list[Passage] = []
    taken = np.zeros(len(lengths), np.bool_)
    for start in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[start])
        if length == 0 or len(found) == most:
            break
        if not taken[start : start + length].any():
            taken[start : start + length] = True
            found.append(Passage(start, length, text.find(sample[start : start + length])))
    return found
