"""The settings of a run: from the command line, a configuration file and a preset, completed by what is chosen."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, Self

from fastlstm import config_file, text
from fastlstm.batches import fit_lanes
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.defaults import chosen
from fastlstm.precision import dtype_of_new
from fastlstm.presets import preset
from fastlstm.settings import as_arguments, given

Values = dict[str, Any]


class Given(NamedTuple):
    """What the user gives: by options, by a preset, or in a configuration file; the first of these wins.

    Attributes
    ----------
    data : the texts, as in `fastlstm.text.read_text`; empty: the default text.
    as_bytes : whether the symbols are bytes.
    encoding : of the texts; ``None``: UTF-8.
    escape : whether a vocabulary of characters has an escape; if this is not given, it has.
    init_from : path of the model from which training starts; ``None``: a new one.
    model, train : fields of `ModelConfig` and `TrainConfig`.
    is_complete : whether nothing else is chosen, as with a preset.
    """

    data: list[str]
    as_bytes: bool
    encoding: str | None
    escape: bool
    init_from: str | None
    model: Values
    train: Values
    is_complete: bool

    @classmethod
    def by(cls, options: argparse.Namespace, file: str | Path | None) -> Self:
        """What the options of ``train`` give, and a configuration file.

        Raises
        ------
        ConfigError
            When the file cannot be read, or has an unknown key or an invalid value.
        """
        model, train = given(options, ModelConfig), given(options, TrainConfig)
        data, as_bytes, encoding, escape = options.data, options.bytes, options.encoding, options.escape
        init_from = options.init_from
        read = None if file is None else config_file.read(file)
        if options.preset:
            cell = model.get("cell") or (read.model.get("cell") if read else None) or ModelConfig.cell
            values = preset(options.preset, cell)
            model, train = {**values.model, **model}, {**values.train, **train}
            escape = values.escape if escape is None else escape
        if read is not None:
            model, train = read.overridden(model, train)
            data, as_bytes = data or read.data, as_bytes or read.as_bytes
            encoding = read.encoding if encoding is None else encoding
            escape = read.escape if escape is None else escape
            init_from = init_from or read.init_from
        escape = escape is not False
        return cls(data or [], bool(as_bytes), encoding, escape, init_from, model, train, bool(options.preset))

    def completed(self, symbols: int) -> tuple[Values, Values]:
        """All fields of `ModelConfig` and `TrainConfig` that are given, or chosen for a text of so many symbols.

        The dtype of a new model follows from the precision.
        """
        dtype = {"dtype": dtype_of_new(self.train.get("precision", TrainConfig.precision))}
        if self.is_complete:
            return {**dtype, **self.model}, self.train
        choice = chosen(symbols, self.model, self.train)
        return {**dtype, **choice.model, **self.model}, {**choice.train, **self.train}

    def fitted(self, config: TrainConfig, ids: text.IdArray) -> TrainConfig:
        """Reduce T and B to what a short text can fill, except those that are given."""
        count = len(text.split(ids, config.val_frac)[0])
        if count < 2:
            return config  # too short to train on: the trainer raises the error
        seq_len, batch = fit_lanes(count, config.seq_len, config.batch)
        return dataclasses.replace(
            config, seq_len=self.train.get("seq_len") or seq_len, batch=self.train.get("batch") or batch
        )

    def chosen(self, model: Values, train: Values) -> list[str]:
        """What is not given among these fields, as it would be given on the command line."""
        arguments = as_arguments({name: model[name] for name in model if name not in self.model}, ModelConfig)
        return arguments + as_arguments({name: train[name] for name in train if name not in self.train}, TrainConfig)
