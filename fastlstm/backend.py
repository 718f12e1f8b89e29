"""The choice between the two implementations of `fastlstm.contract.Network`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastlstm.config import BackendName, ModelConfig, TrainConfig
from fastlstm.contract import Network
from fastlstm.drawing import Drawing
from fastlstm.dropout import Dropout
from fastlstm.errors import ConfigError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters
from fastlstm.settings import settings_of
from fastlstm.threads import default_threads

#: What is wrong when a processor does not have the instructions for bf16.
NO_BF16 = "this processor has no instructions for bf16 (AVX-512 BF16)"


def build(
    name: BackendName,
    config: ModelConfig,
    seq_len: int,
    batch: int,
    threads: int | None = None,
    *,
    training: bool = True,
    dropout: Dropout | None = None,
    bf16: bool = False,
) -> Network:
    """The network of backend ``name`` for ``config``, T = ``seq_len`` and B = ``batch``.

    ``threads`` is the number of workers of the fast backend (``None``: `fastlstm.threads.default_threads`).
    Without ``training`` it has no backward pass, and saves the memory for it. ``dropout``, ``bf16``: see `Network`.

    Raises
    ------
    ConfigError
        When there is no such backend, ``threads`` is below 1, an environment variable about threads is invalid, or
        bf16 cannot be computed here or with the model's parameters.
    """
    settings = settings_of(TrainConfig)
    name, threads = settings["backend"].validated(name), settings["threads"].validated(threads)
    if name == "reference":
        from fastlstm.reference.network import ReferenceNetwork

        return ReferenceNetwork(config, seq_len, batch, threads, training=training, dropout=dropout, bf16=bf16)
    default_threads()  # validate the environment first: numba, about to be imported, would report it unclearly
    if bf16 and not has_bf16(name):
        raise ConfigError(f"{NO_BF16}: use float32")
    from fastlstm.kernels.network import FastNetwork

    return FastNetwork(config, seq_len, batch, threads, training=training, dropout=dropout, bf16=bf16)


def has_bf16(name: BackendName) -> bool:
    """Whether networks of backend ``name`` can round operands to bfloat16 on this processor."""
    if name == "reference":
        return True
    if "numba" not in sys.modules:
        default_threads()  # as in `build`
    from fastlstm.kernels import host

    return host.has_bf16()


def is_slow(name: BackendName) -> bool:
    """Whether backend ``name`` computes float32 many times as slowly here as it could with other last bits.

    That is so on processors without fused multiply-add, see `fastlstm.kernels.host.multiply_add`.
    """
    if name == "reference":
        return False
    from fastlstm.kernels import host

    return host.multiply_add() == "exact"


def warm_up(name: BackendName, config: ModelConfig, compiling: Callable[[], None], *, bf16: bool = False) -> None:
    """Compile the kernels that a network of ``config`` needs, or load them from the cache of an earlier run.

    Call it first, so that the time for compiling can be measured apart from that for computing. ``compiling`` is called
    before the first kernel is compiled, and not at all when all are loaded from the cache.
    """
    if name == "reference":
        return
    default_threads()  # as in `build`
    with _announced(compiling):
        _run_tiny(name, config, bf16)


@contextlib.contextmanager
def _announced(compiling: Callable[[], None]) -> Iterator[None]:
    """Call ``compiling`` when numba begins to compile."""
    from numba.core import event

    failures: list[Exception] = []

    # numba has no type annotations, so its class is of type Any.
    class Announcement(event.Listener):  # type: ignore[misc]
        announced = False

        def on_start(self, found: Any) -> None:
            if self.announced:
                return
            self.announced = True
            try:
                compiling()
            except Exception as error:  # raised here, numba would treat it as a failure to compile
                failures.append(error)

        def on_end(self, found: Any) -> None:
            """Required by `event.Listener`; nothing to do."""

    with event.install_listener("numba:compile", Announcement()):
        yield
    if failures:
        raise failures[0]


def _run_tiny(name: BackendName, config: ModelConfig, bf16: bool) -> None:
    """Run every kernel once; of a model's configuration they depend on cell and dtype alone."""
    tiny = ModelConfig(vocab_size=1, cell=config.cell, hidden=1, embedding=1, dtype=config.dtype)
    network, parameters, rule = build(name, tiny, 1, 1, 1, bf16=bf16), Parameters(tiny), UpdateRule(lr=0.0)
    x, state = np.zeros((1, 1), np.int32), np.zeros(tiny.state_shape(1), tiny.dtype)
    slots = np.zeros((rule.slots, tiny.parameter_count), tiny.dtype)
    network.train_step(parameters, Parameters(tiny), slots, x, x, state, 1.0, rule)
    network.generate(parameters, x[0], state, np.zeros((1, 1)), Drawing())
