"""Tables of gradients: a row for each parameter, and of layers for each gate.

A layer's ``W`` has two rows for each gate, ``W[x]`` of the weights that multiply the layer's input, and ``W[h]`` of the
recurrent ones: mistakes often concern one of the two, or one gate.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.checking.differences import relative_error
from fastlstm.checking.reports import Report, aligned, largest, verdict
from fastlstm.config import BackendName, ModelConfig
from fastlstm.contract import Ids
from fastlstm.errors import ConfigError
from fastlstm.params import Entry, FloatArray, table


class Row(NamedTuple):
    """Entries of one parameter that are judged together.

    Attributes
    ----------
    name : of the parameter as in `fastlstm.params`, of a layer's ``W`` with ``[x]`` or ``[h]``.
    gate : as in `fastlstm.cells`; empty outside of layers.
    parameter : to which they belong.
    places : (entries,) their indices in ``Parameters.flat``.
    """

    name: str
    gate: str
    parameter: Entry
    places: NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class ParameterCheck:
    """The result of checking one parameter, or one gate's part of it.

    Attributes
    ----------
    name : of the parameter as in `fastlstm.params`, of a layer's ``W`` with ``[x]`` or ``[h]``.
    gate : as in `fastlstm.cells`; empty outside of layers.
    entries : number of entries checked.
    worst : largest relative error among them (`fastlstm.checking.differences` defines its denominator).
    median : median relative error.
    where : index of the worst entry in the parameter, as in ``parameters["layers.0.W"][where]``.
    analytic, numeric : both gradients there, in nats.
    passed : whether ``worst`` is within the tolerance.
    """

    name: str
    gate: str
    entries: int
    worst: float
    median: float
    where: tuple[int, ...]
    analytic: float
    numeric: float
    passed: bool

    @property
    def label(self) -> str:
        """Name and gate."""
        return f"{self.name} {self.gate}".strip()


@dataclasses.dataclass(frozen=True)
class RowsReport(Report):
    """The result of a check of single entries, in rows.

    Attributes
    ----------
    backend : that was checked.
    parameters : the result for each parameter, in a layer for each gate.
    """

    backend: BackendName
    parameters: tuple[ParameterCheck, ...]

    @property
    def items(self) -> tuple[ParameterCheck, ...]:
        return self.parameters

    @property
    def judged(self) -> int:
        return sum(check.entries for check in self.parameters)

    @property
    def worst(self) -> float:
        return largest([check.worst for check in self.parameters])

    @property
    def wrong(self) -> tuple[str, ...]:
        """What is wrong, the nearest to the loss first: an error spreads to all that is below it."""
        return super().wrong[::-1]


def rows(config: ModelConfig) -> tuple[Row, ...]:
    """The rows of a configuration's table, with all entries."""
    return tuple(row for entry in table(config) for row in _rows_of(entry, config))


def _rows_of(entry: Entry, config: ModelConfig) -> Iterator[Row]:
    places = np.arange(entry.start, entry.stop).reshape(entry.shape)
    *owner, tensor = entry.name.split(".")
    if owner[:1] != ["layers"]:
        yield Row(entry.name, "", entry, places.ravel())
        return
    H, structure = config.hidden, config.structure
    gates = structure.separate if tensor == "b_h" else structure.gates
    parts = {"[x]": places[:-H], "[h]": places[-H:]} if tensor == "W" else {"": places}
    for part, block in parts.items():
        for gate, columns in zip(gates, np.split(block, len(gates), axis=-1), strict=True):
            yield Row(entry.name + part, gate, entry, columns.ravel())


def chosen(config: ModelConfig, x: Ids, per_param: int | None, rng: np.random.Generator) -> tuple[Row, ...]:
    """The rows with the entries to check.

    Parameters
    ----------
    x : (T, B), the symbols that occur. Of embeddings only theirs are chosen: the others have no gradient.
    per_param : number of entries of each parameter, spread evenly over its rows (at least one of each), chosen at
        random; ``None``: all, also of embeddings.

    Raises
    ------
    ConfigError
        When ``per_param`` is not a whole number of at least 1.
    """
    if per_param is None:
        return rows(config)
    if not isinstance(per_param, int | np.integer) or per_param < 1:
        raise ConfigError(f"per_param must be a whole number of at least 1, not {per_param!r}")
    found = rows(config)
    of_parameter = collections.Counter(row.parameter for row in found)
    return tuple(_sample(row, x, -(-int(per_param) // of_parameter[row.parameter]), rng) for row in found)


def _sample(row: Row, x: Ids, entries: int, rng: np.random.Generator) -> Row:
    places = row.places
    if row.name == "embedding":
        places = places.reshape(row.parameter.shape)[np.unique(x)].ravel()
    return row._replace(places=np.sort(rng.choice(places, min(entries, len(places)), replace=False)))


def compare(row: Row, analytic: FloatArray, numeric: FloatArray, floor: float, tolerance: float) -> ParameterCheck:
    """The result of one row from both gradients at its places."""
    error = relative_error(analytic, numeric, floor, tolerance)
    worst = int(np.argmax(error))  # the first NaN, if there is one
    entry = row.parameter
    return ParameterCheck(
        name=row.name,
        gate=row.gate,
        entries=len(row.places),
        worst=float(error[worst]),
        median=float(np.median(error)),
        where=tuple(int(n) for n in np.unravel_index(row.places[worst] - entry.start, entry.shape)),
        analytic=float(analytic[worst]),
        numeric=float(numeric[worst]),
        passed=bool(error[worst] <= tolerance),
    )


_TITLES = ["parameter", "gate", "entries", "worst", "median", "where", "analytic", "numeric", ""]


def lines(checks: Sequence[ParameterCheck]) -> list[str]:
    """A table with one line for each row, within 79 columns for up to 9 layers of up to 3 digits of units."""
    cells = [
        [
            check.name,
            check.gate,
            str(check.entries),
            f"{check.worst:.1e}",
            f"{check.median:.1e}",
            ",".join(map(str, check.where)),
            f"{check.analytic:.3e}",
            f"{check.numeric:.3e}",
            verdict(check.passed),
        ]
        for check in checks
    ]
    return aligned([_TITLES, *cells], left=2)
