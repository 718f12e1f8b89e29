"""Model files: exact, atomic, and harmless whatever is in them."""

import contextlib
import errno
import json
import os

import numpy as np
import pytest
import safetensors.numpy

from fastlstm import Model, ModelConfig, Vocab, checkpoint
from fastlstm.errors import ModelFileError

#: What every message names.
NAMED = r"model\.safetensors"


@pytest.fixture
def model():
    return Model(ModelConfig(3, hidden=2, embedding=2), Vocab.from_text("abc"), seed=1)


@pytest.fixture
def saved(model, tmp_path):
    model.training = {"steps": 7}
    model.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def rewrite(path, metadata=None, tensors=None):
    """Write a model file with some of its metadata or tensors replaced (``None``: left out)."""
    with safetensors.safe_open(path, framework="numpy") as stored:
        old = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no dictionary: it cannot be iterated
        new = old | (tensors or {})
        meta = stored.metadata() | (metadata or {})
    kept = {name: tensor for name, tensor in new.items() if tensor is not None}
    path.write_bytes(safetensors.numpy.save(kept, {key: value for key, value in meta.items() if value is not None}))


def config_json(**changes):
    return json.dumps(ModelConfig(3, hidden=2, embedding=2).to_dict() | changes)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize("text", ["añ🙂\n", b"\x00\xff ab"])
def test_a_model_comes_back_bit_for_bit(dtype, cell, text, tmp_path):
    ref = Model.for_text(text, cell=cell, dtype=dtype, layers=2, hidden=5, embedding=3)
    ref.parameters["output.b"][0] = -0.0
    ref.training = {"steps": 3, "train_nats": 0.1 + 0.2}
    ref.save(tmp_path / "m.safetensors")
    comp = Model.load(tmp_path / "m.safetensors")
    assert comp.parameters.flat.tobytes() == ref.parameters.flat.tobytes()
    assert (comp.config, comp.vocab, comp.training) == (ref.config, ref.vocab, ref.training)


def test_a_run_s_folder_stands_for_its_model(saved, model):
    assert Model.load(saved.parent).parameters.flat.tobytes() == model.parameters.flat.tobytes()


def test_every_truncation_is_refused(saved):
    data = saved.read_bytes()
    for size in range(len(data)):
        saved.write_bytes(data[:size])
        with pytest.raises(ModelFileError, match=NAMED):
            Model.load(saved)


def test_a_flipped_bit_in_the_header_is_refused_or_leaves_a_model(saved):
    data = saved.read_bytes()
    tried = loaded = 0
    for place in range(8 + int.from_bytes(data[:8], "little")):
        for bit in (0, 7):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            saved.write_bytes(damaged)
            tried += 1
            with contextlib.suppress(ModelFileError):  # and no other error
                Model.load(saved)
                loaded += 1
    assert loaded < tried / 4  # those of the vocabulary, the history, and the like


@pytest.mark.parametrize(
    "metadata",
    [
        {"format": None},
        {"format": "pt"},
        {"version": "2"},
        {"config": None},
        {"vocab": None},
        {"config": "{"},
        {"config": "[]"},
        {"config": "[" * 100_000},
        {"config": "9" * 10_000},
        {"config": config_json(layers=10**12)},
        {"config": config_json(hidden=10**15)},
        {"config": config_json(hidden=3)},
        {"config": config_json(hidden=-1)},
        {"config": config_json(dtype="float64")},
        {"config": config_json(dtype="object")},
        {"config": config_json(cell="rnn")},
        {"config": config_json(cell=["lstm"])},
        {"config": config_json(vocab_size=4)},
        {"config": config_json(forget_bias=float("nan"))},
        {"config": config_json(surprise=1)},
        {"config": "{}"},
        {"vocab": "nonsense"},
        {"vocab": Vocab.from_text("ab").to_json()},
        {"training": "{"},
        {"training": "1"},
    ],
    ids=lambda metadata: str(metadata)[:50],
)
def test_metadata_that_do_not_fit_the_tensors_are_refused(saved, metadata):
    rewrite(saved, metadata)
    with pytest.raises(ModelFileError, match=NAMED) as caught:
        Model.load(saved)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "tensors",
    [
        {"output.b": None},
        {"output.b": np.zeros(4, np.float32)},
        {"output.b": np.zeros((3, 1), np.float32)},
        {"output.b": np.zeros(3, np.float64)},
        {"output.b": np.zeros(3, np.int32)},
        {"extra": np.zeros(3, np.float32)},
        {"output.b": None, "extra": np.zeros(3, np.float32)},
    ],
    ids=str,
)
def test_tensors_that_do_not_fit_the_configuration_are_refused(saved, tensors):
    rewrite(saved, tensors=tensors)
    with pytest.raises(ModelFileError, match=NAMED):
        Model.load(saved)


def test_what_is_no_model_file_is_refused(tmp_path):
    for name, content in [("empty", b""), ("text", b"To be, or not to be" * 9), ("pickle", b"\x80\x04K\x01.")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=name):
            Model.load(tmp_path / name)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "text" / "model", "/dev/null", "nul\0"):
        with pytest.raises(ModelFileError):
            Model.load(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_model_and_nothing_else(saved, model, call, monkeypatch):
    before = saved.read_bytes()
    model.parameters.flat[...] = 0

    def fail(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(ModelFileError, match="No space left"):
        model.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_save_is_on_disk_before_it_takes_the_old_one_s_place(saved, model, monkeypatch):
    events = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("replace"), replace(*paths)))
    monkeypatch.setattr(os, "fsync", lambda file: (events.append("fsync"), fsync(file)))
    model.save(saved)
    assert events == ["fsync", "replace", "fsync"]


def test_an_unwritable_folder_is_known_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ModelFileError, match="--out"):
        checkpoint.check_writable(tmp_path / "file" / "run")
    (tmp_path / "run" / checkpoint.FILE_NAME).mkdir(parents=True)
    with pytest.raises(ModelFileError, match="is a folder"):
        checkpoint.check_writable(tmp_path / "run")
    checkpoint.check_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_finite_numbers_are_damage(tmp_path, value):
    model = Model.for_text("ab", hidden=4, embedding=3)
    model.parameters["layers.0.b"][2] = value
    model.save(tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match=r"'layers.0.b' has values that are no finite numbers"):
        Model.load(tmp_path / "m.safetensors")
