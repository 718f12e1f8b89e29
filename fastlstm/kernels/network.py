"""The implementation of `fastlstm.contract.Network` with the kernels."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.contract import Ids, Network, Restarts, StepResult, bad_ids, no_distribution
from fastlstm.drawing import Drawing
from fastlstm.dropout import WORD, Dropout
from fastlstm.errors import ConfigError
from fastlstm.kernels import jit
from fastlstm.kernels.dropout import STEP, THRESHOLDS
from fastlstm.kernels.step import (
    BACKWARD,
    BAD_IDS,
    CLEAR,
    FORWARD,
    NORM,
    PACK,
    TABLE,
    UPDATE,
    generate,
    step,
)
from fastlstm.kernels.tile.call import register
from fastlstm.kernels.workers import Workers
from fastlstm.kernels.workspace import BFLOAT16, Workspace
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters
from fastlstm.threads import default_threads

#: Multiply-adds of one layer's time step below which a second worker costs more time than it saves.
SMALLEST_SHARED_STEP = 1 << 15

#: For calls that update nothing. Its numbers have the types that kernels are compiled for; calls convert to those.
_NO_RULE = UpdateRule(lr=0.0)
#: Its numbers, too, have the types that kernels are compiled for.
_PLAIN = Drawing()


class FastNetwork(Network):
    """Numba kernels over one preallocated workspace; a training step allocates no array.

    Parameters
    ----------
    config, seq_len, batch, training, dropout, bf16 : see `Network`; without ``training``, the backward pass has no
        buffers.
    threads : maximum number of workers; ``None``: `default_threads`. Small networks use one, and calls use fewer while
        that is faster, see `fastlstm.kernels.pacing`.
    """

    def __init__(
        self, config: ModelConfig, seq_len: int, batch: int, threads: int | None = None, *, training: bool = True,
        dropout: Dropout | None = None, bf16: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(config, seq_len, batch, training=training, dropout=dropout, bf16=bf16)
        if bf16 and config.dtype != "float32":
            raise ConfigError(f"precision bf16 needs a model with parameters of float32, not {config.dtype}")
        register(BFLOAT16 if bf16 else config.dtype)
        count = 1 if jit.DISABLED else _useful_workers(config, batch, threads or default_threads())
        self._drops = any(self._thresholds)
        self.workspace = Workspace(config, seq_len, batch, count, training=training, dropout=self._drops, bf16=bf16)
        self.plan, self.buffers = self.workspace.plan, self.workspace.buffers
        self.buffers.masks[:THRESHOLDS] = *self.dropout.key, 0, not self.dropout.held
        self.workers = Workers(count, self.buffers.sync)
        self._kernels = (self.workspace.plans, self.buffers)
        self._step: Callable[..., Any] | None = None
        self._generator: Callable[..., Any] | None = None
        self._nothing = np.zeros(0, config.dtype)
        self._no_slots = np.zeros((0, 0), config.dtype)
        self._no_ids = np.zeros(0, np.int32)
        self._targets = np.zeros(seq_len * batch, np.int32)
        self._no_state = np.zeros(config.state_shape(0), config.dtype)

    def turn(self) -> threading.RLock:
        return self.workers.turn()

    def _choose_masks(self, step: int | None) -> None:
        """Let kernels apply the masks of a step, or none, from now on."""
        if self._drops:
            self.buffers.masks[STEP] = 0 if step is None else step % WORD
            self.buffers.masks[THRESHOLDS:] = 0 if step is None else self._thresholds

    def _forward(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64] | None,
        step: int | None,
    ) -> float:  # fmt: skip
        self._choose_masks(step)
        total = self._run(FORWARD, parameters.flat, self._nothing, self._no_slots, x, y, state, 1.0, _NO_RULE)
        self._targets[:] = y.reshape(-1)
        if nats is not None:
            nats[...] = self.buffers.nats.reshape(nats.shape)
        return total

    def _read(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64],
        restarts: Restarts | None, ranks: NDArray[np.int32] | None,
    ) -> None:  # fmt: skip
        buffers = self.buffers
        if restarts is not None:
            self._restart_with(restarts)
        buffers.reading[:] = restarts is not None, ranks is not None, True
        try:
            self._forward(parameters, x, y, state, nats, None)
        finally:
            buffers.reading[:] = 0
        if ranks is not None:
            ranks[...] = buffers.ranks.reshape(ranks.shape)

    def _restart_with(self, restarts: Restarts) -> None:
        """Copy what kernels need of restarts into the workspace."""
        parts, layers, units = restarts.state.shape
        self.buffers.restarts[:] = restarts.after.reshape(-1)
        for part in range(parts):
            for layer in range(layers):
                self.workspace.view("start", part * layers + layer)[:units] = restarts.state[part, layer]

    def _backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None:
        y = self._targets
        self._run(BACKWARD, parameters.flat, gradients.flat, self._no_slots, y, y, self._no_state, scale, _NO_RULE)

    def _norm(self, gradients: Parameters) -> float:
        none = self._no_ids
        self._run(NORM, self._nothing, gradients.flat, self._no_slots, none, none, self._no_state, 1.0, _NO_RULE)
        return float(self.buffers.norm[0])

    def _update(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, rule: UpdateRule, norm: float
    ) -> bool:
        none = self._no_ids
        self.buffers.norm[0] = norm
        self._run(UPDATE, parameters.flat, gradients.flat, slots, none, none, self._no_state, 1.0, rule)
        return self._finite()

    def _train_step(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule, step: int | None,
    ) -> StepResult:  # fmt: skip
        self._choose_masks(step)
        phases = FORWARD | _learning(rule)
        nats = self._run(phases, parameters.flat, gradients.flat, slots, x, y, state, scale, rule)
        return StepResult(nats, self._bounded_norm(rule), self._finite())

    def _learn(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, scale: float, rule: UpdateRule
    ) -> tuple[float, bool]:
        y = self._targets
        self._run(_learning(rule), parameters.flat, gradients.flat, slots, y, y, self._no_state, scale, rule)
        return self._bounded_norm(rule), self._finite()

    def _bounded_norm(self, rule: UpdateRule) -> float:
        """The norm of the last step's gradients; NaN when the rule does not bound it."""
        return float(self.buffers.norm[0]) if rule.clip_norm < math.inf else math.nan

    def _probabilities(self) -> FloatArray:
        found: FloatArray = self.workspace.view("p")[..., : self.plan.V].copy()
        return found

    def _begin(self, parameters: Parameters, state: FloatArray) -> None:
        self._choose_masks(None)
        self._reading = parameters.flat, state.copy()
        # A table of all symbols depends on the parameters alone; a smaller one on the symbols of each step.
        phases = PACK | TABLE if self.plan.all_symbols else PACK
        none = self._no_ids
        self._run(phases, parameters.flat, self._nothing, self._no_slots, none, none, self._no_state, 1.0, _NO_RULE)
        self._step_phases = FORWARD & ~phases

    def _advance(self, x: Ids) -> FloatArray:
        flat, state = self._reading
        self._run(self._step_phases, flat, self._nothing, self._no_slots, x, x, state, 1.0, _NO_RULE)
        return self._probabilities()[0]

    def _finite(self) -> bool:
        """Whether the last update met only finite values."""
        return float(self.buffers.broken[0]) == 0.0

    def _run(
        self, phases: int, parameters: FloatArray, gradients: FloatArray, slots: FloatArray,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule,
    ) -> float:  # fmt: skip
        number: Any = self._dtype.type
        arguments = (
            phases, *self._kernels, parameters, gradients, slots, x.reshape(-1), y.reshape(-1), state, number(scale),
            rule,
        )  # fmt: skip
        if self._step is None:
            self._step = jit.compiled_for(step, 0, 0, 1, 0, *arguments[:-1], _NO_RULE)
        entry = self._step
        nats: float = self.workers.run(lambda *call: entry(*call, *arguments), kind=phases)
        if nats == BAD_IDS:
            raise bad_ids(self.config)
        return nats

    def _generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: NDArray[np.float64], drawing: Drawing
    ) -> Ids:
        ids = np.empty(uniforms.shape, np.int32)
        arguments = (*self._kernels, parameters.flat, first, state, uniforms, ids, drawing)
        if self._generator is None:
            self._generator = jit.compiled_for(generate, 0, 0, 1, 0, *arguments[:-1], _PLAIN)
        entry = self._generator
        self._choose_masks(None)
        self.buffers.counts[1] = 0
        # Each call packs the weights first, so time is proportional to length only for calls of similar length.
        kind, work = -len(ids).bit_length(), len(ids)
        if not self.workers.run(lambda *call: entry(*call, *arguments), kind=kind, work=work):
            raise bad_ids(self.config)
        if self.buffers.counts[1]:
            raise no_distribution()
        return ids

    def activations(self) -> dict[str, FloatArray]:
        """Unpacked copies of the activations of the last forward pass, for tests and inspection.

        The parts of the state ``h.l``, ``c.l`` (T+1, B, H) and the gates ``i.l``, ... (T, B, H) of layer l, by the
        names in `fastlstm.cells`; ``probabilities`` (T, B, V); ``nats`` (T, B). After a backward pass the gates are
        replaced by the gradients of the pre-activations, the probabilities by those of the logits. A network without a
        backward pass keeps no gates.
        """
        plan, view, structure = self.plan, self.workspace.view, self.config.structure
        T, B, H, Hp, G, U = plan.T, plan.B, plan.H, plan.Hp, plan.G, plan.U
        found: dict[str, FloatArray] = {}
        for layer in range(plan.L):
            for n, part in enumerate(structure.state):
                found[f"{part}.{layer}"] = view("h", n * plan.L + layer)[..., :H].copy()
            for n, gate in enumerate(structure.saved if self.training else ()):
                # The recurrent part of a separate gate is in ``a_h``, in the same column as the gate in ``a``.
                buffer, place = ("a", n) if n < G else ("a_h", n - plan.R)
                packed = view(buffer, layer).reshape(T, B, Hp // U, G, U)
                found[f"{gate}.{layer}"] = packed[..., place, :].reshape(T, B, Hp)[..., :H].copy()
        found["probabilities"] = view("p")[:, :, : plan.V].copy()
        found["nats"] = view("nats").reshape(T, B).copy()
        return found


def _learning(rule: UpdateRule) -> int:
    """The phases of a training step after the forward pass."""
    return CLEAR | BACKWARD | UPDATE | (NORM if rule.clip_norm < math.inf else 0)


def _useful_workers(config: ModelConfig, batch: int, threads: int) -> int:
    if batch * config.gates * config.hidden * config.hidden < SMALLEST_SHARED_STEP:
        return 1
    return threads
