"""Fixtures that all tests share."""

import hypothesis
import numpy as np
import pytest

# A slow machine is no failure.
hypothesis.settings.register_profile("fastlstm", deadline=None)
hypothesis.settings.load_profile("fastlstm")


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: every run of a test sees the same numbers."""
    return np.random.default_rng(0)
