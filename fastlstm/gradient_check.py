"""Whether gradients are right: every parameter against centred differences of the loss, in float64.

The derivative of the loss J with respect to one entry is estimated from four losses (Fornberg 1988, table 1)::

    n = (8 (J(p+h) - J(p-h)) - (J(p+2h) - J(p-2h))) / (12 h)

Its truncation error is ``h**4 J''''' / 30``, where two losses would leave ``h**2 J''' / 6``. So h can be large, and the
rounding error, which grows as ``1/h``, stays small: a gradient of 1e-3 is still checked to seven digits.

**The floor.** A loss is known to a rounding error of about ``eps * sqrt(T B) * (J + T B)``: a nat is a difference
of logits of order 1, each rounded, and T*B of them are added up one after the other; such errors grow as a random
walk does. The weights of the formula sum to 18/12 in absolute value, so the estimate is known to::

    floor = 1.5 * eps * sqrt(T B) * (J + T B) / h

An entry passes when ``|a - n| <= tolerance * max(|a|, |n|)``, or when ``|a - n| <= floor``. Both are one
condition on one number, the relative error with a denominator that tiny gradients cannot make smaller still::

    |a - n| / max(|a|, |n|, floor / tolerance)  <=  tolerance
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.backend import build
from fastlstm.config import BackendName, ModelConfig, TrainConfig
from fastlstm.errors import ConfigError
from fastlstm.params import Entry, FloatArray, Parameters, initialise, table

#: Largest relative error of a right gradient. tanh and softmax are smooth everywhere, so a larger one is a mistake.
TOLERANCE = 1e-6

#: h, a little below eps**(1/5), where truncation and rounding errors would be equal were the fifth derivative as
#: large as the first: that of a recurrent network over many steps is larger.
STEP = 2.0**-12


@dataclasses.dataclass(frozen=True)
class ParameterCheck:
    """The check of one parameter.

    Attributes
    ----------
    name : of the parameter, as in `fastlstm.params`.
    entries : how many of its entries were checked.
    worst : largest relative error among them (the module's docstring defines its denominator).
    median : median relative error.
    where : index of the worst entry; analytic, numeric : both gradients there, in nats.
    passed : whether the worst is within `TOLERANCE`.
    """

    name: str
    entries: int
    worst: float
    median: float
    where: tuple[int, ...]
    analytic: float
    numeric: float
    passed: bool


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """A gradient check: the loss (nats, summed over T*B), the floor of rounding, and each parameter's result."""

    loss: float
    floor: float
    parameters: tuple[ParameterCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether every parameter passed."""
        return all(parameter.passed for parameter in self.parameters)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"passed": self.passed, **dataclasses.asdict(self)}

    def __str__(self) -> str:
        """A table with a line for each parameter."""
        lines = [_COLUMNS.format(*_TITLES)]
        for p in self.parameters:
            where = ",".join(map(str, p.where))
            numbers = (f"{p.worst:.1e}", f"{p.median:.1e}", where, f"{p.analytic:.6e}", f"{p.numeric:.6e}")
            lines.append(_COLUMNS.format(p.name, p.entries, *numbers, "ok" if p.passed else "WRONG"))
        return "\n".join(lines)


_TITLES = ("parameter", "entries", "worst", "median", "where", "analytic", "numeric", "verdict")
_COLUMNS = "{:<12} {:>8} {:>9} {:>9} {:>11} {:>14} {:>14}  {}"


def check_gradients(
    model: ModelConfig | Parameters,
    *,
    seq_len: int = 8,
    batch: int = 2,
    backend: BackendName = "fast",
    seed: int = 0,
    entries: int | None = None,
    step: float = STEP,
    threads: int = 1,
    gradient: Callable[[Parameters], None] | None = None,
) -> GradientReport:
    """Compare the gradient of the loss on random symbols with differences of the loss, in float64, before any clipping.

    Parameters
    ----------
    model : a configuration, whose parameters are then drawn at random, or the parameters to check at, such as
        ``Model.parameters`` (float32 ones are converted). They are not changed.
    seq_len, batch, backend, threads : the network that is checked.
    seed : of parameters, symbols, carried-in state and the choice of entries.
    entries : how many entries of each parameter, chosen at random; ``None``: all of them.
    step : h.
    gradient : called with the analytic gradients before they are compared; a negative control changes them here.

    Returns
    -------
    GradientReport
        ``report.passed`` is the verdict, ``print(report)`` shows a line for each parameter.

    Raises
    ------
    ConfigError
        When a size is out of range.
    """
    TrainConfig(seq_len=seq_len, batch=batch, backend=backend, seed=seed, threads=threads)  # validates them
    if entries is not None and entries < 1:
        raise ConfigError(f"entries must be at least 1, not {entries}")
    rng = np.random.default_rng(seed)
    parameters = _random_point(model, rng) if isinstance(model, ModelConfig) else _in_float64(model)
    config = parameters.config
    network = build(backend, config, seq_len, batch, threads)
    x, y = rng.integers(config.vocab_size, size=(2, seq_len, batch), dtype=np.int32)
    state = 0.5 * rng.standard_normal(config.state_shape(batch))

    def loss() -> float:
        return network.forward(parameters, x, y, state.copy())

    analytic = Parameters(config)
    nats = loss()
    network.backward(parameters, 1.0, analytic)
    if gradient is not None:
        gradient(analytic)
    symbols = seq_len * batch
    floor = 1.5 * float(np.finfo(np.float64).eps) * math.sqrt(symbols) * (nats + symbols) / step
    results = []
    for entry in table(config):
        places = _places(entry, x, entries, rng)
        numeric = np.array([_difference(loss, parameters.flat, entry.start + place, step) for place in places])
        results.append(_compare(entry, places, analytic.flat[entry.start + places], numeric, floor))
    return GradientReport(nats, floor, tuple(results))


def _random_point(config: ModelConfig, rng: np.random.Generator) -> Parameters:
    """Fresh parameters where nothing is special: no bias is zero, and no two are equal."""
    parameters = initialise(dataclasses.replace(config, dtype="float64"), rng)
    for view in parameters.values():
        view += 0.2 * rng.standard_normal(view.shape)
    return parameters


def _in_float64(parameters: Parameters) -> Parameters:
    """A copy, in float64."""
    return Parameters(dataclasses.replace(parameters.config, dtype="float64"), parameters.flat.astype(np.float64))


def _places(entry: Entry, x: NDArray[np.integer], entries: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """The places in a parameter to check; embeddings are chosen among symbols that occur: others have no gradient."""
    places = np.arange(entry.stop - entry.start)
    if entries is None:
        return places
    if entry.name == "embedding":
        places = places.reshape(entry.shape)[np.unique(x)].ravel()
    return np.sort(rng.choice(places, min(entries, len(places)), replace=False))


def _difference(loss: Callable[[], float], flat: FloatArray, place: int, h: float) -> float:
    """The derivative of ``loss`` with respect to ``flat[place]``, by the module's formula."""
    value = flat[place]

    def at(shift: float) -> float:
        flat[place] = value + shift
        return loss()

    near, far = at(h) - at(-h), at(2 * h) - at(-2 * h)
    flat[place] = value
    return (8 * near - far) / (12 * h)


def _compare(
    entry: Entry, places: NDArray[np.intp], analytic: FloatArray, numeric: FloatArray, floor: float
) -> ParameterCheck:
    """The result of one parameter from both gradients at ``places``."""
    denominator = np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), floor / TOLERANCE)
    error = np.abs(analytic - numeric) / denominator
    worst = int(np.argmax(error))
    return ParameterCheck(
        name=entry.name,
        entries=len(places),
        worst=float(error[worst]),
        median=float(np.median(error)),
        where=tuple(int(n) for n in np.unravel_index(places[worst], entry.shape)),
        analytic=float(analytic[worst]),
        numeric=float(numeric[worst]),
        passed=bool(error[worst] <= TOLERANCE),
    )
