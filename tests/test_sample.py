"""The verb `sample`: what it writes, and when."""

import base64
import io
import sys

import numpy as np
import pytest
from programs import as_written, last_json, python

from fastlstm import Model, Vocab, sample
from fastlstm.errors import ConfigError, VocabularyError


def model_of(vocab, path):
    model = Model.for_text("ab", hidden=3, embedding=2)
    model = Model(type(model.config)(**model.config.to_dict() | {"vocab_size": len(vocab)}), vocab, seed=1)
    model.save(path)
    return model


@pytest.fixture
def letters(tmp_path):
    """A model of characters."""
    return model_of(Vocab.from_text("abcé\n"), tmp_path / "letters")


@pytest.fixture
def halves(tmp_path):
    """A model that writes bytes of é, which need not make it up."""
    return model_of(Vocab(np.array(sorted("éa".encode()), np.uint32), True), tmp_path / "halves")


@pytest.fixture
def written(tmp_path, capfdbinary):
    """A function that runs the verb with a model's file; returns the bytes of standard output, and standard error."""

    def run(name, *arguments):
        assert sample.main([str(tmp_path / name), *map(str, arguments), "--threads", "1"]) == 0
        sys.stdout.flush()
        output, errors = capfdbinary.readouterr()
        return output, errors.decode()

    return run


@pytest.mark.parametrize(
    "settings",
    [{"temperature": 0.3}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.8}, {"seed": 3},
     {"temperature": 2.0, "top_k": 4, "top_p": 0.95, "min_p": 0.5, "seed": 3}],
    ids=str,
)  # fmt: skip
def test_the_options_are_the_settings_of_the_library(settings, letters, written):
    options = [word for name, value in settings.items() for word in ("--" + name.replace("_", "-"), value)]
    expected = letters.sample("ab", 300, **settings)
    assert written("letters", "--prompt", "ab", "--length", 300, *options) == (as_written("ab" + expected).encode(), "")
    assert expected != letters.sample("ab", 300)


def test_a_continuation_ends_before_a_stop_text(letters, written):
    until = ["caba", "é\né"]
    expected = letters.sample("", 200, until=until)
    assert 0 < len(expected) < 200
    stops = ["--length", 200, "--stop", until[0], "--stop", until[1]]
    assert written("letters", *stops)[0].decode() == as_written(expected)
    several = letters.continuations("b", 4, 200, until=until)
    assert len(set(map(len, several))) > 1
    output = written("letters", *stops, "--num", 4, "--prompt", "b")[0].decode()
    assert output == "".join(f"--- {n} ---\n" + as_written("b" + text) for n, text in enumerate(several, start=1))


def test_the_output_ends_with_one_newline(letters, written):
    texts = [letters.sample("a", length, seed=1) for length in range(30)]
    assert {text[-1:] == "\n" for text in texts} == {False, True}
    for length, text in enumerate(texts):
        assert written("letters", "--prompt", "a", "--length", length, "--seed", 1)[0].decode() == as_written(
            "a" + text
        )


def test_a_prompt_is_read_from_a_file_with_its_last_newline(letters, halves, written, tmp_path, monkeypatch):
    (tmp_path / "prompt").write_text("abé\n")
    expected = as_written("abé\n" + letters.sample("abé\n", 20)).encode()
    assert written("letters", "--prompt-file", tmp_path / "prompt", "--length", 20)[0] == expected
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("abé\n".encode())))
    assert written("letters", "--prompt-file", "-", "--length", 20)[0] == expected
    (tmp_path / "prompt").write_bytes("abé".encode("latin-1"))
    assert written("letters", "--prompt-file", tmp_path / "prompt", "--encoding", "latin-1", "--length", 0)[0] == (
        as_written("abé").encode()
    )
    (tmp_path / "prompt").write_bytes(b"a\xa9")
    output = written("halves", "--prompt-file", tmp_path / "prompt", "--length", 20)[0]
    assert output == as_written(b"a\xa9" + halves.sample(b"a\xa9", 20))


def test_an_encoding_without_a_file_is_an_error(letters, written):
    with pytest.raises(ConfigError, match="--prompt-file"):
        written("letters", "--prompt", "a", "--encoding", "latin-1")


@pytest.mark.parametrize(
    "wrong",
    [["--prompt", "a", "--prompt-file", "-"], ["--stop", ""], ["--top-p", "0"], ["--top-k", "0"], ["--min-p", "2"]],
    ids=" ".join,
)
def test_a_wrong_argument_is_a_usage_error(wrong, tmp_path):
    done = python("-m", "fastlstm.sample", "missing", *wrong, cwd=tmp_path)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def test_json_holds_prompt_and_texts(letters, written):
    for num in (1, 3):
        output, _ = written("letters", "--prompt", "é", "--length", 40, "--num", num, "--stop", "cc", "--json")
        result = last_json(output.decode())
        texts = letters.continuations("é", num, 40, until=["cc"])
        assert (result["prompt"], result["texts"], result["chars"]) == ("é", texts, sum(map(len, texts)))
        assert "texts_base64" not in result
        assert as_written("é" + texts[0]) in output.decode()


def test_json_of_a_model_of_bytes_loses_none(halves, written):
    for num in (1, 3):
        result = last_json(written("halves", "--prompt", "é", "--length", 40, "--num", num, "--json")[0])
        texts = halves.continuations("é", num, 40)
        assert [base64.b64decode(text) for text in result["texts_base64"]] == texts
        assert result["texts"] == [text.decode("utf-8", "replace") for text in texts]
        assert (result["prompt"], result["chars"]) == ("é", 40 * num)
    assert last_json(written("halves", "--length", 0, "--json")[0])["texts_base64"] == [""]


def test_a_model_of_bytes_streams_whole_characters(halves, monkeypatch):
    pieces = []

    class Output(io.BytesIO):
        def write(self, piece):
            pieces.append(bytes(piece))
            return super().write(piece)

    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(Output(), write_through=True))
    sample._write([b"a\xc3", b"\xa9\xa9", b"\xc3", b"a", b"\xc3"])
    assert [piece for piece in pieces if piece] == [b"a", b"\xc3\xa9\xa9", b"\xc3a", b"\xc3", b"\n"]


def test_symbols_of_a_prompt_that_the_model_does_not_know_are_named(letters, written, tmp_path):
    with pytest.raises(VocabularyError, match="'x'"):
        written("letters", "--prompt", "axb")
    output, said = written("letters", "--prompt", "axbyyc", "--length", 9, "--unknown", "skip")
    assert output.decode() == as_written("axbyyc" + letters.sample("abc", 9))
    assert said.count("\n") == 1
    assert "'x'" in said
    assert "'y'" in said
    escaping = model_of(Vocab.from_text("ab\n", escape=True), tmp_path / "escaping")
    escaping.parameters["output.b"][-1] = 30  # more probable than all else, but never drawn
    escaping.save(tmp_path / "escaping")
    output, said = written("escaping", "--prompt", "axb", "--length", 200)
    assert output.decode() == as_written("axb" + escaping.sample("axb", 200))
    assert set(output.decode()) <= set("axb\n")
    assert "'x'" in said
