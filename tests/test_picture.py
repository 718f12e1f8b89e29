"""A picture at the end of a terminal's output: redrawn in place, below what is printed meanwhile."""

import sys

import pytest
from rich.segment import Segment
from screens import Screen

from fastlstm.picture import Picture


@pytest.fixture
def screen():
    return Screen(20, 8)


def lines(*texts):
    return [[Segment(text)] for text in texts]


def test_a_picture_replaces_the_last_one(screen):
    with Picture(screen.console) as picture:
        picture.draw(lines("first line", "second line", "third line"))
        picture.draw(lines("1", "2" * 20, "3", "4"))
        assert screen.text == "\n".join(["1", "2" * 20, "3", "4"])
        picture.draw(lines("a", "b"))
    assert screen.text == "a\nb\n"


def test_what_is_printed_goes_above_the_picture(screen, monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    with Picture(screen.console) as picture:
        picture.draw(lines("a picture", "of two lines"))
        picture.console.print("printed")
        print("a warning", file=sys.stderr)
        print("more")
        assert screen.text == "printed\na warning\nmore\na picture\nof two lines"
    assert sys.stdout is screen
    assert sys.stderr is screen


def test_what_is_typed_is_written_over(screen):
    with Picture(screen.console) as picture:
        picture.draw(lines("a picture", "x" * 20))
        screen.write("typed")  # as a terminal shows it
        picture.draw(lines("a picture", "x" * 20))
        assert screen.text == "a picture\n" + "x" * 20


def test_messages_to_a_file_stay_in_the_file(screen, monkeypatch, tmp_path):
    with open(tmp_path / "log", "w+") as file:
        monkeypatch.setattr(sys, "stderr", file)
        with Picture(screen.console):
            print("a warning", file=sys.stderr)
        file.seek(0)
        assert file.read() == "a warning\n"
    assert screen.text == ""


@pytest.mark.parametrize("width", [19, 10, 7, 1])
def test_a_narrower_terminal_keeps_no_pieces_of_the_picture(screen, width):
    console = screen.console
    with Picture(console) as picture:
        console.print("before")
        picture.draw(lines("x" * 20, "xx", "x" * 12))
        screen.height = 80  # all of the broken lines can be reached
        screen.narrow(console, width)
        picture.draw(lines("y", "z"))
        assert screen.text.endswith("\ny\nz")
        assert "x" not in screen.text


def test_the_terminal_is_as_before_at_the_end(screen):
    with Picture(screen.console) as picture:
        picture.draw(lines("a" * 30, "b"))  # wider than the terminal: not broken
        assert screen.text == "a" * 20 + "\nb"
    assert screen.wraps
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


def test_an_unused_picture_leaves_nothing(screen):
    with Picture(screen.console):
        pass
    assert screen.text == ""
