"""The component that colours a text by the units of networks."""

import base64
import html
import json
import re

import numpy as np
import pytest
from documents import Elements, assert_self_contained

from fastlstm.cells import CELLS
from fastlstm.exhibits.activations import Activations
from fastlstm.pages import cells as component
from fastlstm.pages.cells import LEVELS, STRONGEST, cells
from fastlstm.pages.page import THEME, Section, render

HOSTILE = "</script><script>alert('&')</script>\n<img src=x>\x1b[2J\u202e\r\ud800 A"


def activations(cell, text, rng, *, layers=2, hidden=3):
    """Made-up activations of a network over a text."""
    structure, size = CELLS[cell], (layers, len(text), hidden)
    values = {name: rng.uniform(-1, 1, size).astype(np.float32) for name in structure.state}
    for name in structure.gates if structure.keeps_gates else ():
        values[name] = rng.uniform(-1 if name in structure.tanh_gates else 0, 1, size).astype(np.float32)
    nats = rng.uniform(0, 4, len(text))
    nats[0] = np.nan
    return Activations(text, np.zeros(len(text), np.uint8), nats, values)


def data_of(markup):
    return json.loads(re.search(r'class="cells-data">(.*?)</script>', markup, re.DOTALL).group(1))


def decoded(text):
    return np.frombuffer(base64.b64decode(text), np.int8) / 127


def shown_in(markup):
    """The text of each panel."""
    panels = re.findall(r'<p class="cells-text">(.*?)</p>', markup, re.DOTALL)
    return [html.unescape(re.sub(r"</?span[^<>]*>", "", panel)) for panel in panels]


@pytest.mark.parametrize("cell", CELLS)
def test_the_stored_values_are_those_of_the_units(cell, rng):
    given = activations(cell, "Ab cd,\nef", rng)
    (network,) = data_of(cells({cell: given}))["networks"]
    by_label = {one["label"]: one for one in network["quantities"]}
    for name, values in given.values.items():
        is_state, is_tanh = name in CELLS[cell].state, name in CELLS[cell].tanh_gates
        label = f"candidate {name}" if is_tanh else f"gate {name}"
        if is_state:
            label = "h" if name == "h" else f"tanh({name})"
        one = by_label.pop(label)
        expected = values if name == "h" or is_tanh else np.tanh(values) if is_state else 2 * values - 1
        for layer, units in enumerate(network["units"]):
            assert sorted(units) == [0, 1, 2]
            stored = decoded(one["layers"][layer]).reshape(3, -1)
            assert stored == pytest.approx(expected[layer, :, units], abs=0.5 / 127 + 1e-6)  # half of a step of 8 bits
        assert tuple(one["range"]) == ((-1, 1) if is_state or is_tanh else (0, 1))
    bits = 8 * decoded(by_label.pop("surprise in bits")["values"])
    assert bits[1:] == pytest.approx(np.minimum(given.nats[1:] / np.log(2), 8), abs=4 / 127 + 1e-6)
    assert bits[0] == 0
    assert by_label == {}


def test_units_that_follow_a_property_come_first_and_are_panels(rng):
    text = "one two\nthree four\n" * 6
    given = activations("rnn", text, rng, layers=1, hidden=9)
    place = np.array([len(text[:n].rpartition("\n")[2]) for n in range(1, len(text) + 1)])
    given.values["h"][0, :, 7] = 0.9 - place / 15
    markup = cells({"rnn": given})
    (network,) = data_of(markup)["networks"]
    assert network["units"][0][0] == 7
    assert re.findall(r"<h3>(.*?) <span class=\"about\">(.*?)</span>", markup)[0] == (
        "Unit 7",
        "h; the position in the line explains 100\N{NO-BREAK SPACE}% of it",
    )
    assert all(shown == text.replace("\n", "↵\n") for shown in shown_in(markup))


def test_several_networks_share_a_component(rng):
    text = "Ab cd,\nef"
    markup = cells({name: activations(name, text, rng) for name in ("rnn", "lstm")})
    assert [one["name"] for one in data_of(markup)["networks"]] == ["RNN", "LSTM"]
    assert {title.partition(",")[0] for title in re.findall(r"<h3>(.*?) <span", markup)} == {"RNN", "LSTM"}
    with pytest.raises(ValueError, match="same text"):
        cells({"rnn": activations("rnn", text, rng), "lstm": activations("lstm", text[1:], rng)})


def test_a_hostile_text_is_escaped_and_shown_without_control_characters(rng):
    document = render("t", "l", [Section("s", "s", html=cells({"gru": activations("gru", HOSTILE, rng)}))], {})
    assert_self_contained(document)
    tags = [tag for tag, _, _ in Elements(document).attributes]
    assert "img" not in tags
    assert document.count("<script") == 2
    shown = "".join(data_of(document)["symbols"])
    assert shown == HOSTILE.replace("\n", "↵\n").replace("\r", "␍").replace("\x1b", "�").replace("\u202e", "�").replace(
        "\ud800", "�"
    )
    document.encode()  # it has no lone surrogate


def test_a_byte_shows_the_character_that_it_ends(rng):
    assert data_of(cells({"rnn": activations("rnn", "aé\n".encode() + b"\xff", rng)}))["symbols"] == [
        "a", "·", "é", "↵\n", "�",
    ]  # fmt: skip


def test_a_text_without_any_property_has_no_panels(rng):
    markup = cells({"rnn": activations("rnn", "7", rng)})
    assert shown_in(markup) == []
    assert data_of(markup)["symbols"] == ["7"]


def test_of_a_large_network_the_first_units_are_stored_and_the_page_says_so(rng, monkeypatch):
    given = activations("rnn", "Ab cd,\nef" * 4, rng, layers=1, hidden=50)
    monkeypatch.setattr(component, "_MOST_BYTES", 36 * 20 * 4 // 3)
    markup = cells({"rnn": given})
    (network,) = data_of(markup)["networks"]
    assert len(network["units"][0]) == 20
    assert len(decoded(network["quantities"][0]["layers"][0])) == 20 * 36
    assert "Of the 50 units of each layer of the RNN, 20 can be chosen." in markup


def test_500_symbols_of_an_lstm_of_128_units_take_less_than_a_megabyte(rng):
    text = "Ab cd,\nef " * 50
    markup = cells({"lstm": activations("lstm", text, rng, layers=1, hidden=128)})
    assert len(data_of(markup)["networks"][0]["units"][0]) == 128
    assert len(markup) < 1e6


def luminance(colour):
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("shade", ["light", "dark"])
@pytest.mark.parametrize("colour", ["low", "high"])
def test_text_on_the_strongest_colour_stays_legible(colour, shade):
    ink, ground, strongest = (
        np.array([int(getattr(THEME[name], shade)[n : n + 2], 16) / 255 for n in (1, 3, 5)])
        for name in ("ink", "raised", colour)
    )
    mixed = STRONGEST / 100 * strongest + (1 - STRONGEST / 100) * ground
    light, dark = sorted([luminance(ink), luminance(mixed)], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # the contrast that WCAG 2 demands of text


def test_each_level_has_a_colour(rng):
    markup = cells({"rnn": activations("rnn", "ab", rng)})
    for level in range(1, LEVELS + 1):
        assert f".cells .n{level} {{" in markup
        assert f".cells .p{level} {{" in markup
