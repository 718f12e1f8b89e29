"""The state of a run: one value that is copied, compared, written and read, and from which a run resumes bitwise."""

import math
import subprocess
import sys

import numpy as np
import pytest
from programs import ENVIRONMENT

from fastlstm import Model, ModelConfig, TrainConfig, run_state
from fastlstm.batches import Lanes
from fastlstm.errors import ConfigError, ModelExistsError, ModelFileError
from fastlstm.observers import Observer
from fastlstm.params import Parameters, initialise
from fastlstm.run_state import RunState
from fastlstm.text import Vocab, split
from fastlstm.trainer import Run, Steps, begin

TEXT = "the cat sat on the mat.\nso did the dog, at last.\n" * 40
VOCAB = Vocab.from_text(TEXT)
SETTINGS = {
    "seq_len": 8, "batch": 3, "steps": 300, "smoothing": 0.9, "sample_length": 10, "threads": 1,
    "dropout_embedding": 0.1, "dropout_layers": 0.2, "dropout_output": 0.2,
}  # fmt: skip


def model_config(cell="lstm", dtype="float32", **settings):
    return ModelConfig(len(VOCAB), cell, **{"layers": 2, "hidden": 9, "embedding": 5, "dtype": dtype} | settings)


@pytest.fixture
def state(rng):
    """A state in the middle of a run."""
    state = RunState.start(initialise(model_config(), rng), batch=3, slots=2)
    for array in (state.slots, state.carried):
        array[...] = rng.standard_normal(array.shape)
    state.step, state.cursor, state.loss, state.seconds = 7, 56, 1.25, 0.1 + 0.2
    state.smooth(0.9)
    state.val_nats, state.val_error, state.val_step = 1.5, 0.25, 5
    state.best_nats, state.best_step, state.worse, state.stalled = 1.25, 4, 2, 1
    state.rate_factor, state.recoveries = 0.5, 1
    return state


def untrained(cell, dtype="float32"):
    config = model_config(cell, dtype)
    return Model(config, VOCAB, seed=4)


def lanes(config):
    return Lanes(split(VOCAB.encode(TEXT), config.val_frac)[0], config.seq_len, config.batch)


def steps_of(model, config):
    laid = lanes(config)
    return Steps(model, laid, config, config.total_steps(laid.steps_per_epoch))


#: Reads a state, takes 180 further steps and writes it again.
GO_ON = """
import sys
sys.path[:0] = sys.argv[1:2]
import test_run_state as here
from fastlstm import TrainConfig, run_state
state = run_state.read(sys.argv[2])
assert state.step == 120
steps = here.steps_of(state.parameters.config, TrainConfig(**here.SETTINGS, optimizer=sys.argv[3]))
for _ in range(180):
    steps.take(state)
run_state.write(sys.argv[2], state)
"""


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("optimizer", ["adagrad", "sgd", "adam"])
def test_a_run_resumed_in_another_process_is_bitwise_the_uninterrupted_run(cell, optimizer, request, tmp_path):
    config, model = TrainConfig(**SETTINGS, optimizer=optimizer), model_config(cell)
    steps = steps_of(model, config)
    assert 3 * lanes(config).steps_per_epoch < 300  # the lanes wrap on the way, within and after the first 120

    whole = RunState.start(untrained(cell).parameters, config.batch, config.rule(config.highest_rate).slots)
    for _ in range(120):
        steps.take(whole)
    run_state.write(tmp_path / "last.safetensors", whole)
    for _ in range(180):
        steps.take(whole)
    arguments = [request.path.parent, tmp_path / "last.safetensors", optimizer]
    subprocess.run([sys.executable, "-c", GO_ON, *arguments], check=True, env=ENVIRONMENT)
    resumed = run_state.read(tmp_path / "last.safetensors")
    assert resumed.step == 300
    resumed.seconds = whole.seconds  # another clock
    assert resumed == whole


class Stopper(Observer):
    def __init__(self, step):
        self.step, self.seen, self.samples, self.validations = step, 0, {}, {}

    def stepped(self, progress):
        self.seen = progress.step

    def sampled(self, progress, text):
        self.samples[progress.step] = text

    def validated(self, progress):
        self.validations[progress.step] = progress.val_nats

    def stop(self):
        return self.seen == self.step


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_a_stopped_run_is_resumed_with_the_same_reports(backend, tmp_path):
    """Validations, samples, smoothed loss and result: a new object, from a file, continues the run."""
    config = TrainConfig(**SETTINGS | {"backend": backend})
    model, whole = untrained("lstm"), Stopper(None)
    ref = model.fit(TEXT, config, observer=whole)

    ids, first, second = VOCAB.encode(TEXT), Stopper(125), Stopper(None)
    early = begin(untrained("lstm").content, ids, config, first)
    assert not early.train(first.stop).finished
    run_state.write(tmp_path / "last.safetensors", early.state)
    state = run_state.read(tmp_path)
    assert state == early.state
    late = Run(state, lanes(config), split(ids, config.val_frac)[1], VOCAB, config, second)
    result = late.train(lambda: False)
    assert state.parameters.flat.tobytes() == model.parameters.flat.tobytes()
    assert first.samples | second.samples == whole.samples
    assert first.validations | second.validations == whole.validations
    assert len(first.samples) == 4
    assert late.training == model.training
    assert (result.steps, result.train_nats, result.val_nats) == (300, ref.train_nats, ref.val_nats)
    assert result.finished


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("slots", [0, 1, 2])
def test_a_state_comes_back_bit_for_bit(cell, dtype, slots, tmp_path, rng):
    state = RunState.start(initialise(model_config(cell, dtype), rng), batch=3, slots=slots)
    assert math.isnan(state.loss)
    for changed in (False, True):
        if changed:
            state.carried[...] = rng.standard_normal(state.carried.shape)
            state.carried.flat[:3] = -0.0, np.nan, np.inf
            state.slots[...] = rng.random(state.slots.shape)
            state.loss, state.seconds, state.val_nats, state.val_step = -math.inf, 5e-324, 1 / 3, 2**53
        run_state.write(tmp_path / "last.safetensors", state)
        assert run_state.read(tmp_path) == state


def differences(state):
    """For each part of a state, a copy in which only that part is changed."""
    for name in state.arrays():
        other = state.copy()
        other.arrays()[name].flat[-1] = np.nan
        yield name, other
    for name, value in state.scalars().items():
        other = state.copy()
        setattr(other, name, math.nextafter(value, math.inf) if isinstance(value, float) else value + 1)
        yield name, other


def test_states_differ_when_a_bit_differs(state, rng):
    assert state == state.copy()
    assert len(list(differences(state))) == 18
    for name, other in differences(state):
        assert other != state, name
        assert other == other.copy(), name
    state.loss, other = 0.0, state.copy()
    other.loss = -0.0
    assert other != state
    assert state != 1
    deeper = RunState.start(Parameters(model_config(layers=3)), 3, 2)
    assert deeper != RunState.start(Parameters(model_config()), 3, 2)
    assert RunState.start(Parameters(model_config()), 3, 1) != RunState.start(Parameters(model_config()), 3, 2)


def test_a_copy_shares_nothing(state):
    copy, before = state.copy(), state.copy()
    for array in copy.arrays().values():
        array += 1
    copy.smooth(0.5)
    assert state == before
    assert copy.parameters["output.b"].tobytes() == copy.parameters.flat[-len(VOCAB) :].tobytes()


@pytest.mark.parametrize("start", [None, 2.0])
def test_steps_change_a_state_in_place(start):
    """So the loop allocates nothing, and trains a model's own parameters."""
    config, model = TrainConfig(**SETTINGS), untrained("lstm")
    state = RunState.start(model.parameters, config.batch, 1, start)
    assert state.smoothed_loss == start
    before = {name: (array, array.copy()) for name, array in state.arrays().items()}
    steps_of(model.config, config).take(state)
    for name, array in state.arrays().items():
        assert array is before[name][0]
        assert array.tobytes() != before[name][1].tobytes()
    assert state.arrays()["parameters"] is model.parameters.flat
    assert (state.step, state.cursor) == (1, config.seq_len)
    assert state.smoothed_loss == pytest.approx(state.loss if start is None else 0.9 * start + 0.1 * state.loss)


def test_a_state_of_other_lanes_is_refused(state):
    state.cursor = 10**6
    with pytest.raises(ConfigError, match="resume with the same text"):
        steps_of(state.parameters.config, TrainConfig(**SETTINGS)).take(state)


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
        ("flipped bit", "the run state .* is damaged .its checksum is wrong"),
        ("cut", "the run state .* is damaged .its checksum is wrong"),
        ("model", "not a fastlstm run state"),
        ("absent", "there is no run state .*: check the path$"),
    ],
)
def test_a_damaged_or_foreign_state_file_is_refused(kind, message, state, tmp_path):
    path = tmp_path / "last.safetensors"
    run_state.write(path, state)
    untrained("lstm").save(tmp_path / "model.safetensors")
    damage(path, kind, (tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(ModelFileError, match=message):
        run_state.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"step": 1.5}, "'step' in its state is 1.5"),
        ({"step": -1}, "'step' in its state is -1"),
        ({"cursor": None}, "'cursor' in its state is None"),
        ({"loss": "1"}, "'loss' in its state is '1'"),
        ({"other": 1}, "its state has the fields"),
    ],
)
def test_invalid_values_in_a_state_are_refused(changes, message, state, tmp_path, monkeypatch):
    """Their checksum is correct: such a file was made on purpose."""
    values = state.scalars() | changes
    monkeypatch.setattr(RunState, "scalars", lambda self: values)
    run_state.write(tmp_path / "last.safetensors", state)
    with pytest.raises(ModelFileError, match=message):
        run_state.read(tmp_path)


@pytest.mark.parametrize("name", ["parameters", "slots", "carried"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2, 2)])
def test_arrays_of_other_shapes_are_refused(name, shape, state, tmp_path, monkeypatch):
    arrays = state.arrays() | {name: np.zeros(shape, np.float32)}
    monkeypatch.setattr(RunState, "arrays", lambda self: arrays)
    run_state.write(tmp_path / "last.safetensors", state)
    with pytest.raises(ModelFileError, match="instead of"):
        run_state.read(tmp_path)


def test_a_state_overwrites_another_only_with_permission(state, tmp_path):
    run_state.write(tmp_path / "last.safetensors", state)
    with pytest.raises(ModelExistsError, match="another place for the run state"):
        run_state.write(tmp_path / "last.safetensors", state, overwrite=False)
    state.step += 1
    run_state.write(tmp_path / "last.safetensors", state)
    assert run_state.read(tmp_path).step == 8
