"""docs/derivation.md agrees with the reference, in its numbers and names; the HTML page is what is made from it."""

import contextlib
import io
import re
import runpy
import tokenize
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS, REFERENCE = ROOT / "docs", ROOT / "fastlstm" / "reference"
PAGE = (DOCS / "derivation.md").read_text(encoding="utf-8")
#: The sources by path.
SOURCES = {
    path.relative_to(REFERENCE).as_posix(): path.read_text(encoding="utf-8") for path in sorted(REFERENCE.rglob("*.py"))
}
#: The LaTeX of each equation by its number.
EQUATIONS = {number: latex for latex, number in re.findall(r"```math\n(.*?)\\tag\{(\w+)\}\n```", PAGE, flags=re.S)}

#: Equations that no line of the reference computes: the rules of section 1, and those of sections 10 and 11.
TEXT_ONLY = {number for number in EQUATIONS if re.fullmatch(r"A[1-5]|K\d+|V\d+", number)}
#: The files that compute the equations of each part.
FILES = {
    "A": ["functions.py"],
    "N": ["network.py"],
    "T": ["layer.py", "network.py"],
    "R": ["cells/rnn.py", "layer.py"],
    "L": ["cells/lstm.py"],
    "G": ["cells/gru.py", "layer.py"],
    "C": ["layer.py", "network.py", "optimizers.py"],
    "D": ["dropout.py", "network.py"],
}
#: Symbols that the page introduces and the code does not have.
INTRODUCED = {"J", "W_x", "dW_x", "dW_h", "t", "j", "k", "v"}


def numbers(text):
    """The numbers of equations in a text, which stand in parentheses."""
    return re.findall(r"\(([A-Z]\d+)\)", text)


def comments(source):
    """All comments of a source."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return " ".join(token.string for token in tokens if token.type == tokenize.COMMENT)


def code(number):
    """The sources of the files that compute an equation."""
    return "\n".join(SOURCES[path] for path in FILES[number[0]])


def words(directory):
    """All words of the sources in a directory."""
    sources = (path.read_text(encoding="utf-8") for path in directory.rglob("*.py"))
    return {word for source in sources for word in re.findall(r"\w+", source)}


def symbols(latex):
    r"""The names in a formula: letters and ``\mathit{...}``; a subscript belongs to the name."""
    latex = re.sub(r"\\(?:text|begin|end)\{[^}]*\}|\\(?!mathit\b)[a-zA-Z]+", " ", latex)
    name = r"(?:\\mathit\{([\w.]+)\}|([a-zA-Z]))"
    pattern = rf"{name}(?:_(?:\{{\\mathit\{{(\w+)\}}\}}|([a-zA-Z])))?"
    return {"_".join(part for part in found if part) for found in re.findall(pattern, latex)}


def test_the_equations_of_each_part_are_numbered_without_gaps():
    assert len(EQUATIONS) == PAGE.count("```math") == PAGE.count(r"\tag{")
    for part, of_part in groupby(EQUATIONS, key=lambda number: number[0]):
        found = list(of_part)
        assert found == [f"{part}{n + 1}" for n in range(len(found))]


def test_every_equation_is_named_in_a_comment_where_it_is_computed():
    computed = EQUATIONS.keys() - TEXT_ONLY
    assert {number for number in computed if number not in numbers(comments(code(number)))} == set()


def test_every_number_in_the_reference_and_on_the_page_is_an_equation():
    for text in (PAGE, *SOURCES.values()):
        assert set(numbers(text)) - EQUATIONS.keys() == set()


def test_every_symbol_of_an_equation_is_a_name_where_it_is_computed():
    found = {number: symbols(EQUATIONS[number]) for number in EQUATIONS.keys() - TEXT_ONLY}
    assert all(found.values())
    unknown = {
        (number, name)
        for number, names in found.items()
        for name in names - INTRODUCED
        if not re.search(rf"\b{re.escape(name)}\b", code(number))
    }
    assert unknown == set()


def test_every_name_in_the_text_is_in_the_code():
    derivation, kernels = PAGE.split("\n## 10. ")
    for text, directory in ((derivation, REFERENCE), (kernels, REFERENCE.with_name("kernels"))):
        names = set(re.findall(r"(?<!`)`([a-zA-Z_]\w*)`", text))
        assert len(names) > 10
        assert names - words(directory) == set()


def test_files_that_the_page_names_exist():
    paths = re.findall(r"`((?:fastlstm|tests)/[\w/.]+)`", PAGE)
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_example_prints_a_gradient_and_its_difference_which_agree():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(example, {})
    # Six digits are printed. The difference is off by 1e-10 or so: the squared step, and the roundings of J over it.
    gradient, difference = printed.getvalue().split()
    assert float(gradient) != 0
    assert abs(float(gradient) - float(difference)) <= 1.5e-6


def test_the_html_page_is_what_the_script_makes():
    """If not: ``python docs/render.py``."""
    render = runpy.run_path(str(DOCS / "render.py"))
    made = render["page"](PAGE, (DOCS / "derivation.css").read_text(encoding="utf-8"))
    assert made == (DOCS / "derivation.html").read_text(encoding="utf-8")


def test_the_html_page_has_every_equation_and_loads_nothing():
    html = (DOCS / "derivation.html").read_text(encoding="utf-8")
    assert re.findall(r'<div class="equation" id="(\w+)">', html) == list(EQUATIONS)
    assert "```" not in html
    assert "$" not in html
    assert re.findall(r"<script|<link|<img|src=|url\(|@import|merror", html) == []
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
