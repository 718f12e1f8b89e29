"""Fine-tuning: a trained model made ready for a text with other symbols.

Rows and columns of known symbols, and all layers, are kept bit for bit. A new symbol begins as an average input, its
embedding the mean of those of the known symbols, and as an output that depends on nothing but its frequency: its column
of ``output.W`` is 0, and its bias is ``log(share) + c``, where ``share`` is its part of the text and ``c`` the mean of
``bias - log(share)`` over the known symbols. With the mean of the known biases instead, a frequent new symbol would be
so improbable that the model starts worse than guessing.

The escape, the entry for all other symbols, is kept like a known symbol, or begins like a new one. It counts as often
as it is masked in one pass over the text (`fastlstm.masking`): once for each symbol.

Between the probabilities of known symbols nothing changes: where the model has read only known symbols, those of the
symbols it keeps are as before, divided by their sum.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastlstm.checkpoint import Content
from fastlstm.errors import ConfigError
from fastlstm.logarithm import log
from fastlstm.params import Parameters
from fastlstm.text import IdArray, Vocab, occurrences


class Changes(NamedTuple):
    """How a vocabulary differs from that of a model.

    Attributes
    ----------
    kept, new, lost : numbers of symbols that both have, that the model did not have, and that it has no more; without
        the escape.
    new_share : fraction of the text that is new symbols.
    """

    kept: int
    new: int
    lost: int
    new_share: float


def adapted(content: Content, vocab: Vocab, ids: IdArray) -> tuple[Content, Changes]:
    """Adapt a model to another vocabulary.

    Parameters
    ----------
    content : the model; not changed.
    vocab : the new vocabulary, with an escape or without.
    ids : (N,) ids, in ``vocab``, of the text to train on, in which symbols are counted.

    Returns
    -------
    content : a new model, without a record of training; its parameters are a copy.
    changes : what has changed.

    Raises
    ------
    ConfigError
        When one vocabulary is of characters and the other of bytes, when they have no symbol in common, or when the new
        model would be too large.
    """
    own = content.vocab
    _check_kind(own, vocab)
    known = np.isin(vocab.codes, own.codes)
    kept = int(np.isin(vocab.symbols, own.symbols).sum())
    if not kept:
        raise ConfigError(f"the model knows none of the text's {len(vocab.symbols)} symbols: train a new model")
    counts = occurrences(ids, len(vocab))
    new_share = float(counts[~known].sum() / max(1, counts.sum()))
    if vocab.escape_id is not None:
        counts[vocab.escape_id] = np.count_nonzero(counts)
    parameters = _kept(content, vocab, known)
    _begin(parameters, known, counts)
    changes = Changes(kept, len(vocab.symbols) - kept, len(own.symbols) - kept, new_share)
    return Content(parameters.config, vocab, parameters, None), changes


def _check_kind(own: Vocab, vocab: Vocab) -> None:
    if own.is_bytes and not vocab.is_bytes:
        raise ConfigError("the model's symbols are bytes, those of the text are characters: use bytes (train --bytes)")
    if vocab.is_bytes and not own.is_bytes:
        raise ConfigError(
            "the model's symbols are characters, those of the text are bytes: use characters (train without --bytes)"
        )


def _kept(content: Content, vocab: Vocab, known: NDArray[np.bool_]) -> Parameters:
    """The model's parameters for a vocabulary, in which the places of new symbols, those not ``known``, are 0."""
    parameters = Parameters(dataclasses.replace(content.config, vocab_size=len(vocab)))
    ids = np.searchsorted(content.vocab.codes, vocab.codes[known])
    outer = content.config.outer_tensors
    for name, view in parameters.items():
        if name not in outer:
            view[...] = content.parameters[name]
    parameters["embedding"][known] = content.parameters["embedding"][ids]
    for name in outer.keys() - {"embedding"}:
        parameters[name][..., known] = content.parameters[name][..., ids]
    return parameters


def _begin(parameters: Parameters, known: NDArray[np.bool_], counts: NDArray[np.int64]) -> None:
    """Set the embeddings and biases of new symbols, as the module's docstring describes."""
    embedding, bias = parameters["embedding"], parameters["output.b"]
    # One more of each: a symbol of the vocabulary need not be in the text.
    log_share = np.array([log(share) for share in (counts + 1) / (counts + 1).sum()])
    embedding[~known] = embedding[known].mean(axis=0, dtype=np.float64)
    bias[~known] = log_share[~known] + np.mean(bias[known] - log_share[known])
