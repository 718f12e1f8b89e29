"""The validation part of a text: estimates of its loss during a run, and the exact loss at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time

from fastlstm.errors import FastlstmError, StoppedError
from fastlstm.inference import Estimate, Inference
from fastlstm.params import Parameters
from fastlstm.text import IdArray

#: Symbols that a validation during the run reads, as a fraction of those trained on since the last one: reading takes
#: a third of the time of training, so validations take about 2 % of the run.
_SHARE = 0.045

#: Symbols read to estimate the time of the last validation, which is exact.
_READ_SYMBOLS = 1024


class Validation:
    """The validation part of a text, and the inference that reads it. It is false if it has too few symbols.

    Parameters
    ----------
    inference : with the parameters of the run, which change with its steps.
    ids : (N,) the ids of the part.

    Attributes
    ----------
    ids : as given.
    """

    def __init__(self, inference: Inference, ids: IdArray) -> None:
        self._inference = inference
        self.ids = ids

    def __bool__(self) -> bool:
        return len(self.ids) >= 2

    def estimate(self, trained: int) -> Estimate | None:
        """An estimate of the loss, as exact as it can be at little cost; ``None``: it is not finite.

        Parameters
        ----------
        trained : number of symbols trained on between two estimates.
        """
        try:
            return self._inference.estimate(self.ids, math.ceil(_SHARE * trained))
        except FastlstmError:
            return None

    def exact(self, parameters: Parameters) -> float:
        """The loss with these parameters, nats per symbol; raises `FastlstmError` if it is not finite."""
        return dataclasses.replace(self._inference, parameters=parameters).evaluate(self.ids).nats_per_char

    def seconds(self) -> float:
        """Estimated time of `exact`, in seconds; 0 if it cannot be measured."""
        part = self.ids[: _READ_SYMBOLS + 1]
        if len(part) < 2:
            return 0.0
        with contextlib.suppress(StoppedError, FastlstmError):
            self._inference.evaluate(part)  # the first evaluation allocates networks
            started = time.perf_counter()
            self._inference.evaluate(part)
            return (time.perf_counter() - started) * len(self.ids) / len(part)
        return 0.0
