"""Named bugs that people write in LSTM code, as negative controls of the checks: each must be caught.

A bug replaces one function of the reference by a wrapper that changes its arguments or results, as long as a context
lasts. The reference itself contains nothing of this, and the kernels stay right.

Where an error shows depends on where it is made. One in the sums of weight gradients stays in the rows of its
parameter or gate. One in the recursion over time spreads to everything before and below it; a check of a single time
step, `seq_len` 1, then confines it to the equation that is wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Literal

import numpy as np

from fastlstm.cells import CELLS, CellName
from fastlstm.config import ModelConfig
from fastlstm.contract import Ids
from fastlstm.errors import ConfigError
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference import layer as recurrent
from fastlstm.reference import network
from fastlstm.reference.cells import CELLS as MODULES
from fastlstm.reference.layer import LayerTape
from fastlstm.reference.network import Tape

Stage = Literal["backward", "forward"]

#: A function of the reference: of the network, of its layers over time, or of one time step of its cell.
Place = Literal[
    "network.backward", "layer.backward", "layer.through_time", "layer.forward", "cell.backward", "cell.forward"
]

Function = Callable[..., Any]

#: Makes the wrong function from the right one, for a network of a configuration.
Wrapper = Callable[[Function, ModelConfig], Function]

Arrays = Sequence[FloatArray]


@dataclasses.dataclass(frozen=True)
class Bug:
    """A bug.

    Attributes
    ----------
    name : as it is asked for.
    stage : the pass that it is in.
    about : how people come to write it, and its signature in the table of the check.
    cells : the cells that can have it.
    place : the function that it replaces.
    wrapped : makes the wrong function.
    """

    name: str
    stage: Stage
    about: str
    cells: tuple[CellName, ...]
    place: Place
    wrapped: Wrapper


#: All bugs by name, in the order in which they are explained.
BUGS: dict[str, Bug] = {}


def injected(name: str, config: ModelConfig) -> AbstractContextManager[None]:
    """A context in which the reference computes with a bug, in all threads of the process.

    Parameters
    ----------
    name : of the bug.
    config : of the network that is computed.

    Raises
    ------
    ConfigError
        When there is no such bug, or the network's cell cannot have it; on the call, before the context is entered.
    """
    bug = BUGS.get(name)
    if bug is None:
        raise ConfigError(f"there is no bug {name!r}: choose one of {', '.join(BUGS)}")
    if config.cell not in bug.cells:
        raise ConfigError(
            f"the bug {name!r} needs the cell {' or '.join(bug.cells)}, and this network is of {config.cell}:"
            " choose another bug or another cell"
        )
    module_name, _, function = bug.place.partition(".")
    module = {"network": network, "layer": recurrent, "cell": MODULES[config.cell]}[module_name]
    return _replaced(module, function, bug.wrapped(getattr(module, function), config))


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, wrong: Function) -> Iterator[None]:
    right = getattr(module, name)
    setattr(module, name, wrong)
    try:
        yield
    finally:
        setattr(module, name, right)


def _bug(
    name: str, place: Place, about: str, cells: tuple[CellName, ...] = tuple(CELLS)
) -> Callable[[Wrapper], Wrapper]:
    """Declare a bug, whose wrong function the decorated one makes."""

    def declare(wrapped: Wrapper) -> Wrapper:
        stage: Stage = "forward" if place.endswith("forward") else "backward"
        BUGS[name] = Bug(name, stage, about, cells, place, wrapped)
        return wrapped

    return declare


# Sums of the gradients of weights: the error stays in their rows.


@_bug(
    "sign",
    "layer.backward",
    "The gradients of the weights of one gate, the first, are subtracted where the others are added, a slip in one of"
    " several similar lines. Only this gate's rows of W are wrong, with a relative error of 2: analytic and numeric"
    " values differ in their sign.",
)
def _sign(right: Function, config: ModelConfig) -> Function:
    def change(added: Parameters, layer: int, da: FloatArray) -> None:
        added[f"layers.{layer}.W"][:, : config.hidden] *= -1

    return _adding(right, change)


@_bug(
    "gates-swapped",
    "layer.backward",
    "The gradients of two gates are stored in each other's place: one library orders the gates i f g o, another"
    " i f o g. The rows of these two gates are wrong in W and in b (LSTM: o and g; GRU: r and z), all others right.",
    cells=("lstm", "gru"),
)
def _gates_swapped(right: Function, config: ModelConfig) -> Function:
    H, gates = config.hidden, config.structure.gates
    swapped = list(range(len(gates)))
    one, other = (gates.index(gate) for gate in {"lstm": ("o", "g"), "gru": ("r", "z")}[config.cell])
    swapped[one], swapped[other] = other, one
    columns = np.arange(len(gates) * H).reshape(-1, H)[swapped].ravel()

    def change(added: Parameters, layer: int, da: FloatArray) -> None:
        for name in (f"layers.{layer}.W", f"layers.{layer}.b"):
            added[name] = added[name][..., columns]

    return _adding(right, change)


@_bug(
    "state-after",
    "layer.backward",
    "The gradient of W multiplies da of a step with the h after the step, not with the h that the step read: states"
    " are stored without the carried-in one, so that all indices are off by one. Only the rows W[h] are wrong, those of"
    " all gates; W[x] and b are right.",
)
def _state_after(right: Function, config: ModelConfig) -> Function:
    class Later(LayerTape):
        @property
        def h(self) -> FloatArray:
            h = self.state[0]
            return np.concatenate([h[1:], h[-1:]])

    def wrong(parameters: Parameters, layer: int, tape: LayerTape, *rest: Any) -> Any:
        return right(parameters, layer, Later(tape.x, tape.gates, tape.state, tape.rounded), *rest)

    return wrong


@_bug(
    "bias-overwritten",
    "layer.backward",
    "db = da in the loop over time, where db += da is meant: what remains is the gradient of the step that the loop"
    " comes to last, the first one of the sequence. Only the rows of b are wrong, those of all gates, and with one time"
    " step they are right.",
)
def _bias_overwritten(right: Function, config: ModelConfig) -> Function:
    columns = len(config.structure.gates) * config.hidden

    def change(added: Parameters, layer: int, da: FloatArray) -> None:
        last = da[0].sum(axis=0)
        added[f"layers.{layer}.b"] = last[:columns]
        if config.structure.separate:
            added[f"layers.{layer}.b_h"] = last[columns:]

    return _adding(right, change)


@_bug(
    "embedding-overwritten",
    "layer.backward",
    "dembedding[x] += dx in NumPy, which adds only one of the positions of a symbol; np.add.at adds all. Only the"
    " embedding is wrong, and there only the rows of symbols that occur more than once.",
)
def _embedding_overwritten(right: Function, config: ModelConfig) -> Function:
    def wrong(
        parameters: Parameters, layer: int, tape: LayerTape, dy: FloatArray, gradients: Parameters, symbols: Ids | None
    ) -> Any:
        dx = right(parameters, layer, tape, dy, gradients)  # without symbols: dx of each position
        if symbols is None:
            return dx
        _, last = np.unique(symbols.ravel()[::-1], return_index=True)
        kept = np.zeros(symbols.size, bool)
        kept[symbols.size - 1 - last] = True
        return np.where(kept.reshape(*symbols.shape, 1), dx, 0)

    return wrong


# What one part of the network passes on to another.


@_bug(
    "layer-below-forgotten",
    "layer.backward",
    "The gradient with respect to a layer's input is not computed, or not passed on. Analytic gradients of all that is"
    " below the top layer, the embedding included, are 0; the top layer and the output are right.",
)
def _layer_below_forgotten(right: Function, config: ModelConfig) -> Function:
    def wrong(*arguments: Any) -> Any:
        return np.zeros_like(right(*arguments))

    return wrong


@_bug(
    "next-step-dropped",
    "layer.through_time",
    "h is treated as if only the layer above read it: dh is dy alone, without W[h] da of the next step. Everything"
    " below the output is wrong, and with one time step everything is right.",
)
def _next_step_dropped(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, layer: int, tape: LayerTape, dy: FloatArray) -> Any:
        changed = _copied(parameters)
        changed[f"layers.{layer}.W"][-config.hidden :] = 0
        return right(changed, layer, tape, dy)

    return wrong


@_bug(
    "transposed-weight",
    "layer.through_time",
    "dh of the step before is da W[h] where da W[h]^T is meant. The blocks of W[h] are square, so no shape betrays it."
    " Everything below the output is wrong, and with one time step, or one unit, everything is right.",
)
def _transposed_weight(right: Function, config: ModelConfig) -> Function:
    H = config.hidden

    def wrong(parameters: Parameters, layer: int, tape: LayerTape, dy: FloatArray) -> Any:
        changed = _copied(parameters)
        W_h = changed[f"layers.{layer}.W"][-H:].reshape(H, -1, H)  # a view: row, gate, column
        W_h[...] = W_h.swapaxes(0, 2).copy()
        return right(changed, layer, tape, dy)

    return wrong


@_bug(
    "aliased-state",
    "layer.backward",
    "The state is a buffer that each step overwrites, and states.append(h) stores it without a copy: in the backward"
    " pass all saved states are the last one. Everything below the output is wrong.",
)
def _aliased_state(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, layer: int, tape: LayerTape, *rest: Any) -> Any:
        last = np.broadcast_to(tape.state[:, -1:], tape.state.shape)
        return right(parameters, layer, dataclasses.replace(tape, state=last), *rest)

    return wrong


# The equations of one time step.


@_bug(
    "carry-dropped",
    "cell.backward",
    "The gradient that reaches the state of the step before past the gates, by element, is forgotten: f dc of an LSTM"
    " or z dh of a GRU. Long dependencies are lost. Everything below the output is wrong, and with one time step"
    " everything is right.",
    cells=("lstm", "gru"),
)
def _carry_dropped(right: Function, config: ModelConfig) -> Function:
    def wrong(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        return right(gates, before, after, dh, np.zeros_like(carry))

    return wrong


@_bug(
    "states-swapped",
    "cell.backward",
    "The state after a step stands where that before it is meant, and the other way round: in the loop backward, t-1"
    " and t+1 are easily confused. Everything below the output is wrong; with one time step, in a GRU only z and what"
    " is below.",
)
def _states_swapped(right: Function, config: ModelConfig) -> Function:
    def wrong(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        return right(gates, after, before, dh, carry)

    return wrong


@_bug(
    "tanh-argument",
    "cell.backward",
    "The derivative of tanh(a) is 1 - tanh(a)**2. Functions for it expect either a or tanh(a), and are given the other:"
    " an LSTM gets 1 - c**2, an RNN 1 - tanh(h)**2. Everything below the output is wrong; with one time step, in the"
    " top layer of an LSTM the rows of o are right: their gradient does not pass through this tanh.",
    cells=("lstm", "rnn"),
)
def _tanh_argument(right: Function, config: ModelConfig) -> Function:
    def of_lstm(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        o, (_, c) = gates[config.structure.gates.index("o")], after
        return right(gates, before, after, dh, carry + dh * o * (np.tanh(c) ** 2 - c**2))

    def of_rnn(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        return right(gates, before, [np.tanh(h) for h in after], dh, carry)

    return of_lstm if config.cell == "lstm" else of_rnn


@_bug(
    "sigmoid-derivative",
    "cell.backward",
    "The derivative of a gate s is s (1 - s), and 1 - s is forgotten in one of them, o of an LSTM or z of a GRU."
    " Everything below the output is wrong; with one time step, in the top layer only the rows of this gate.",
    cells=("lstm", "gru"),
)
def _sigmoid_derivative(right: Function, config: ModelConfig) -> Function:
    index = config.structure.gates.index

    def of_lstm(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        das, carry_before = right(gates, before, after, dh, carry)
        h, _ = after
        return _with(das, index("o"), dh * h), carry_before  # h is o tanh(c)

    def of_gru(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        das, carry_before = right(gates, before, after, dh, carry)
        (h_before,), z, n = before, gates[index("z")], gates[index("n")]
        return _with(das, index("z"), (dh + carry) * (h_before - n) * z), carry_before

    return of_lstm if config.cell == "lstm" else of_gru


@_bug(
    "reset-ignored",
    "cell.backward",
    "The recurrent part of a GRU's candidate is multiplied with r, and its gradient must be too: the variant with r"
    " before the product has none. Everything below the output is wrong; with one time step, only n in W[h] and in"
    " b_h.",
    cells=("gru",),
)
def _reset_ignored(right: Function, config: ModelConfig) -> Function:
    part = config.structure.parts.index("n_h")
    whole = config.structure.parts.index("n")

    def wrong(gates: Arrays, before: Arrays, after: Arrays, dh: FloatArray, carry: FloatArray) -> Any:
        das, carry_before = right(gates, before, after, dh, carry)
        return _with(das, part, das[whole]), carry_before

    return wrong


# The output, the loss and its scale.


@_bug(
    "target-not-subtracted",
    "network.backward",
    "The gradient of the logits is p, without the 1 subtracted at the target. Everything is wrong, and the analytic"
    " values of output.b are all positive, where those of a right gradient sum to 0.",
)
def _target_not_subtracted(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, tape: Tape, *rest: Any) -> None:
        one_hot = np.eye(config.vocab_size, dtype=tape.probabilities.dtype)[tape.y]
        right(parameters, dataclasses.replace(tape, probabilities=tape.probabilities + one_hot), *rest)

    return wrong


@_bug(
    "mean-for-sum",
    "network.backward",
    "The loss is a sum over all symbols, and the gradient that of their mean, or the other way round. Everything is"
    " wrong by the same factor, the number of symbols T B, so that all relative errors are equal.",
)
def _mean_for_sum(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, tape: Tape, scale: float, gradients: Parameters) -> None:
        right(parameters, tape, scale / tape.y.size, gradients)

    return wrong


@_bug(
    "clipped",
    "network.backward",
    "Gradients are clipped before they are compared, because the training step does both in one function; here at half"
    " of the largest, so that it always shows. Only the largest entries are wrong, and the analytic values of the worst"
    " ones are the same number everywhere.",
)
def _clipped(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, tape: Tape, scale: float, gradients: Parameters) -> None:
        found = Parameters(gradients.config)
        right(parameters, tape, scale, found)
        limit = np.abs(found.flat).max() / 2
        gradients.flat += np.clip(found.flat, -limit, limit)

    return wrong


# The forward pass. The backward pass is right, for the network that was meant.


@_bug(
    "stale-c",
    "cell.forward",
    "h is computed from the c before the step, because the line that updates c stands below it. The backward pass is"
    " that of the right order: everything below the output is wrong.",
    cells=("lstm",),
)
def _stale_c(right: Function, config: ModelConfig) -> Function:
    def wrong(a: Arrays, before: Arrays) -> Any:
        gates, (_, c) = right(a, before)
        _, c_before = before
        return gates, (gates[config.structure.gates.index("o")] * np.tanh(c_before), c)

    return wrong


@_bug(
    "bias-missing",
    "layer.forward",
    "The forward pass does not add b, while the backward pass computes its gradient. Only the rows of b are wrong, and"
    " their numeric values are 0: the loss does not depend on b.",
)
def _bias_missing(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, layer: int, *rest: Any) -> Any:
        changed = _copied(parameters)
        for name in changed.keys() & {f"layers.{layer}.b", f"layers.{layer}.b_h"}:
            changed[name] = np.zeros_like(changed[name])
        return right(changed, layer, *rest)

    return wrong


@_bug(
    "state-not-carried",
    "layer.forward",
    "Every chunk of a text starts from a state of zeros: the one carried out of the chunk before is ignored. Gradients"
    " are those of this loss, so their table is right; fast against reference, and one sequence against three chunks of"
    " it, differ.",
)
def _state_not_carried(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, layer: int, x: FloatArray, state: FloatArray, *rest: Any) -> Any:
        return right(parameters, layer, x, np.zeros_like(state), *rest)

    return wrong


@_bug(
    "lanes-mixed",
    "layer.forward",
    "All lanes start from the state of the first one: a wrong axis, or a state that broadcasts where an index is"
    " missing. Gradients are those of this loss, so their table is right; B lanes against B single runs differ, and"
    " fast against reference.",
)
def _lanes_mixed(right: Function, config: ModelConfig) -> Function:
    def wrong(parameters: Parameters, layer: int, x: FloatArray, state: FloatArray, *rest: Any) -> Any:
        return right(parameters, layer, x, np.broadcast_to(state[:, :1], state.shape), *rest)

    return wrong


def _copied(parameters: Parameters) -> Parameters:
    return Parameters(parameters.config, parameters.flat.copy())


def _with(arrays: Arrays, place: int, array: FloatArray) -> Arrays:
    """The arrays with another one in a place."""
    return [array if n == place else old for n, old in enumerate(arrays)]


def _adding(right: Function, change: Callable[[Parameters, int, FloatArray], None]) -> Function:
    """A wrong ``layer.backward``: ``change(added, layer, da)`` changes in place what it adds to the gradients."""

    def wrong(
        parameters: Parameters, layer: int, tape: LayerTape, dy: FloatArray, gradients: Parameters, symbols: Ids | None
    ) -> Any:
        added = Parameters(gradients.config, np.zeros_like(gradients.flat))
        dx = right(parameters, layer, tape, dy, added, symbols)
        *_, da = recurrent.through_time(parameters, layer, tape, dy)
        change(added, layer, da)
        gradients.flat += added.flat
        return dx

    return wrong
