"""The loss at a point, and its numerical derivatives, in float64.

The derivative of the loss J along a line is estimated from four losses (Fornberg 1988, table 1)::

    n = (8 (J(p+h) - J(p-h)) - (J(p+2h) - J(p-2h))) / (12 h)

Its truncation error is ``h**4 J''''' / 30``; that of a formula with two losses is ``h**2 J''' / 6``. So h can be large
and the rounding error, which grows as ``1/h``, stays small: a gradient of 1e-3 is still checked to seven digits.

**The floor.** A loss has a rounding error of about ``eps * sqrt(T B) * (J + T B)``: the loss of a symbol is a
difference of logits of order 1, each rounded, T*B of them are summed one after the other, and the errors add up like a
random walk. The weights of the formula sum to 18/12 in absolute value, so the rounding error of the estimate is about::

    floor = 1.5 * eps * sqrt(T B) * (J + T B) / h

A derivative passes when ``|a - n| <= tolerance * max(|a|, |n|)``, or when ``|a - n| <= floor``. Together they are
one condition on the relative error, with a lower bound on its denominator::

    |a - n| / max(|a|, |n|, floor / tolerance)  <=  tolerance

**The complex step.** All functions of the network are analytic, and the reference also computes with complex numbers.
So the derivative along a line is also ``Im J(p + ih) / h`` (Squire and Trapp 1998). Nothing is subtracted and nothing
cancels: h can be so small that the truncation error, ``h**2 J''' / 6``, is below any rounding. What is left are the
rounding errors of both gradients. They are relative for an entry that is one product; but entries are sums over T*B
terms that cancel, starting with ``p - 1`` of order 1, and in a unit that is saturated so does ``1 - tanh(a)**2``. What
is left of them has an absolute error. Hence the floor is a share of the largest of all entries, or of 1 nat.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from fastlstm.backend import build
from fastlstm.checking.points import Point
from fastlstm.config import BackendName
from fastlstm.dropout import Dropout
from fastlstm.params import FloatArray, Parameters
from fastlstm.reference import network

#: Largest relative error of a correct gradient. tanh and softmax are smooth everywhere, so a larger error is a bug.
TOLERANCE = 1e-6

#: h, a little below eps**(1/5). There truncation and rounding errors are equal if the fifth derivative is as large as
#: the first; in a recurrent network over many steps it is larger.
STEP = 2.0**-12

#: Of the complex step: the largest relative error, at least ten times what was observed; the floor, as a share of the
#: largest entry or of 1 nat (so 1e-12 of an entry that is a hundredth of it); and h, whose square is 0 beside 1.
COMPLEX_TOLERANCE, COMPLEX_FLOOR, COMPLEX_STEP = 1e-12, 1e-14, 1e-25

#: The gradient is accumulated from so many backward passes, of a loss that is scaled so much; powers of 2, which add no
#: rounding. A pass that overwrites, drops the scale or clips at a constant, right with one pass of scale 1, is wrong.
_PASSES, _SCALE = 2, 1024.0

#: The loss along a line, in nats, as a function of the distance from the point.
Line = Callable[[float], float]


def two_losses(line: Line, h: float) -> float:
    """The derivative of the loss along a line, from two losses."""
    return (line(h) - line(-h)) / (2 * h)


def four_losses(line: Line, h: float) -> float:
    """The derivative of the loss along a line, from four losses."""
    near, far = line(h) - line(-h), line(2 * h) - line(-2 * h)
    return (8 * near - far) / (12 * h)


def complex_step(at: Point, direction: FloatArray, h: float = COMPLEX_STEP) -> float:
    """The derivative of the reference's loss along ``direction``, an array like ``Parameters.flat``, in nats."""
    moved = Parameters(at.parameters.config, at.parameters.flat + 1j * h * direction)
    return float(network.forward(moved, at.x, at.y, at.state).nats.sum().imag) / h


def relative_error(analytic: FloatArray, numeric: FloatArray, floor: float, tolerance: float) -> FloatArray:
    """Relative errors, with the denominator of the module's docstring; 0 where both are 0."""
    smallest = max(floor / tolerance, float(np.finfo(np.float64).tiny))
    error: FloatArray = np.abs(analytic - numeric)
    return error / np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), smallest)


class Loss:
    """The loss at a point as one backend computes it, its gradient, and its values along lines through the point.

    Parameters
    ----------
    backend, threads : the implementation, and its number of workers.
    at : the point.
    dropout : whose masks of step 0 are applied in all passes; ``None``: no dropout.

    Attributes
    ----------
    nats : the loss, summed over the T*B symbols.
    """

    def __init__(self, backend: BackendName, at: Point, *, threads: int = 1, dropout: Dropout | None = None) -> None:
        self._at = at
        self._network = build(backend, at.parameters.config, at.seq_len, at.batch, threads, dropout=dropout)
        self._moved = Parameters(at.parameters.config, at.parameters.flat.copy())
        self.nats = self._value()

    def _value(self) -> float:
        return self._network.forward(self._moved, self._at.x, self._at.y, self._at.state.copy(), step=0)

    def gradient(self) -> Parameters:
        """The gradient at the point by back-propagation, not clipped."""
        found = Parameters(self._at.parameters.config)
        for _ in range(_PASSES):
            self._value()
            self._network.backward(self._moved, _SCALE, found)
        found.flat /= _PASSES * _SCALE
        return found

    def along(self, direction: FloatArray) -> Line:
        """The loss along a direction, an array like ``Parameters.flat``."""
        flat, moved = self._at.parameters.flat, self._moved.flat

        def line(distance: float) -> float:
            moved[:] = flat + flat.dtype.type(distance) * direction
            value = self._value()
            moved[:] = flat
            return value

        return line

    def along_entry(self, place: int) -> Line:
        """The loss along one entry of ``Parameters.flat``."""
        flat, moved = self._at.parameters.flat, self._moved.flat

        def line(distance: float) -> float:
            moved[place] = flat[place] + distance
            value = self._value()
            moved[place] = flat[place]
            return value

        return line

    def floor(self, h: float) -> float:
        """Estimated rounding error of `four_losses` with ``h``, in nats (see the module's docstring)."""
        symbols = self._at.x.size
        return 1.5 * float(np.finfo(np.float64).eps) * math.sqrt(symbols) * (self.nats + symbols) / h


def random_direction(parameters: Parameters, rng: np.random.Generator) -> FloatArray:
    """A random direction in the space of all parameters, of length 1."""
    direction: FloatArray = rng.standard_normal(parameters.flat.shape)
    return direction / np.linalg.norm(direction)
