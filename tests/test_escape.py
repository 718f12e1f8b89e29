"""Symbols that a model does not know: it learns how probable they are, and no verb stops at them."""

import math

import numpy as np
import pytest
from programs import last_json

from fastlstm import Model, ModelConfig, TrainConfig, Vocab, config_file, evaluate, run_checkpoint, train
from fastlstm.errors import ConfigError, TextError, VocabularyError
from fastlstm.inference import Inference, Networks
from fastlstm.reference.network import forward
from fastlstm.run_folder import CONFIG
from fastlstm.trainer import Trainer

TEXT = "to be or not to be\n" * 30
NEW = "to bé or nöt to bé→\n" * 4
SMALL = ["--hidden", "6", "--embedding", "3", "--backend", "reference", "--precision", "float64", "--quiet"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that trains on TEXT in the current folder, and returns the folder of the run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "new.txt").write_text(NEW, encoding="utf-8")

    def run(*arguments, out="run"):
        assert train.main(["--data", "text.txt", *SMALL, "--steps", "20", "--out", out, *arguments]) == 0
        return tmp_path / out

    return run


def nats_by_hand(model, ids):
    """Nats of each symbol but the first, from the probabilities of the reference."""
    x = np.asarray(ids, np.int32)[:, None]
    p = forward(model.parameters, x[:-1], x[1:], model.zero_state(1)).probabilities[:, 0]
    return -np.log(p[np.arange(len(ids) - 1), ids[1:]])


def evaluated(capsys, *arguments):
    """The warnings and the JSON of the verb ``evaluate``."""
    capsys.readouterr()
    assert evaluate.main([*arguments, "--backend", "reference", "--json"]) == 0
    shown = capsys.readouterr()
    return shown.err, last_json(shown.out)


def test_the_bits_of_an_unknown_symbol_are_those_of_the_escape_and_of_its_name(run, capsys):
    model = Model.load(run())
    unknown, known = 4 * 4, len(set(TEXT))
    ids = [int(np.searchsorted(model.vocab.symbols, ord(c))) if c in TEXT else known for c in NEW]
    nats = nats_by_hand(model, ids).sum() + unknown * math.log(0x110000 - known)
    error, found = evaluated(capsys, "run", "new.txt")
    assert found["chars"] == len(NEW) - 1
    # 1e-9: rounding of the sum of 79 numbers, far below any other way to count.
    assert found["nats_per_char"] == pytest.approx(nats / (len(NEW) - 1), rel=1e-9)
    assert "16 characters that the model does not know (read as unknown): 'é' (U+00E9) 8 times" in error


def test_they_can_be_left_out_or_be_an_error(run, capsys):
    model = Model.load(run())
    left = "".join(c for c in NEW if c in TEXT)
    error, found = evaluated(capsys, "run", "new.txt", "--unknown", "skip")
    assert "(left out)" in error
    assert found["chars"] == len(left) - 1
    assert found["nats_per_char"] == pytest.approx(model.evaluate(left, backend="reference").nats_per_char, rel=1e-9)
    with pytest.raises(VocabularyError, match=r"character 'é' .* at position 4 is not among .*--unknown skip"):
        evaluate.main(["run", "new.txt", "--unknown", "error"])


def test_a_model_without_an_escape_says_what_to_do(run, capsys):
    run("--no-escape")
    with pytest.raises(VocabularyError, match=r"at position 4 is not among .*--unknown skip.*train on a text"):
        evaluate.main(["run", "new.txt"])
    with pytest.raises(ConfigError, match="no entry that stands for unknown symbols"):
        evaluate.main(["run", "new.txt", "--unknown", "escape"])
    assert evaluated(capsys, "run", "new.txt", "--unknown", "skip")[1]["chars"] == len(NEW) - 4 * 4 - 1


@pytest.mark.parametrize("name", ["model.safetensors", "last.safetensors"])
def test_files_from_before_there_was_an_escape_are_read(name, run, capsys):
    """They have the bytes of those without one: no key tells of it."""
    folder = run("--no-escape")
    header = (folder / name).read_bytes()
    assert b"escape" not in header[: 8 + int.from_bytes(header[:8], "little")]
    assert not Model.load(folder / name).vocab.escape
    assert evaluated(capsys, str(folder / name), "text.txt")[1]["chars"] == len(TEXT) - 1


def test_known_texts_are_predicted_without_a_warning(run, capsys):
    run()
    assert evaluated(capsys, "run", "text.txt")[0] == ""


@pytest.mark.parametrize(
    ("arguments", "escape"),
    [([], True), (["--no-escape"], False), (["--bytes"], False), (["--preset", "assignment", "--seq-len", "8"], False)],
)
def test_a_run_records_whether_it_has_an_escape_and_is_repeated_and_resumed_with_it(arguments, escape, run):
    if "--preset" in arguments:
        arguments = [*arguments, "--sample-length", "9"]
    folder = run(*arguments)
    assert config_file.read(folder).escape is escape
    first = run_checkpoint.read(folder)
    assert first.vocab.escape is escape
    assert train.main(["--config", "run", "--out", "again", "--quiet"]) == 0
    assert run_checkpoint.read("again").state.has_arrays_of(first.state)
    assert train.main(["--resume", "run", "--steps", "25", "--quiet"]) == 0
    assert run_checkpoint.read(folder).vocab == first.vocab


def test_the_escape_of_a_run_cannot_change_when_it_is_resumed(run):
    run()
    for option in ("--escape", "--no-escape"):
        with pytest.raises(ConfigError, match="--escape cannot be given with --resume"):
            train.main(["--resume", "run", option])


@pytest.mark.parametrize("is_bytes", [False, True])
def test_a_run_of_an_older_version_goes_on_to_the_same_bytes(is_bytes, run, tmp_path):
    """Its vocabulary has no escape or, of bytes, only those of its text; and its config.toml has no such key."""
    folder = run(*["--bytes"] if is_bytes else ["--no-escape"])
    vocab = Vocab(np.unique(np.frombuffer(TEXT.encode(), np.uint8)).astype(np.uint32), is_bytes)
    model = Model(ModelConfig(len(vocab), hidden=6, embedding=3, dtype="float64"), vocab)
    config = TrainConfig(steps=20, batch=2, seq_len=9, backend="reference", precision="float64", sample_length=3)
    ref = Trainer(model.content, vocab.encode(TEXT.encode() if is_bytes else TEXT), config)
    start = Trainer(Model(model.config, vocab).content, vocab.encode(TEXT.encode() if is_bytes else TEXT), config)
    next(iter(start))
    run_checkpoint.write(folder / run_checkpoint.FILE_NAME, start.checkpoint)
    lines = (folder / CONFIG).read_text().splitlines()
    (folder / CONFIG).write_text("\n".join(line for line in lines if not line.startswith("escape")))
    ref.run()
    assert train.main(["--resume", "run", "--quiet"]) == 0
    assert Model.load(folder).vocab == vocab
    assert Model.load(folder).parameters.flat.tobytes() == ref.content.parameters.flat.tobytes()


def test_a_text_with_unknown_symbols_is_not_that_of_the_run(run):
    run()
    with pytest.raises(TextError, match="not that of the run, or has changed: 16 of its symbols do not occur in that"):
        train.main(["--resume", "run", "--data", "new.txt"])


def test_it_becomes_as_probable_as_symbols_are_that_occur_for_the_first_time(default_text):
    """It is masked at a share of V/N, which is far from 1/V, where it begins."""
    text = default_text[:20_000]
    model = Model.for_text(text, hidden=24, embedding=12)
    model.fit(text, TrainConfig(epochs=6, batch=8, seq_len=32, optimizer="adam", lr=0.01, sample_length=0))
    ids, V = model.encode(default_text[20_000:22_000]), len(model.vocab)
    x = ids.astype(np.int32)[:, None]
    p = forward(model.parameters, x, x, model.zero_state(1)).probabilities[:, 0, -1]
    share = (V - 1) / (0.9 * len(text))
    # A factor of 2: a few hundred masked symbols tell a share to some 10 %, and a small model spreads it.
    assert share / 2 < p.mean() < 2 * share
    assert p.mean() < 1 / (4 * V)


def test_validation_texts_are_not_masked(run):
    model = Model.load(run())
    part = TEXT[-math.ceil(len(TEXT) * 0.1) :]
    # 1e-12: the two add up float64 nats in another order.
    nats = model.evaluate(part, backend="reference").nats_per_char
    assert model.training["val_nats"] == pytest.approx(nats, rel=1e-12)


def test_a_text_to_train_on_may_have_unknown_symbols_too():
    """They are read as the escape; the loss of the validation part includes their names."""
    model, config = Model.for_text(TEXT, hidden=6, embedding=3), TrainConfig(steps=3, batch=2, seq_len=8)
    result = model.fit(TEXT + NEW, config)
    part = (TEXT + NEW)[-math.ceil(len(TEXT + NEW) * 0.1) :]
    assert "é" in part
    # 1e-6: the two add up float32 nats in another order; the names are some 4 nats of the loss.
    assert result.val_nats == pytest.approx(model.evaluate(part).nats_per_char, rel=1e-6)
    with pytest.raises(VocabularyError):
        Model.for_text(TEXT, hidden=6, embedding=3, escape=False).fit(TEXT + NEW, config)


def test_an_estimate_names_unknown_symbols_as_the_exact_loss_does(rng):
    model = Model.for_text("abc", hidden=4, embedding=2)
    ids = model.encode("abé" * 4000)  # a third of the symbols of every block, to 1 in 64
    plain, naming = (
        Inference(Networks(model.config), model.parameters, "reference", 1, vocab=vocab).estimate(ids, 6000)
        for vocab in (None, model.vocab)
    )
    assert naming.nats_per_char - plain.nats_per_char == pytest.approx(model.vocab.naming_nats / 3, rel=1 / 64)


def test_a_prompt_with_unknown_symbols_is_read_as_the_escape():
    model = Model.for_text(TEXT, hidden=6, embedding=3)
    prompt = np.append(model.encode("to b"), model.vocab.escape_id)
    how = {"seed": 1, "backend": "reference"}
    assert model.sample("to bé", 30, **how) == model.sample("to b→", 30, **how) == model.sample(prompt, 30, **how)


def test_a_model_of_bytes_knows_every_text(run, capsys):
    run("--bytes")
    error, found = evaluated(capsys, "run", "new.txt")
    assert (error, found["chars"]) == ("", len(NEW.encode()) - 1)


def test_the_smallest_and_the_largest_vocabularies_have_an_escape():
    one = Model.for_text("a", hidden=2, embedding=2)
    one.fit("a" * 40, TrainConfig(steps=5, batch=1, seq_len=4, backend="reference"))
    assert np.isfinite(one.evaluate("abab", backend="reference").nats_per_char)
    none = Model(ModelConfig(1, hidden=2, embedding=2), Vocab(np.zeros(0, np.uint32), escape=True))
    naming = math.log(0x110000)
    assert none.evaluate("abab", backend="reference").nats_per_char == pytest.approx(naming, abs=1e-6)
    every = Vocab(np.arange(0x110000, dtype=np.uint32), escape=True)
    assert (len(every), every.naming_nats, every.escape_id) == (0x110001, 0.0, 0x110000)
    large = Model(ModelConfig(len(every), hidden=1, embedding=1), every)
    large.fit("ab\U0010ffff" * 5, TrainConfig(steps=2, batch=1, seq_len=4, backend="reference", sample_length=0))
    assert math.isfinite(large.evaluate("ab", backend="reference").nats_per_char)
