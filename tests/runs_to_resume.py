"""A small run of all that a run can have, for tests that interrupt and resume it."""

from fastlstm import Model, ModelConfig, TrainConfig
from fastlstm.batches import Lanes
from fastlstm.steps import Steps
from fastlstm.text import Vocab, split

TEXT = "the cat sat on the mat.\nso did the dog, at last.\n" * 40
VOCAB = Vocab.from_text(TEXT, escape=True)
IDS = VOCAB.encode(TEXT)


def model_config(cell="lstm", dtype="float32", **settings):
    return ModelConfig(len(VOCAB), cell, **{"layers": 2, "hidden": 9, "embedding": 5, "dtype": dtype} | settings)


def run_config(**settings):
    usual = {
        "seq_len": 8, "batch": 3, "steps": 300, "smoothing": 0.9, "sample_length": 10, "threads": 1, "checks": 7,
        "dropout_embedding": 0.1, "dropout_layers": 0.2, "dropout_output": 0.2, "sample_every": 29,
    }  # fmt: skip
    return TrainConfig(**usual | settings)


def untrained(cell="lstm", dtype="float32"):
    return Model(model_config(cell, dtype), VOCAB, seed=4)


def lanes(config):
    return Lanes(split(IDS, config.val_frac)[0], config.seq_len, config.batch)


def steps_of(model, config):
    laid = lanes(config)
    return Steps(model, laid, config, config.total_steps(laid.steps_per_epoch), VOCAB.escape_id)
