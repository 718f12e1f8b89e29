"""The check of gradients in bf16 and in float32, which no difference of losses can check: against those in float64.

**Why not numerically.** In bf16 the operands of products are rounded, so the loss is a step function of the
parameters: most small moves of a weight change nothing, and one across the middle between two bfloat16 numbers makes
the loss jump. The quotient of such differences measures the steps and not the slope, for any h. In float32 the
steps are finer, but the rounding error of the loss, divided by an h that is small enough, is as large as most
gradients.

**What is checked instead.** The gradient in float64, which `fastlstm.checking.centred` verifies numerically, is that of
the network without rounding. From it the gradient in another precision differs by as much as rounding matters in this
network, at this point: little, unless the network is chaotic. That is measured. If each parameter and each number of
the carried state is changed at random by up to u of itself, the float64 gradient moves. Rounded operands and rounded
sums have errors of that size, in as many places and once more in each product of a chain; so the gradient may be wrong
by `SHARE` times the largest of `TRIALS` such moves, or, where nothing moves, by as many u.

=========  ===========================================================================================================
precision  u
=========  ===========================================================================================================
bf16       2**-8, at most half a unit of a number with 8 bits
float32    2**-24 (sqrt(K) + 5): half a unit of a number with 24 bits, in sums of up to K terms, as a random walk, and
           in functions
=========  ===========================================================================================================

A gradient in bf16 is also compared with that of the reference in its bf16 mode with sums in float64. Both round the
same operands, and so differ by the order of float32 sums, some 1e-7, unless these decide to which neighbour an operand
is rounded: such a flip is one unit, up to two u. If every second operand flipped, the two would be as far from each
other as two independent roundings, sqrt(2) times as far as one is from the gradient without rounding. Twice that
distance, or two u where it is small by chance, is allowed. Nearly always the error is a thousand times smaller, because
flips are rare.

Errors are relative to the norm of a parameter's gradient; where that is small because its terms cancel, to its share of
the norm of all gradients.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from fastlstm.backend import build
from fastlstm.checking.points import Point, float32_unit, point
from fastlstm.checking.reports import Report, aligned, largest, verdict
from fastlstm.config import BackendName, ModelConfig, TrainConfig
from fastlstm.contract import Network
from fastlstm.params import FloatArray, Parameters
from fastlstm.precision import Precision, effective

#: So many random moves of the operands are tried, and an error of so many times the largest move is allowed: in 500
#: random networks with initial weights of deviations up to 1, the largest error of any parameter was 5.6 times its move
#: (in float32: 1.2). Chaotic networks, with weights of 5, can exceed it.
TRIALS, SHARE = 4, 8.0

_ABOUT_BF16 = """\
In bf16 the loss is a step function of the parameters: its differences show the
steps, not the slope. So gradients are compared, in norm, with float64 (the
network without rounding: what rounding costs, and no more than that) and with
bf16 (the reference, which rounds the same operands and sums in float64: nearly
always 1e-7, or an operand flipped)."""

_ABOUT_FLOAT32 = """\
In float32 the rounding error of a difference of losses is as large as most
gradients. So gradients are compared, in norm, with float64 (the same network;
--precision float64 checks that numerically)."""


@dataclasses.dataclass(frozen=True)
class ParameterComparison:
    """The comparison of one parameter's gradient.

    Attributes
    ----------
    name : of the parameter, as in `fastlstm.params`.
    entries : its number of entries, all of which are compared.
    error, allowed : relative error in norm against float64, and the largest that is allowed.
    same_error, same_allowed : of bf16, those against the reference's bf16 mode; else ``None``.
    passed : whether the errors are allowed.
    """

    name: str
    entries: int
    error: float
    allowed: float
    same_error: float | None
    same_allowed: float | None
    passed: bool

    @property
    def label(self) -> str:
        """Its name."""
        return self.name


@dataclasses.dataclass(frozen=True)
class PrecisionReport(Report):
    """The result of a comparison of gradients.

    Attributes
    ----------
    backend : that was checked.
    precision : of the gradients.
    loss, exact_loss : in nats, summed over the T*B symbols, in that precision and in float64.
    parameters : the result for each parameter.
    """

    title: ClassVar[str] = "gradients against float64"

    backend: BackendName
    precision: str
    loss: float
    exact_loss: float
    parameters: tuple[ParameterComparison, ...]

    @property
    def items(self) -> tuple[ParameterComparison, ...]:
        return self.parameters

    @property
    def worst(self) -> float:
        return largest([comparison.error for comparison in self.parameters])

    def __str__(self) -> str:
        """What is compared, and a table with one line per parameter."""
        is_bf16 = self.precision == "bf16"
        titles = ["parameter", "entries", "float64", "allowed", *(["bf16", "allowed"] if is_bf16 else []), ""]
        rows = [titles]
        for p in self.parameters:
            errors = [p.error, p.allowed, p.same_error, p.same_allowed]
            shown = [f"{error:.1e}" for error in errors if error is not None]
            rows.append([p.name, str(p.entries), *shown, verdict(p.passed)])
        losses = f"loss: {self.loss:.6f} nats, in float64 {self.exact_loss:.6f}"
        about = _ABOUT_BF16 if is_bf16 else _ABOUT_FLOAT32
        return "\n".join([f"{self.heading}: {self.precision}", about, *aligned(rows, left=1), losses])


def compare_gradients(
    model: ModelConfig | Parameters,
    precision: Precision,
    *,
    seq_len: int = 8,
    batch: int = 2,
    backend: BackendName = "fast",
    seed: int = 0,
    threads: int = 1,
    gradient: Callable[[Parameters], None] | None = None,
) -> PrecisionReport:
    """Compare the gradient of the loss on random symbols, in bf16 or float32, with that in float64.

    Parameters
    ----------
    model : a configuration, for which parameters are drawn at random, or the parameters at which to compare. They are
        rounded to float32 first, and not changed.
    precision : of the gradient, float32 or bf16.
    seq_len, batch : T and B of the random symbols.
    backend, threads : the implementation that is checked, and its number of workers. The reference computes all others.
    seed : of parameters, symbols, carried-in state and random moves.
    gradient : called with the gradient before the comparison; a negative control changes it in place.

    Raises
    ------
    ConfigError
        When a size is out of range, or this processor lacks the precision.
    """
    TrainConfig(seq_len=seq_len, batch=batch, backend=backend, seed=seed, threads=threads)  # validates them
    effective(precision.name, ModelConfig(1), backend)
    rng = np.random.default_rng(seed)
    at, single = _representable(point(model, seq_len, batch, rng))
    checked = build(backend, single.parameters.config, seq_len, batch, threads, bf16=precision.bf16)
    found, loss = _gradient(checked, single)
    if gradient is not None:
        gradient(found)
    network = build("reference", at.parameters.config, seq_len, batch)
    exact, exact_loss = _gradient(network, at)
    u = _unit(at, precision)
    moved = [_gradient(network, _moved(at, u, rng))[0] for _ in range(TRIALS)]
    rounding = None
    if precision.bf16:
        rounding, _ = _gradient(build("reference", at.parameters.config, seq_len, batch, bf16=True), at)
    results = [_compare(name, found, exact, moved, rounding, u) for name in exact]
    return PrecisionReport(backend, precision.name, loss, exact_loss, tuple(results))


def _representable(at: Point) -> tuple[Point, Point]:
    """A point with parameters and state rounded to float32, in float64 and in float32."""
    single = at.astype("float32")
    return single.astype("float64"), single


def _gradient(network: Network, at: Point) -> tuple[Parameters, float]:
    """Gradient of the loss at a point, and the loss in nats."""
    gradients = Parameters(at.parameters.config)
    nats = network.forward(at.parameters, at.x, at.y, at.state.copy())
    network.backward(at.parameters, 1.0, gradients)
    return gradients, nats


def _unit(at: Point, precision: Precision) -> float:
    """Relative error of an operand: u of the module's docstring."""
    return 2.0**-8 if precision.bf16 else float32_unit(at)


def _moved(at: Point, u: float, rng: np.random.Generator) -> Point:
    """A point whose parameters and state differ by up to ``u`` of themselves."""

    def near(array: FloatArray) -> FloatArray:
        changed: FloatArray = array * (1 + u * rng.uniform(-1, 1, array.shape))
        return changed

    return at._replace(parameters=Parameters(at.parameters.config, near(at.parameters.flat)), state=near(at.state))


def _compare(
    name: str, found: Parameters, exact: Parameters, moved: list[Parameters], rounding: Parameters | None, u: float
) -> ParameterComparison:
    """The result of one parameter, see the module's docstring."""
    entries, ref = exact[name].size, exact[name]
    share = math.sqrt(entries / exact.flat.size)
    size = max(float(np.linalg.norm(ref)), share * float(np.linalg.norm(exact.flat))) or 1.0

    def off(a: Parameters, b: Parameters) -> float:
        return float(np.linalg.norm(a[name].astype(np.float64) - b[name])) / size

    error, allowed = off(found, exact), SHARE * max(u, *(off(one, exact) for one in moved))
    if rounding is None:
        return ParameterComparison(name, entries, error, allowed, None, None, error <= allowed)
    same_error, same_allowed = off(found, rounding), 2 * max(u, off(rounding, exact))
    passed = error <= allowed and same_error <= same_allowed
    return ParameterComparison(name, entries, error, allowed, same_error, same_allowed, passed)
