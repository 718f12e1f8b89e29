"""Lines as they are shown: of a long one, the part in which the surprising place is."""

import numpy as np
import pytest
from rich.cells import cell_len

from fastlstm.scoring import ScoredLine
from fastlstm.surprise import ranked


@pytest.mark.parametrize("others", ["a", "日", "é日b"])
@pytest.mark.parametrize("place", [0, 1, 20, 150, 289, 298, 299])
@pytest.mark.parametrize("columns", [10, 60, 61])
def test_a_long_line_is_cut_to_the_terminal_and_its_place_is_seen_and_marked(others, place, columns):
    text, nats = (others * 300)[:300], np.zeros(300)
    text, nats[place] = text[:place] + "X" + text[place + 1 :], 9.0
    _, shown, mark = ranked([("", ScoredLine(1, text, nats))], columns=columns, colour=False)
    before, place_and_after = shown[:-1].split("X")
    assert cell_len(shown[:-1]) <= max(columns, 24)
    # At most three columns are lost: a wide character does not fit, and two are replaced by the narrower mark.
    assert cell_len(shown[:-1]) >= max(columns, 24) - 3
    assert mark == " " * cell_len(before) + "^\n"
    assert (before[4:5] == "…") == (before[4:] != text[:place])
    assert (place_and_after[-1:] == "…") == (place_and_after != text[place + 1 :])


def test_a_line_that_fits_is_shown_whole():
    (_, shown, mark) = ranked([("", ScoredLine(1, "a" * 55 + "X", np.arange(56.0)))], columns=60, colour=False)
    assert (shown, mark) == ("    " + "a" * 55 + "X\n", " " * 59 + "^\n")
