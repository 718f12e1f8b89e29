"""`Model`: configuration, vocabulary and parameters of a language model, with training, evaluation and sampling."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, AnyStr, Self

import numpy as np
from numpy.typing import NDArray

from fastlstm import checkpoint, fine_tuning, run_checkpoint
from fastlstm.certificate import Certificate
from fastlstm.config import (
    BackendName,
    DType,
    EvaluationConfig,
    ModelConfig,
    PrecisionName,
    Reduction,
    SampleConfig,
    TrainConfig,
    Unknown,
)
from fastlstm.contract import Ids
from fastlstm.errors import ConfigError
from fastlstm.evaluation import Assessment, Report, assess, evaluate_dynamic
from fastlstm.inference import Evaluation, Inference, Networks, Passage, beginning, smallest_ids
from fastlstm.learning import TRAINED, Learning
from fastlstm.observers import Observer
from fastlstm.params import FloatArray, Parameters, initialise
from fastlstm.precision import effective
from fastlstm.scoring import ScoredLine, Scorer, lenient, score
from fastlstm.settings import settings_of
from fastlstm.streaming import Ending
from fastlstm.text import Encoder, IdArray, Vocab, utf8
from fastlstm.trainer import Trainer, TrainResult

#: A text, as methods of a model take it: characters, bytes, or ids of the model's own vocabulary.
Text = str | bytes | Ids


class Model:
    """A character-level language model.

    Parameters
    ----------
    config : its shape.
    vocab : its ``config.vocab_size`` symbols.
    parameters : used, not copied; ``None``: initialised at random.
    seed : of the initialisation.

    Attributes
    ----------
    config, vocab, parameters : as given; ``parameters["output.b"]`` is a view for reading and writing.
    training : record of the training run, saved in the model file; ``None`` before the first `fit`.
    certificate : how the gradients of the model that was loaded were checked; ``None`` if they were not, and after a
        `fit`. `save` drops it if the parameters have changed since.

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
        self.certificate: Certificate | None = None
        self._networks = Networks(config)

    @classmethod
    def for_text(cls, text: str | bytes, *, seed: int = 0, escape: bool = True, **settings: Any) -> Self:
        """A new model with the vocabulary of ``text``; ``settings`` are fields of `ModelConfig`.

        ``escape``: whether a vocabulary of characters has an entry for all other ones, which `fit` trains by masking
        (`fastlstm.masking`); one of bytes has all of them.
        """
        vocab = Vocab.from_text(text, escape=escape)
        return cls(ModelConfig(len(vocab), **settings), vocab, seed=seed)

    def adapted(self, text: str | bytes, *, escape: bool = True) -> Self:
        """A copy of the model with the vocabulary of ``text``, to be fine-tuned on it.

        Symbols that both vocabularies have keep their parameters bit for bit, new ones are predicted by their frequency
        in the text, and those that do not occur in it are dropped: see `fastlstm.fine_tuning`. ``escape``: whether the
        copy has an escape, as in `for_text`; that of the model is kept, and a model without one gets a new one.

        Raises
        ------
        ConfigError
            When the model is of characters and the text is ``bytes``, or the other way round, or when the model knows
            no symbol of the text.
        """
        vocab = Vocab.from_text(text, escape=escape)
        content, _ = fine_tuning.adapted(self.content, vocab, vocab.encode(text))
        return type(self)(content.config, content.vocab, content.parameters)

    def astype(self, dtype: DType) -> Self:
        """A copy of the model with its parameters in a dtype, rounded to nearest, and with its record of training."""
        model = type(self)(dataclasses.replace(self.config, dtype=dtype), self.vocab, self.parameters.astype(dtype))
        model.training = self.training
        return model

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a model from a file or a run folder.

        Parameters
        ----------
        path : a model file; a run folder, whose ``model.safetensors`` is the best model of the run; or the checkpoint
            of a run, ``last.safetensors``, for the model of its last step.

        Raises
        ------
        ModelFileError
            When the file does not exist, or is not an undamaged model file.
        """
        content = run_checkpoint.load_model(path)
        model = cls(content.config, content.vocab, content.parameters)
        model.training, model.certificate = content.training, content.certificate
        return model

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write the model to a file, atomically.

        Parameters
        ----------
        path : the file; its folder must exist.
        overwrite : whether to replace a file at ``path``; its mode is kept.

        Raises
        ------
        ModelExistsError
            When ``path`` exists, and ``overwrite`` is false.
        ModelFileError
            When the file cannot be written, or `load` would refuse it, as with parameters that are not finite.
        """
        checkpoint.save(path, self.content, overwrite=overwrite)

    @property
    def content(self) -> checkpoint.Content:
        """The content of a model file, as `save` writes it; the parameters are not copied."""
        return checkpoint.Content(self.config, self.vocab, self.parameters, self.training, self.certificate)

    def zero_state(self, batch: int) -> FloatArray:
        """The carried state at the start of a text: zeros of shape (S, L, B, H)."""
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
        precision: PrecisionName = "auto",
    ) -> tuple[float, Parameters, FloatArray]:
        """One forward and backward pass of truncated back-propagation through time.

        Parameters
        ----------
        x, y : (T, B) ids of the inputs and of the targets.
        state : (S, L, B, H), carried in; not changed. ``None``: zeros.
        reduction : whether the loss is the ``"mean"`` over the T*B symbols or their ``"sum"``.
        backend, threads : the implementation, and its number of workers.
        precision : see `fastlstm.precision`.

        Returns
        -------
        loss : in nats.
        gradients : of that loss, not clipped; in the dtype of the precision.
        state : (S, L, B, H), carried out, in that dtype.

        Raises
        ------
        ValueError
            When an array has the wrong shape or dtype, or an id is out of range.
        ConfigError
            When ``reduction`` is neither, or this processor lacks the precision.
        """
        x, y = self._checked_ids("x", x, 2), self._checked_ids("y", y, 2)
        if x.shape != y.shape:
            raise ValueError(f"x of shape {x.shape} and y of shape {y.shape} must have the same shape (T, B)")
        reduction = settings_of(TrainConfig)["reduction"].validated(reduction)
        T, B = x.shape
        found = effective(precision, self.config, backend)
        parameters, carried = self.parameters.astype(found.dtype, copy=False), self._copied_state(state, B, found.dtype)
        scale = 1.0 if reduction == "sum" else 1.0 / x.size
        gradients = Parameters(parameters.config)
        with self._networks.lend(backend, found, T, B, threads, training=True) as network:
            loss = scale * network.forward(parameters, x, y, carried)
            network.backward(parameters, scale, gradients)
        return loss, gradients, carried

    def fit(
        self,
        text: Text,
        config: TrainConfig | None = None,
        *,
        observer: Observer | None = None,
        stop: Callable[[], bool] | None = None,
        started: float | None = None,
    ) -> TrainResult:
        """Train on a text, changing the parameters in place; `training` is set even if the run ends with an exception.

        If the text has a part for validation, the parameters are finally the last ones, or those of the best check.

        Parameters
        ----------
        text : its last ``config.val_frac`` is used for validation.
        config : settings of the run; ``None``: the defaults. A ``precision`` that it gives must be one of the model's
            dtype, see `fastlstm.precision` and `astype`.
        observer : its methods are called as the run progresses.
        stop : called before each step, and during validation and sampling; if it returns true, the run ends early.
        started : `time.perf_counter` when the minutes of the configuration began; ``None``: now.

        Raises
        ------
        TextError, ConfigError
            When the text is too short to train on, or too short for ``seq_len`` and ``batch``, or when the precision is
            not of the model's dtype, or not available.
        VocabularyError
            When the text has a symbol that is not in the vocabulary, and there is no escape.
        DivergenceError
            When a loss, gradient, parameter or slot is not finite, or a loss is more than
            `fastlstm.recovery.DIVERGED_NATS` above that of guessing, once more than the run could recover from. The
            parameters are then those of an earlier step, which the message names.
        """
        trainer = self.trainer(text, config, observer=observer, stop=stop, started=started)
        try:
            return trainer.run()
        finally:
            self.training, self.certificate = trainer.training, None

    def trainer(self, text: Text, config: TrainConfig | None = None, **more: Any) -> Trainer:
        """A training run that is iterated over, step by step; see `Trainer`, which has the same further arguments.

        ::

            for progress in model.trainer(text):
                print(progress.step, progress.train_nats)

        The record `training` of this model is set by `fit` only; that of the run is ``trainer.training``.
        """
        return Trainer(self.content, self.encode(text), config, **more)

    def evaluate(
        self,
        text: Text,
        *,
        lanes: int = 1,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        stop: Callable[[], bool] | None = None,
    ) -> Assessment:
        """Predict every symbol of a text but the first, in one pass that carries the state from start to end.

        With more than one of ``lanes``, parts of the text are read in parallel, which is many times faster and less
        exact, see `fastlstm.evaluation.assess`. ``precision``: see `fastlstm.precision`. ``stop`` is called every few
        hundred symbols; if it returns true, evaluation ends with `StoppedError`.

        Raises
        ------
        TextError
            When the text has fewer than two symbols.
        VocabularyError
            When the text has a symbol that is not in the vocabulary, and there is no escape.
        ConfigError
            When ``lanes`` is not at least 1, or this processor lacks the precision.
        FastlstmError
            When the loss is not finite.
        StoppedError
            When ``stop`` returned true.
        """
        how: dict[str, Any] = {"backend": backend, "threads": threads, "precision": precision, "stop": stop}
        return self.assess([text], lanes=lanes, hardest=0, **how).total

    def assess(
        self,
        texts: Sequence[Text],
        *,
        lanes: int = EvaluationConfig.lanes,
        hardest: int = EvaluationConfig.hardest,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        stop: Callable[[], bool] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> Report:
        """`evaluate` for several texts, by text and together, with the symbols and contexts that cost the most.

        The arguments are those of `fastlstm.evaluation.assess`, and those of `evaluate`.
        """
        settings = EvaluationConfig(lanes=lanes, hardest=hardest)
        inference = self._inference(backend, threads, precision, stop)
        return assess(inference, [self.encode(text) for text in texts], settings, advance=advance)

    def evaluate_dynamic(
        self,
        text: Text,
        learning: Learning = TRAINED,
        *,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        advance: Callable[[int], object] | None = None,
    ) -> Evaluation:
        """Dynamic evaluation: `evaluate` for a copy of the model that learns while it reads.

        Every symbol is predicted before the copy learns from it; this model is not changed.

        Parameters
        ----------
        learning : how it learns.
        backend, threads, precision : as for `evaluate`, without bf16.
        advance : called with numbers of symbols that have been predicted.

        Raises
        ------
        TextError
            When the text has fewer than two symbols.
        VocabularyError
            When the text has a symbol that is not in the vocabulary.
        ConfigError
            When the precision is bf16.
        DivergenceError
            When the model diverges.
        FastlstmError
            When the loss is not finite.
        """
        inference = self._inference(backend, threads, precision)
        return evaluate_dynamic(inference, self.encode(text), learning, advance=advance)

    def log_probs(
        self,
        text: Text,
        *,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
    ) -> NDArray[np.float64]:
        """The natural logarithm of the probability of each symbol of a text, given those before it: (N,), N may be 0.

        The first symbol is predicted after a newline, or after the vocabulary's first symbol if it has no newline. The
        probability of a symbol for which the escape stands includes that of its name, see `fastlstm.text.Vocab`.

        Raises
        ------
        VocabularyError
            When the text has a symbol that is not in the vocabulary, which has no escape.
        """
        ids, inference = self.encode(text), self._inference(backend, threads, precision)
        passage = Passage(np.zeros(1, np.int64), np.array([len(ids)]), beginning(self.vocab))
        found = [predicted.nats[predicted.valid] for predicted in inference.read_lanes(ids, passage)]
        return -np.concatenate([np.zeros(0), *found])

    def score(
        self,
        text: AnyStr | Iterable[AnyStr],
        *,
        unknown: Unknown | None = None,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[ScoredLine]:
        """The lines of a text, each with the nats of its symbols, read as if it were alone.

        ::

            with open("some.log", encoding="utf-8", errors="surrogateescape") as log:
                for line in model.score(log):
                    print(line.number, line.bits, line.text)

        The nats of a line are the negative `log_probs` of its text without what is left out, among it a newline that is
        not in the vocabulary. With the backend "fast" they have the same bits, though lines are read side by side.

        Parameters
        ----------
        text : whole, or in pieces, such as the lines of an open file. Of ``bytes`` for a model of bytes.
        unknown : what becomes of unknown symbols, see `fastlstm.text.Encoder`; ``None``: the escape if the model has
            one, else they are left out.
        stop : called every few hundred symbols; if it returns true, scoring ends with `StoppedError`.

        Raises
        ------
        VocabularyError
            When a symbol is unknown and ``unknown`` makes that an error.
        FastlstmError
            When the loss is not finite.
        StoppedError
            When ``stop`` returned true.
        """
        encoder = Encoder(self.vocab, unknown or lenient(self.vocab))
        return score(self.scorer(encoder, backend=backend, threads=threads, precision=precision, stop=stop), text)

    def scorer(
        self,
        encoder: Encoder,
        *,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        stop: Callable[[], bool] | None = None,
    ) -> Scorer:
        """What scores blocks of lines as arrays, without an object for each line; ``encoder`` is of this vocabulary."""
        return Scorer(self._inference(backend, threads, precision, stop), encoder)

    def sample(
        self,
        prompt: Text = "",
        length: int = SampleConfig.length,
        *,
        temperature: float = SampleConfig.temperature,
        top_k: int | None = SampleConfig.top_k,
        top_p: float | None = SampleConfig.top_p,
        min_p: float | None = SampleConfig.min_p,
        until: Sequence[str | bytes] = (),
        seed: int = 0,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        stop: Callable[[], bool] | None = None,
    ) -> str | bytes:
        """Sample ``length`` symbols that continue ``prompt``, fewer with ``until``; the result is without the prompt.

        Parameters
        ----------
        prompt : read first. If it is empty, a newline is read, or the vocabulary's first symbol if it has no newline.
        temperature : exponent ``1/temperature`` on the probabilities; 0 takes the most probable symbol.
        top_k, top_p, min_p : draw from the most probable symbols only, see `fastlstm.drawing.Drawing`; ``None``: all.
        until : texts, none of them empty, before the first of which the result ends if one appears in it, see
            `fastlstm.streaming.Ending`; for a model of bytes, a ``str`` stands for its UTF-8.
        seed : of the random numbers; the same seed gives the same text.
        backend, threads : the implementation, and its number of workers; the text does not depend on the threads.
        precision : see `fastlstm.precision`; the text may depend on it.
        stop : called every few hundred symbols; if it returns true, sampling ends with `StoppedError`.

        Returns
        -------
        ``str``, or ``bytes`` from a model of bytes.

        Raises
        ------
        VocabularyError
            When the prompt has a symbol that is not in the vocabulary, and there is no escape.
        ConfigError
            When a number is out of range, a text of ``until`` is empty, or this processor lacks the precision.
        FastlstmError
            When the logits are not finite.
        StoppedError
            When ``stop`` returned true.
        """
        settings: dict[str, Any] = {
            "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "until": until, "seed": seed,
            "backend": backend, "threads": threads, "precision": precision, "stop": stop,
        }  # fmt: skip
        return self.continuations(prompt, 1, length, **settings)[0]

    def continuations(
        self,
        prompt: Text = "",
        num: int = SampleConfig.num,
        length: int = SampleConfig.length,
        *,
        temperature: float = SampleConfig.temperature,
        top_k: int | None = SampleConfig.top_k,
        top_p: float | None = SampleConfig.top_p,
        min_p: float | None = SampleConfig.min_p,
        until: Sequence[str | bytes] = (),
        seed: int = 0,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
        stop: Callable[[], bool] | None = None,
    ) -> list[str] | list[bytes]:
        """Sample ``num`` continuations of ``prompt`` at once, as lanes of one network; otherwise as `sample`.

        The weights are read once for all lanes, so a character takes less time than in texts sampled one by one.
        """
        sampling = SampleConfig(length, num, temperature, top_k, top_p, min_p, seed)
        inference, endings = self._inference(backend, threads, precision, stop), self._endings(until, num)
        if until:
            return self._ended(inference.pieces(self._start(prompt), sampling), endings)
        # A vocabulary decodes either always to str or always to bytes, which its type does not express.
        return [self.vocab.decode(lane) for lane in inference.draw(self._start(prompt), sampling).T]  # type: ignore[return-value]

    def stream(
        self,
        prompt: Text = "",
        length: int = SampleConfig.length,
        *,
        temperature: float = SampleConfig.temperature,
        top_k: int | None = SampleConfig.top_k,
        top_p: float | None = SampleConfig.top_p,
        min_p: float | None = SampleConfig.min_p,
        until: Sequence[str | bytes] = (),
        seed: int = 0,
        backend: BackendName = "fast",
        threads: int | None = None,
        precision: PrecisionName = "auto",
    ) -> Iterator[str | bytes]:
        """The text of `sample` in pieces, as they are sampled: one symbol first, then up to 256 at a time."""
        sampling = SampleConfig(length, 1, temperature, top_k, top_p, min_p, seed)
        pieces = self._inference(backend, threads, precision).stream(self._start(prompt), sampling)
        return self._until(pieces, *self._endings(until, 1))

    def encode(self, text: Text, unknown: Unknown | None = None) -> IdArray:
        """The ids of a text (N,), in the smallest unsigned type that holds all ids of the vocabulary.

        Ids are validated, and returned without a copy if they have that type already. ``unknown``: what becomes of
        symbols that are not in the vocabulary, see `fastlstm.text.Encoder`.

        Raises
        ------
        VocabularyError
            When the text has a symbol that is not in the vocabulary, and ``unknown`` makes that an error.
        ValueError
            When ids are not a one-dimensional array of integers, or out of range.
        """
        if isinstance(text, str | bytes):
            return self.vocab.encode(text, unknown)
        return smallest_ids(self._checked_range("a text's ids", text, 1), self.config.vocab_size)

    def _start(self, prompt: Text) -> IdArray:
        ids = self.encode(prompt)
        return ids if len(ids) else beginning(self.vocab)

    def _endings(self, until: Sequence[str | bytes], num: int) -> list[Ending[Any]]:
        """What ends each of ``num`` texts of this model before the texts of ``until``."""
        if isinstance(until, str | bytes):
            raise ConfigError("until must be a sequence of texts, not a single one: put it in a list")
        if not all(until):
            raise ConfigError("until has an empty text, which would end every sample at once: leave it out")
        texts = [utf8(text) if self.vocab.is_bytes and isinstance(text, str) else text for text in until]
        kind = bytes if self.vocab.is_bytes else str
        if not all(isinstance(text, kind) for text in texts):
            raise ConfigError(f"until must have texts of type {kind.__name__} for this model")
        return [Ending[Any](texts, kind()) for _ in range(num)]

    def _until(self, pieces: Iterable[IdArray], ending: Ending[Any]) -> Iterator[str | bytes]:
        """The text of ids that arrive in pieces, to its end; no piece of it is empty."""
        for ids in pieces:
            if text := ending(self.vocab.decode(ids)):
                yield text
            if ending.ended:
                return
        if rest := ending.rest():
            yield rest

    def _ended(self, pieces: Iterable[IdArray], endings: list[Ending[Any]]) -> list[str] | list[bytes]:
        """The texts of lanes of ids that arrive in pieces (n, lanes), until all have ended."""
        parts: list[list[Any]] = [[] for _ in endings]
        for ids in pieces:
            for n, ending in enumerate(endings):
                if not ending.ended:
                    parts[n].append(ending(self.vocab.decode(ids[:, n])))
            if all(ending.ended for ending in endings):
                break
        nothing: Any = b"" if self.vocab.is_bytes else ""
        return [nothing.join([*part, ending.rest()]) for part, ending in zip(parts, endings, strict=True)]

    def _inference(
        self,
        backend: BackendName,
        threads: int | None,
        precision: PrecisionName,
        stop: Callable[[], bool] | None = None,
    ) -> Inference:
        found = effective(precision, self.config, backend)
        parameters = self.parameters.astype(found.dtype, copy=False)
        return Inference(self._networks, parameters, backend, threads, stop, found.bf16, self.vocab)

    def __repr__(self) -> str:
        c = self.config
        shape = f"{c.layers} x {c.hidden}, embedding {c.embedding}, {c.vocab_size} symbols"
        return f"<Model: {c.cell}, {shape}, {c.dtype}>"

    def __getstate__(self) -> dict[str, Any]:
        """For copying and pickling: all but the networks, which are built again when needed."""
        return self.__dict__ | {"_networks": Networks(self.config)}

    def _checked_ids(self, name: str, ids: Ids, dimensions: int) -> Ids:
        """Validated ids in the form that a network needs: int32, C-contiguous, in range."""
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

    def _copied_state(self, state: FloatArray | None, batch: int, dtype: DType) -> FloatArray:
        carried = self.zero_state(batch).astype(dtype, copy=False)
        if state is not None:
            if np.shape(state) != carried.shape:
                raise ValueError(f"state must be of shape (S, L, B, H) = {carried.shape}, not {np.shape(state)}")
            carried[...] = state
        return carried
