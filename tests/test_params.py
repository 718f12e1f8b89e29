"""Parameters: named views and the flat array share their values, also in every kind of copy."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from fastlstm import Model, ModelConfig, TrainConfig
from fastlstm.params import Parameters

TEXT = "the cat sat on the mat, and so did the dog.\n" * 12


@pytest.fixture
def model():
    return Model.for_text(TEXT, hidden=6, embedding=3, seed=1)


def by_pickle(protocol):
    return lambda model: pickle.loads(pickle.dumps(model, protocol))


def out_of_band(model):
    """As in process pools with shared memory: the buffers arrive read-only."""
    buffers = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])


def memory_mapped(tmp_path, model):
    """As joblib passes large arrays to its workers."""
    np.save(tmp_path / "flat.npy", model.parameters.flat)
    rebuild, (config, _) = model.parameters.__reduce__()
    return Model(model.config, model.vocab, rebuild(config, np.load(tmp_path / "flat.npy", mmap_mode="r")))


def train(model):
    model.fit(TEXT, TrainConfig(steps=30, seq_len=8, batch=4, lr=0.3, sample_length=0, threads=1))
    return model


def assert_saves_what_it_computes(model, path):
    model.save(path)
    assert Model.load(path).evaluate(TEXT) == model.evaluate(TEXT)


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "out of band": out_of_band,
    **{f"pickle {protocol}": by_pickle(protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)},
}


@pytest.mark.parametrize("duplicate", COPIES.values(), ids=COPIES)
def test_a_trained_copy_saves_its_trained_parameters(model, duplicate, tmp_path):
    before = model.evaluate(TEXT).nats_per_char
    other = train(duplicate(model))
    assert other.evaluate(TEXT).nats_per_char < before - 0.2
    assert_saves_what_it_computes(other, tmp_path / "m.safetensors")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, out_of_band, by_pickle(2)])
def test_training_a_deep_copy_does_not_change_the_original(model, duplicate):
    before = model.parameters.flat.tobytes()
    train(duplicate(model))
    assert model.parameters.flat.tobytes() == before


def test_a_shallow_copy_shares_the_parameters(model):
    other = train(copy.copy(model))
    assert other.parameters.flat is model.parameters.flat
    assert copy.copy(model.parameters).flat is model.parameters.flat


def test_parameters_in_a_read_only_memory_map_are_copied_and_can_be_trained(model, tmp_path):
    other = train(memory_mapped(tmp_path, model))
    assert type(other.parameters.flat) is np.ndarray
    assert_saves_what_it_computes(other, tmp_path / "m.safetensors")


def test_a_model_trained_in_another_process_is_returned_complete(model, tmp_path):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        other = pool.submit(train, model).result(timeout=120)
    assert other.parameters.flat.tobytes() == train(model).parameters.flat.tobytes()
    assert_saves_what_it_computes(other, tmp_path / "m.safetensors")
    train(other)
    assert_saves_what_it_computes(other, tmp_path / "m.safetensors")


def test_names_follow_the_flat_array(model):
    parameters = model.parameters
    parameters.flat = np.arange(parameters.flat.size, dtype=np.float32)
    assert parameters["output.b"][-1] == parameters.flat.size - 1
    parameters["embedding"] = 7
    parameters["layers.0.b"][...] = 8
    assert parameters.flat[0] == 7
    assert (parameters.flat == 8).sum() == parameters["layers.0.b"].size


@pytest.mark.parametrize("flat", [np.zeros(3), np.zeros((2, 2)), np.zeros(110)[::2]])
def test_a_flat_array_that_does_not_fit_the_table_is_refused(flat):
    with pytest.raises(ValueError, match="flat must be a C-contiguous array"):
        Parameters(ModelConfig(3, hidden=2, embedding=2), flat)


def test_parameters_and_models_show_their_size(model):
    assert repr(model.parameters) == f"<Parameters: {model.parameters.flat.size:,} of float32 in 5 arrays>"
    assert repr(model) == f"<Model: lstm, 1 x 6, embedding 3, {len(model.vocab)} symbols, float32>"
