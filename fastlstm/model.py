"""`Model`: configuration, vocabulary and parameters together, and what one can do with them."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastlstm import checkpoint
from fastlstm.backend import Ids, Network, build
from fastlstm.config import MOST_SAMPLED, BackendName, ModelConfig, Reduction, TrainConfig
from fastlstm.errors import ConfigError, FastlstmError, StoppedError, TextError
from fastlstm.params import FloatArray, Parameters, initialise
from fastlstm.text import IdArray, Vocab

if TYPE_CHECKING:
    from fastlstm.trainer import Observer, TrainResult

#: A text as a model takes it: characters, bytes, or ids of the model's own vocabulary.
Text = str | bytes | Ids

#: Time steps that are read at once where nothing is to be learned.
_READ_STEPS = 256
#: Largest number of symbols drawn at once; a stream starts with one and doubles up to it. Each call packs the weights.
_DRAW_STEPS = 256
#: Networks kept for the next call of the same size.
_NETWORKS_KEPT = 4
#: Temperatures below, but 0, would be infinite as exponents in float32, and ones far above would be 0.
_SMALLEST_TEMPERATURE, _LARGEST_TEMPERATURE = 1e-3, 1e6
#: Texts that can be drawn at once.
_MOST_LANES = 10_000
#: Nats whose exponential is still a number.
_LARGEST_EXPONENT = 700.0


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicts a text.

    Attributes
    ----------
    chars : symbols predicted: all of the text but the first.
    nats_per_char : mean of ``-log p`` of each, in nats.
    """

    chars: int
    nats_per_char: float

    @property
    def bits_per_char(self) -> float:
        """The same in bits."""
        return self.nats_per_char / math.log(2)

    @property
    def perplexity(self) -> float:
        """``exp(nats_per_char)``: among how many equally likely symbols the model hesitates."""
        return math.inf if self.nats_per_char >= _LARGEST_EXPONENT else math.exp(self.nats_per_char)


class Model:
    """A character-level language model.

    Parameters
    ----------
    config : its shape.
    vocab : its symbols, ``config.vocab_size`` of them.
    parameters : to be used, not copied; without them they are initialised from ``seed``.
    seed : of the initialisation.

    Attributes
    ----------
    config, vocab, parameters : as given; ``parameters["output.b"]`` is a view to be read and written.
    training : how the model came about, kept in its file; ``None`` before the first `fit`.

    Raises
    ------
    ConfigError
        When the vocabulary or the parameters do not fit the configuration.
    """

    def __init__(self, config: ModelConfig, vocab: Vocab, parameters: Parameters | None = None, seed: int = 0) -> None:
        if len(vocab) != config.vocab_size:
            raise ConfigError(f"vocab_size is {config.vocab_size}, but the vocabulary has {len(vocab)} symbols")
        if parameters is not None and parameters.config != config:
            raise ConfigError("the parameters belong to a model of another configuration")
        self.config = config
        self.vocab = vocab
        self.parameters = initialise(config, np.random.default_rng(seed)) if parameters is None else parameters
        self.training: dict[str, Any] | None = None
        self._networks: dict[tuple[Any, ...], Network] = {}

    @classmethod
    def for_text(cls, text: str | bytes, *, seed: int = 0, **settings: Any) -> Self:
        """A fresh model with the vocabulary of ``text``; ``settings`` are those of `ModelConfig`."""
        vocab = Vocab.from_text(text)
        return cls(ModelConfig(len(vocab), **settings), vocab, seed=seed)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The model in a file, or in the folder of a run. Raises `ModelFileError` when there is none."""
        content = checkpoint.load(path)
        model = cls(content.config, content.vocab, content.parameters)
        model.training = content.training
        return model

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the model to a file, atomically.

        Parameters
        ----------
        path : the file; its folder must exist.
        overwrite : whether to replace what is at ``path``.

        Raises
        ------
        ModelExistsError
            When something is at ``path`` and ``overwrite`` is false.
        ModelFileError
            When the file cannot be written, or the model is not one that `load` would take back.
        """
        content = checkpoint.Content(self.config, self.vocab, self.parameters, self.training)
        checkpoint.save(path, content, overwrite=overwrite)

    def zero_state(self, batch: int) -> FloatArray:
        """The carried state before a text begins: zeros of shape (S, L, B, H)."""
        return np.zeros(self.config.state_shape(batch), self.config.dtype)

    def loss_and_grads(
        self,
        x: Ids,
        y: Ids,
        state: FloatArray | None = None,
        *,
        reduction: Reduction = "mean",
        backend: BackendName = "fast",
        threads: int | None = None,
    ) -> tuple[float, Parameters, FloatArray]:
        """One forward and backward pass of truncated back-propagation through time.

        Parameters
        ----------
        x, y : (T, B) ids of the symbols read, and of those to be predicted.
        state : (S, L, B, H), carried in; not changed. ``None``: zeros.
        reduction : whether loss and gradients are of the ``"mean"`` over the T*B symbols or of their ``"sum"``.
        backend, threads : what computes it, and with how many workers.

        Returns
        -------
        loss : in nats.
        gradients : of that loss, before any clipping.
        state : (S, L, B, H), carried out.

        Raises
        ------
        ValueError
            When an array has the wrong shape or type, or an id is out of range.
        """
        x, y = self._checked_ids("x", x, 2), self._checked_ids("y", y, 2)
        if x.shape != y.shape:
            raise ValueError(f"x of shape {x.shape} and y of shape {y.shape} must have the same shape (T, B)")
        if reduction not in ("mean", "sum"):
            raise ConfigError(f"reduction must be one of mean, sum, not {reduction!r}")
        T, B = x.shape
        carried = self._copied_state(state, B)
        scale = 1.0 if reduction == "sum" else 1.0 / x.size
        gradients = Parameters(self.config)
        with self._network(backend, T, B, threads, training=True) as network:
            loss = scale * network.forward(self.parameters, x, y, carried)
            network.backward(self.parameters, scale, gradients)
        return loss, gradients, carried

    def fit(
        self,
        text: Text,
        config: TrainConfig | None = None,
        *,
        observer: Observer | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> TrainResult:
        """Train on a text, from the parameters as they are; see `fastlstm.trainer.train`."""
        from fastlstm import trainer  # late: the trainer is built upon this module

        return trainer.train(self, self.encode(text), config or TrainConfig(), observer, stop)

    def evaluate(
        self,
        text: Text,
        *,
        backend: BackendName = "fast",
        threads: int | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Evaluation:
        """Predict every symbol of a text but the first, in one pass that carries the state from start to end.

        ``stop`` is asked every few hundred symbols whether to give up.

        Raises
        ------
        TextError
            When the text has fewer than two symbols.
        VocabularyError
            When the text has a symbol that the model does not know.
        FastlstmError
            When the loss is no finite number.
        StoppedError
            When ``stop`` said so.
        """
        ids = self.encode(text)
        check_length(ids)
        nats = self._read(ids, self.zero_state(1), backend, threads, stop) / (len(ids) - 1)
        if not math.isfinite(nats):
            raise FastlstmError(
                f"the model's loss on this text is no finite number ({nats}): its training diverged, so train it again"
                " with a lower learning rate"
            )
        return Evaluation(len(ids) - 1, nats)

    def sample(
        self,
        prompt: Text = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        backend: BackendName = "fast",
        threads: int | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> str | bytes:
        """Continue ``prompt`` by ``length`` symbols; the prompt is not part of what is returned.

        Parameters
        ----------
        prompt : read first. Without one the text begins as after a line's end, or after the vocabulary's first symbol.
        temperature : exponent ``1/temperature`` on the probabilities; 0 takes the most probable symbol.
        seed : of the random numbers; the same seed gives the same text.
        backend, threads : what computes it, and with how many workers; the text does not depend on the threads.
        stop : asked every few hundred symbols whether to give up.

        Returns
        -------
        ``str``, or ``bytes`` from a model of bytes.

        Raises
        ------
        VocabularyError
            When the prompt has a symbol that the model does not know.
        ConfigError
            When ``length`` or ``temperature`` is out of range.
        StoppedError
            When ``stop`` said so.
        """
        settings: dict[str, Any] = {"temperature": temperature, "seed": seed, "backend": backend, "threads": threads}
        return self.continuations(prompt, 1, length, **settings, stop=stop)[0]

    def continuations(
        self,
        prompt: Text = "",
        num: int = 1,
        length: int = 200,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        backend: BackendName = "fast",
        threads: int | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> list[str] | list[bytes]:
        """Continue ``prompt`` ``num`` times at once, as lanes of one network; otherwise as `sample`.

        The weights are read once for all lanes, so that a character costs less than in one text after the other.
        """
        check_drawing(num, length, temperature, seed)
        start = self._start(prompt)
        drawn = self._drawn(start, num, length, temperature, seed, backend, threads, stop, count=_DRAW_STEPS)
        ids = np.concatenate([np.zeros((0, num), start.dtype), *drawn])
        # A vocabulary decodes to str always or to bytes always, which its type cannot say.
        return [self.vocab.decode(lane) for lane in ids.T]  # type: ignore[return-value]

    def stream(
        self,
        prompt: Text = "",
        length: int = 200,
        *,
        temperature: float = 1.0,
        seed: int = 0,
        backend: BackendName = "fast",
        threads: int | None = None,
    ) -> Iterator[str | bytes]:
        """The text of `sample` in pieces, as they are drawn: one symbol first, then up to 256 at a time."""
        check_drawing(1, length, temperature, seed)
        drawn = self._drawn(self._start(prompt), 1, length, temperature, seed, backend, threads, None, count=1)
        return (self.vocab.decode(ids[:, 0]) for ids in drawn)

    def encode(self, text: Text) -> IdArray:
        """The ids of a text (N,), in the smallest type that holds them.

        Ids are checked, and returned without a copy where they are of that type already.

        Raises
        ------
        VocabularyError
            When the text has a symbol that the model does not know.
        ValueError
            When ids are not a row of integers, or out of range.
        """
        if isinstance(text, str | bytes):
            return self.vocab.encode(text)
        return _unsigned(self._checked_range("a text's ids", text, 1), self.config.vocab_size)

    def _start(self, prompt: Text) -> IdArray:
        ids = self.encode(prompt)
        if len(ids):
            return ids
        newline = np.flatnonzero(self.vocab.symbols == ord("\n"))
        return _unsigned(newline[:1] if len(newline) else np.zeros(1, np.int64), self.config.vocab_size)

    def _drawn(
        self,
        start: IdArray,
        num: int,
        length: int,
        temperature: float,
        seed: int,
        backend: BackendName,
        threads: int | None,
        stop: Callable[[], bool] | None,
        count: int,
    ) -> Iterator[IdArray]:
        """Ids (count, num), ``count`` at first and then more at a time."""
        rng, read = np.random.default_rng(seed), self.zero_state(1)
        self._read(start, read, backend, threads, stop)
        state = np.repeat(read, num, axis=2)
        last: Ids = np.repeat(start[-1:], num).astype(np.int32)
        while length > 0:
            _check(stop)
            count = min(count, length)
            with self._network(backend, 1, num, threads, training=False) as network:
                ids = network.generate(self.parameters, last, state, rng.random((count, num)), temperature)
            yield _unsigned(ids, self.config.vocab_size)
            last, length, count = np.ascontiguousarray(ids[-1]), length - count, min(2 * count, _DRAW_STEPS)

    def _read(
        self,
        ids: IdArray,
        state: FloatArray,
        backend: BackendName,
        threads: int | None,
        stop: Callable[[], bool] | None,
    ) -> float:
        """Read all symbols but the last, in one lane: nats of all but the first; ``state`` is carried on in place."""
        nats, last = 0.0, len(ids) - 1
        for start in range(0, last, _READ_STEPS):
            _check(stop)
            chunk = ids[start : min(start + _READ_STEPS, last) + 1].astype(np.int32)[:, None]
            with self._network(backend, len(chunk) - 1, 1, threads, training=False) as network:
                nats += network.forward(self.parameters, chunk[:-1], chunk[1:], state)
        return nats

    @contextlib.contextmanager
    def _network(
        self, backend: BackendName, T: int, B: int, threads: int | None, *, training: bool
    ) -> Iterator[Network]:
        """Lend a network, an earlier one where there is one; only one borrower at a time has it."""
        key = (backend, T, B, threads, training)
        network = self._networks.pop(key, None) or build(backend, self.config, T, B, threads, training=training)
        try:
            yield network
        finally:
            self._networks[key] = network  # the last in the dictionary is the one used last
            for oldest in list(self._networks)[:-_NETWORKS_KEPT]:
                self._networks.pop(oldest, None)

    def __repr__(self) -> str:
        c = self.config
        shape = f"{c.layers} x {c.hidden}, embedding {c.embedding}, {c.vocab_size} symbols"
        return f"<Model: {c.cell}, {shape}, {c.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        """For copies: all but the networks, which are made again when they are needed."""
        return self.__dict__ | {"_networks": {}}

    def _checked_ids(self, name: str, ids: Ids, dimensions: int) -> Ids:
        """As the kernels, which check nothing, need them: int32, C-contiguous, every one in range."""
        ids = self._checked_range(name, ids, dimensions)
        if ids.size == 0:
            raise ValueError(f"{name} of shape {ids.shape} is empty")
        return np.ascontiguousarray(ids, np.int32)

    def _checked_range(self, name: str, ids: Ids, dimensions: int) -> Ids:
        ids = np.asarray(ids)
        if ids.ndim != dimensions or not np.issubdtype(ids.dtype, np.integer):
            shape = "(T, B)" if dimensions == 2 else "(N,)"
            raise ValueError(f"{name} must be integers of shape {shape}, not {ids.dtype} of shape {ids.shape}")
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.config.vocab_size:
            raise ValueError(f"{name} must be from 0 to {self.config.vocab_size - 1}, the ids of this vocabulary")
        return ids

    def _copied_state(self, state: FloatArray | None, batch: int) -> FloatArray:
        carried = self.zero_state(batch)
        if state is not None:
            if np.shape(state) != carried.shape:
                raise ValueError(f"state must be of shape (S, L, B, H) = {carried.shape}, not {np.shape(state)}")
            carried[...] = state
        return carried


def check_length(ids: Ids) -> None:
    """Raise `TextError` when a text has nothing to predict."""
    if len(ids) < 2:
        raise TextError(f"the text has {len(ids)} of the at least two characters that it needs: give more text")


def check_drawing(num: int, length: int, temperature: float, seed: int) -> None:
    """Raise `ConfigError` when no text can be drawn so."""
    for name, value in (("num", num), ("length", length), ("seed", seed)):
        if not isinstance(value, int | np.integer):
            raise ConfigError(f"{name} must be a whole number, not {value!r}")
    if not 1 <= num <= _MOST_LANES:
        raise ConfigError(f"num must be at least 1 and at most {_MOST_LANES}, not {num}")
    if length < 0 or seed < 0:
        raise ConfigError(f"length and seed must be at least 0, not {length} and {seed}")
    if num > 1 and num * length > MOST_SAMPLED:
        raise ConfigError(
            f"{num} times {length} characters are more than {MOST_SAMPLED:,}: give a smaller length or num"
        )
    if temperature != 0 and not _SMALLEST_TEMPERATURE <= temperature <= _LARGEST_TEMPERATURE:
        bounds = f"from {_SMALLEST_TEMPERATURE} to {_LARGEST_TEMPERATURE:,.0f}"
        raise ConfigError(f"temperature must be 0, or {bounds}, not {temperature!r}")


def _check(stop: Callable[[], bool] | None) -> None:
    if stop is not None and stop():
        raise StoppedError


def _unsigned(ids: Ids, vocab_size: int) -> IdArray:
    return ids.astype(np.min_scalar_type(vocab_size - 1), copy=False)
