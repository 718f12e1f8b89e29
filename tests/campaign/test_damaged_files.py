"""Damaged model files and checkpoints: cut off anywhere, or changed at random, also with a valid checksum."""

import hashlib
import re

import pytest
from damage import damaged
from harness import Outcome, each, part, require
from memory import IS_KNOWN, bounded_memory
from saves import FORMATS, Save
from subjects import KINDS

from fastlstm.errors import ModelFileError

#: Files that are damaged in one trial.
BATCH = 500
#: Where damage begins: in the length of the header, in the header, in the tensors (most of a real file), anywhere.
REGIONS = ("length", "header", "tensors", "tensors", "anywhere")
#: Memory for reading a file: a multiple of its size, and what allocators take at a time.
MEMORY_PER_BYTE, SPARE_MEMORY = 40, 8 << 20
_CHECKSUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class Subject:
    """The file to be damaged in a trial, of each format in turn."""

    def __init__(self, trial):
        name = list(FORMATS)[trial.number % len(FORMATS)]
        self._format, self._folder = FORMATS[name], trial.folder
        self.content = Save(name, trial.number // len(FORMATS) % len(KINDS)).new

    def read(self, content, what):
        """Read a file in bounded memory; returns whether it was refused, which must be by one clear line."""
        path = self._folder / self._format.file_name
        path.write_bytes(content)
        try:
            with bounded_memory(SPARE_MEMORY + MEMORY_PER_BYTE * len(content)):
                self._format.read(path)
        except ModelFileError as error:
            clear = "\n" not in str(error) and path.name in str(error) and ": " in str(error)
            require(clear, Outcome.WRONG, f"unclear, {what}: {error}")
            require("not fit into memory" not in str(error), Outcome.WRONG, f"it takes too much memory, {what}")
            return Outcome.REFUSED
        return Outcome.HELD

    def require_refused(self, content, what):
        require(self.read(content, what) is Outcome.REFUSED, Outcome.WRONG, f"it is read, {what}")
        return Outcome.REFUSED


@part("truncated files", full=len(FORMATS) * len(KINDS), small=len(FORMATS), seconds=120)
def test_a_file_cut_off_anywhere_is_refused(trials):
    """Every length of a model file and of a checkpoint gives one clear error; the default suite tries some."""
    trials.run(truncate)


def truncate(trial):
    subject = Subject(trial)
    whole = subject.content
    lengths = range(0, len(whole), 1 if trial.part.is_full else 13)
    return each(lambda length: subject.require_refused(whole[:length], f"cut off at {length}"), lengths)


@part("damaged files", full=len(FORMATS) * 100_000 // BATCH, small=len(FORMATS), seconds=120)
def test_a_damaged_file_is_refused(trials):
    """A file that differs in a single bit from the saved one gives one clear error. With a checksum that fits, as only
    malice would give it, it may be read, if it is valid.
    """
    trials.run(damage)


def damage(trial):
    subject, rng = Subject(trial), trial.generator()
    whole = subject.content
    header_end = 8 + int.from_bytes(whole[:8], "little")
    bounds = {"length": (0, 8), "header": (8, header_end), "tensors": (header_end, len(whole))}

    def damage_at(case):
        start, stop = bounds.get(REGIONS[case % len(REGIONS)], (0, len(whole)))
        content = damaged(whole, rng, start, stop)
        if case % 2:
            return subject.read(sealed(content), f"case {case}")
        return subject.require_refused(content, f"case {case}")

    return each(damage_at, range(BATCH))


def sealed(content):
    """A file with the checksum of its content, if it has a place for one."""
    found = _CHECKSUM.search(content)
    if found is None:
        return content
    before, after = content[: found.start(1)], content[found.end(1) :]
    return before + hashlib.sha256(before + b"0" * 64 + after).hexdigest().encode() + after


@pytest.mark.skipif(not IS_KNOWN, reason="the system does not report the memory of a process")
def test_more_memory_than_allowed_is_found():
    with bounded_memory(SPARE_MEMORY), pytest.raises(MemoryError):
        bytearray(2 * SPARE_MEMORY)
    bytearray(2 * SPARE_MEMORY)


def test_a_sealed_file_is_not_refused_for_its_checksum(tmp_path):
    for name, file_format in FORMATS.items():
        content = Save(name).new
        assert sealed(content) == content
        changed = content[:-1] + bytes([content[-1] ^ 1])
        path = tmp_path / file_format.file_name
        path.write_bytes(changed)
        with pytest.raises(ModelFileError, match="checksum"):
            file_format.read(path)
        path.write_bytes(sealed(changed))
        file_format.read(path)
