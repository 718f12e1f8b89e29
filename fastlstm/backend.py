"""The contract both implementations satisfy, and the choice between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import MOST_THREADS, BackendName, ModelConfig
from fastlstm.errors import ConfigError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.threads import default_threads

Ids = NDArray[np.integer]


class Network(Protocol):
    """A network of one configuration for sequences of T steps in B lanes.

    Arrays: ``x, y`` (T, B) int32; ``state`` (S, L, B, H), carried in and overwritten with what is carried
    out. Losses are sums of nats over the T*B predicted symbols.
    """

    def forward(self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray) -> float:
        """Nats of predicting ``y`` from ``x``; keeps what `backward` needs."""
        ...

    def backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None:
        """Accumulate the gradient of ``scale`` times the last forward pass's nats into ``gradients``.

        Once for each forward pass, whose activations it may use up.
        """
        ...

    def train_step(
        self, parameters: Parameters, gradients: Parameters, slots: Parameters,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule,
    ) -> float:  # fmt: skip
        """Forward, backward, clip, update: parameters, gradients and slots change in place. Returns the nats.

        Gradients are replaced, and left as they were before clipping.
        """
        ...

    def generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: FloatArray, temperature: float
    ) -> Ids:
        """Draw symbols one after the other in every lane.

        Parameters
        ----------
        first : (B,) the symbols read first.
        uniforms : (n, B) float64 in [0, 1), a number for each symbol drawn.
        temperature : exponent ``1/temperature`` on the probabilities; 0 takes the most probable.

        Returns
        -------
        ids : (n, B) int32; the last one drawn has not been read yet.
        """
        ...


def build(
    name: BackendName,
    config: ModelConfig,
    seq_len: int,
    batch: int,
    threads: int | None = None,
    *,
    training: bool = True,
) -> Network:
    """The network of backend ``name`` for ``config``, T = ``seq_len`` and B = ``batch``.

    ``threads`` is the number of workers of the fast backend (``None``: `fastlstm.threads.default_threads`).
    Without ``training`` it only reads and generates, and saves the memory of backward passes.

    Raises
    ------
    ConfigError
        When there is no such backend, ``threads`` is below 1, or an environment variable about threads is wrong.
    """
    if name not in get_args(BackendName):
        raise ConfigError(f"backend must be one of {', '.join(get_args(BackendName))}, not {name!r}")
    if threads is not None and not 1 <= threads <= MOST_THREADS:
        raise ConfigError(f"threads must be a whole number from 1 to {MOST_THREADS}, not {threads!r}")
    if name == "reference":
        from fastlstm.reference.network import ReferenceNetwork

        return ReferenceNetwork(config, seq_len, batch, threads, training=training)
    default_threads()  # numba, about to be imported, says of a wrong variable less kindly that it is wrong
    from fastlstm.kernels.network import FastNetwork

    return FastNetwork(config, seq_len, batch, threads, training=training)


def warm_up(name: BackendName, config: ModelConfig, compiling: Callable[[], None]) -> None:
    """Compile the kernels that a network of ``config`` needs, or load them from the cache of an earlier run.

    Anything that would compile comes after this, so that the time it takes is known. ``compiling`` is called before
    the first kernel is compiled, and not at all when they are all loaded.
    """
    if name == "reference":
        return
    default_threads()  # as in `build`
    with _announced(compiling):
        _run_tiny(name, config)


@contextlib.contextmanager
def _announced(compiling: Callable[[], None]) -> Iterator[None]:
    """Call ``compiling`` when numba begins to compile."""
    from numba.core import event

    failures: list[Exception] = []

    # numba has no types, so its class is of type Any.
    class Announcement(event.Listener):  # type: ignore[misc]
        announced = False

        def on_start(self, found: Any) -> None:
            if self.announced:
                return
            self.announced = True
            try:
                compiling()
            except Exception as error:  # numba, in the midst of typing, would take it for a failure to compile
                failures.append(error)

        def on_end(self, found: Any) -> None:
            """Nothing to say."""

    with event.install_listener("numba:compile", Announcement()):
        yield
    if failures:
        raise failures[0]


def _run_tiny(name: BackendName, config: ModelConfig) -> None:
    """Use every kernel once; of a model's configuration they depend on the dtype alone."""
    tiny = ModelConfig(vocab_size=1, cell=config.cell, hidden=1, embedding=1, dtype=config.dtype)
    network, parameters = build(name, tiny, 1, 1, 1), Parameters(tiny)
    x, state = np.zeros((1, 1), np.int32), np.zeros(tiny.state_shape(1), tiny.dtype)
    network.train_step(parameters, Parameters(tiny), Parameters(tiny), x, x, state, 1.0, UpdateRule(lr=0.0))
    network.generate(parameters, x[0], state, np.zeros((1, 1)), 1.0)
