"""The models and the text for trials; each is made once per process."""

import functools
import tempfile
from pathlib import Path

from fastlstm import Model, TrainConfig

TEXT = "so it goes, and so it went; and where it went nobody knows.\n" * 20
#: A short run that uses every part of training.
SHORT_RUN = TrainConfig(steps=3, seq_len=8, batch=4, sample_length=4, threads=2)

#: Models that differ in everything that their files and kernels depend on.
KINDS = (
    {"cell": "lstm", "dtype": "float32"},
    {"cell": "rnn", "dtype": "float64", "layers": 2},
    {"cell": "lstm", "dtype": "float64"},
    {"cell": "rnn", "dtype": "float32"},
    {"cell": "gru", "dtype": "float32"},
    {"cell": "gru", "dtype": "float64"},
)


def warm_up():
    """Compile all kernels or load them, so that it does not count as time of a trial."""
    for kind in KINDS:  # kernels are compiled for each cell and dtype
        model = Model.for_text(TEXT, hidden=4, embedding=3, **kind)
        model.fit(TEXT, SHORT_RUN)


def fresh_model(kind=0, hidden=4):
    """A small model of ``KINDS[kind]`` that has been trained a little, always with the same bits."""
    model = Model.for_text(TEXT, hidden=hidden, embedding=3, **KINDS[kind])
    model.parameters.flat[...] = _trained(kind, hidden)
    return model


@functools.cache
def _trained(kind, hidden):
    model = Model.for_text(TEXT, hidden=hidden, embedding=3, **KINDS[kind])
    model.fit(TEXT, SHORT_RUN)
    return model.parameters.flat.copy()


@functools.cache
def file_of(kind=0):
    """The bytes of a finished model's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        model = Model.for_text(TEXT, hidden=4, embedding=3, **KINDS[kind])
        model.fit(TEXT, SHORT_RUN)
        model.save(path)
        return path.read_bytes()
