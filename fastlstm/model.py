"""`Model`: configuration, vocabulary and parameters together, and what one can do with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Self

import numpy as np

from fastlstm import checkpoint, trainer
from fastlstm.config import BackendName, ModelConfig, Reduction, TrainConfig
from fastlstm.contract import Ids
from fastlstm.errors import ConfigError
from fastlstm.inference import Evaluation, Inference, Networks, beginning, check_drawing, smallest_ids
from fastlstm.params import FloatArray, Parameters, initialise
from fastlstm.settings import settings_of
from fastlstm.text import IdArray, Vocab
from fastlstm.trainer import Observer, TrainResult

#: A text as a model takes it: characters, bytes, or ids of the model's own vocabulary.
Text = str | bytes | Ids


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
        self._networks = Networks(config)

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
        checkpoint.save(path, self.content, overwrite=overwrite)

    @property
    def content(self) -> checkpoint.Content:
        """What `save` writes; its parameters are these, not a copy."""
        return checkpoint.Content(self.config, self.vocab, self.parameters, self.training)

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
        reduction = settings_of(TrainConfig)["reduction"].validated(reduction)
        T, B = x.shape
        carried = self._copied_state(state, B)
        scale = 1.0 if reduction == "sum" else 1.0 / x.size
        gradients = Parameters(self.config)
        with self._networks.lend(backend, T, B, threads, training=True) as network:
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
        """Train on a text, from the parameters as they are and in place; `training` is set, whatever ends the run.

        Parameters
        ----------
        text : its last ``config.val_frac`` is kept for validation.
        config : how to train.
        observer : is told of progress.
        stop : asked before each step, and within validation and samples, whether to end early.

        Raises
        ------
        TextError, ConfigError
            When the text is too short for any training, or for the lanes asked for.
        VocabularyError
            When the text has a symbol that the model does not know.
        DivergenceError
            When a loss is no finite number or more than `fastlstm.trainer.DIVERGED_NATS` above that of guessing, or a
            parameter at the end is not finite. The model is then as it was at an earlier step, which the message names.
        """
        run = trainer.begin(self.content, self.encode(text), config or TrainConfig(), observer or Observer())
        try:
            return run.train(stop or (lambda: False))
        finally:
            self.training = run.training

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
        return self._inference(backend, threads, stop).evaluate(self.encode(text))

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
        inference = self._inference(backend, threads, stop)
        ids = inference.draw(self._start(prompt), num, length, temperature=temperature, seed=seed)
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
        inference = self._inference(backend, threads)
        pieces = inference.stream(self._start(prompt), length, temperature=temperature, seed=seed)
        return (self.vocab.decode(ids) for ids in pieces)

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
        return smallest_ids(self._checked_range("a text's ids", text, 1), self.config.vocab_size)

    def _start(self, prompt: Text) -> IdArray:
        ids = self.encode(prompt)
        return ids if len(ids) else beginning(self.vocab)

    def _inference(
        self, backend: BackendName, threads: int | None, stop: Callable[[], bool] | None = None
    ) -> Inference:
        return Inference(self._networks, self.parameters, backend, threads, stop)

    def __repr__(self) -> str:
        c = self.config
        shape = f"{c.layers} x {c.hidden}, embedding {c.embedding}, {c.vocab_size} symbols"
        return f"<Model: {c.cell}, {shape}, {c.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        """For copies: all but the networks, which are made again when they are needed."""
        return self.__dict__ | {"_networks": Networks(self.config)}

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
