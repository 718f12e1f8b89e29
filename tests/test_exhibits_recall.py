"""Recall: answers are keys, an untrained network guesses, and one that holds the key recalls it."""

import numpy as np
import pytest

from fastlstm.cells import CELLS
from fastlstm.config import ModelConfig
from fastlstm.errors import ConfigError, StoppedError
from fastlstm.exhibits import recall
from fastlstm.exhibits.recall import RecallTask, recall_curve
from fastlstm.params import Parameters

TASK = RecallTask(keys=5, distractors=3, longest=9)


@pytest.mark.parametrize("k", [0, 1, 7])
def test_an_episode_is_key_distractors_query_key(k, rng):
    key, *between, query, answer = TASK.episodes(k, 2000, rng)
    assert np.array_equal(key, answer)
    assert set(key) == set(range(5))
    assert set(query) == {8}
    assert len(between) == k
    assert all(set(symbols) == {5, 6, 7} for symbols in between)


def test_training_sequences_are_whole_episodes_of_all_lengths(rng):
    lengths, rests = set(), set()
    for lane in TASK.sequences(500, rng).T:
        rest = lane.tolist()
        while rest and rest[0] < TASK.keys:
            end = rest.index(TASK.query) + 1
            assert rest[end] == rest[0]
            assert all(TASK.keys <= symbol < TASK.query for symbol in rest[1 : end - 1])
            lengths.add(end - 2)
            rest = rest[end + 1 :]
        assert all(TASK.keys <= symbol < TASK.query for symbol in rest)
        rests.add(len(rest))
    assert lengths == set(range(TASK.longest + 1))
    assert rests == set(range(TASK.length - 2))


@pytest.mark.parametrize("cell", CELLS)
def test_an_untrained_network_guesses(cell):
    found = recall_curve(cell, 3000, steps=0, distractors=(0, 3, 20))
    assert found.distractors.tolist() == [0, 3, 20]
    assert found.chance == 1 / 8
    # Guessing one key always, or a symbol that is none: at most 4 standard errors of 1000 guesses above chance.
    assert found.accuracy.max() < 1 / 8 + 4 * np.sqrt(1 / 8 * 7 / 8 / 1000)


def test_a_network_that_holds_the_key_recalls_it_and_one_that_forgets_it_does_not(rng):
    """Unit i of an LSTM is written by key i, and read at any time; its forget gate is constant."""
    keys, E = TASK.keys, TASK.vocab_size
    config = ModelConfig(TASK.vocab_size, "lstm", 1, keys, E)
    parameters = Parameters(config)
    parameters["embedding"] = np.eye(E)
    i, f, o, g = range(4)
    W = parameters["layers.0.W"].reshape(E + keys, 4, keys)
    b = parameters["layers.0.b"].reshape(4, keys)
    W[:keys, i] = 20 * np.eye(keys)
    b[i], b[o], b[g] = -10, 10, 3
    parameters["output.W"][:, :keys] = 10 * np.eye(keys)
    episodes = TASK.episodes(30, 400, rng)
    b[f] = 10
    assert recall._accuracy(parameters, episodes) == 1
    b[f] = -10
    assert recall._accuracy(parameters, episodes) < 0.4  # chance is 0.2


def test_training_raises_recall_above_guessing():
    """Of no distractor: that takes few steps."""
    found = recall_curve("gru", 3000, steps=150, longest=2, distractors=(0, 1))
    assert found.accuracy.min() > 0.9


def test_the_seed_determines_the_result():
    first, same, other = (recall_curve("rnn", 3000, steps=20, longest=3, seed=seed).accuracy for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_all_cells_are_trained_on_the_same_data(monkeypatch):
    drawn = {}
    original = RecallTask.sequences
    for cell in CELLS:
        batches = drawn[cell] = []

        def recorded(task, count, rng, batches=batches):
            batches.append(original(task, count, rng))
            return batches[-1]

        monkeypatch.setattr(RecallTask, "sequences", recorded)
        recall_curve(cell, 3000, steps=3, longest=3, distractors=())
    assert np.array_equal(drawn["lstm"], drawn["rnn"])
    assert np.array_equal(drawn["lstm"], drawn["gru"])


def test_it_stops_before_the_next_step_when_asked():
    calls = []

    def stop():
        calls.append(True)
        return len(calls) > 4

    with pytest.raises(StoppedError):
        recall_curve("rnn", 3000, steps=10**9, longest=3, stop=stop)
    assert len(calls) == 5


@pytest.mark.parametrize(
    "setting", [{"longest": -1}, {"distractors": (3, -1)}, {"steps": -1}, {"seed": -1}, {"lr": -1}]
)
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        recall_curve("rnn", 3000, **setting)


@pytest.mark.slow
def test_the_lstm_recalls_over_50_distractors_and_the_rnn_does_not():
    """About 30 seconds."""
    accuracy = {cell: recall_curve(cell, 12_000).accuracy[-1] for cell in ("lstm", "rnn")}
    assert accuracy["lstm"] > 0.95
    assert accuracy["rnn"] < 0.3  # chance is 0.125
