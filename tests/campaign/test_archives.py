"""Compressed files: files of all kinds come back, and damaged archives are refused."""

import functools
import hashlib
import sys
from pathlib import Path

from damage import damaged
from harness import Outcome, each, part, require
from subjects import TEXT, fresh_model

import fastlstm
from fastlstm.archive import compress, decompress
from fastlstm.errors import ArchiveError, ConfigError

#: Files, or damaged archives, of one trial.
BATCH = 50
#: Longest file, in bytes.
LONGEST = 3000
#: Settings of new models: quick ones.
QUICK = {"shape": {"hidden": 8, "embedding": 4}, "learning": {"seq_len": 8, "lanes": 3, "replay": 2, "lr": 0.02}}
#: Ways to compress: the number of a model in `subjects.KINDS`, if one is given, and further arguments.
WAYS = (
    (None, QUICK),
    (None, {"shape": {"cell": "gru", "layers": 2, **QUICK["shape"]}, "learning": {"lanes": 1}}),
    (None, {"shape": QUICK["shape"]}),
    (0, {}),
    (1, {"dynamic": True}),
    (4, {"learning": {"lanes": 5}}),
    (3, {"dynamic": True, "learning": {"replay": 3, "lanes": 2}}),
)


def empty(rng):
    return b""


def one_byte(rng):
    return rng.bytes(1)


def random_bytes(rng):
    return rng.bytes(int(rng.integers(1, LONGEST)))


def repeated(rng):
    return (rng.bytes(int(rng.integers(1, 20))) * LONGEST)[: int(rng.integers(1, LONGEST))]


def characters(rng):
    """UTF-8 of characters of several scripts, and sometimes a byte that is not UTF-8."""
    codes = rng.choice([32, 97, 0xE9, 0x3B1, 0x4E2D, 0x1F600, 0x10FFFF], int(rng.integers(1, LONGEST // 4)))
    broken = rng.bytes(1) if rng.random() < 0.3 else b""
    return "".join(map(chr, codes)).encode() + broken + "é".encode("utf-16")


def part_of_a_file(path, rng):
    content = _content(path)
    start = int(rng.integers(len(content)))
    return content[start : start + int(rng.integers(1, LONGEST))]


def source(rng):
    return part_of_a_file(Path(fastlstm.__file__).with_name("text.py"), rng)


def program(rng):
    return part_of_a_file(Path(sys.executable), rng)


def known_text(rng):
    return TEXT.encode()[int(rng.integers(len(TEXT))) :]


FILES = (empty, one_byte, random_bytes, repeated, characters, source, program, known_text)


@functools.cache
def _content(path):
    return path.read_bytes()


@functools.cache
def model(kind):
    return None if kind is None else fresh_model(kind).content


@part("compressed files", full=2000 // BATCH, small=1, seconds=600)
def test_every_file_comes_back(trials):
    """2,000 files: empty, a byte, random, repeated, UTF-8, sources, programs, under new and given models."""
    trials.run(there_and_back)


def there_and_back(trial):
    rng = trial.generator()

    def attempt(case):
        make, (kind, how) = FILES[case % len(FILES)], WAYS[int(rng.integers(len(WAYS)))]
        data, threads = make(rng), int(rng.integers(1, 3))
        packed = compress(data, model(kind), threads=threads, **how)
        require(len(packed) <= len(data) + 66, Outcome.WRONG, f"{make.__name__}: {len(data)} bytes are {len(packed)}")
        back = decompress(packed, model(kind), threads=3 - threads)
        require(back == data, Outcome.WRONG, f"{make.__name__} does not come back: {data[:50]!r}, {kind}, {how}")

    return each(attempt, range(BATCH if trial.part.is_full else len(FILES)))


@part("damaged archives", full=5000 // BATCH, small=1, seconds=600)
def test_every_damaged_archive_is_refused(trials):
    """5,000 archives: changed bits, lost or added bytes; with a checksum that fits, as only malice would give it, one
    is refused or gives the very file.
    """
    trials.run(damage)


def damage(trial):
    rng = trial.generator()
    kind, how = WAYS[trial.number % len(WAYS)]
    data = (TEXT.encode() if trial.number % 2 else source(rng)) or TEXT.encode()
    whole = compress(data, model(kind), **how)

    def attempt(case):
        content, is_sealed = damaged(whole, rng, 8 if case % 4 == 3 else 0), case % 4 == 3
        try:
            back = decompress(sealed(content) if is_sealed else content, model(kind))
        except (ArchiveError, ConfigError) as error:
            clear = "\n" not in str(error) and ": " in str(error)
            require(clear, Outcome.WRONG, f"unclear: {error}")
            return Outcome.REFUSED
        require(is_sealed and back == data, Outcome.WRONG, f"case {case} is read")
        return Outcome.HELD

    return each(attempt, range(BATCH))


def sealed(content):
    """An archive with the checksum of its content."""
    return content[:10] + hashlib.sha256(content[:10] + content[26:]).digest()[:16] + content[26:]
