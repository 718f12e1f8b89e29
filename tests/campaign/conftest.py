"""Options of the reliability campaign, the fixtures of its tests, and the table of its results."""

import json
import math
from pathlib import Path

import pytest
from harness import Part, Pool, Tally, Trials


def pytest_addoption(parser):
    group = parser.getgroup("campaign", "reliability campaign (-m campaign tests/campaign)")
    group.addoption("--campaign-seed", type=int, default=0, metavar="N", help="seed of all trials (default: 0)")
    group.addoption(
        "--campaign-scale", type=float, default=1.0, metavar="X", help="factor on the number of trials (default: 1.0)"
    )
    group.addoption("--campaign-counts", type=Path, metavar="FILE", help="write the counts of the parts to a JSON file")
    group.addoption("--campaign-trial", type=int, metavar="N", help="make only trial N of each part")


_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config):
    config.stash[_TALLY] = Tally()


@pytest.fixture(scope="session")
def pool():
    """The processes that run the trials."""
    made = Pool()
    yield made
    made.stop()


@pytest.fixture
def trials(request, pool):
    """The trials of the part that the test is marked with."""
    part, config = request.param, request.config
    tally = config.stash[_TALLY] if part.is_full else Tally()
    return Trials(part, config.getoption("campaign_seed", 0), _numbers(part, config), pool, tally, _say(config))


def _numbers(part: Part, config) -> range:
    if not part.is_full:
        return range(part.count)
    if (only := config.getoption("campaign_trial", None)) is not None:
        return range(only, only + 1)
    return range(math.ceil(part.count * config.getoption("campaign_scale", 1.0)))


def _say(config):
    """A function that writes a line to the terminal while a test, whose output is captured, runs."""
    reporter, capture = map(config.pluginmanager.get_plugin, ("terminalreporter", "capturemanager"))

    def say(line):
        with capture.global_and_fixture_disabled():
            reporter.write_line(line, flush=True)

    return say


def pytest_unconfigure(config):
    """Print the table, the last lines of a campaign, and write the counts."""
    tally = config.stash.get(_TALLY, None)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if tally and tally.counts and reporter:
        for line in ["", *tally.lines()]:
            reporter.write_line(line)
    if tally and (file := config.getoption("campaign_counts", None)):
        file.write_text(json.dumps(tally.finished()))
