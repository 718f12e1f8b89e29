"""Fixtures that all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

# The reference uses small matrices: a second BLAS thread on a busy core makes it ten times slower.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest

from fastlstm import Model, TrainConfig
from fastlstm.text import read_text

# No deadlines: a slow machine is not a failure.
hypothesis.settings.register_profile("fastlstm", deadline=None)
hypothesis.settings.load_profile("fastlstm")


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: every run of a test uses the same numbers."""
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def share_every_step() -> Iterator[None]:
    """Share even the smallest step among the workers that a test requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0)
        yield


@pytest.fixture(scope="session")
def default_text() -> str:
    """The text that comes with fastlstm."""
    return read_text([])


@pytest.fixture(scope="session")
def run_folder(default_text: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run of a tiny model; tests must not change it."""
    folder = tmp_path_factory.mktemp("run")
    model = Model.for_text(default_text, hidden=16, embedding=8)
    model.fit(default_text, TrainConfig(steps=20, sample_length=0))
    model.save(folder / "model.safetensors")
    return folder
