"""The checkpoint of a run: written and read bit for bit; a damaged, foreign or forged one is refused."""

import dataclasses
import math

import numpy as np
import pytest
from runs_to_resume import IDS, VOCAB, model_config, run_config, untrained

from fastlstm import Model, run_checkpoint
from fastlstm.errors import ModelExistsError, ModelFileError
from fastlstm.params import initialise
from fastlstm.run_checkpoint import Checkpoint, TextIdentity
from fastlstm.run_state import RunState

NAME = run_checkpoint.FILE_NAME
TEXT = TextIdentity("ab" * 32, len(IDS))


def random_state(model, config, rng, step):
    state = RunState.start(initialise(model, rng), config.batch, config.rule(0.0).slots)
    for array in (state.slots, state.carried):
        array[...] = rng.standard_normal(array.shape)
    state.carried.flat[:3] = -0.0, np.nan, np.inf
    state.step, state.cursor, state.loss, state.seconds = step, 56, -math.inf, 5e-324
    state.smooth(0.9)
    state.val_nats, state.val_error, state.val_step = 1 / 3, 0.25, 5
    state.best_nats, state.best_step, state.worse, state.stalled = 1.25, 4, 2, 1
    return state


@pytest.fixture
def made(rng):
    """A function that makes a checkpoint, of whose optional parts all or none are there."""

    def make(cell="lstm", dtype="float32", optimizer="adam", full=True):
        model, config = model_config(cell, dtype), run_config(optimizer=optimizer)
        state = random_state(model, config, rng, step=7)
        good = random_state(model, config, rng, step=3) if full else state
        best = initialise(model, rng) if full else None
        return Checkpoint(state, good, best, VOCAB, config, TEXT, {"metrics.jsonl": 123} if full else {})

    return make


def assert_equal(comp, ref):
    assert comp.state == ref.state
    assert comp.good == ref.good
    assert (comp.best is None) == (ref.best is None)
    assert comp.best is None or comp.best.flat.tobytes() == ref.best.flat.tobytes()
    assert (comp.vocab, comp.config, comp.text) == (ref.vocab, ref.config, ref.text)
    assert comp.positions == ref.positions


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "adamw"])
@pytest.mark.parametrize("full", [False, True])
def test_a_checkpoint_comes_back_bit_for_bit(cell, dtype, optimizer, full, made, tmp_path):
    ref = made(cell, dtype, optimizer, full)
    run_checkpoint.write(tmp_path / NAME, ref)
    assert_equal(run_checkpoint.read(tmp_path), ref)


def test_a_copy_that_differs_only_in_its_numbers_comes_back_too(made, tmp_path):
    """After a divergence, the state has the arrays of the copy, and another rate."""
    ref = made(full=False)
    good = ref.state.copy()
    good.rate_factor = 0.3
    ref = dataclasses.replace(ref, good=good)
    run_checkpoint.write(tmp_path / NAME, ref)
    assert (tmp_path / NAME).stat().st_size < 1.2 * sum(array.nbytes for array in good.arrays().values())
    assert_equal(run_checkpoint.read(tmp_path), ref)


def test_the_same_checkpoint_gives_the_same_bytes(made, tmp_path):
    ref = made()
    for name in "ab":
        run_checkpoint.write(tmp_path / name, ref)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("full", [False, True])
def test_its_model_is_the_best_one_so_far(full, made):
    ref = made(full=full)
    content = ref.content
    assert content.parameters is (ref.best if full else ref.state.parameters)
    assert content.training["model_step"] == (4 if full else 7)
    assert content.training["val_nats"] == (1.25 if full else 1 / 3)
    assert content.training["steps"] == 7
    assert not content.training["finished"]


def damage(path, kind, model_file):
    data = path.read_bytes()
    if kind == "flipped bit":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif kind == "cut":
        path.write_bytes(data[:-8])
    elif kind == "model":
        path.write_bytes(model_file)
    elif kind == "absent":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("flipped bit", "the checkpoint of a run .* is damaged .its checksum is wrong"),
        ("cut", "the checkpoint of a run .* is damaged .its checksum is wrong"),
        ("model", "not a fastlstm checkpoint of a run"),
        ("absent", "there is no checkpoint of a run .*: check the path$"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(kind, message, made, tmp_path):
    path = tmp_path / NAME
    run_checkpoint.write(path, made())
    untrained().save(tmp_path / "model.safetensors")
    damage(path, kind, (tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(ModelFileError, match=message):
        run_checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 1.5}, "'step' in its .* is 1.5"),
        ({"step": -1}, "'step' in its .* is -1"),
        ({"cursor": None}, "'cursor' in its .* is None"),
        ({"loss": "1"}, "'loss' in its .* is '1'"),
        ({"other": 1}, "its .* has the fields"),
    ],
)
def test_invalid_numbers_are_refused(changes, message, made, tmp_path, monkeypatch):
    """Their checksum is correct: such a file was made on purpose."""
    ref = made()
    values = ref.state.scalars() | changes
    monkeypatch.setattr(RunState, "scalars", lambda self: values)
    run_checkpoint.write(tmp_path / NAME, ref)
    with pytest.raises(ModelFileError, match=message):
        run_checkpoint.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positions": {"metrics.jsonl": -1}}, "not lengths"),
        ({"positions": {"metrics.jsonl": "1"}}, "not lengths"),
        ({"text": TextIdentity(5, 5)}, "'sha256' in its text"),
        ({"config": run_config(batch=4)}, "instead of"),
    ],
)
def test_invalid_parts_are_refused(changes, message, made, tmp_path):
    run_checkpoint.write(tmp_path / NAME, dataclasses.replace(made(), **changes))
    with pytest.raises(ModelFileError, match=message):
        run_checkpoint.read(tmp_path)


@pytest.mark.parametrize("name", ["parameters", "slots", "carried"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 2)])
def test_arrays_of_other_shapes_are_refused(name, shape, made, tmp_path, monkeypatch):
    ref = made(full=False)
    arrays = ref.state.arrays() | {name: np.zeros(shape, np.float32)}
    monkeypatch.setattr(RunState, "arrays", lambda self: arrays)
    run_checkpoint.write(tmp_path / NAME, ref)
    with pytest.raises(ModelFileError, match="instead of"):
        run_checkpoint.read(tmp_path)


def test_a_checkpoint_overwrites_another_only_with_permission(made, tmp_path):
    run_checkpoint.write(tmp_path / NAME, made())
    with pytest.raises(ModelExistsError, match="another place for the checkpoint of a run"):
        run_checkpoint.write(tmp_path / NAME, made(), overwrite=False)


def test_a_checkpoint_is_also_the_model_of_its_last_step(made, tmp_path):
    ref = made()
    run_checkpoint.write(tmp_path / NAME, ref)
    model = Model.load(tmp_path / NAME)
    assert model.parameters.flat.tobytes() == ref.state.parameters.flat.tobytes()
    assert (model.training["steps"], model.training["model_step"]) == (7, 7)
    (tmp_path / NAME).write_bytes((tmp_path / NAME).read_bytes()[:-8])
    with pytest.raises(ModelFileError, match="damaged"):
        Model.load(tmp_path / NAME)
