"""Models and data of a workload, ready to be timed."""

from __future__ import annotations

from typing import cast

import numpy as np

from benchmarks.workloads import CLIP_NORM, LEARNING_RATE, Workload
from fastlstm.backend import build
from fastlstm.cells import CELLS, CellName
from fastlstm.config import BackendName, DType, ModelConfig
from fastlstm.dropout import Dropout
from fastlstm.model import Model
from fastlstm.optimizers import OPTIMIZERS, OptimizerName
from fastlstm.params import Parameters, initialise
from fastlstm.text import Vocab


def config_of(workload: Workload, dtype: DType = "float32") -> ModelConfig:
    """The configuration of a workload's model."""
    return ModelConfig(
        vocab_size=workload.V,
        cell=cast(CellName, workload.cell),
        embedding=workload.E,
        hidden=workload.H,
        layers=workload.L,
        dtype=dtype,
    )


def with_cell(workload: Workload, cell: CellName) -> Workload:
    """The same sizes with another cell."""
    return workload._replace(cell=cell, G=len(CELLS[cell].gates))


class Training:
    """A network, its parameters, and one batch of random symbols. The state is carried from step to step."""

    def __init__(
        self,
        workload: Workload,
        backend: BackendName = "fast",
        threads: int | None = None,
        optimizer: OptimizerName = "adagrad",
        dropout: Dropout | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        self.rule = OPTIMIZERS[optimizer].rule(LEARNING_RATE, clip_norm=CLIP_NORM)
        config = config_of(workload)
        rng = np.random.default_rng(0)
        self.workload = workload
        self.network = build(backend, config, workload.T, workload.B, threads, dropout=dropout, bf16=bf16)
        self.masks = None if dropout is None else 0  # the number of the step, always the same
        self.parameters = initialise(config, rng)
        self.gradients = Parameters(config)
        self.slots = np.zeros((self.rule.slots, config.parameter_count), config.dtype)
        self.x, self.y = rng.integers(workload.V, size=(2, workload.T, workload.B), dtype=np.int32)
        self.state = np.zeros(config.state_shape(workload.B), config.dtype)

    def step(self) -> float:
        """Forward, backward, clip, update; returns the nats."""
        return self.network.train_step(
            self.parameters, self.gradients, self.slots, self.x, self.y, self.state,
            1.0 / self.workload.chars, self.rule, self.masks,
        ).nats  # fmt: skip


class Reading:
    """A network without a backward pass, and random symbols: the loss of a text, as `Model.evaluate` computes it.

    `Model.evaluate` reads a text in one lane, in such calls; more lanes are read by `fastlstm.backend.build` and
    `Network.forward`. The state is carried from call to call.
    """

    def __init__(self, workload: Workload, threads: int | None = None, *, bf16: bool = False) -> None:
        config, rng = config_of(workload), np.random.default_rng(0)
        self.network = build("fast", config, workload.T, workload.B, threads, training=False, bf16=bf16)
        self.parameters = initialise(config, rng)
        self.x, self.y = rng.integers(workload.V, size=(2, workload.T, workload.B), dtype=np.int32)
        self.state = np.zeros(config.state_shape(workload.B), config.dtype)

    def read(self) -> float:
        """The nats of one sequence in each lane."""
        return self.network.forward(self.parameters, self.x, self.y, self.state)


def model_of(workload: Workload) -> Model:
    """An untrained model with an arbitrary vocabulary of the workload's size."""
    symbols = "".join(chr(ord("!") + n) for n in range(workload.V))
    return Model(config_of(workload), Vocab.from_text(symbols))
