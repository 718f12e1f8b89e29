"""What a model is and how it is trained: two frozen, validated dataclasses.

The legend of dimensions used everywhere in fastlstm, always in this order of meaning:

====  =====================================================================
L     layers
T     time steps of one sequence (the length of truncated back-propagation)
B     lanes: parallel positions in the text, each with its own carried state
V     vocabulary: distinct symbols (characters or bytes)
E     embedding: length of a symbol's vector
H     hidden units of a layer
X     inputs of a layer: E for the first layer, H above it
G     gates of a cell (`fastlstm.cells`): 4 for the LSTM (i, f, o, g), 1 for the Elman RNN
S     parts of the carried state: 2 for the LSTM (h, c), 1 for the RNN (h)
R     separate gates, which are the last of the G: 1 for the GRU (n)
====  =====================================================================

Arrays over time are time-major, ``(T, B, ...)``.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import ClassVar, Literal

from fastlstm.cells import CELLS, Cell, CellName
from fastlstm.errors import ConfigError
from fastlstm.settings import Settings, declare, documented, setting

DType = Literal["float32", "float64"]
Reduction = Literal["mean", "sum"]
Schedule = Literal["constant", "cosine"]
BackendName = Literal["fast", "reference"]

#: Parameters beyond which a configuration is a mistake: 8 GB in float32, and as much again for each of Adagrad's sums.
MOST_PARAMETERS = 2**31

#: Steps of the longest run: a float64 counts no further.
MOST_STEPS = 2**53

#: T*B of the largest step, as far as 32-bit indices reach.
MOST_SYMBOLS = 2**31 - 1

#: Symbols drawn and kept at once.
MOST_SAMPLED = 10**9

#: NumPy's generators are seeded with 128 bits.
LARGEST_SEED = 2**128 - 1

#: Largest number of each dtype.
_LARGEST: dict[DType, float] = {"float32": (2.0 - 2.0**-23) * 2.0**127, "float64": sys.float_info.max}

#: Above every normal number that NumPy draws from 53 random bits, in standard deviations.
_LARGEST_NORMAL = 16.0

#: Layers, and worker threads, beyond which a number is a mistake.
MOST_LAYERS, MOST_THREADS = 1000, 256


@documented
@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
    """Shape and initialisation of a model."""

    # No option of training, where it follows from the text.
    vocab_size: int = dataclasses.field(
        metadata=declare("distinct symbols", "text", at_least=1, at_most=MOST_PARAMETERS, option="--vocab")
    )
    cell: CellName = setting("lstm", "kind of the recurrent cell", "model")
    layers: int = setting(1, "layers", "model", at_least=1, at_most=MOST_LAYERS)
    hidden: int = setting(128, "hidden units of a layer", "model", at_least=1, at_most=MOST_PARAMETERS)
    embedding: int = setting(64, "length of a symbol's vector", "model", at_least=1, at_most=MOST_PARAMETERS)
    dtype: DType = setting("float32", "type of all numbers", "model")
    weight_std: float | None = setting(
        None, "standard deviation of the initial weights and embeddings", "model", at_least=0.0, option=None,
        none="1 / sqrt(rows) of a weight matrix, 1 of the embeddings",
    )  # fmt: skip
    output_std: float | None = setting(
        None, "standard deviation of the output layer's initial weights", "model", at_least=0.0, option=None,
        none="as weight_std",
    )  # fmt: skip
    forget_bias: float = setting(1.0, "initial bias of the forget gate, where the cell has one", "model")

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_dtype()
        if self.parameter_count > MOST_PARAMETERS:
            raise ConfigError(
                f"{self.parameter_count:,} parameters are more than {MOST_PARAMETERS:,}: choose fewer layers or units"
            )

    def _check_dtype(self) -> None:
        """Refuse initial values that the dtype cannot hold."""
        largest = _LARGEST[self.dtype]
        bounds = {
            "weight_std": largest / _LARGEST_NORMAL,
            "output_std": largest / _LARGEST_NORMAL,
            "forget_bias": largest,
        }
        for name, bound in bounds.items():
            value = getattr(self, name)
            if value is not None and abs(value) > bound:
                raise ConfigError(f"{name} must be at most {bound:.3g} in {self.dtype}, not {value!r}")

    @property
    def structure(self) -> Cell:
        """What the cell is made of."""
        return CELLS[self.cell]

    @property
    def gates(self) -> int:
        """G: blocks of H columns in a layer's weight matrix."""
        return len(self.structure.gates)

    @property
    def state_parts(self) -> int:
        """S: arrays a layer carries from sequence to sequence."""
        return len(self.structure.state)

    @property
    def parameter_count(self) -> int:
        """Number of parameters: the sizes of `fastlstm.params.table`, added up."""
        V, E, H = self.vocab_size, self.embedding, self.hidden
        first, above = (self.structure.parameter_count(inputs, H) for inputs in (E, H))
        return V * E + first + (self.layers - 1) * above + (H + 1) * V

    def inputs(self, layer: int) -> int:
        """X of a layer: the length of what it reads from below."""
        return self.embedding if layer == 0 else self.hidden

    def state_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape ``(S, L, B, H)`` of the carried state; part 0 is h."""
        return self.state_parts, self.layers, batch, self.hidden


@documented
@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """How a model is trained: truncated BPTT with carried state, clipping, Adagrad."""

    DEFAULT_EPOCHS: ClassVar[float] = 20.0

    seq_len: int = setting(64, "characters of a sequence", "training", unit="T", at_least=1, at_most=MOST_SYMBOLS)
    batch: int = setting(32, "sequences trained in parallel", "training", unit="B", at_least=1, at_most=MOST_SYMBOLS)
    lr: float = setting(0.05, "learning rate of Adagrad", "training", at_least=0.0)
    schedule: Schedule = setting(
        "cosine", "course of the learning rate; cosine lowers it to 0 over the run", "training"
    )
    reduction: Reduction = setting(
        "mean", "what is differentiated: mean or sum of the losses of a step's T*B symbols", "training", option=None
    )
    clip_value: float | None = setting(
        None, "bound on each entry of the gradient", "training", at_least=0.0,
        none="no bound", inf_is_none=True, exclusive="bound on the gradient",
    )  # fmt: skip
    clip_norm: float | None = setting(
        5.0, "bound on the norm of the gradient", "training", at_least=0.0,
        none="no bound", inf_is_none=True, exclusive="bound on the gradient",
    )  # fmt: skip
    steps: int | None = setting(
        None, "steps of the run", "training", at_least=0, at_most=MOST_STEPS,
        none="as many as the epochs make", exclusive="length of the run",
    )  # fmt: skip
    epochs: float | None = setting(
        None, "passes over the text", "training", at_least=0.0,
        none=f"{DEFAULT_EPOCHS:g}, unless steps are given", exclusive="length of the run",
    )  # fmt: skip
    val_frac: float = setting(0.1, "share at the end kept for validation", "text", at_least=0.0, below=1.0)
    eval_every: int | None = setting(
        None, "steps between validations; 0: only at the end", "progress and result", at_least=0, at_most=MOST_STEPS,
        none="about ten a run",
    )  # fmt: skip
    sample_every: int | None = setting(
        None, "steps between samples; 0: only at the end", "progress and result", at_least=0, at_most=MOST_STEPS,
        none="about ten a run",
    )  # fmt: skip
    sample_length: int = setting(200, "characters in a sample", "progress and result", at_least=0, at_most=MOST_SAMPLED)
    smoothing: float = setting(
        0.99, "weight of the past in the smoothed training loss", "progress and result", at_least=0.0, below=1.0,
        option=None,
    )  # fmt: skip
    smooth_from_guessing: bool = setting(
        False, "whether smoothing starts from log V, as in the assignment, rather than from the first loss",
        "progress and result", option=None,
    )  # fmt: skip
    seed: int = setting(0, "seed of all random numbers", "computing", at_least=0, at_most=LARGEST_SEED)
    threads: int | None = setting(
        None, "worker threads", "computing", at_least=1, at_most=MOST_THREADS, none="all cores"
    )
    backend: BackendName = setting("fast", "what computes", "computing")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seq_len * self.batch > MOST_SYMBOLS:
            raise ConfigError(
                f"seq_len times batch must be at most {MOST_SYMBOLS:,}, not {self.seq_len:,} times {self.batch:,}"
            )
        if self.clip_value == 0 or self.clip_norm == 0:
            raise ConfigError("a bound of 0 on the gradient leaves nothing to train with: give a larger one, or None")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Steps of the whole run over a text that makes ``steps_per_epoch`` steps."""
        if self.steps is not None:
            return self.steps
        epochs = self.DEFAULT_EPOCHS if self.epochs is None else self.epochs
        steps = epochs * steps_per_epoch
        if steps > MOST_STEPS:
            raise ConfigError(f"epochs of {epochs:g} make more than {MOST_STEPS:g} steps: give fewer")
        return math.ceil(steps)

    def rate(self, step: int, total: int) -> float:
        """Learning rate of step ``step`` (counted from 0) in a run of ``total`` steps."""
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * step / max(total, 1)))
