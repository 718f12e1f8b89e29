"""Sources: readable texts are read unchanged, also compressed ones in any encoding, and others reported in one line."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
import tracemalloc
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused

from fastlstm import corpora
from fastlstm.errors import ConfigError, FastlstmError, TextError, VocabularyError
from fastlstm.sources import exists, opened, title
from fastlstm.text import Encoder, Vocab, read_ids, read_text


@pytest.fixture
def write(tmp_path):
    """A function that writes bytes to a new file and returns its path."""

    def write(data, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(data)
        return str(path)

    return write


# Reading


@pytest.mark.parametrize(
    ("data", "text"),
    [
        pytest.param(b"a\r\nb\rc\n", "a\r\nb\rc\n", id="line ends"),
        pytest.param(b"\xef\xbb\xbfab", "ab", id="byte order mark"),
        pytest.param("a\ufeffb".encode(), "a\ufeffb", id="mark within"),
        pytest.param(b"a\0b", "a\0b", id="NUL"),
        pytest.param("é→𝄞".encode(), "é→𝄞", id="beyond ASCII"),
        pytest.param(b"a", "a", id="one character"),
    ],
)
def test_a_file_is_read_unchanged_except_for_a_byte_order_mark(write, data, text):
    path = write(data)
    assert read_text([path]) == text
    assert read_text([path], as_bytes=True) == data


def test_sources_are_joined_in_order_without_their_byte_order_marks(write):
    one, two = write(b"\xef\xbb\xbfone", "1"), write(b"\xef\xbb\xbftwo", "2")
    assert read_text([one, two, one]) == "onetwoone"


def test_a_dash_is_standard_input(write, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\ufeffé\r\n".encode())))
    assert read_text([write(b"a"), "-"]) == "aé\r\n"


def test_closed_standard_input_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    assert_refused(TextError, "standard input is closed", read_text, ["-"])


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"ab\xff", "byte 0xFF at offset 2"),
        (b"\xef\xbb\xbfab\xe9", "byte 0xE9 at offset 5"),
        (b"abc\xe2\x82", "byte 0xE2 at offset 3"),
        (b"a\xed\xa0\x80", "byte 0xED at offset 1"),
    ],
    ids=["Latin-1", "after a mark", "cut short", "surrogate"],
)
def test_the_error_for_text_that_is_not_utf8_names_file_and_offset_and_it_can_be_read_as_bytes(write, data, place):
    path = write(data, "odd\nname.txt")
    for read in (read_text, read_ids):
        message = rf"odd\\nname.txt' is not UTF-8 \({place}\): convert it to UTF-8.*--encoding.*--bytes"
        assert_refused(TextError, message, read, [path])
    assert read_text([path], as_bytes=True) == data


def test_the_error_for_invalid_bytes_names_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x80")))
    assert_refused(TextError, "^standard input is not UTF-8", read_text, ["-"])


@pytest.mark.parametrize("as_bytes", [False, True])
def test_an_empty_text_is_one_line(write, as_bytes):
    assert_refused(TextError, "empty .*text.txt", read_text, [write(b"")], as_bytes=as_bytes)


def test_nothing_but_a_byte_order_mark_is_empty(write):
    assert_refused(TextError, "empty", read_text, [write(b"\xef\xbb\xbf")])


def test_one_empty_source_among_others_is_fine(write):
    assert read_text([write(b"", "1"), write(b"a", "2")]) == "a"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing\n.txt", r"no file .*missing\\n.txt.*name a corpus \(input, pydoc, tinyshakespeare\)"),
        ("", "is a folder"),
        ("nul\0", "cannot be the path"),
        ("lone\ud800", "cannot be the path"),
        ("x" * 5000, "cannot read .*File name too long"),
    ],
)
def test_a_path_without_a_text_is_one_line(tmp_path, name, message):
    assert_refused(TextError, message, read_text, [os.path.join(tmp_path, name)])


def test_an_unreadable_file_is_one_line(write, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = write(b"a")
    monkeypatch.setattr("builtins.open", refuse)  # root may read a file of any mode
    assert_refused(TextError, r"text.txt' \(Permission denied\): check", read_text, [path])


def test_a_corpus_is_read_by_name_and_the_default_one_without_a_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "load", lambda name: f"corpus {name}é".encode())
    assert read_text([]) == "corpus inputé"
    assert read_text(["pydoc"], as_bytes=True) == "corpus pydocé".encode()


def test_an_existing_file_takes_precedence_over_a_corpus_of_its_name_but_a_folder_does_not(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "load", lambda name: b"corpus")
    (tmp_path / "pydoc").write_text("file")
    (tmp_path / "input").mkdir()
    assert read_text(["pydoc"]) == "file"
    assert read_text(["input"]) == "corpus"


def test_reading_a_file_takes_no_more_than_its_bytes_and_its_text(write):
    path = write(b"x" * 8_000_000)
    tracemalloc.start()
    try:
        text = read_text([path])
        left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) == 8_000_000
    assert left < 1.05 * len(text)
    assert peak < 2.05 * len(text)


ENGLISH = "It was a quiet evening, and the tide was out.\n" * 50
RUSSIAN = "Был тихий вечер, и море отступило далеко.\n" * 50


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("width", [16, 32])
@pytest.mark.parametrize("words", [ENGLISH, RUSSIAN, "quietly!"], ids=["English", "Russian", "short"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["no mark", "mark"])
def test_utf16_and_utf32_are_refused_and_not_read_as_nuls(write, words, width, order, mark):
    path = write((mark + words).encode(f"utf-{width}-{order}"))
    for read in (read_text, read_ids):
        assert_refused(
            TextError,
            "text.txt' is not UTF-8 but looks like UTF-16.*convert it.*--encoding utf-16.*--bytes",
            read,
            [path],
        )
    assert len(read_ids([path], as_bytes=True)[1]) == os.path.getsize(path)


@pytest.mark.parametrize(
    "words",
    [
        "a\0b",
        "\0" * 7,
        ENGLISH.replace("\n", "\0"),
        ENGLISH.replace(" ", "\0"),
        ENGLISH + "\0" * 20,
        "four\0" * 500,
    ],
)
def test_a_text_with_some_nuls_is_a_text(write, words):
    assert read_text([write(words.encode())]) == words


# Reading ids


def blocks_of(size):
    """While active, sources are read and decoded in blocks of so many bytes."""
    return mock.patch("fastlstm.sources._BLOCK", size)


def outcome(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except TextError as error:
        return str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for all examples of a test."""
    return tmp_path_factory.mktemp("texts")


@given(texts=st.lists(st.text(), min_size=1, max_size=4), as_bytes=st.booleans(), size=st.integers(1, 30))
def test_ids_of_sources_are_those_of_their_text(folder, texts, as_bytes, size):
    paths = [str(folder / str(number)) for number in range(len(texts))]
    for number, text in enumerate(texts):
        (folder / str(number)).write_bytes(("\ufeff" * (number % 2) + text).encode())
    ref = outcome(read_text, paths, as_bytes=as_bytes)
    with blocks_of(size):
        assert outcome(read_text, paths, as_bytes=as_bytes) == ref
        comp = outcome(read_ids, paths, as_bytes=as_bytes)
        if isinstance(comp, str):
            assert comp == ref
            return
        vocab, ids = comp
        assert vocab == Vocab.from_text(ref)
        assert ids.dtype == vocab.encode(ref).dtype
        assert vocab.decode(ids) == ref
        larger = Vocab(np.arange(256 if as_bytes else 0x110000, dtype=np.uint32), as_bytes)
        same, ids = read_ids(paths, encoder=Encoder(larger))
        assert same is larger
        assert larger.decode(ids) == ref


#: Bytes that begin, continue and break characters of every length.
mostly_utf8 = st.lists(
    st.sampled_from(
        [b"a", "é".encode(), "→".encode(), "🙂".encode(), b"\x80", b"\xc3", b"\xe2\x86", b"\xf0\x9f", b"\xff"]
    )
).map(b"".join)


@given(data=mostly_utf8, size=st.integers(1, 30))
def test_bytes_that_are_not_utf8_are_found_at_the_same_offset_in_blocks_of_any_size(folder, data, size):
    path = folder / "text"
    path.write_bytes(data)
    ref = outcome(read_text, [str(path)])
    with blocks_of(size):
        comp = outcome(read_ids, [str(path)])
    assert (comp if isinstance(comp, str) else comp[0].decode(comp[1])) == ref


def test_ids_have_the_errors_of_texts(write, monkeypatch):
    assert_refused(TextError, "empty .*1'.*2'", read_ids, [write(b"", "1"), write(b"\xef\xbb\xbf", "2")])
    assert_refused(TextError, "no file", read_ids, ["missing"])
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\x80")))
    assert_refused(TextError, "^standard input is not UTF-8", read_ids, ["-"])


def test_an_unknown_symbol_is_named_with_its_position_in_all_sources_together(write):
    sources = [write("né".encode(), "1"), write(b"\xef\xbb\xbf" + b"n" * 700_000 + b"z", "2")]
    vocab = Vocab.from_text("né")
    assert_refused(VocabularyError, r"'z' \(U\+007A\) at position 700002 ", read_ids, sources, encoder=Encoder(vocab))
    nothing = Vocab.from_text("")
    assert_refused(VocabularyError, "'n'", read_ids, sources, encoder=Encoder(nothing))


def test_standard_input_is_read_once_and_the_default_text_has_no_name(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("abbaé".encode())))
    vocab, ids = read_ids(["-"])
    assert vocab.decode(ids) == "abbaé"
    vocab, ids = read_ids([])
    assert vocab.decode(ids) == read_text([])


# Memory


#: Pieces of 2**18 symbols, whose largest copy in NumPy has 8 bytes per symbol, and a boolean for each code point.
TEMPORARY = 7_000_000


def peak_of_reading(sources, **options):
    """The most memory during `read_ids`, and the ids."""
    tracemalloc.start()
    try:
        _, ids = read_ids(sources, **options)
        return tracemalloc.get_traced_memory()[1], ids
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("given", [False, True], ids=["own vocabulary", "given vocabulary"])
@pytest.mark.parametrize("last", ["", "🙂"], ids=["ASCII", "one emoji"])
def test_reading_ids_takes_little_more_than_the_ids(write, last, given):
    path = write(("ab\n" * 5_000_000 + last).encode())
    encoder = Encoder(Vocab.from_text("ab\n" + last)) if given else None
    peak, ids = peak_of_reading([path], encoder=encoder)
    assert ids.nbytes == 15_000_000 + len(last)
    assert peak < ids.nbytes + TEMPORARY


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_text_is_never_held_as_a_whole(write, suffix):
    """Not even one of which a few bytes of the file are all."""
    path = write(COMPRESS[suffix](b"ab\n" * 500_000) * 20, f"text{suffix}")
    peak, ids = peak_of_reading([path])
    assert ids.nbytes == 30_000_000
    # Besides, three copies of what follows from the input that is decompressed at a time: for gzip 4 MiB, else less.
    assert peak < ids.nbytes + TEMPORARY + 3 * (1 << 22)


def test_a_long_standard_input_is_kept_in_a_file(monkeypatch):
    monkeypatch.setattr("fastlstm.sources._IN_MEMORY", 1_000_000)
    stream = io.BufferedReader(Repeated(15_000_000))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
    peak, ids = peak_of_reading(["-"])
    assert ids.nbytes == 15_000_000
    assert peak < ids.nbytes + TEMPORARY + 1_000_000


class Repeated(io.RawIOBase):
    """A stream of so many equal bytes."""

    def __init__(self, left):
        self.left = left

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(self.left, len(buffer))
        buffer[:count] = b"a" * count
        self.left -= count
        return count


# Patterns


def lay_out(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name};")


def test_a_pattern_means_the_files_that_match_sorted_and_without_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, "b.txt", "a.txt", "c.md", "more/a.txt", "more/deep/z.txt", "folder.txt/inside")
    assert read_text(["*.txt"]) == "a.txt;b.txt;"
    assert read_text(["?.md", "a*"]) == "c.md;a.txt;"
    assert read_text(["**/*.txt"]) == "a.txt;b.txt;more/a.txt;more/deep/z.txt;"
    assert read_text(["**/**/z.txt"]) == "more/deep/z.txt;"  # matches in several ways
    assert read_text([str(tmp_path / "more" / "*.txt")]) == "more/a.txt;"


def test_a_file_takes_precedence_over_its_name_as_a_pattern(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, "notes[1].txt", "notes1.txt")
    assert read_text(["notes[1].txt"]) == "notes[1].txt;"
    (tmp_path / "notes[1].txt").unlink()
    assert read_text(["notes[1].txt"]) == "notes1.txt;"


@pytest.mark.parametrize("pattern", ["*.txt", "missing/*", "folder*", "nul\0/*", "lone\ud800/*", "no\n*"])
def test_a_pattern_without_a_file_is_one_line(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert_refused(TextError, "^no file matches '.*': check the path", read_text, [pattern])
    assert not exists(pattern)


def test_the_error_for_a_folder_gives_the_pattern_of_its_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, "notes/a.txt")
    pattern = os.path.join("notes", "*")
    with pytest.raises(TextError) as caught:
        read_text(["notes"])
    assert str(caught.value) == f"'notes' is a folder: name its files, for instance {pattern!r}"
    assert read_text([pattern]) == "notes/a.txt;"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "input"),
        (["-"], "stdin"),
        (["pydoc", "other"], "pydoc"),
        (["a/notes.txt"], "notes"),
        (["a/notes.txt.gz"], "notes"),
        (["notes.ZST"], "notes"),
        (["a/logs/*.txt"], "logs"),
        (["logs/**/*.txt.xz"], "logs"),
        (["*.txt"], "text"),
        (["../*.txt"], "text"),
        (["/*"], "text"),
    ],
)
def test_what_is_made_of_sources_is_named_after_the_first(names, expected):
    assert title(names) == expected


def test_a_name_with_the_characters_of_a_pattern_is_a_name_if_there_is_such_a_file(tmp_path):
    lay_out(tmp_path, "notes[1].txt")
    assert title([str(tmp_path / "notes[1].txt")]) == "notes[1]"


# Compressed files

COMPRESS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
every_format = pytest.mark.parametrize("suffix", COMPRESS)
LINES = "".join(f"{number} naïve lines of a text\n" for number in range(30_000))


@every_format
def test_a_compressed_file_is_decompressed(write, suffix):
    path = write(COMPRESS[suffix](("\ufeff" + LINES).encode()), f"text.txt{suffix.upper()}")
    assert read_text([path]) == LINES
    assert read_text([path], as_bytes=True) == ("\ufeff" + LINES).encode()
    vocab, ids = read_ids([path])
    assert vocab.decode(ids) == LINES


@pytest.mark.parametrize("padding", [b"", bytes(4), bytes(8192)], ids=["none", "4", "8192"])
@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_all_streams_of_a_file_are_read(write, suffix, padding):
    parts = [LINES.encode(), b"", b"the end"]
    path = write(b"".join(COMPRESS[suffix](one) + padding for one in parts), f"text{suffix}")
    assert read_text([path]) == LINES + "the end"


@every_format
def test_a_file_that_is_cut_short_anywhere_is_one_line(write, suffix):
    whole = COMPRESS[suffix](b"some words, and more words")
    assert_refused(TextError, "empty", read_ids, [write(b"", f"text{suffix}")])
    for length in range(1, len(whole)):
        path = write(whole[:length], f"text{suffix}")
        assert_refused(TextError, rf"^cannot decompress '.*text{suffix}' \(it ends too early\): ", read_ids, [path])


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_damage_never_changes_a_text(write, suffix, rng):
    """Each of these formats has a checksum of the content."""
    text = "some words, and more words, and these"
    whole = bytearray(COMPRESS[suffix](text.encode()))
    for place in range(len(whole)):
        damaged = whole.copy()
        damaged[place] ^= int(rng.integers(1, 256))
        found = outcome(read_text, [write(damaged, f"text{suffix}")])
        assert found == text or found.startswith("cannot decompress '")


@every_format
@pytest.mark.parametrize("data", [b"a text that is not compressed", b"PK\x03\x04" + bytes(range(256)) * 20])
def test_a_file_that_is_not_what_its_suffix_says_is_one_line(write, suffix, data):
    message = r"^cannot decompress '.*' \(.+\): the file is damaged, or not \w+; get a whole one, or give it another"
    assert_refused(TextError, message, read_text, [write(data, f"text{suffix}")])


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_what_follows_a_compressed_text_is_not_ignored(write, suffix):
    assert_refused(TextError, "damaged", read_text, [write(COMPRESS[suffix](b"text") + b"rest", f"text{suffix}")])


@pytest.mark.parametrize("suffix", [".bz2", ".gz"])
def test_a_disk_that_fails_is_not_said_to_be_a_damaged_file(write, suffix, monkeypatch):
    path = write(COMPRESS[suffix](b"text"), f"text{suffix}")

    def fail(file, *_):
        raise OSError(5, "Input/output error")

    with opened([path]) as sources:
        monkeypatch.setattr("fastlstm.decompression._next_stream", fail)
        assert_refused(TextError, r"^cannot read .* \(Input/output error\)", list, sources.pieces())


def test_a_library_that_is_missing_is_named(write, monkeypatch):
    for module in ("zstandard", "lzma"):
        monkeypatch.setitem(sys.modules, module, None)
    assert_refused(FastlstmError, r"text.zst' needs zstandard.*fastlstm\[zstd\]", read_text, [write(b"a", "text.zst")])
    assert_refused(TextError, "no lzma, which '.*text.xz' needs", read_text, [write(b"a", "text.xz")])


# Encodings


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 18])
@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-16", "naïve → 𝄞\r\n"),
        ("utf-16-le", "\ufeffnaïve → 𝄞\n"),
        ("utf-16-be", "naïve → 𝄞\n"),
        ("utf-32", "naïve → 𝄞\n"),
        ("latin-1", "naïve\n"),
        ("CP1252", "naïve €\n"),
        ("shift_jis", "日本語 text\n"),
        ("gb18030", "汉语 𝄞\n"),
    ],
)
def test_a_text_is_read_in_its_encoding(write, encoding, text, size):
    path = write(text.encode(encoding))
    with blocks_of(size):
        vocab, ids = read_ids([path], encoding=encoding)
        assert vocab.decode(ids) == read_text([path], encoding=encoding) == text.removeprefix("\ufeff")


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 18])
@pytest.mark.parametrize(
    ("encoding", "data", "message"),
    [
        ("ascii", b"abc\xe9", r"not ASCII \(byte 0xE9 at offset 3\)"),
        ("cp1252", b"abcde\x81", r"not CP1252 \(byte 0x81 at offset 5\)"),
        ("utf-16", b"\xff\xfea\0b", r"not UTF-16 \(byte 0x62 at offset 4\)"),
        ("utf-16-be", b"\0a\xd8\0\0b", r"not UTF-16-BE \(byte 0xD8 at offset 2\)"),
        ("shift_jis", b"abc\x81\x20", r"not SHIFT_JIS \(byte 0x81 at offset 3\)"),
        ("idna", b"a.xn--\x80", "not IDNA "),
    ],
)
def test_the_error_for_text_that_is_not_of_its_encoding_names_it(write, encoding, data, message, size):
    with blocks_of(size):
        assert_refused(TextError, message + ".*--encoding", read_text, [write(data)], encoding=encoding)


@pytest.mark.parametrize("encoding", ["uft-8", "", "base64", "rot13", "undefined", "nul\0", "é", "lone\ud800", "no\n"])
def test_what_is_no_text_encoding_is_one_line(write, encoding):
    message = "^there is no text encoding .*: name one such as utf-8, utf-16"
    assert_refused(ConfigError, message, read_text, [write(b"a")], encoding=encoding)


def test_bytes_have_no_encoding(write):
    message = r"bytes are read as they are: leave out the encoding \(utf-16\)"
    assert_refused(ConfigError, message, read_ids, [write(b"a")], as_bytes=True, encoding="utf-16")


@pytest.mark.parametrize("codec", ["utf-16", "utf-32"])
def test_the_byte_order_must_be_known(write, codec):
    message = f"with a byte order mark: if it has none, give --encoding {codec}-le or {codec}-be"
    assert_refused(TextError, message, read_text, [write(ENGLISH.encode(f"{codec}-le"))], encoding=codec)
    assert_refused(TextError, "empty", read_text, [write(b"")], encoding=codec)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis"])
def test_utf16_is_not_read_as_a_narrow_encoding(write, encoding):
    path = write(ENGLISH.encode("utf-16-le"))
    assert_refused(TextError, "looks like UTF-16 .* --encoding utf-16", read_text, [path], encoding=encoding)


# Several passes


@pytest.mark.parametrize(
    "change",
    [lambda d: d + b"a", lambda d: d[:-1], lambda d: b"", lambda d: d[:-1] + b"c", lambda d: d[: len(d) // 2] * 2],
    ids=["longer", "shorter", "empty", "same length", "second half"],
)
@pytest.mark.parametrize("as_bytes", [False, True])
def test_a_file_that_changes_between_the_passes_is_refused(write, change, as_bytes):
    data = b"a" * 10 + b"b" * 10
    path = write(data)
    with blocks_of(4), opened([path], as_bytes=as_bytes) as sources:
        ref = list(sources.pieces())
        assert list(sources.pieces()) == ref
        write(change(data))
        seen = []
        with pytest.raises(TextError, match=r"text.txt' changed while it was read: try again"):
            seen.extend(sources.pieces())
        assert seen == ref[: len(seen)]
        write(data)
        assert list(sources.pieces()) == ref


def test_a_file_that_is_gone_in_the_second_pass_is_one_line(write):
    path = write(b"text")
    with opened([path]) as sources:
        list(sources.pieces())
        os.remove(path)
        assert_refused(TextError, "no file", list, sources.pieces())


def test_all_sources_are_looked_for_before_any_is_read(write, monkeypatch):
    with mock.patch("fastlstm.sources._Source.blocks") as blocks:
        assert_refused(TextError, "no file", read_text, [write(b"a"), "missing"])
    blocks.assert_not_called()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize(("name", "encode"), [("pipe", bytes), ("pipe.gz", gzip.compress)])
@pytest.mark.parametrize("in_memory", [10, 1 << 20], ids=["in a file", "in memory"])
def test_a_pipe_is_read_in_two_passes(tmp_path, monkeypatch, in_memory, name, encode):
    monkeypatch.setattr("fastlstm.sources._IN_MEMORY", in_memory)
    path = tmp_path / name
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(encode(LINES.encode())))
    writer.start()
    vocab, ids = read_ids([str(path)])
    writer.join()
    assert vocab.decode(ids) == LINES


def test_a_full_disk_for_what_is_kept_is_one_line(monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", lambda size: Full())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"text")))
    message = r"^cannot keep standard input in a temporary file \(No space left on device\): make space"
    assert_refused(TextError, message, read_ids, ["-"])
