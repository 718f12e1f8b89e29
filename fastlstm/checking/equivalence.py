"""Checks that two ways to compute the same agree: backends, chunks and lanes.

- *Fast against reference*: the losses of all symbols, the state carried out and every gradient, in both dtypes. The
  two share no numerical code, so a mistake in either shows.
- *Chunks*: a sequence at once against the same in `CHUNKS` parts with carried state. Losses and state agree. Gradients
  do not, and should not: back-propagation ends where a chunk begins, so the chunks lack what reaches across.
- *Lanes*: B lanes against B runs of one lane: losses, state, and the sum of the runs' gradients.

Errors are norms of differences, relative to the norm of what is compared; of a gradient that is small because its terms
cancel, to its share of the norm of all gradients.

**What is allowed.** In float64 `ALLOWED`, a thousand times what a few thousand roundings amount to. In float32 errors
may grow on the way through a network, so that is measured: the reference in float32 differs from itself in float64. The
fast backend, which rounds elsewhere, may differ from the reference in float64 `SHARE` times as much; or, where that is
small by chance, by as many times the random walk of T*L steps with a rounding error of `float32_unit` each.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar, Literal

import numpy as np

from fastlstm.backend import build
from fastlstm.checking.points import Point, float32_unit
from fastlstm.checking.reports import Report, largest, verdict, with_names
from fastlstm.config import BackendName, DType
from fastlstm.params import FloatArray, Parameters

#: Chunks of a sequence.
CHUNKS = 3

#: Largest relative error in float64.
ALLOWED = 1e-10

#: An error in float32 may be so many times the error that is measured or expected: both are single random numbers.
SHARE = 8.0

#: Arrays by what they are: ``nats`` (T, B), ``state`` (S, L, B, H), and gradients by the names of their parameters.
Results = dict[str, FloatArray]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How two computations of one array agree.

    Attributes
    ----------
    name : ``nats``, ``state``, or of the parameter whose gradient it is.
    error, allowed : relative error in norm, and the largest that is allowed.
    passed : whether the error is allowed.
    """

    name: str
    error: float
    allowed: float
    passed: bool

    @property
    def label(self) -> str:
        """Its name."""
        return self.name


@dataclasses.dataclass(frozen=True)
class EquivalenceReport(Report):
    """The result of a check that two computations agree.

    Attributes
    ----------
    backend : that was checked, or both.
    dtype : of the computation.
    agreements : the result for each array.
    """

    backend: BackendName | Literal["both"]
    dtype: DType
    agreements: tuple[Agreement, ...]

    @property
    def items(self) -> tuple[Agreement, ...]:
        return self.agreements

    @property
    def worst(self) -> float:
        return largest([one.error for one in self.agreements])

    def __str__(self) -> str:
        """One line, and the names of what does not agree."""
        worst = self.agreements[int(np.argmax([one.error / one.allowed for one in self.agreements]))]
        line = f"{self.heading}: {worst.error:.1e} ({worst.name}), allowed {worst.allowed:.0e} {verdict(self.passed)}"
        return with_names(line, self.wrong)


class BackendsReport(EquivalenceReport):
    """Fast against reference."""

    title: ClassVar[str] = "fast against reference"

    @property
    def heading(self) -> str:
        """The check and the dtype."""
        return f"{self.title}, {self.dtype}"


class ChunksReport(EquivalenceReport):
    """One sequence against the same in chunks."""

    title: ClassVar[str] = "chunks against whole"


class LanesReport(EquivalenceReport):
    """B lanes against B runs of one lane."""

    title: ClassVar[str] = "lanes against singles"


def check_backends(at: Point, dtype: DType, *, threads: int = 1) -> BackendsReport:
    """Compare the fast backend in a dtype with the reference, at a point in float64."""
    rounded = at.astype(dtype)
    found, exact = _run("fast", rounded, threads), _run("reference", rounded.astype("float64"))
    if dtype == "float64":
        return BackendsReport("both", dtype, _agreements(found, exact))
    walk = float32_unit(at) * math.sqrt(at.seq_len * at.parameters.config.layers)
    own = _errors(_run("reference", rounded), exact)
    allowed = {name: SHARE * max(walk, error) for name, error in own.items()}
    return BackendsReport("both", dtype, _agreements(found, exact, allowed))


def check_chunks(at: Point, backend: BackendName, *, threads: int = 1) -> ChunksReport:
    """Compare a sequence, at a point in float64 whose T is a multiple of `CHUNKS`, with the same in chunks."""
    chunks = zip(np.split(at.x, CHUNKS), np.split(at.y, CHUNKS), strict=True)
    state, nats = at.state, []
    for x, y in chunks:
        found = _run(backend, at._replace(x=x, y=y, state=state), threads)
        state = found["state"]
        nats.append(found["nats"])
    whole = _run(backend, at, threads)
    expected = {name: whole[name] for name in ("nats", "state")}
    return ChunksReport(backend, "float64", _agreements({"nats": np.concatenate(nats), "state": state}, expected))


def check_lanes(at: Point, backend: BackendName, *, threads: int = 1) -> LanesReport:
    """Compare the B lanes of a point in float64 with B runs of one lane each."""
    singles = [_run(backend, _lane(at, b), threads) for b in range(at.batch)]
    joined = {"nats": np.concatenate([one["nats"] for one in singles], axis=1)}
    joined["state"] = np.concatenate([one["state"] for one in singles], axis=2)
    for name in at.parameters:
        joined[name] = sum((one[name] for one in singles), np.zeros_like(at.parameters[name]))
    return LanesReport(backend, "float64", _agreements(_run(backend, at, threads), joined))


def _lane(at: Point, b: int) -> Point:
    """The point of one lane."""
    lane = slice(b, b + 1)
    x, y, state = at.x[:, lane], at.y[:, lane], at.state[:, :, lane]
    return at._replace(x=x.copy(), y=y.copy(), state=state.copy())


def _run(backend: BackendName, at: Point, threads: int = 1) -> Results:
    """All results of one forward and backward pass."""
    network = build(backend, at.parameters.config, at.seq_len, at.batch, threads)
    nats, state, gradients = np.empty(at.x.shape), at.state.copy(), Parameters(at.parameters.config)
    network.forward(at.parameters, at.x, at.y, state, nats)
    network.backward(at.parameters, 1.0, gradients)
    return {"nats": nats, "state": state, **gradients}


def _agreements(found: Results, expected: Results, allowed: dict[str, float] | None = None) -> tuple[Agreement, ...]:
    limits = dict.fromkeys(expected, ALLOWED) if allowed is None else allowed
    errors = _errors(found, expected)
    return tuple(Agreement(name, error, limits[name], error <= limits[name]) for name, error in errors.items())


def _errors(found: Results, expected: Results) -> dict[str, float]:
    """Relative error of each array, see the module's docstring."""
    return {
        name: float(np.linalg.norm(found[name] - array)) / size
        for (name, array), size in zip(expected.items(), _sizes(expected), strict=True)
    }


def _sizes(expected: Results) -> list[float]:
    """To what the error of each array is relative; 1 if everything is 0."""
    gradients = [array for name, array in expected.items() if name not in ("nats", "state")]
    # The norm of an average entry of all gradients, times the square root of a parameter's entries, is its share.
    average = math.sqrt(sum(float((array**2).sum()) for array in gradients) / (sum(a.size for a in gradients) or 1))
    return [
        max(float(np.linalg.norm(array)), 0.0 if name in ("nats", "state") else average * math.sqrt(array.size)) or 1.0
        for name, array in expected.items()
    ]
