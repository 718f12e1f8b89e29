"""The curve of a loss: bounded, in proportion, with characters of the terminal."""

import math

import pytest

from fastlstm.curve import ASCII, BRAILLE, MOST_POINTS, Curve, draw, limits


def curve_of(losses, every=1):
    curve = Curve()
    for n, nats in enumerate(losses):
        curve.add(n * every, nats)
    return curve


def test_the_memory_of_a_long_run_is_bounded():
    curve, most = Curve(), 0
    for step in range(50_000):
        curve.add(step, 1 + step / 50_000)
        if step % 100 == 0:
            most = max(most, len(curve.points))
    assert MOST_POINTS / 2 <= len(curve.points) <= most <= MOST_POINTS
    for step, nats in curve.points:  # each point is the mean of its part of the run
        assert nats == pytest.approx(1 + step / 50_000)
    gaps = [after[0] - before[0] for before, after in zip(curve.points, curve.points[1:], strict=False)]
    assert max(gaps[:-1]) < 2 * min(gaps[:-1])


def test_the_same_step_is_one_point():
    curve = Curve()
    for _ in range(5):
        curve.add(3, 1.0)
    assert curve.points == [(3, 1)]


def test_what_was_undone_is_dropped():
    curve = curve_of(range(10), every=10)
    curve.go_back(45)
    assert curve.points == [(0, 0), (10, 1), (20, 2), (30, 3), (40, 4)]
    curve.add(46, 7.0)
    assert curve.points[-1] == (46, 7)


def test_losses_that_are_not_finite_are_left_out():
    curve = curve_of([1.0, math.nan, math.inf, 2.0])
    assert curve.points == [(0, 1), (3, 2)]


def test_a_straight_fall_is_a_diagonal():
    points = curve_of([4.0, 3.0, 2.0, 1.0]).points
    assert draw(points, [], (1.0, 4.0), 4, 2, ASCII) == ["'.  ", "  '."]
    assert draw(points, [], (1.0, 4.0), 2, 1, BRAILLE) == ["⠑⢄"]


def test_a_jump_is_drawn_through():
    points = [(0, 4.0), (49, 4.0), (51, 1.0), (100, 1.0)]
    column = [line[5] for line in draw(points, [], (1.0, 4.0), 10, 4, ASCII)]
    assert column == [".", ":", ":", ":"]


def test_losses_above_the_top_are_not_drawn():
    points = [(0, 9.0), (49, 9.0), (51, 1.0), (100, 1.0)]
    assert [line[:4] for line in draw(points, [], (1.0, 2.0), 10, 4, ASCII)] == [" " * 4] * 4


def test_single_points_are_marked_at_their_place():
    points = [(0, 2.0), (100, 1.0)]
    drawn = draw(points, [(0, 1.0), (100, 2.0)], (1.0, 2.0), 5, 3, ASCII)
    assert drawn[2][0] == drawn[0][4] == "o"


def test_every_drawing_has_its_size():
    for count in (0, 1, 2, 3, 150):
        points = curve_of([3.0] * count).points
        for characters in (ASCII, BRAILLE):
            drawn = draw(points, points[:1], (3.0, 3.0), 7, 3, characters)
            assert [len(line) for line in drawn] == [7, 7, 7]
    assert all(len(draw(curve_of([2.0, 1.0]).points, [], (1.0, 2.0), 1, 1, c)[0]) == 1 for c in (ASCII, BRAILLE))


def test_ascii_is_ascii():
    losses = [math.exp(-n / 10) + 0.1 * math.sin(n) for n in range(100)]
    points = curve_of(losses).points
    assert "".join(draw(points, points[::10], limits(points), 40, 4, ASCII)).isascii()


def test_the_steep_beginning_does_not_set_the_scale():
    losses = [4.0, 3.0] + [2.0 - n / 100 for n in range(98)]
    low, high = limits(curve_of(losses).points, [(50, 2.5)])
    assert (low, high) == (pytest.approx(1.03), 2.5)
    assert limits(curve_of([4.0]).points) == (4, 4)
