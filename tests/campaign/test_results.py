"""The record of the campaign, and the table of docs/reliability.md made from it."""

import collections
import re
from pathlib import Path

import pytest
from harness import Outcome, Result, Tally

pytest.importorskip("benchmarks.table", reason="the benchmarks are not beside the tests")
import results

from benchmarks.table import insert

#: Parts that are not promises to users.
INTERNAL = {"mutants"}
ABOUT = {"date": "2026-01-02", "version": "1", "commit": "abc", "cpu": "a processor", "system": "Linux", "python": "3"}


def entry(tried, held, refused, **changes):
    return {"tried": tried, "held": held, "refused": refused, "failed": tried - held - refused} | ABOUT | changes


def test_every_part_belongs_to_a_promise_and_every_promise_has_its_parts():
    sources = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    parts = set(re.findall(r'^@part\("([^"]+)"', sources, re.MULTILINE))
    promised = {name for promise in results.PROMISES for name in promise.parts}
    assert parts - promised == INTERNAL
    assert promised <= parts


def test_a_new_run_of_a_part_replaces_its_entry_and_no_other(tmp_path):
    file = tmp_path / "results.json"
    results.add({"one": {"tried": 1}, "other": {"tried": 2}}, {"date": "old"}, file)
    results.add({"one": {"tried": 3}}, {"date": "new"}, file)
    assert results.read(file) == {"one": {"tried": 3, "date": "new"}, "other": {"tried": 2, "date": "old"}}


def test_a_row_adds_up_its_parts_and_refusing_is_holding():
    name, other = results.PROMISES[0].parts[:2]
    table = results.table({name: entry(1000, 900, 99), other: entry(10, 10, 0, date="2026-03-04")})
    assert f"| {results.PROMISES[0].how} | 1,010 | 1,009 |" in table
    assert f"| {results.PROMISES[1].how} |  |  |" in table
    assert table.startswith("(a processor, Linux, Python 3; 2026-01-02 to 2026-03-04)")


def test_only_parts_that_were_run_to_their_end_are_recorded():
    tally = Tally()
    for outcome in (Outcome.HELD, Outcome.HELD, Outcome.REFUSED, Outcome.WRONG, None):
        tally.add("ended", Result(collections.Counter([outcome])))
    tally.add("interrupted", Result(collections.Counter([Outcome.HELD])))
    tally.seconds["ended"] = 1.23
    numbers = {"tried": 5, "held": 2, "refused": 1, "failed": 1, "undecided": 1, "seconds": 1.2}
    assert tally.finished() == {"ended": numbers}


def test_the_page_has_the_table_of_the_recorded_results():
    """If not: ``python -m tests.campaign --table``."""
    page = results.PAGE.read_text(encoding="utf-8")
    assert insert(page, results.table(results.read()), results.MARKS) == page
