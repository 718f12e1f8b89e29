"""Pages: self-contained, escaped, with figures in the colours of the page."""

import re

import pytest
from documents import assert_self_contained
from markupsafe import Markup

from fastlstm.pages.figures import COLOURS, LINE_STYLES, draw, power_of_ten
from fastlstm.pages.page import MARK, THEME, Section, render


def paint(axes):
    axes.plot([0, 1, 2], [1, 10, 100], color=COLOURS["lstm"], linestyle=LINE_STYLES["lstm"], label="LSTM")
    axes.fill_between([0, 1, 2], [0.5, 5, 50], [2, 20, 200], color=COLOURS["rnn"], alpha=0.2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(power_of_ten)
    axes.set_xlabel("steps & <more>")
    axes.legend()


@pytest.fixture(scope="module")
def figures():
    return tuple(draw(name, f"Title of {name}", 'a "line" & more', "caption", paint) for name in ("one", "two"))


def test_a_page_with_two_figures_is_self_contained_and_its_ids_are_unique(figures):
    document = render("Title", "lead", [Section("Loss", "loss", ("text",), figures)], {"seed": "0"})
    assert_self_contained(document)
    assert MARK in document
    assert document.count("<svg") == 2


def test_text_is_escaped_unless_it_is_markup():
    hostile = "<script>alert('&')</script>"
    section = Section(hostile, "a", (hostile, Markup("<em>kept</em>")), html=hostile)
    document = render(hostile, hostile, [section], {hostile: hostile})
    assert "<script" not in document
    assert "<em>kept</em>" in document


def test_the_same_id_twice_is_an_error(figures):
    with pytest.raises(ValueError, match="more than once"):
        render("Title", "lead", [Section("A", "same"), Section("B", "same")], {})
    with pytest.raises(ValueError, match="more than once"):
        render("Title", "lead", [Section("A", "a", figures=figures), Section("B", "b", figures=figures[:1])], {})


def test_every_colour_of_a_figure_is_one_of_the_page(figures):
    svg = figures[0].svg
    assert "var(--lstm)" in svg
    assert "var(--rnn)" in svg
    assert re.findall(r"#[0-9a-f]{6}\b", svg) == []
    assert len({shade.light for shade in THEME.values()}) == len(THEME)


def test_the_text_of_a_figure_is_text_in_the_font_of_the_page(figures):
    svg = figures[0].svg
    assert "steps &amp; &lt;more&gt;" in svg
    assert "10²" in svg
    assert "DejaVu" not in svg
    assert 'aria-label="a &#34;line&#34; &amp; more"' in svg


def test_a_drawing_gives_the_same_bytes_each_time(figures):
    again = draw("one", "Title of one", 'a "line" & more', "caption", paint)
    assert again == figures[0]
    assert again.png.startswith(b"\x89PNG")
