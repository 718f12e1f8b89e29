"""The gradient check: every parameter against centred differences of the loss, in float64.

The derivative of the loss J with respect to one entry is estimated from four losses (Fornberg 1988, table 1)::

    n = (8 (J(p+h) - J(p-h)) - (J(p+2h) - J(p-2h))) / (12 h)

Its truncation error is ``h**4 J''''' / 30``; that of a formula with two losses is ``h**2 J''' / 6``. So h can be large
and the rounding error, which grows as ``1/h``, stays small: a gradient of 1e-3 is still checked to seven digits.

**The floor.** A loss has a rounding error of about ``eps * sqrt(T B) * (J + T B)``: the loss of a symbol is a
difference of logits of order 1, each rounded, T*B of them are summed one after the other, and the errors add up like a
random walk. The weights of the formula sum to 18/12 in absolute value, so the rounding error of the estimate is about::

    floor = 1.5 * eps * sqrt(T B) * (J + T B) / h

An entry passes when ``|a - n| <= tolerance * max(|a|, |n|)``, or when ``|a - n| <= floor``. Together they are
one condition on the relative error, with a lower bound on its denominator::

    |a - n| / max(|a|, |n|, floor / tolerance)  <=  tolerance
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fastlstm.backend import build
from fastlstm.checking.points import point
from fastlstm.checking.reports import Report
from fastlstm.config import BackendName, ModelConfig, TrainConfig
from fastlstm.dropout import Dropout
from fastlstm.errors import ConfigError
from fastlstm.params import Entry, FloatArray, Parameters, table

#: Largest relative error of a correct gradient. tanh and softmax are smooth everywhere, so a larger error is a bug.
TOLERANCE = 1e-6

#: h, a little below eps**(1/5). There truncation and rounding errors are equal if the fifth derivative is as large as
#: the first; in a recurrent network over many steps it is larger.
STEP = 2.0**-12


@dataclasses.dataclass(frozen=True)
class ParameterCheck:
    """The result of checking one parameter.

    Attributes
    ----------
    name : of the parameter, as in `fastlstm.params`.
    entries : number of entries checked.
    worst : largest relative error among them (the module's docstring defines its denominator).
    median : median relative error.
    where : index of the worst entry; analytic, numeric : both gradients there, in nats.
    passed : whether ``worst`` is within `TOLERANCE`.
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
class GradientReport(Report):
    """The result of a gradient check.

    Attributes
    ----------
    loss : in nats, summed over the T*B symbols.
    floor : estimated rounding error of a numerical gradient, in nats (see the module's docstring).
    parameters : the result for each parameter.
    """

    loss: float
    floor: float
    parameters: tuple[ParameterCheck, ...]

    def __str__(self) -> str:
        """A table with one line per parameter."""
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
    dropout: Dropout | None = None,
) -> GradientReport:
    """Compare the analytic gradient of the loss on random symbols with a numerical one, in float64, without clipping.

    Parameters
    ----------
    model : a configuration, for which parameters are drawn at random, or the parameters at which to check, such as
        ``Model.parameters`` (float32 is converted to float64). They are not changed.
    seq_len, batch : T and B of the random symbols.
    backend, threads : the implementation that is checked, and its number of workers.
    seed : of parameters, symbols, carried-in state and the choice of entries.
    entries : number of entries of each parameter to check, chosen at random; ``None``: all.
    step : h.
    gradient : called with the analytic gradients before the comparison; a negative control changes them in place.
    dropout : whose masks of step 0 are applied in all passes; ``None``: no dropout.

    Returns
    -------
    GradientReport
        ``report.passed`` is the verdict; ``print(report)`` shows one line per parameter.

    Raises
    ------
    ConfigError
        When a size is out of range.
    """
    TrainConfig(seq_len=seq_len, batch=batch, backend=backend, seed=seed, threads=threads)  # validates them
    if entries is not None and (not isinstance(entries, int | np.integer) or entries < 1):
        raise ConfigError(f"entries must be a whole number of at least 1, not {entries!r}")
    if not (math.isfinite(step) and step > 0):
        raise ConfigError(f"step must be a finite number above 0, not {step!r}")
    rng = np.random.default_rng(seed)
    parameters, x, y, state = point(model, seq_len, batch, rng)
    config = parameters.config
    network = build(backend, config, seq_len, batch, threads, dropout=dropout)

    def loss() -> float:
        return network.forward(parameters, x, y, state.copy(), step=0)

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


def _places(entry: Entry, x: NDArray[np.integer], entries: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Indices of the entries to check; of embeddings only those of symbols in ``x``: the others have no gradient."""
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
