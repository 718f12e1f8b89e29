"""The verb ``info``: all that a model's file and folder tell, in 80 columns, whatever is in them."""

import json
import shutil

import numpy as np
import pytest
import rich.cells
import run_folders
from programs import python

from fastlstm import Model, ModelConfig, TrainConfig, Vocab, __version__, certificate, checkpoint, info, run_checkpoint
from fastlstm.cells import CELLS
from fastlstm.certificate import Finding
from fastlstm.errors import ModelFileError
from fastlstm.text import fingerprint

SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def shown(capsys):
    """A function that runs the verb; returns the facts by name, each with its lines joined, and the JSON."""

    def shown(path):
        assert info.main([str(path), "--json"]) == 0
        *lines, last = capsys.readouterr().out.splitlines()
        assert max(map(rich.cells.cell_len, lines)) <= 80
        assert all(line.isprintable() and line == line.rstrip() for line in lines)
        facts, name = {}, ""
        for line in lines:
            name = line[:11].strip() or name
            facts[name] = f"{facts.get(name, '')} {line[11:].strip()}".strip()
        return facts, json.loads(last)

    return shown


def save(folder, text="abc\n d\\", training=None, **settings):
    """Save a model with random parameters; returns it."""
    folder.mkdir(exist_ok=True)
    model = Model.for_text(text, **({"hidden": 3, "embedding": 2, "escape": False} | settings))
    model.training = training
    model.save(folder / "model.safetensors")
    return model


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_file_shows_its_configuration_size_and_vocabulary(cell, tmp_path, shown):
    model = save(tmp_path, cell=cell, layers=2, dtype="float64")
    file = tmp_path / "model.safetensors"
    facts, values = shown(file)
    assert facts["cell"] == f"{cell}, 2 layers of 3 units, embeddings of 2"
    size = file.stat().st_size
    assert facts["size"] == f"{model.parameters.flat.size:,} parameters of float64, a file of {size:,} bytes"
    assert facts["vocabulary"] == r"7 characters \n space \\ a b c d"
    assert facts["certificate"] == "none: the gradients of these parameters were not checked"
    assert not {"training", "settings", "text", "fingerprint", "versions"} & set(facts)
    assert values["config"] == model.config.to_dict()
    assert (values["bytes"], values["parameters"]) == (size, model.parameters.flat.size)
    assert Vocab.from_json(json.dumps(values["vocabulary"])) == model.vocab


def test_symbols_that_would_disturb_the_terminal_are_shown_as_escapes(tmp_path, shown):
    save(tmp_path, "\x1b\x07\u202e\u2028\ud800\xa0é漢🙂a")
    facts, _ = shown(tmp_path)
    assert facts["vocabulary"] == r"10 characters \x07 \x1b a \xa0 é \u2028 \u202e 漢 \ud800 🙂"


def test_symbols_of_bytes_are_shown_as_ascii_or_hexadecimal(tmp_path, shown):
    vocab = Vocab(np.array([0, 32, 97, 128, 255], np.uint32), is_bytes=True)  # as older versions made it from a text
    Model(ModelConfig(5, hidden=3, embedding=2), vocab).save(tmp_path / "model.safetensors")
    facts, values = shown(tmp_path)
    assert facts["vocabulary"] == r"5 bytes \x00 space a \x80 \xff"
    assert values["vocabulary"] == {"bytes": True, "symbols": [0, 32, 97, 128, 255]}


def test_a_model_of_bytes_knows_all_of_them_and_one_of_characters_may_have_an_entry_for_the_others(tmp_path, shown):
    save(tmp_path, b"a")
    assert shown(tmp_path)[0]["vocabulary"] == "all 256 bytes"
    save(tmp_path, "ab", escape=True)
    facts, values = shown(tmp_path)
    assert facts["vocabulary"] == "2 characters a b and one entry for all other characters"
    assert values["vocabulary"] == {"bytes": False, "symbols": [97, 98], "escape": True}


def test_of_a_large_vocabulary_the_number_is_shown_and_the_first_symbols(tmp_path, shown):
    save(tmp_path, "".join(map(chr, range(0x4E00, 0x4E00 + 3000))))
    facts, values = shown(tmp_path)
    assert facts["vocabulary"].startswith("3,000 characters 一 丁")
    assert facts["vocabulary"].endswith(" and 2,880 more")
    assert len(values["vocabulary"]["symbols"]) == 3000


def test_a_run_folder_shows_its_history_and_its_text(tmp_path, shown):
    lines = [
        run_folders.training(50, 3.0),
        run_folders.validation(80, 1.25, (1.25, 80)),
        run_folders.training(100, 1.0),
    ]
    record = {"fastlstm": "9.8.7", "text_sha256": SHA256, "symbols": 1234}
    folder = run_folders.write(tmp_path / "run", [*lines, run_folders.end(100, 1.5, 80)], {"steps": 100}, record)
    training = {"steps": 100, "finished": True, "model_step": 80, "train_nats": 1.0, "val_nats": 1.5}
    save(folder, training=training | {"config": TrainConfig(lr=0.25, batch=7).to_dict()})
    facts, values = shown(folder)
    assert shown(folder / "model.safetensors") == (facts, values)
    assert facts["training"] == (
        "100 of 100 steps, 1.00 epochs, 50.0 s, finished"
        " training loss 1.000 nats (1.443 bits) per symbol validation loss 1.500 nats (2.164 bits) per symbol"
        " the model is that of step 80, the best"
    )
    assert facts["settings"].startswith("seq_len 64, batch 7, optimizer adagrad, lr 0.25, ")
    assert facts["text"] == "notes.txt, 1,234 characters"
    assert facts["fingerprint"] == SHA256
    assert facts["versions"] == "trained by fastlstm 9.8.7"
    assert (values["run"]["step"], values["run"]["seconds"], values["run"]["best_nats"]) == (100, 50.0, 1.5)
    assert values["text"] == {"data": ["notes.txt"], "sha256": SHA256, "symbols": 1234}
    assert values["training"]["model_step"] == 80


def test_the_checkpoint_of_a_run_shows_the_model_of_its_last_step_and_its_text(tmp_path, shown):
    text = "the cat sat on the mat. " * 20
    trainer = Model.for_text(text, hidden=3, embedding=2).trainer(
        text, TrainConfig(steps=9, batch=2, seq_len=4, backend="reference", sample_length=0)
    )
    for progress in trainer:
        if progress.step == 3:
            break
    run_checkpoint.write(tmp_path / "last.safetensors", trainer.checkpoint)
    facts, values = shown(tmp_path / "last.safetensors")
    assert facts["training"].startswith("3 steps, not finished")
    assert facts["text"] == f"{len(text)} characters"
    assert facts["fingerprint"] == trainer.text.sha256
    assert values["text"] == trainer.text._asdict()


def test_a_certificate_is_shown_until_the_parameters_change(tmp_path, shown):
    model = save(tmp_path)
    findings = [Finding("centred differences, fast", 120, 1.5e-9), Finding("lanes, reference", 4, 0.0)]
    made = certificate.of(
        model.parameters, findings, seq_len=8, batch=2, seed=5, per_param=50, backends=("fast", "reference"),
        version="1.2.3",
    )  # fmt: skip
    checkpoint.certify(tmp_path, made)
    facts, values = shown(tmp_path)
    assert facts["certificate"].startswith("gradients passed, fast and reference, with fastlstm 1.2.3, numpy ")
    assert "T 8, B 2, seed 5, 50 entries of each parameter" in facts["certificate"]
    assert "centred differences, fast: worst error 1.5e-09 of 120" in facts["certificate"]
    assert certificate.Certificate.from_dict(values["certificate"]) == made
    changed = Model.load(tmp_path)
    changed.parameters.flat[0] += 1
    changed.save(tmp_path / "model.safetensors")
    assert shown(tmp_path)[0]["certificate"].startswith("none")


@pytest.mark.parametrize(
    "training",
    [
        {"steps": "many", "train_nats": None, "val_nats": [], "model_step": {}, "config": 3},
        {"steps": 10**400, "train_nats": float("nan"), "val_nats": 10**4000, "finished": "\x1b[2J"},
        {"steps": 1, "config": {"lr": "\x1b[2J", "batch": {"\n": "\u202e" * 5000}, "seed": [[1], None]}},
        {"steps": True, "config": {"optimizer": "[red]x[/red]"}},
        {"steps": 1, "text": {"sha256": [1], "symbols": "\x1b[2J"}, "fastlstm": {}},
        {"steps": 1, "text": "none", "fastlstm": None},
    ],
)
def test_a_strange_record_of_training_does_no_harm(training, tmp_path, shown):
    save(tmp_path, training=training)
    facts, _ = shown(tmp_path)
    assert facts["cell"] == "lstm, 1 layer of 3 units, embeddings of 2"
    if training["steps"] is True:
        assert facts["settings"] == "optimizer [red]x[/red]"


def test_a_model_file_alone_tells_of_its_text_and_version(tmp_path, shown):
    text = "the cat sat on the mat. " * 20
    model = Model.for_text(text, hidden=3, embedding=2)
    model.fit(text, TrainConfig(steps=2, batch=2, seq_len=4, backend="reference", sample_length=0))
    model.save(tmp_path / "copy.safetensors")
    facts, values = shown(tmp_path / "copy.safetensors")
    assert facts["text"] == f"{len(text)} characters"
    assert facts["fingerprint"] == values["text"]["sha256"] == fingerprint(model.vocab, model.encode(text))
    assert facts["versions"] == f"trained by fastlstm {__version__}"


def test_a_damaged_history_is_reported_and_the_model_is_shown(tmp_path, capsys):
    save(tmp_path, training={"steps": 7, "finished": True})
    (tmp_path / "config.toml").write_text("=")
    assert info.main([str(tmp_path)]) == 0
    captured = capsys.readouterr()
    assert "7 steps, finished" in captured.out
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("fastlstm info: ")
    assert "is not TOML" in captured.err


def test_what_is_no_model_is_one_clear_line(tmp_path):
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty").mkdir()
    for name, message in [("missing", "there is no model"), ("notes.txt", "not a fastlstm"), ("empty", "no model")]:
        with pytest.raises(ModelFileError, match=message):
            info.main([str(tmp_path / name)])


def test_the_program_shows_a_trained_run_and_changes_nothing(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = python("-m", "fastlstm.info", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"20 steps, finished" in done.stdout
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    failed = python("-m", "fastlstm.info", "missing", cwd=tmp_path)
    assert (failed.returncode, failed.stderr.count(b"\n")) == (1, 1)
    assert python("-m", "fastlstm.info", cwd=tmp_path).returncode == 2
