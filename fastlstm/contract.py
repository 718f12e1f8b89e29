"""The contract of a network, and the validation of its arguments: the same for both implementations.

A network offers small verbs: `Network.forward`, `Network.backward`, `Network.norm` and `Network.update`, which
`Network.train_step` and `Network.learn` compose, with bitwise the same result (an implementation may fuse them);
`Network.read` and `Network.generate`; `Network.begin` and `Network.advance`, which read symbols that become known one
by one.
"""

from __future__ import annotations

import abc
import contextlib
import math
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.drawing import Drawing
from fastlstm.dropout import Dropout
from fastlstm.errors import FastlstmError
from fastlstm.optimizers import UpdateRule
from fastlstm.params import FloatArray, Parameters

Ids = NDArray[np.integer]


class StepResult(NamedTuple):
    """The result of `Network.train_step`.

    Attributes
    ----------
    nats : the loss before the update, summed over the T*B predicted symbols.
    norm : the norm of all gradients before clipping; NaN when the rule does not bound it.
    finite : whether all elements of the gradients, of the new parameters and of the new slots are finite.
    """

    nats: float
    norm: float
    finite: bool


class Restarts(NamedTuple):
    """Where the carried state restarts within a sequence, so that what follows does not depend on what was before.

    Attributes
    ----------
    after : (T, B) bool, whether the state of a lane is replaced after it has read the symbol at a time step. The symbol
        after that one is already predicted from the new state.
    state : (S, L, H), what replaces it, in the network's dtype.
    """

    after: NDArray[np.bool_]
    state: FloatArray


class Network(abc.ABC):
    """A network of one configuration for sequences of T steps in B lanes.

    Arrays: ``x, y`` (T, B) int32; ``state`` (S, L, B, H), the carried state, which is read and then overwritten with
    the state after the sequence; ``slots`` (slots of the rule, parameters). All are C-contiguous; state, slots,
    parameters and gradients have the configuration's dtype. Losses are sums of nats over the T*B predicted symbols.
    Several threads may call one network: calls run one at a time.

    Parameters
    ----------
    config, seq_len, batch : the model's configuration, T and B.
    training : whether the network can run `backward` and `train_step`.
    dropout : used by `forward` and `train_step` when they are given a step; ``None``: never.
    bf16 : whether the operands of all products are rounded to bfloat16; sums, state and updates stay as they are.

    Raises
    ------
    ValueError
        By every method, when an array has the wrong shape or dtype, is not contiguous, or is read-only although the
        method writes to it, and when an id is out of range. No argument has been modified then.
    """

    def __init__(
        self, config: ModelConfig, seq_len: int, batch: int, *, training: bool, dropout: Dropout | None = None,
        bf16: bool = False,
    ) -> None:  # fmt: skip
        self.config = config
        self.seq_len, self.batch = seq_len, batch
        self.training = training
        self.bf16 = bf16
        self.dropout = Dropout() if dropout is None else dropout
        self._thresholds = self.dropout.thresholds(config.layers)
        self._sequence = (seq_len, batch)
        self._state = config.state_shape(batch)
        self._flat = (config.parameter_count,)
        self._dtype = np.dtype(config.dtype)
        self._last: tuple[str, int] | None = None  # the verb whose results the next one may use, and its thread

    def forward(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64] | None = None,
        step: int | None = None,
    ) -> float:  # fmt: skip
        """Return the nats of predicting ``y`` from ``x``, and keep the activations for `backward`.

        ``nats`` (T, B) float64, if given, is overwritten with the nats of each symbol. ``step``, from 0 on, is the step
        whose masks of dropout are applied, and used by `backward` too; ``None``: no dropout.
        """
        check_step(step)
        self._check_parameters("parameters", parameters)
        self._check_sequence(x, y, state)
        if nats is not None:
            check_array("nats", nats, self._sequence, np.float64, written=True)
        with self.turn():
            self._last = None
            total = self._forward(parameters, x, y, state, nats, step)
            self._last = "forward", threading.get_ident()
        return total

    def read(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64], *,
        restarts: Restarts | None = None, ranks: NDArray[np.int32] | None = None,
    ) -> None:  # fmt: skip
        """Predict ``y`` from ``x`` without dropout; no `backward` can follow.

        A symbol's nats depend on the symbols before it alone. The kernels give them the same bits in any lane, and in
        sequences of any length; the products of the reference may be added up in another order.

        Parameters
        ----------
        nats : (T, B) float64, out: nats of each symbol of ``y``.
        restarts : where the state is replaced; ``None``: nowhere.
        ranks : (T, B) int32, out, if given: how many symbols are more probable than that of ``y``.
        """
        self._check_parameters("parameters", parameters)
        self._check_sequence(x, y, state)
        check_array("nats", nats, self._sequence, np.float64, written=True)
        if restarts is not None:
            check_array("restarts.after", restarts.after, self._sequence, np.bool_)
            parts, layers, _, units = self._state
            check_array("restarts.state", restarts.state, (parts, layers, units), self._dtype)
        if ranks is not None:
            check_array("ranks", ranks, self._sequence, np.int32, written=True)
        with self.turn():
            self._last = None
            self._read(parameters, x, y, state, nats, restarts, ranks)

    def probabilities(self) -> FloatArray:
        """The probabilities (T, B, V) of the last forward pass, copied; to be called before `backward`.

        Raises
        ------
        RuntimeError
            When there is no such forward pass in this thread.
        """
        with self.turn():
            if not self._is_last("forward"):
                raise RuntimeError("probabilities needs a forward pass before it, in the same thread")
            return self._probabilities()

    def begin(self, parameters: Parameters, state: FloatArray) -> None:
        """Begin to read symbol by symbol with `advance`, from a state, which is copied; the network must have T = 1.

        The weights are prepared once, so that a step costs little more than its arithmetic. ``parameters`` must not
        change until the last step; after another verb but `norm`, `advance` is refused.
        """
        if self.seq_len != 1:
            raise ValueError(f"begin needs a network that reads one symbol at a time: T = 1, not {self.seq_len}")
        self._check_parameters("parameters", parameters)
        check_array("state", state, self._state, self._dtype)
        with self.turn():
            self._last = None
            self._begin(parameters, state)
            self._last = "begin", threading.get_ident()

    def advance(self, x: Ids) -> FloatArray:
        """Read a symbol in every lane; returns the probabilities (B, V) of the next ones.

        ``x`` is (B,) int32. The probabilities are those of `forward`, from the kernels bit for bit.

        Raises
        ------
        RuntimeError
            Without a `begin` before it, in the same thread.
        """
        check_array("x", x, (self.batch,), np.int32)
        with self.turn():
            if not self._is_last("begin"):
                raise RuntimeError("advance needs a call of begin before it, in the same thread")
            return self._advance(x)

    def _is_last(self, verb: str) -> bool:
        return self._last == (verb, threading.get_ident())

    def backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None:
        """Accumulate the gradient of ``scale`` times the last forward pass's nats into ``gradients``.

        At most once for each forward pass, in the same thread: the activations are overwritten. ``parameters`` are
        those of the forward pass, unchanged since.

        Raises
        ------
        RuntimeError
            When there is no such forward pass.
        """
        self._check_parameters("parameters", parameters)
        self._check_parameters("gradients", gradients, written=True)
        with self.turn():
            self._use_forward()
            self._backward(parameters, scale, gradients)

    def _use_forward(self) -> None:
        """Let a backward pass overwrite the activations of the last forward pass; raise `RuntimeError` without one."""
        if not (self.training and self._is_last("forward")):
            raise RuntimeError(
                "backward needs a forward pass before it, in the same thread: it overwrites the activations"
            )
        self._last = None

    def norm(self, gradients: Parameters) -> float:
        """The L2 norm of all gradients together."""
        self._check_parameters("gradients", gradients)
        with self.turn():
            return self._norm(gradients)

    def update(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, rule: UpdateRule, norm: float = 0.0
    ) -> bool:
        """Apply one step of ``rule``, with clipping: parameters and slots change in place, gradients do not.

        Returns whether all elements of the gradients, of the new parameters and of the new slots are finite.

        ``norm`` is the norm that ``rule.clip_norm`` bounds: that of all gradients, summed over all machines that share
        a step. It is ignored when there is no such bound.
        """
        self._check_update(parameters, slots, rule)
        self._check_parameters("gradients", gradients)
        with self.turn():
            self._last = None  # its results are not those of the new parameters
            return self._update(parameters, gradients, slots, rule, norm)

    def learn(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, scale: float, rule: UpdateRule
    ) -> bool:
        """Backward, norm, update: what `train_step` does after the forward pass, of which there must have been one.

        Gradients are overwritten, before clipping. Returns what `update` returns; raises what `backward` raises.
        """
        self._check_update(parameters, slots, rule)
        self._check_parameters("gradients", gradients, written=True)
        with self.turn():
            self._use_forward()
            return self._learn(parameters, gradients, slots, scale, rule)[1]

    def train_step(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule, step: int | None = None,
    ) -> StepResult:  # fmt: skip
        """Forward, backward, norm, update: parameters, gradients and slots change in place.

        Gradients are overwritten with those of this step, before clipping. ``step`` is as for `forward`.

        Raises
        ------
        RuntimeError
            When the network was made without ``training``.
        """
        self._check_update(parameters, slots, rule)
        self._check_parameters("gradients", gradients, written=True)
        self._check_sequence(x, y, state)
        check_step(step)
        if not self.training:
            raise RuntimeError("a network built without training has no buffers for a backward pass")
        with self.turn():
            self._last = None
            return self._train_step(parameters, gradients, slots, x, y, state, scale, rule, step)

    def generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: NDArray[np.float64], drawing: Drawing
    ) -> Ids:
        """Draw symbols one after another in every lane; the network must have T = 1.

        Parameters
        ----------
        first : (B,) int32, the symbols read first.
        state : as for `forward`.
        uniforms : (n, B) float64 in [0, 1), a number for each symbol drawn.
        drawing : temperature, and which symbols may be drawn.

        Returns
        -------
        ids : (n, B) int32; the network has not read the last one yet.

        Raises
        ------
        FastlstmError
            When the logits are not finite.
        """
        if self.seq_len != 1:
            raise ValueError(f"generate needs a network that reads one symbol at a time: T = 1, not {self.seq_len}")
        self._check_parameters("parameters", parameters)
        drawing.check(self.config.vocab_size)
        check_array("first", first, (self.batch,), np.int32)
        check_array("uniforms", uniforms, (*uniforms.shape[:1], self.batch), np.float64)
        check_array("state", state, self._state, self._dtype, written=True)
        if not len(uniforms):
            return np.empty(uniforms.shape, np.int32)
        with self.turn():
            self._last = None
            return self._generate(parameters, first, state, uniforms, drawing)

    @abc.abstractmethod
    def turn(self) -> contextlib.AbstractContextManager[Any]:
        """The lock, as a context manager, that a caller holds while it uses the network."""

    @abc.abstractmethod
    def _forward(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64] | None,
        step: int | None,
    ) -> float: ...  # fmt: skip

    @abc.abstractmethod
    def _read(
        self, parameters: Parameters, x: Ids, y: Ids, state: FloatArray, nats: NDArray[np.float64],
        restarts: Restarts | None, ranks: NDArray[np.int32] | None,
    ) -> None: ...  # fmt: skip

    @abc.abstractmethod
    def _probabilities(self) -> FloatArray: ...

    @abc.abstractmethod
    def _begin(self, parameters: Parameters, state: FloatArray) -> None: ...

    @abc.abstractmethod
    def _advance(self, x: Ids) -> FloatArray: ...

    @abc.abstractmethod
    def _backward(self, parameters: Parameters, scale: float, gradients: Parameters) -> None: ...

    @abc.abstractmethod
    def _norm(self, gradients: Parameters) -> float: ...

    @abc.abstractmethod
    def _update(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, rule: UpdateRule, norm: float
    ) -> bool: ...

    def _train_step(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray,
        x: Ids, y: Ids, state: FloatArray, scale: float, rule: UpdateRule, step: int | None,
    ) -> StepResult:  # fmt: skip
        nats = self._forward(parameters, x, y, state, None, step)
        return StepResult(nats, *self._learn(parameters, gradients, slots, scale, rule))

    def _learn(
        self, parameters: Parameters, gradients: Parameters, slots: FloatArray, scale: float, rule: UpdateRule
    ) -> tuple[float, bool]:
        """Norm, or NaN when the rule does not bound it, and whether all is finite."""
        gradients.flat[...] = 0
        self._backward(parameters, scale, gradients)
        norm = self._norm(gradients) if rule.clip_norm < math.inf else math.nan
        return norm, self._update(parameters, gradients, slots, rule, norm)

    @abc.abstractmethod
    def _generate(
        self, parameters: Parameters, first: Ids, state: FloatArray, uniforms: NDArray[np.float64], drawing: Drawing
    ) -> Ids: ...

    def _check_parameters(self, name: str, parameters: Parameters, *, written: bool = False) -> None:
        if parameters.config is not self.config and parameters.config != self.config:
            raise ValueError(f"{name} must be of the network's configuration, not of {parameters.config}")
        check_array(name, parameters.flat, self._flat, self._dtype, written=written)

    def _check_update(self, parameters: Parameters, slots: FloatArray, rule: UpdateRule) -> None:
        self._check_parameters("parameters", parameters, written=True)
        check_array("slots", slots, (rule.slots, *self._flat), self._dtype, written=True)

    def _check_sequence(self, x: Ids, y: Ids, state: FloatArray) -> None:
        check_array("x", x, self._sequence, np.int32)
        check_array("y", y, self._sequence, np.int32)
        check_array("state", state, self._state, self._dtype, written=True)


def check_array(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any, *, written: bool = False) -> None:
    """Raise `ValueError` unless an array is C-contiguous, of this shape and dtype, and writable if ``written``."""
    if written and not array.flags.writeable:
        raise ValueError(f"{name} would be written to, but the array is read-only")
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} must be a C-contiguous array of shape {shape} and dtype {np.dtype(dtype)},"
            f" not {array.shape} and {array.dtype}"
        )


def check_step(step: int | None) -> None:
    """Raise `ValueError` unless a step is ``None`` or a whole number of at least 0."""
    if step is not None and not (isinstance(step, int | np.integer) and step >= 0):
        raise ValueError(f"step must be None or a whole number of at least 0, not {step!r}")


def bad_ids(config: ModelConfig) -> ValueError:
    """The error for ids that are out of range."""
    return ValueError(f"x, y and first must be ids from 0 to {config.vocab_size - 1}")


def no_distribution() -> FastlstmError:
    """The error for logits from which no symbol can be drawn."""
    return FastlstmError(
        "the model's logits are not finite numbers, so no symbol can be drawn: its parameters are too large,"
        " use another model"
    )
