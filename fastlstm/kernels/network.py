"""The kernels under the contract of `fastlstm.backend.Network`."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.contract import bad_ids, check_array, no_distribution
from fastlstm.kernels import jit
from fastlstm.kernels.host import vector_unit
from fastlstm.kernels.plan import make
from fastlstm.kernels.step import BACKWARD, BAD_IDS, CLEAR, FORWARD, NORM, UPDATE, generate, step
from fastlstm.kernels.tile import register
from fastlstm.kernels.workers import Workers
from fastlstm.optimizers import UpdateRule
from fastlstm.params import GATES, FloatArray, Parameters
from fastlstm.params import count as parameter_count
from fastlstm.threads import default_threads

Ids = NDArray[np.integer]

#: Multiply-adds of one layer's time step below which a second worker costs more than it brings.
SMALLEST_SHARED_STEP = 1 << 15

_NO_RULE = UpdateRule(lr=0.0)


class FastNetwork:
    """Numba kernels over one preallocated arena; a training step allocates no array.

    Calls from several threads take turns.

    Parameters
    ----------
    config, seq_len, batch : what the buffers are laid out for.
    threads : workers at most; ``None``: `default_threads`. Small networks use fewer, and calls use fewer while that is
        faster, see `fastlstm.kernels.pacing`.
    training : whether there will be backward passes; ``False`` saves their buffers.
    """

    def __init__(
        self, config: ModelConfig, seq_len: int, batch: int, threads: int | None = None, *, training: bool = True
    ) -> None:
        register(config.dtype)
        self.config = config
        self.training = training
        count = 1 if jit.DISABLED else _useful_workers(config, batch, threads or default_threads())
        self.plan, self.buffers = make(config, seq_len, batch, count, training=training)
        self.workers = Workers(count, self.buffers.sync)
        self._step: Callable[..., Any] | None = None
        self._generate: Callable[..., Any] | None = None
        self._plans = self.plan.as_array()
        self._number = np.dtype(config.dtype).type
        self._nothing = np.zeros(0, config.dtype)
        self._flat_shape = (parameter_count(config),)
        self._targets = np.zeros(seq_len * batch, np.int32)
        self._no_state = np.zeros(config.state_shape(0), config.dtype)
        self._forward_thread: int | None = None  # whose activations there are, for a backward pass

    def forward(self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray) -> float:
        self._check_sequence(x, y, state)
        with self.workers.turn():
            self._forward_thread = None
            nats = self._run(FORWARD, parameters.flat, self._nothing, self._nothing, x, y, state, 1.0, _NO_RULE)
            self._targets[:] = y.reshape(-1)
            self._forward_thread = threading.get_ident() if self.training else None
        return nats

    def backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None:
        y = self._targets
        with self.workers.turn():
            if self._forward_thread != threading.get_ident():
                raise RuntimeError(
                    "backward needs a forward pass before it, by the same thread: each uses up its activations"
                )
            self._forward_thread = None
            self._run(BACKWARD, parameters.flat, gradients.flat, self._nothing, y, y, self._no_state, scale, _NO_RULE)

    def train_step(
        self, parameters: Parameters, gradients: Parameters, slots: Parameters,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule,
    ) -> float:  # fmt: skip
        self._check_sequence(x, y, state)
        if not self.training:
            raise RuntimeError("a network built without training has no buffers for a backward pass")
        phases = CLEAR | FORWARD | BACKWARD | UPDATE
        if rule.clip_norm is not None:
            phases |= NORM
        with self.workers.turn():
            self._forward_thread = None
            return self._run(phases, parameters.flat, gradients.flat, slots.flat, x, y, state, scale, rule)

    def generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: FloatArray, temperature: float
    ) -> Ids:
        if self.plan.T != 1:
            raise ValueError(f"a network that generates reads one symbol at a time: T is 1, not {self.plan.T}")
        lanes = (self.plan.B,)
        check_array("parameters", parameters.flat, self._flat_shape, self.config.dtype)
        check_array("first", first, lanes, np.int32)
        check_array("uniforms", uniforms, uniforms.shape[:1] + lanes, np.float64)
        check_array("state", state, self.config.state_shape(self.plan.B), self.config.dtype, written=True)
        ids = np.empty(uniforms.shape, np.int32)
        if not len(ids):
            return ids
        network = (self._plans, self.buffers)
        arguments = (parameters.flat, first, state, uniforms, float(temperature), ids)
        with self.workers.turn():
            if self._generate is None:
                self._generate = jit.compiled_for(generate, 0, 0, 1, 0, *network, *arguments)
            entry = self._generate
            self.buffers.counts[1] = 0
            # Calls that differ much in length are of different kinds, for each packs the weights first.
            if not self.workers.run(
                lambda *call: entry(*call, *network, *arguments), kind=-len(ids).bit_length(), work=len(ids)
            ):
                raise bad_ids(self.config)
            if self.buffers.counts[1]:
                raise no_distribution()
        return ids

    def _check_sequence(self, x: Ids, y: Ids, state: FloatArray) -> None:
        """Kernels address memory by what the plan says: refuse arrays that are not so."""
        shape = (self.plan.T, self.plan.B)
        check_array("x", x, shape, np.int32)
        check_array("y", y, shape, np.int32)
        check_array("state", state, self.config.state_shape(self.plan.B), self.config.dtype, written=True)

    def _run(
        self, phases: int, parameters: FloatArray, gradients: FloatArray, slots: FloatArray,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule,
    ) -> float:  # fmt: skip
        number = self._number
        x, y = x.reshape(-1), y.reshape(-1)
        clip_value = number(math.inf if rule.clip_value is None else rule.clip_value)
        clip_norm = math.inf if rule.clip_norm is None else float(rule.clip_norm)
        written = {"parameters": phases & UPDATE, "gradients": phases & (BACKWARD | CLEAR), "slots": phases & UPDATE}
        for name, array in (("parameters", parameters), ("gradients", gradients), ("slots", slots)):
            if array is not self._nothing:
                check_array(name, array, self._flat_shape, self.config.dtype, written=bool(written[name]))
        scalars = (number(scale), number(rule.lr), number(rule.eps), clip_value, clip_norm)

        arguments = (phases, self._plans, self.buffers, parameters, gradients, slots, x, y, state, *scalars)
        if self._step is None:
            self._step = jit.compiled_for(step, 0, 0, 1, 0, *arguments)
        entry = self._step
        nats: float = self.workers.run(lambda *call: entry(*call, *arguments), kind=phases)
        if nats == BAD_IDS:
            raise bad_ids(self.config)
        return nats

    def activations(self) -> dict[str, FloatArray]:
        """What the last forward pass left, unpacked: for tests and for looking inside.

        ``h.l`` and, for the LSTM, ``c.l`` (T+1, B, H); its gates ``i.l, f.l, o.l, g.l`` (T, B, H); ``probabilities``
        (T, B, V); ``nats`` (T, B). After a backward pass the gates hold their gradients, and so do the probabilities.
        """
        plan, arena = self.plan, self.buffers.arena
        T, B, V, H, Hp = plan.T, plan.B, plan.V, plan.H, plan.Hp
        lanes = vector_unit().lanes(arena.itemsize)

        def view(at: int, *shape: int) -> FloatArray:
            return arena[at : at + math.prod(shape)].reshape(shape)

        found: dict[str, FloatArray] = {}
        for layer in range(plan.L):
            found[f"h.{layer}"] = view(plan.h + layer * plan.h_size, T + 1, B, Hp)[..., :H].copy()
            if plan.G == 4:
                found[f"c.{layer}"] = view(plan.c + layer * plan.h_size, T + 1, B, Hp)[..., :H].copy()
                packed = view(plan.a + layer * plan.a_size, T, B, Hp // lanes, 4, lanes)
                for n, gate in enumerate(GATES):
                    found[f"{gate}.{layer}"] = packed[..., n, :].reshape(T, B, Hp)[..., :H].copy()
        found["probabilities"] = view(plan.p, T, B, plan.Vp)[..., :V].copy()
        found["nats"] = self.buffers.nats.reshape(T, B).copy()
        return found


def _useful_workers(config: ModelConfig, batch: int, threads: int) -> int:
    if batch * config.gates * config.hidden * config.hidden < SMALLEST_SHARED_STEP:
        return 1
    return threads
