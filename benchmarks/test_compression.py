"""The benchmark of compression: its results, and its table."""

import bz2

import pytest

from benchmarks.compression import RECORDED, TEXT, markdown, measured, name_of

PROGRAM = {"name": "fastlstm", "bytes": 250_000, "compress_seconds": 40.04, "decompress_seconds": 50.0}
RESULT = {
    "text": TEXT, "bytes": 1_000_000, "cpu": "a processor", "threads": 2, "version": "1", "programs": [PROGRAM],
}  # fmt: skip


def test_the_table_is_sorted_by_size_and_has_the_recorded_programs_of_the_usual_text():
    lines = markdown(RESULT).splitlines()
    assert lines[0].startswith("(tinyshakespeare, 1,000,000 bytes; a processor, 2 threads, fastlstm 1; lstm-compress")
    assert lines[4] == "| fastlstm | 250,000 | 2.000 | 40.0 | 50.0 |"
    assert len(lines) == 5 + len(RECORDED)
    assert "lstm-compress" not in markdown(RESULT | {"text": "other"})


def test_a_program_must_give_the_text_back():
    found = measured("bzip2", b"a" * 1000, bz2.compress, bz2.decompress)
    assert found["bytes"] == len(bz2.compress(b"a" * 1000))
    with pytest.raises(SystemExit, match="broken does not give the text back"):
        measured("broken", b"abc", bytes, lambda packed: b"")


def test_a_text_has_the_name_of_its_file(tmp_path):
    assert name_of(b"abc", tmp_path / "other.txt") == "other.txt"
    assert name_of(b"abc", None) == TEXT
