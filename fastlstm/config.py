"""Configuration of models and of training: two frozen, validated dataclasses.

The dimensions, as they are named everywhere in fastlstm:

====  =====================================================================
L     layers
T     time steps of one sequence (the length of truncated back-propagation)
B     lanes: parallel positions in the text, each with its own carried state
V     vocabulary: distinct symbols (characters or bytes)
E     embedding: length of a symbol's embedding vector
H     hidden units of a layer
X     inputs of a layer: E for the first layer, H above it
G     gates of a cell (`fastlstm.cells`): 4 for the LSTM (i, f, o, g), 3 for the GRU
      (r, z, n), 1 for the Elman RNN
S     parts of the carried state: 2 for the LSTM (h, c), 1 for the GRU and the RNN (h)
R     separate gates, which are the last of the G: 1 for the GRU (n), else 0
====  =====================================================================

Arrays over time are time-major, ``(T, B, ...)``.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import Any, ClassVar, Literal

from fastlstm.cells import CELLS, Cell, CellName
from fastlstm.drawing import Drawing
from fastlstm.errors import ConfigError
from fastlstm.optimizers import OPTIMIZERS, OptimizerName, UpdateRule
from fastlstm.settings import Settings, declare, documented, setting

DType = Literal["float32", "float64"]
Reduction = Literal["mean", "sum"]
Schedule = Literal["constant", "cosine", "linear", "wsd", "step", "plateau"]
BackendName = Literal["fast", "reference"]
PrecisionName = Literal["auto", "bf16", "float32", "float64"]

#: What becomes of a symbol without an entry in a vocabulary, see `fastlstm.text.Encoder`.
Unknown = Literal["error", "skip", "escape"]

#: Largest number of parameters: 8 GB in float32, and as much again for each slot of the update rule.
MOST_PARAMETERS = 2**31

#: Largest number of steps: a float64 counts exactly up to here.
MOST_STEPS = 2**53

#: Largest number of minutes: a year.
MOST_MINUTES = 366 * 24 * 60.0

#: Largest T*B of a step: indices have 32 bits.
MOST_SYMBOLS = 2**31 - 1

#: Largest number of symbols drawn in one call and kept in memory.
MOST_SAMPLED = 10**9

#: Seeds of NumPy's generators have 128 bits.
LARGEST_SEED = 2**128 - 1

#: Largest number of each dtype.
_LARGEST: dict[DType, float] = {"float32": (2.0 - 2.0**-23) * 2.0**127, "float64": sys.float_info.max}

#: More standard deviations than any normal number that NumPy draws from 53 random bits.
_LARGEST_NORMAL = 16.0

#: Largest number of layers, of worker threads, of texts sampled at once, of lanes of a text that is evaluated, and of
#: characters listed; more is taken to be a mistake.
MOST_LAYERS, MOST_THREADS, MOST_TEXTS, MOST_LANES, MOST_LISTED = 1000, 256, 10_000, 10_000, 10_000

#: The settings that only some optimizers have.
_OF_OPTIMIZERS = tuple(dict.fromkeys(name for one in OPTIMIZERS.values() for name in one.defaults))

#: Bounds of a temperature other than 0: far outside of them, its inverse in float32 would be infinite or 0.
_LOWEST_TEMPERATURE, _HIGHEST_TEMPERATURE = 1e-3, 1e6


def _seed() -> int:
    """The declaration of a seed, which training and sampling share."""
    seed: int = setting(0, "seed of the random number generators", "computing", at_least=0, at_most=LARGEST_SEED)
    return seed


def _own(name: str) -> str:
    """A description of the optimizers' own values of a setting."""
    optimizers: dict[str, list[str]] = {}
    for optimizer, one in OPTIMIZERS.items():
        if name in one.defaults:
            value = one.defaults[name]
            optimizers.setdefault("off" if value is False else f"{value:g}", []).append(optimizer)
    return ", ".join(f"{value} for {'/'.join(names)}" for value, names in optimizers.items())


@documented
@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
    """Shape and initialisation of a model."""

    # `train` has no such option: there it follows from the text.
    vocab_size: int = dataclasses.field(
        metadata=declare("distinct symbols", "text", at_least=1, at_most=MOST_PARAMETERS, option="--vocab")
    )
    cell: CellName = setting("lstm", "recurrent cell", "model")
    layers: int = setting(1, "number of layers", "model", at_least=1, at_most=MOST_LAYERS)
    hidden: int = setting(128, "hidden units per layer", "model", at_least=1, at_most=MOST_PARAMETERS)
    embedding: int = setting(64, "length of an embedding vector", "model", at_least=1, at_most=MOST_PARAMETERS)
    # `train` has no such option: there it follows from the precision.
    dtype: DType = setting("float32", "floating-point type of the parameters", "model", option=None)
    weight_std: float | None = setting(
        None, "standard deviation of the initial weights and embeddings", "model", at_least=0.0, option=None,
        none="1 / sqrt(rows) for a weight matrix, 1 for the embeddings",
    )  # fmt: skip
    output_std: float | None = setting(
        None, "standard deviation of the output layer's initial weights", "model", at_least=0.0, option=None,
        none="the same as weight_std",
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
        """Refuse initial values that the dtype cannot represent."""
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
        """The declaration of the cell."""
        return CELLS[self.cell]

    @property
    def gates(self) -> int:
        """G: the number of blocks of H columns in a layer's weight matrix."""
        return len(self.structure.gates)

    @property
    def state_parts(self) -> int:
        """S: the number of arrays in the carried state of a layer."""
        return len(self.structure.state)

    @property
    def outer_tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the parameters that are not a layer's: the embedding, then those of the output."""
        V, E, H = self.vocab_size, self.embedding, self.hidden
        return {"embedding": (V, E), "output.W": (H, V), "output.b": (V,)}

    @property
    def parameter_count(self) -> int:
        """Number of parameters: the sizes of `fastlstm.params.table`, added up."""
        outer = sum(math.prod(shape) for shape in self.outer_tensors.values())
        first, above = (self.structure.parameter_count(inputs, self.hidden) for inputs in (self.embedding, self.hidden))
        return outer + first + (self.layers - 1) * above

    def with_parameters(self, parameters: int, cell: CellName) -> ModelConfig:
        """The same model of a cell, with as many hidden units as bring it nearest to a number of parameters."""

        def of(hidden: int) -> ModelConfig:
            return dataclasses.replace(self, cell=cell, hidden=hidden)

        low, high = 1, 2
        while of(high).parameter_count < parameters:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if of(middle).parameter_count < parameters else (low, middle)
        return min(of(low), of(high), key=lambda model: abs(model.parameter_count - parameters))

    def inputs(self, layer: int) -> int:
        """X of a layer: the length of its input vectors."""
        return self.embedding if layer == 0 else self.hidden

    def state_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape ``(S, L, B, H)`` of the carried state; part 0 is h."""
        return self.state_parts, self.layers, batch, self.hidden


@documented
@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """Settings of a training run: truncated BPTT with carried state, gradient clipping, an optimizer."""

    DEFAULT_EPOCHS: ClassVar[float] = 20.0

    seq_len: int = setting(64, "characters per sequence", "training", unit="T", at_least=1, at_most=MOST_SYMBOLS)
    batch: int = setting(32, "sequences trained in parallel", "training", unit="B", at_least=1, at_most=MOST_SYMBOLS)
    optimizer: OptimizerName = setting("adagrad", "optimizer", "training")
    lr: float | None = setting(
        None, "highest learning rate", "training", at_least=0.0,
        none=", ".join(f"{one.lr:g} for {name}" for name, one in OPTIMIZERS.items()),
    )  # fmt: skip
    schedule: Schedule = setting(
        "cosine", "learning-rate schedule; wsd: constant, then a linear decay; plateau: lower when validation stalls",
        "training",
    )  # fmt: skip
    warmup: int = setting(
        0,
        "steps over which the learning rate rises at the start, at most half of the run",
        "training",
        at_least=0,
        at_most=MOST_STEPS,
    )
    final_rate: float = setting(
        0.0, "learning rate at the end of cosine, linear and wsd, as a fraction of the highest", "training",
        at_least=0.0, at_most=1.0,
    )  # fmt: skip
    decay_frac: float = setting(0.2, "fraction of the run over which wsd decays", "training", above=0.0, at_most=1.0)
    decay_every: int | None = setting(
        None, "steps between the decays of the schedule step", "training", at_least=1, at_most=MOST_STEPS,
        none="a quarter of the run",
    )  # fmt: skip
    decay_factor: float = setting(
        0.5, "factor of the learning rate at each decay of step and plateau", "training", above=0.0, at_most=1.0
    )
    decay_patience: int = setting(
        2, "checks without a better validation before plateau decays", "training", at_least=1, at_most=MOST_STEPS
    )
    reduction: Reduction = setting(
        "mean",
        "whether gradients are of the mean or the sum of the losses of a step's T*B symbols",
        "training",
        option=None,
    )
    dropout_embedding: float = setting(
        0.0, "probability that a unit of the embedding is dropped", "training", at_least=0.0, below=1.0
    )
    dropout_layers: float = setting(
        0.0, "probability that a unit between two layers is dropped", "training", at_least=0.0, below=1.0
    )
    dropout_output: float = setting(
        0.0, "probability that a unit before the output layer is dropped", "training", at_least=0.0, below=1.0
    )
    dropout_held: bool = setting(
        False, "drop the same units at all time steps of a sequence, rather than others at each", "training"
    )
    clip_value: float | None = setting(
        None, "bound on the absolute value of each entry of the gradient", "training", at_least=0.0,
        none="no bound", inf_is_none=True, exclusive="bound on the gradient",
    )  # fmt: skip
    clip_norm: float | None = setting(
        5.0, "bound on the norm of the gradient", "training", at_least=0.0,
        none="no bound", inf_is_none=True, exclusive="bound on the gradient",
    )  # fmt: skip
    momentum: float | None = setting(
        None, "decay of the sum of the past gradients", "training", at_least=0.0, below=1.0, none=_own("momentum")
    )
    nesterov: bool | None = setting(None, "whether momentum is Nesterov's", "training", none=_own("nesterov"))
    beta1: float | None = setting(
        None, "decay of the average of the gradients", "training", at_least=0.0, below=1.0, none=_own("beta1")
    )
    beta2: float | None = setting(
        None, "decay of the average of their squares", "training", at_least=0.0, below=1.0, none=_own("beta2")
    )
    eps: float | None = setting(
        None, "added to the divisor, against division by 0", "training", at_least=1e-30, none=_own("eps")
    )
    weight_decay: float | None = setting(
        None, "decay of the weights; biases and embeddings are spared", "training", at_least=0.0,
        none=_own("weight_decay"),
    )  # fmt: skip
    steps: int | None = setting(
        None, "number of training steps", "training", at_least=0, at_most=MOST_STEPS,
        none="determined by the epochs", exclusive="length of the run", resumable=True,
    )  # fmt: skip
    epochs: float | None = setting(
        None, "number of passes over the training text", "training", at_least=0.0,
        none=f"{DEFAULT_EPOCHS:g}, unless steps are given", exclusive="length of the run", resumable=True,
    )  # fmt: skip
    minutes: float | None = setting(
        None, "wall time of the whole run, without compiling; the speed measured at its start fixes the steps",
        "training", above=0.0, at_most=MOST_MINUTES, none="not limited", exclusive="length of the run", resumable=True,
    )  # fmt: skip
    patience: int | None = setting(
        None, "checks without a better validation before the run ends early", "training", at_least=1,
        at_most=MOST_STEPS, none="never", resumable=True,
    )  # fmt: skip
    checks: int = setting(
        10, "validations, evenly spaced, that choose the best model and decide on patience", "training", at_least=1,
        at_most=MOST_STEPS,
    )  # fmt: skip
    val_frac: float = setting(
        0.1, "fraction at the end of the text used for validation", "text", at_least=0.0, below=1.0
    )
    eval_every: int | None = setting(
        None, "steps between validations that are shown; 0: only at the end", "progress and result", at_least=0,
        at_most=MOST_STEPS, none="those of the checks", resumable=True,
    )  # fmt: skip
    sample_every: int | None = setting(
        None, "steps between samples; 0: only at the end", "progress and result", at_least=0, at_most=MOST_STEPS,
        none="about ten per run", resumable=True,
    )  # fmt: skip
    sample_length: int = setting(
        200, "characters per sample", "progress and result", at_least=0, at_most=MOST_SAMPLED, resumable=True
    )
    save_every: int | None = setting(
        None, "steps between checkpoints, rounded up to the next copy of the state", "progress and result",
        at_least=1, at_most=MOST_STEPS, none="as often as a hundredth of the time allows", resumable=True,
    )  # fmt: skip
    save_minutes: float | None = setting(
        None, "minutes between checkpoints", "progress and result", at_least=0.0, at_most=MOST_MINUTES,
        none="as often as a hundredth of the time allows", resumable=True,
    )  # fmt: skip
    smoothing: float = setting(
        0.99, "decay of the average that smooths the training loss", "progress and result", at_least=0.0, below=1.0,
        option=None,
    )  # fmt: skip
    smooth_from_guessing: bool = setting(
        False, "whether the average starts from log V, as in the assignment, rather than from the first loss",
        "progress and result", option=None,
    )  # fmt: skip
    seed: int = _seed()
    threads: int | None = setting(
        None, "worker threads", "computing", at_least=1, at_most=MOST_THREADS, none="all cores", resumable=True
    )
    backend: BackendName = setting("fast", "implementation: fast (numba kernels) or reference (NumPy)", "computing")
    precision: PrecisionName = setting(
        "auto", "arithmetic; bf16: float32, with the operands of products rounded to bfloat16; auto: that of the model,"
        " float32 for a new one, but large models are trained in bf16; a stored model of another type is converted",
        "computing",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seq_len * self.batch > MOST_SYMBOLS:
            raise ConfigError(
                f"seq_len times batch must be at most {MOST_SYMBOLS:,}, not {self.seq_len:,} times {self.batch:,}"
            )
        if self.clip_value == 0 or self.clip_norm == 0:
            raise ConfigError(
                "clip_value and clip_norm must be above 0: a bound of 0 makes every gradient 0; give more, or None"
            )
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        """Refuse settings that the optimizer does not have."""
        known = OPTIMIZERS[self.optimizer].defaults
        for name in _OF_OPTIMIZERS:
            if name not in known and getattr(self, name) is not None:
                having = ", ".join(optimizer for optimizer, one in OPTIMIZERS.items() if name in one.defaults)
                raise ConfigError(
                    f"the optimizer {self.optimizer} has no {name}: leave it out, or choose an optimizer that has it"
                    f" ({having})"
                )
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov needs a momentum above 0: give more, or leave nesterov out")

    def in_effect(self) -> TrainConfig:
        """The same training, with values for what is the optimizer's own, and for the default length of a run."""
        defaults = OPTIMIZERS[self.optimizer].defaults
        values: dict[str, Any] = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        if self.steps is None and self.epochs is None and self.minutes is None:
            values["epochs"] = self.DEFAULT_EPOCHS
        return dataclasses.replace(self, lr=self.highest_rate, **values)

    @property
    def highest_rate(self) -> float:
        """The highest learning rate: ``lr``, or the optimizer's own."""
        return OPTIMIZERS[self.optimizer].lr if self.lr is None else self.lr

    @property
    def is_bf16(self) -> bool:
        """Whether operands of products are rounded to bfloat16, once the precision is settled."""
        return self.precision == "bf16"

    def total_steps(self, steps_per_epoch: int) -> int:
        """Number of steps of the whole run, given the steps of one pass over the text.

        That of a run of so many minutes is known only when its speed has been measured: see `fastlstm.trainer.Trainer`.
        """
        if self.steps is not None:
            return self.steps
        epochs = self.DEFAULT_EPOCHS if self.epochs is None else self.epochs
        steps = epochs * steps_per_epoch
        if steps > MOST_STEPS:
            raise ConfigError(f"{epochs:g} epochs are more than {MOST_STEPS:g} steps: give fewer")
        return math.ceil(steps)

    def rule(self, rate: float, step: int = 0) -> UpdateRule:
        """The update of step ``step`` (counted from 0) with learning rate ``rate``."""
        return OPTIMIZERS[self.optimizer].rule(rate, step, **self._of_rule)

    @functools.cached_property
    def _of_rule(self) -> dict[str, float]:
        """The settings of the optimizer and of clipping that are given; kept, because every step needs them."""
        names = ("clip_value", "clip_norm", *OPTIMIZERS[self.optimizer].defaults)
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@documented
@dataclasses.dataclass(frozen=True)
class SampleConfig(Settings):
    """Settings of sampling."""

    length: int = setting(200, "characters to sample", "text", at_least=0)
    num: int = setting(1, "continuations to sample at once", "text", at_least=1, at_most=MOST_TEXTS)
    temperature: float = setting(
        1.0, "exponent 1/X on the probabilities: below 1, more likely text; above 1, more varied; 0: the most likely;"
        f" else at least {_LOWEST_TEMPERATURE:g}", "text", at_least=0.0, at_most=_HIGHEST_TEMPERATURE,
    )  # fmt: skip
    top_k: int | None = setting(
        None, "draw from the N most probable characters only", "text", at_least=1, at_most=MOST_PARAMETERS, none="all"
    )
    top_p: float | None = setting(
        None, "draw only from the fewest most probable characters whose probabilities add up to X", "text", above=0.0,
        at_most=1.0, none="all",
    )  # fmt: skip
    min_p: float | None = setting(
        None, "draw only characters at least X times as probable as the most probable one", "text", at_least=0.0,
        at_most=1.0, none="all",
    )  # fmt: skip
    seed: int = _seed()

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.temperature < _LOWEST_TEMPERATURE:
            raise ConfigError(f"temperature must be 0, or at least {_LOWEST_TEMPERATURE:g}, not {self.temperature!r}")
        if self.num > 1 and self.num * self.length > MOST_SAMPLED:
            raise ConfigError(
                f"{self.num} times {self.length} characters are more than {MOST_SAMPLED:,}: give a smaller length or"
                " num"
            )

    def drawing(self, withheld: int = 0) -> Drawing:
        """How each symbol is drawn; the last ``withheld`` symbols of the vocabulary never are."""
        names = ("top_k", "top_p", "min_p")
        limits: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        return Drawing(self.temperature, **limits, withheld=withheld)


@documented
@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Settings):
    """Settings of evaluation."""

    lanes: int = setting(
        1, "parts of a text that are read in parallel: faster than one pass, and not quite exact; the error is stated",
        "text", at_least=1, at_most=MOST_LANES,
    )  # fmt: skip
    hardest: int = setting(10, "hardest characters and contexts to list", "text", at_least=0, at_most=MOST_LISTED)
