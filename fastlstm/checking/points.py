"""The points at which gradients are checked."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from fastlstm.config import ModelConfig
from fastlstm.contract import Ids
from fastlstm.params import FloatArray, Parameters, initialise


class Point(NamedTuple):
    """A point at which gradients are checked.

    Attributes
    ----------
    parameters : in float64.
    x, y : (T, B) int32, random symbols.
    state : (S, L, B, H) float64, carried in.
    """

    parameters: Parameters
    x: Ids
    y: Ids
    state: FloatArray


def point(model: ModelConfig | Parameters, seq_len: int, batch: int, rng: np.random.Generator) -> Point:
    """A random point for a configuration, or one with given parameters, which are copied."""
    parameters = _random_parameters(model, rng) if isinstance(model, ModelConfig) else model.astype("float64")
    config = parameters.config
    x, y = rng.integers(config.vocab_size, size=(2, seq_len, batch), dtype=np.int32)
    return Point(parameters, x, y, 0.5 * rng.standard_normal(config.state_shape(batch)))


def _random_parameters(config: ModelConfig, rng: np.random.Generator) -> Parameters:
    """Random parameters without special values: no bias is zero, and no two are equal."""
    parameters = initialise(dataclasses.replace(config, dtype="float64"), rng)
    for view in parameters.values():
        view += 0.2 * rng.standard_normal(view.shape)
    return parameters
