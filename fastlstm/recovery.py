"""Going back after a divergence: copies of a run's state, and what broke first."""

from __future__ import annotations

import math

from fastlstm.logarithm import log
from fastlstm.params import FloatArray, Parameters
from fastlstm.run_state import RunState

#: Nats per symbol above log V from which training has diverged: the targets then have, on average, less than exp(-100)
#: of the probability that guessing gives them, and float32 has no positive number below exp(-104).
DIVERGED_NATS = 100.0

#: Nats per symbol above log V from which a model is clearly worse than guessing, even on the text of a few steps.
_WORSE_NATS = 1.0

#: How often a run goes back before it gives up, and by how much it lowers its rate each time.
MOST_RECOVERIES, RECOVERY_FACTOR = 2, 0.3

#: Symbols trained on between two copies of the state, and the bounds of the steps between them. A copy takes about as
#: long as training on 50 symbols, whatever the model: both are proportional to the number of parameters.
_COPY_SYMBOLS, _FEWEST_STEPS, _MOST_STEPS = 20_000, 10, 200


def worse_than_guessing(nats: float, vocab_size: int) -> bool:
    """Whether a loss, in nats per symbol, is NaN or clearly above log V, the loss of uniform guessing."""
    return not nats <= log(vocab_size) + _WORSE_NATS


def broken(loss: float, state: RunState, gradients: Parameters) -> str:
    """What is not finite after a step, as a phrase that names the first tensor that broke.

    A step computes the loss, then gradients from the output down to the embedding, then parameters and slots.
    """
    names = [f"the gradient of {name}" for name in reversed(_broken_in(gradients))]
    names += [f"the parameter {name}" for name in _broken_in(state.parameters)]
    for slot in state.slots:
        names += [f"the optimizer's slot of {name}" for name in _broken_in(Parameters(gradients.config, slot))]
    found = [] if math.isfinite(loss) else [f"the loss is no longer a finite number ({loss})"]
    found += [f"{name} is no longer finite" for name in names[:1]]
    return ", and ".join(found)


def _broken_in(parameters: Parameters) -> list[str]:
    return [name for name, view in parameters.items() if not all_finite(view)]


def all_finite(values: FloatArray) -> bool:
    """Whether all values are finite, computed without a temporary array."""
    return math.isfinite(float(values.min())) and math.isfinite(float(values.max()))


def steps_between(symbols: int) -> int:
    """Steps between two copies, for steps of so many symbols."""
    return min(max(_COPY_SYMBOLS // symbols, _FEWEST_STEPS), _MOST_STEPS)


class Copies:
    """Copies of the state during a run, to go back to.

    The loss of a step is that of the parameters before it. So a copy is taken before a step, and confirmed as good by
    the loss of that step. Copies are taken at steps that do not depend on time, so that a run that goes back can be
    repeated.

    Parameters
    ----------
    state : of the run, at its start.
    symbols : T*B, the symbols of a step.

    Attributes
    ----------
    good : the last good copy; at first the state at the start, which is not checked.
    """

    def __init__(self, state: RunState, symbols: int) -> None:
        self.good, self._new = state.copy(), state.copy()
        self._every = steps_between(symbols)
        self._taken = False

    def take_if_due(self, state: RunState) -> None:
        """Copy the state if it is due at its step."""
        if state.step % self._every == 0 and state.step > self.good.step:
            self._new.restore(state)
            self._taken = all_finite(self._new.parameters.flat)

    def go_back(self, state: RunState) -> None:
        """Make ``state`` equal to the last good copy; a copy that has not been confirmed is discarded."""
        state.restore(self.good)
        self.discard()

    def discard(self) -> None:
        """Discard a copy that has not been confirmed."""
        self._taken = False

    def confirm(self, loss: float) -> bool:
        """Accept or discard the copy taken before the last step, by that step's loss; returns whether it is good."""
        if not self._taken:
            return False
        self._taken = False
        if worse_than_guessing(loss, self.good.parameters.config.vocab_size):
            return False
        self.good, self._new = self._new, self.good
        return True
