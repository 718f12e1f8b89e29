"""The points at which gradients are checked.

At a point with special values some mistakes do not show: with a bias or a carried-in state of zero, the terms that they
multiply vanish. Others burn in first, by some steps of training. Here parameters and state are drawn so that no value
is special, which any configuration allows, and which needs no optimizer.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from fastlstm.config import DType, ModelConfig
from fastlstm.contract import Ids
from fastlstm.params import FloatArray, Parameters, initialise


class Point(NamedTuple):
    """A point at which gradients are checked.

    Attributes
    ----------
    parameters : in float64, unless converted.
    x, y : (T, B) int32, random symbols.
    state : (S, L, B, H), carried in, in the parameters' dtype.
    """

    parameters: Parameters
    x: Ids
    y: Ids
    state: FloatArray

    @property
    def seq_len(self) -> int:
        """T."""
        return int(self.x.shape[0])

    @property
    def batch(self) -> int:
        """B."""
        return int(self.x.shape[1])

    def astype(self, dtype: DType) -> Point:
        """The same point with parameters and state in a dtype."""
        return self._replace(parameters=self.parameters.astype(dtype), state=self.state.astype(dtype))


def point(model: ModelConfig | Parameters, seq_len: int, batch: int, rng: np.random.Generator) -> Point:
    """A random point for a configuration, or one with given parameters, which are copied."""
    parameters = _random_parameters(model, rng) if isinstance(model, ModelConfig) else model.astype("float64")
    config = parameters.config
    x, y = rng.integers(config.vocab_size, size=(2, seq_len, batch), dtype=np.int32)
    return Point(parameters, x, y, 0.5 * rng.standard_normal(config.state_shape(batch)))


def float32_unit(at: Point) -> float:
    """Relative rounding error of a number computed in float32: ``2**-24 (sqrt(K) + 5)``.

    That is half a unit of a number with 24 bits, in sums of up to K terms, as a random walk, and in functions.
    """
    config = at.parameters.config
    longest = max(config.embedding, config.hidden) + config.hidden, config.vocab_size, at.x.size
    return 2.0**-24 * (math.sqrt(max(longest)) + 5)


def _random_parameters(config: ModelConfig, rng: np.random.Generator) -> Parameters:
    """Random parameters without special values: no bias is zero, and no two are equal."""
    parameters = initialise(dataclasses.replace(config, dtype="float64"), rng)
    for view in parameters.values():
        view += 0.2 * rng.standard_normal(view.shape)
    return parameters
