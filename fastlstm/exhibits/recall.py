"""Recall of a symbol after distractors: a task whose data is generated, and whose answer is known.

An episode is a key, k distractors, the query, and the answer, which is the key::

    key  d d ... d  ?  key

Every symbol but the query is drawn uniformly. A network is trained as a language model on sequences of episodes, in
which k is drawn uniformly from 0 to the longest; long episodes often do not fit behind others, and are half as
frequent. Only the answers can be predicted, so only the memory of the key lowers the loss below that of guessing. Such
tasks go back to Hochreiter and Schmidhuber (1997).

Measured with 12,000 parameters and 1500 steps: LSTM and GRU recall the key after any number of distractors, and the RNN
guesses from k = 2 to 5 on, at rates of 0.001 to 0.02. That is a matter of learning, not of capacity: where episodes
with few distractors are frequent (log k uniform, instead of k), or distractors need not be predicted (a constant target
in their place), the RNN too learns to hold the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastlstm.backend import build
from fastlstm.cells import CellName
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.contract import Ids
from fastlstm.errors import StoppedError
from fastlstm.exhibits.reading import check_at_least, zero_state
from fastlstm.params import Parameters, initialise
from fastlstm.reference.network import forward
from fastlstm.schedules import rate

#: Values of k whose accuracy is measured.
DISTRACTORS = (0, 1, 2, 5, 10, 20, 30, 50)

#: Embedding of the symbols, and sequences in a step.
_EMBEDDING, _LANES = 16, 32

#: Episodes for which accuracy is measured, for each k: its standard error is at most 1.6 %.
_MEASURED = 1000


@dataclass(frozen=True)
class RecallTask:
    """The task, and its data.

    Attributes
    ----------
    keys : number of symbols that are asked for: ids 0 to ``keys - 1``.
    distractors : number of symbols that are not: the ids after them. The last id is the query.
    longest : largest k in training.
    """

    keys: int = 8
    distractors: int = 8
    longest: int = 60

    def __post_init__(self) -> None:
        check_at_least("keys", self.keys, 2)
        check_at_least("distractors", self.distractors, 1)
        check_at_least("longest", self.longest, 0)

    @property
    def query(self) -> int:
        """Id of the query."""
        return self.keys + self.distractors

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.query + 1

    @property
    def chance(self) -> float:
        """Accuracy of guessing a key."""
        return 1 / self.keys

    @property
    def length(self) -> int:
        """Symbols of the longest episode, and so of the sequences in training."""
        return self.longest + 3

    def episodes(self, k: int, count: int, rng: np.random.Generator) -> Ids:
        """Episodes (k + 3, count) int32 with k distractors each."""
        symbols = rng.integers(self.keys, self.query, size=(k + 3, count), dtype=np.int32)
        symbols[0] = symbols[-1] = rng.integers(self.keys, size=count)
        symbols[-2] = self.query
        return symbols

    def sequences(self, count: int, rng: np.random.Generator) -> Ids:
        """Sequences (length, count) int32 of whole episodes with random k; distractors fill up their ends."""
        symbols = rng.integers(self.keys, self.query, size=(self.length, count), dtype=np.int32)
        for lane in range(count):
            start = 0
            while (stop := start + int(rng.integers(self.longest + 1)) + 3) <= self.length:
                symbols[start:stop, lane] = self.episodes(stop - start - 3, 1, rng)[:, 0]
                start = stop
        return symbols


@dataclass(frozen=True, eq=False)
class RecallCurve:
    """Accuracy of recall by the number of distractors.

    Attributes
    ----------
    distractors : (K,) int64, values of k.
    accuracy : (K,) float64, share of answers that are the network's most probable symbol.
    chance : accuracy of guessing.
    """

    distractors: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    chance: float


def recall_curve(
    cell: CellName,
    parameters: int,
    *,
    steps: int = 1500,
    lr: float = 0.02,
    forget_bias: float = 1.0,
    longest: int = RecallTask.longest,
    distractors: Sequence[int] = DISTRACTORS,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
) -> RecallCurve:
    """Train a network on the task with the fast backend, then measure its recall with the reference.

    Parameters
    ----------
    cell : of one layer.
    parameters : the network has as many hidden units as bring it nearest to this number of parameters.
    steps : of training with Adam and a cosine schedule, each on 32 new sequences.
    lr : highest learning rate.
    forget_bias : initial bias of the forget gate, where the cell has one.
    longest : largest k in training.
    distractors : values of k to measure.
    seed : of parameters and data. The data does not depend on the cell.
    stop : called before each step; if it returns true, `StoppedError` is raised.

    Raises
    ------
    ConfigError
        When a setting is out of range.
    StoppedError
        When ``stop`` returned true.
    """
    task = RecallTask(longest=longest)
    for k in distractors:
        check_at_least("distractors", k, 0)
    model = ModelConfig(task.vocab_size, embedding=_EMBEDDING, forget_bias=forget_bias)
    config = TrainConfig(steps=steps, lr=lr, seed=seed, optimizer="adam", clip_norm=1.0)
    initial, data, measured = np.random.default_rng(seed).spawn(3)
    trained = initialise(model.with_parameters(parameters, cell), initial)
    _train(trained, task, config, data, stop)
    accuracy = [_accuracy(trained, task.episodes(k, _MEASURED, measured)) for k in distractors]
    return RecallCurve(np.array(distractors, np.int64), np.array(accuracy), task.chance)


def _train(
    parameters: Parameters, task: RecallTask, config: TrainConfig, rng: np.random.Generator,
    stop: Callable[[], bool] | None,
) -> None:  # fmt: skip
    """Train the parameters, in place, on new sequences in every step, each from the zero state."""
    steps, T = config.total_steps(0), task.length - 1
    network, gradients = build("fast", parameters.config, T, _LANES, 1), Parameters(parameters.config)
    slots = np.zeros((config.rule(0.0).slots, parameters.flat.size), parameters.flat.dtype)
    for step in range(steps):
        if stop is not None and stop():
            raise StoppedError
        symbols = task.sequences(_LANES, rng)
        network.train_step(
            parameters, gradients, slots, symbols[:-1], symbols[1:], zero_state(parameters, _LANES), 1.0 / _LANES,
            config.rule(rate(config, step, steps), step),
        )  # fmt: skip


def _accuracy(parameters: Parameters, episodes: Ids) -> float:
    """Share of the episodes whose answer is the most probable symbol after the query."""
    x, answers = episodes[:-1], episodes[-1]
    probabilities = forward(parameters, x, episodes[1:], zero_state(parameters, len(answers))).probabilities
    return float((probabilities[-1].argmax(axis=-1) == answers).mean())
