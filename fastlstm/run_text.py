"""The text of a run, found again from the record in its folder, and verified."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastlstm import config_file, corpora, sources
from fastlstm.config import TrainConfig
from fastlstm.errors import TextError
from fastlstm.text import Encoder, Vocab, fingerprint, read_text, split


class RunText(NamedTuple):
    """The text of a run: the part for training, and the part for validation, which may be empty."""

    train: str | bytes
    val: str | bytes


def located(source: str, record: Mapping[str, Any]) -> str:
    """The path or pattern of a text of a run: as it was given, or from the folder in which the run was started.

    Parameters
    ----------
    source : as the settings of the run name it.
    record : of the run, see `fastlstm.config_file.record`; its ``folder`` is used.
    """
    folder = str(record.get("folder", "."))
    path = os.path.join(glob.escape(folder) if sources.is_pattern(source) else folder, source)
    return source if sources.exists(source) or not sources.exists(path) else path


def read(folder: str | os.PathLike[str], vocab: Vocab, data: Sequence[str] | None = None) -> RunText:
    """Read the text of a run.

    Parameters
    ----------
    folder : the run folder.
    vocab : vocabulary of the run's model.
    data : the text, as in `fastlstm.text.read_text`; ``None``: as the settings of the run name it.

    Raises
    ------
    TextError
        When the text cannot be read, or is not that of the run.
    ConfigError
        When ``config.toml`` is not valid.
    """
    settings, record = config_file.read(folder), config_file.record(folder)
    if data is None:
        data = [located(source, record) for source in settings.data or []]
        if sources.STANDARD_INPUT in data:
            raise TextError("the run read its text from standard input: give the text with --data")
    text = read_text(data, as_bytes=vocab.is_bytes, encoding=settings.encoding)
    encoder = Encoder(vocab, "skip")  # a symbol that is left out tells that it is another text
    ids = encoder.encode(text)
    if encoder.lacking or record.get("text_sha256", found := fingerprint(vocab, ids)) != found:
        raise TextError(
            f"the text ({', '.join(data) or corpora.DEFAULT}; {len(text):,} symbols) is not the one that the run was"
            " trained on: give that one with --data"
        )
    cut = len(split(ids, settings.train.get("val_frac", TrainConfig.val_frac))[0])
    return RunText(text[:cut], text[cut:])
