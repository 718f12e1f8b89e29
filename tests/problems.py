"""Random problems for several tests: parameters of a network, symbols and carried-in state."""

from typing import NamedTuple

import numpy as np

from fastlstm.config import ModelConfig
from fastlstm.params import Parameters, initialise


class Problem(NamedTuple):
    config: ModelConfig
    parameters: Parameters
    x: np.ndarray
    y: np.ndarray
    state: np.ndarray

    @property
    def seq_len(self):
        return len(self.x)

    @property
    def batch(self):
        return self.x.shape[1]

    def slots(self, rule, value=0.0):
        """Slots of an update rule, all of them ``value``."""
        return np.full((rule.slots, self.config.parameter_count), value, self.config.dtype)

    def astype(self, dtype):
        """The same problem in another dtype (complex128 too: its configuration then stays as it is)."""
        config = self.config if dtype == "complex128" else ModelConfig(**{**self.config.to_dict(), "dtype": dtype})
        parameters = Parameters(config, self.parameters.flat.astype(dtype))
        return self._replace(config=config, parameters=parameters, state=self.state.astype(dtype))


def problem(rng, cell, *, layers=1, hidden=9, embedding=5, vocab=11, seq_len=8, batch=2, dtype="float64", symbols=None):
    """A generic point: neither biases nor the state are zero. ``symbols``: number of symbols that may occur."""
    config = ModelConfig(vocab, cell, layers, hidden, embedding, dtype)
    parameters = initialise(config, rng)
    for view in parameters.values():
        if view.ndim == 1:
            view += 0.3 * rng.standard_normal(view.shape)
    readable = rng.permutation(vocab)[:symbols].astype(np.int32)
    x = rng.choice(readable, (seq_len, batch))
    y = rng.integers(vocab, size=(seq_len, batch), dtype=np.int32)
    state = (0.5 * rng.standard_normal(config.state_shape(batch))).astype(dtype)
    return Problem(config, parameters, x, y, state)


def tape_buffers(tape, structure):
    """The buffers of a reference tape, with the names of `FastNetwork.activations`."""
    found = {"probabilities": tape.probabilities, "nats": tape.nats}
    for n, layer in enumerate(tape.layers):
        found |= {f"{gate}.{n}": value for gate, value in zip(structure.saved, layer.gates, strict=True)}
        found |= {f"{part}.{n}": value for part, value in zip(structure.state, layer.state, strict=True)}
    return found
