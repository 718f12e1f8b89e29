"""The results of the campaign: kept in a file, part by part, and shown as the table of docs/reliability.md."""

import datetime
import json
import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

import fastlstm
from benchmarks.peers import cpu_name
from benchmarks.table import rows

ROOT = Path(__file__).parents[2]
#: The file of the results, and the name of the marks in the page that enclose the table.
FILE, MARKS = Path(__file__).with_name("results.json"), "reliability"
#: The page that has the table.
PAGE = ROOT / "docs" / "reliability.md"


class Promise(NamedTuple):
    """A row of the table: what is promised, how it is tried, and the names of the parts that try it."""

    promise: str
    how: str
    parts: tuple[str, ...]


PROMISES = (
    Promise(
        "a killed run loses the steps since its last save, never a file",
        "SIGKILL at random instants, and at each call of a save",
        ("kills and resumes", "kills of runs", "killed saves"),
    ),
    Promise(
        "after a power failure there is a whole file, the old or the new one",
        "a simulated disk that drops, tears or reorders what was not synced",
        ("power losses",),
    ),
    Promise(
        "a resumed run ends with the bytes of one that never stopped",
        "runs stopped at any step, and many times",
        ("resume points",),
    ),
    Promise(
        "looking at a run or saving it changes no bit",
        "validation, samples, saves, observers at random steps",
        ("runs that are looked at",),
    ),
    Promise(
        "same seed, same machine, same bits",
        "1, 2 and 4 threads, repetitions, cold and warm compile cache, Ctrl-Z",
        ("threads and repetitions", "runs that share an empty cache", "stopped and continued runs"),
    ),
    Promise(
        "NaN and infinity are seen within a step and named; saved models are finite",
        "injected into state, gradient, parameter, optimizer slot",
        ("numbers that are not finite",),
    ),
    Promise(
        "a damaged or malicious file is one clear line, in memory bounded by its size",
        "cut off anywhere, random damage, files made by hand",
        ("truncated files", "damaged files", "hostile files"),
    ),
    Promise(
        "a bad text is one line that says what to do, or works",
        "empty, binary, broken, wide, unreadable, no file at all, ...",
        ("bad texts",),
    ),
    Promise(
        "a full or read-only disk costs no model and leaves no stray file",
        "an error at each call of a save, small disks, unusable folders",
        ("failing saves", "full disks", "runs on full disks", "runs that cannot save", "unusable folders"),
    ),
    Promise(
        "Ctrl-C, SIGTERM, a closed terminal: saved within a step, the usual status",
        "one or two signals at random instants",
        ("signals to runs",),
    ),
    Promise(
        "an unusable compile cache costs a compilation, nothing else",
        "damaged, read-only, shared by four processes",
        ("damaged caches", "damaged caches of real kernels", "caches shared by four", "runs that share an empty cache"),
    ),
    Promise(
        "two runs never share a folder; a dead one does not block it",
        "processes and runs that start together, killed owners",
        ("races for a lock", "locks that change hands", "runs that race for a folder"),
    ),
    Promise(
        "memory does not grow with steps, and with the text only by the size of its ids",
        "25,000 steps of each use; a text of 1 GB",
        ("25,000 steps without growth", "a text of 1 GB"),
    ),
    Promise(
        "any file comes back from compress and decompress; a damaged archive is one clear line",
        "empty, random, repeated, UTF-8, binary; changed and cut off anywhere, also with a right checksum",
        ("compressed files", "damaged archives"),
    ),
    Promise(
        "any other use gives its result or one clear error",
        "strange arguments; errors and signals at any line; threads, forks, copies",
        (
            "command lines", "misuse of the interface", "exceptions", "signals in calls", "threads of the caller",
            "forks", "copies that train on", "process pools",
        ),
    ),
)  # fmt: skip


def read(file=FILE):
    """The entry of each part that has been run, by its name."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def add(counts, conditions, file=FILE):
    """Add the counts of the parts that have been run; those of other parts stay, with their older conditions.

    Parameters
    ----------
    counts : `Tally.finished`.
    conditions : `about`, and the options of the campaign.
    """
    entries = read(file) | {name: found | conditions for name, found in counts.items()}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(entries.items()))
    file.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    return entries


def about():
    """When, of what and where results are."""
    return {
        "date": datetime.date.today().isoformat(),
        "version": fastlstm.__version__,
        "commit": _commit(),
        "cpu": cpu_name(),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
    }


def _commit():
    """The commit that is checked out, marked if the package was changed since; ``None`` if there is none."""
    try:
        commit, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "fastlstm")
    except OSError:
        return None
    return f"{commit}-dirty" if commit and changed else commit or None


def _git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def table(entries):
    """The table of the promises, in Markdown, with a line about the conditions."""
    lines = [["promise", "tried by", "times", "held"]]
    for promise, how, parts in PROMISES:
        found = [entries[name] for name in parts if name in entries]
        tried = sum(entry["tried"] for entry in found)
        held = sum(entry["held"] + entry["refused"] for entry in found)
        lines.append([promise, how, *(f"{count:,}" if found else "" for count in (tried, held))])
    return f"{_conditions(entries)}\n\n{rows(lines, words=2)}"


def _conditions(entries):
    used = [entries[name] for promise in PROMISES for name in promise.parts if name in entries]
    machines = dict.fromkeys(f"{entry['cpu']}, {entry['system']}, Python {entry['python']}" for entry in used)
    dates = sorted(entry["date"] for entry in used)
    between = " to ".join(dict.fromkeys([*dates[:1], *dates[-1:]]))
    return f"({'; '.join([*machines, between])})"
