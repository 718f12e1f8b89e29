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
G     gates of a cell: 4 for the LSTM (i, f, o, g), 1 for the Elman RNN
S     parts of the carried state: 2 for the LSTM (h, c), 1 for the RNN (h)
====  =====================================================================

Arrays over time are time-major, ``(T, B, ...)``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import sys
from typing import Any, ClassVar, Literal, Self, get_args

from fastlstm.errors import ConfigError

Cell = Literal["lstm", "rnn"]
DType = Literal["float32", "float64"]
Reduction = Literal["mean", "sum"]
Schedule = Literal["constant", "cosine"]
BackendName = Literal["fast", "reference"]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and initialisation of a model.

    Parameters
    ----------
    vocab_size : V, distinct symbols, at least 1.
    cell : ``"lstm"`` or ``"rnn"`` (Elman, tanh).
    layers, hidden, embedding : L, H and E, each at least 1.
    dtype : ``"float32"`` or ``"float64"``, of parameters and of all computation.
    weight_std : standard deviation of the initial weights and embeddings; ``None`` scales each
        weight matrix by its inputs, ``1 / sqrt(rows)``, and embeddings by 1.
    output_std : the same for the output layer's weights; ``None`` follows ``weight_std``.
    forget_bias : initial bias of the LSTM's forget gate (other biases start at zero).

    Raises
    ------
    ConfigError
        When a value is out of range, or does not fit the dtype; the message names the field.
    """

    vocab_size: int
    cell: Cell = "lstm"
    layers: int = 1
    hidden: int = 128
    embedding: int = 64
    dtype: DType = "float32"
    weight_std: float | None = None
    output_std: float | None = None
    forget_bias: float = 1.0

    def __post_init__(self) -> None:
        _one_of(self, "cell", get_args(Cell))
        _one_of(self, "dtype", get_args(DType))
        for name in ("vocab_size", "hidden", "embedding"):
            _whole(self, name, 1, MOST_PARAMETERS)
        _whole(self, "layers", 1, MOST_LAYERS)
        largest = _LARGEST[self.dtype]
        for name in ("weight_std", "output_std"):
            if getattr(self, name) is not None:
                _finite(self, name, minimum=0.0)
                _at_most(self, name, largest / _LARGEST_NORMAL)
        _finite(self, "forget_bias")
        _at_most(self, "forget_bias", largest)
        if self.parameter_count > MOST_PARAMETERS:
            raise ConfigError(
                f"{self.parameter_count:,} parameters are more than {MOST_PARAMETERS:,}: choose fewer layers or units"
            )

    @property
    def gates(self) -> int:
        """G: blocks of H columns in a layer's weight matrix."""
        return 4 if self.cell == "lstm" else 1

    @property
    def state_parts(self) -> int:
        """S: arrays a layer carries from sequence to sequence."""
        return 2 if self.cell == "lstm" else 1

    @property
    def parameter_count(self) -> int:
        """Number of parameters: the sizes of `fastlstm.params.table`, added up."""
        V, E, H, L, G = self.vocab_size, self.embedding, self.hidden, self.layers, self.gates
        return V * E + (E + H + 1) * G * H + (L - 1) * (2 * H + 1) * G * H + (H + 1) * V

    def inputs(self, layer: int) -> int:
        """X of a layer: the length of what it reads from below."""
        return self.embedding if layer == 0 else self.hidden

    def state_shape(self, batch: int) -> tuple[int, int, int, int]:
        """Shape ``(S, L, B, H)`` of the carried state; part 0 is h, part 1 is c."""
        return self.state_parts, self.layers, batch, self.hidden

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; unknown or missing keys raise `ConfigError`."""
        _check_keys(cls, values)
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: truncated BPTT with carried state, clipping, Adagrad.

    Parameters
    ----------
    seq_len, batch : T and B of a step.
    lr : Adagrad's rate; ``schedule`` scales it over the run (``"cosine"``: from 1 down to 0).
    reduction : whether the loss that is differentiated is the ``"mean"`` over the T*B predicted
        symbols or their ``"sum"``.
    clip_value : bound on each gradient entry, or ``None``.
    clip_norm : bound on the norm of all gradients together, or ``None``. At most one of the two.
    steps, epochs : length of the run; at most one is given (none: ``DEFAULT_EPOCHS`` epochs).
    val_frac : share of the text, at its end, kept for validation.
    eval_every : steps between validation passes; 0: only at the end; ``None``: about ten a run.
    sample_every : steps between samples; 0: only at the end; ``None``: about ten a run.
    sample_length : symbols in a sample.
    smoothing : weight of the past in the smoothed training loss, see `fastlstm.trainer.Average`.
    smooth_from_guessing : whether that starts from log V, as in the assignment, rather than from the first loss.
    seed : of initialisation and samples.
    threads : worker threads; ``None``: all cores the process may use.
    backend : ``"fast"`` or ``"reference"``.

    Raises
    ------
    ConfigError
        When a value is out of range or two fields contradict each other.
    """

    seq_len: int = 64
    batch: int = 32
    lr: float = 0.05
    schedule: Schedule = "cosine"
    reduction: Reduction = "mean"
    clip_value: float | None = None
    clip_norm: float | None = 5.0
    steps: int | None = None
    epochs: float | None = None
    val_frac: float = 0.1
    eval_every: int | None = None
    sample_every: int | None = None
    sample_length: int = 200
    smoothing: float = 0.99
    smooth_from_guessing: bool = False
    seed: int = 0
    threads: int | None = None
    backend: BackendName = "fast"

    DEFAULT_EPOCHS: ClassVar[float] = 20.0

    def __post_init__(self) -> None:
        _one_of(self, "schedule", get_args(Schedule))
        _one_of(self, "reduction", get_args(Reduction))
        _one_of(self, "backend", get_args(BackendName))
        _whole(self, "seq_len", 1, MOST_SYMBOLS)
        _whole(self, "batch", 1, MOST_SYMBOLS)
        if self.seq_len * self.batch > MOST_SYMBOLS:
            raise ConfigError(
                f"seq_len times batch must be at most {MOST_SYMBOLS:,}, not {self.seq_len:,} times {self.batch:,}"
            )
        _finite(self, "lr", minimum=0.0)
        _finite(self, "val_frac", minimum=0.0, below=1.0)
        _finite(self, "smoothing", minimum=0.0, below=1.0)
        _whole(self, "sample_length", 0, MOST_SAMPLED)
        _whole(self, "seed", 0, LARGEST_SEED)
        for name in ("steps", "eval_every", "sample_every"):
            if getattr(self, name) is not None:
                _whole(self, name, 0, MOST_STEPS)
        if self.threads is not None:
            _whole(self, "threads", 1, MOST_THREADS)
        for name in ("clip_value", "clip_norm", "epochs"):
            if getattr(self, name) is not None:
                _finite(self, name, minimum=0.0)
        if not isinstance(self.smooth_from_guessing, bool):
            raise ConfigError(f"smooth_from_guessing must be True or False, not {self.smooth_from_guessing!r}")
        if self.clip_value == 0 or self.clip_norm == 0:
            raise ConfigError("a bound of 0 on the gradient leaves nothing to train with: give a larger one, or None")
        if self.clip_value is not None and self.clip_norm is not None:
            raise ConfigError("clip_value and clip_norm exclude each other: give one, set the other to None")
        if self.steps is not None and self.epochs is not None:
            raise ConfigError("steps and epochs exclude each other: give one")

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`; unknown or missing keys raise `ConfigError`."""
        _check_keys(cls, values)
        return cls(**values)


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

#: The assignment to the letter: what each cell's template sets, over the fields above.
ASSIGNMENT_MODEL: dict[Cell, dict[str, Any]] = {
    "lstm": {"embedding": 4, "hidden": 32, "layers": 1, "weight_std": 0.1, "output_std": 0.01, "forget_bias": 0.0},
    "rnn": {"embedding": 32, "hidden": 100, "layers": 1, "weight_std": 0.01, "output_std": 0.01, "forget_bias": 0.0},
}
_ASSIGNMENT_LOOP: dict[str, Any] = {
    "batch": 1, "schedule": "constant", "reduction": "sum", "clip_value": 5.0, "clip_norm": None,
    "val_frac": 0.0, "smoothing": 0.999, "smooth_from_guessing": True,
}  # fmt: skip
ASSIGNMENT_TRAIN: dict[Cell, dict[str, Any]] = {
    "lstm": {**_ASSIGNMENT_LOOP, "seq_len": 64, "lr": 0.05},
    "rnn": {**_ASSIGNMENT_LOOP, "seq_len": 32, "lr": 0.1},
}


def _check_keys(cls: type, values: dict[str, Any]) -> None:
    fields = dataclasses.fields(cls)
    if unknown := sorted(set(values) - {field.name for field in fields}):
        raise ConfigError(f"unknown setting {unknown[0]!r} in {cls.__name__}")
    for field in fields:
        if field.name not in values and field.default is dataclasses.MISSING:
            raise ConfigError(f"setting {field.name!r} of {cls.__name__} is missing")


# Each check replaces the value by the plain Python one: a NumPy scalar or dtype can be given, and saved as JSON.


def _one_of(config: object, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if str(value) not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    object.__setattr__(config, name, str(value))


def _whole(config: object, name: str, minimum: int, maximum: int) -> None:
    value = getattr(config, name)
    try:
        number = minimum - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = minimum - 1
    if number < minimum:
        raise ConfigError(f"{name} must be a whole number of at least {minimum}, not {_shown(value)}")
    if number > maximum:
        raise ConfigError(f"{name} must be at most {maximum:,}, not {_shown(value)}")
    object.__setattr__(config, name, number)


def _finite(config: object, name: str, minimum: float = -math.inf, below: float = math.inf) -> None:
    value = getattr(config, name)
    try:
        number = float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not math.isfinite(number) or not minimum <= number < below:
        bounds = "" if minimum == -math.inf else f" of at least {minimum:g}"
        bounds += "" if below == math.inf else f" and below {below:g}"
        raise ConfigError(f"{name} must be a finite number{bounds}, not {_shown(value)}")
    object.__setattr__(config, name, number)


def _at_most(config: ModelConfig, name: str, largest: float) -> None:
    value = getattr(config, name)
    if abs(value) > largest:
        raise ConfigError(f"{name} must be at most {largest:.3g} in {config.dtype}, not {value!r}")


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no whole number of more than some 4,300 digits
        return "a number of thousands of digits"
