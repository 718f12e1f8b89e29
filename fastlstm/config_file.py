"""``config.toml``: the settings of a run, in a file that people read and write.

Its keys are names of settings of `fastlstm.config.ModelConfig` (but ``vocab_size``, which follows from the text, and
``dtype``, which follows from the precision) and `fastlstm.config.TrainConfig`, and:

=============  ====================================================================================
data           list of strings, the texts, as after ``--data``
bytes          whether the symbols are bytes
encoding       the encoding of the texts (optional; UTF-8)
escape         whether a vocabulary of characters has an entry for all other characters
init_from      the model from which training starts (optional)
``[run]``      a table, the record of the run that wrote the file (optional); it configures nothing
=============  ====================================================================================

TOML has no null: a setting that is ``None`` is left out, or it is ``inf`` where `Declaration.inf_is_none` says so.

Files that were written before there was a precision have a ``dtype`` instead, which is read as the precision. Those of
runs from before there was an escape have a record, with a version, but no ``escape``, which is read as false.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fastlstm import corpora, sources
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.errors import ConfigError
from fastlstm.optimizers import OPTIMIZERS
from fastlstm.settings import Setting, Settings, from_spelling, settings_of, spelling

#: Name of the file in a run folder.
FILE_NAME = "config.toml"

_RECORD = "run"
#: The key of the version in the record of every run.
_VERSION = "fastlstm"

#: Settings of a model that follow from others, or from the text.
_DERIVED = frozenset({"vocab_size", "dtype"})

#: The settings that belong to an optimizer: with another one they mean nothing.
_OF_THE_OPTIMIZER = frozenset({"lr"}.union(*(one.defaults for one in OPTIMIZERS.values())))

Values = dict[str, Any]


class Configuration(NamedTuple):
    """What a configuration file says.

    Attributes
    ----------
    data : the texts, as in `fastlstm.text.read_text`; ``None``: the file does not name them.
    as_bytes : whether the symbols are bytes; ``None``: the file does not say.
    encoding : of the texts; ``None``: the file does not name it.
    escape : whether a vocabulary of characters has an escape; ``None``: the file does not say.
    init_from : path of the model from which training starts; ``None``: there is none.
    model, train : given fields of `ModelConfig` and `TrainConfig`, each valid by itself; as in `settings.given`, those
        that a given one excludes are ``None``.
    """

    data: list[str] | None
    as_bytes: bool | None
    encoding: str | None
    escape: bool | None
    init_from: str | None
    model: Values
    train: Values

    def overridden(self, model: Mapping[str, Any], train: Mapping[str, Any]) -> tuple[Values, Values]:
        """Fields of `ModelConfig` and `TrainConfig`: those of the file, overridden by ``model`` and ``train``.

        If these name another optimizer than the file does, the file's settings of the optimizer, such as its learning
        rate, are left out.
        """
        own = self.train
        if "optimizer" in own and own["optimizer"] != train.get("optimizer", own["optimizer"]):
            own = {name: value for name, value in own.items() if name not in _OF_THE_OPTIMIZER}
        return {**self.model, **model}, {**own, **train}


def read(path: str | os.PathLike[str]) -> Configuration:
    """Read a configuration file.

    Parameters
    ----------
    path : the file, or a run folder, which contains it as ``config.toml``.

    Raises
    ------
    ConfigError
        When the file cannot be read or is not TOML, when a key is unknown, or when a value is invalid or excludes
        another. Settings that contradict each other in other ways are refused by `ModelConfig` and `TrainConfig`.
    """
    file = _file(path)
    values = load(file)
    recorded = values.pop(_RECORD, {})
    try:
        _check_keys(values, recorded)
        return Configuration(
            _texts(values.get("data")),
            _typed("bytes", values.get("bytes"), bool, "true or false"),
            _encoding(values.get("encoding")),
            _typed("escape", values.get("escape", False if _VERSION in recorded else None), bool, "true or false"),
            _typed("init_from", values.get("init_from"), str, "a string"),
            _given(values, ModelConfig),
            _given(values, TrainConfig),
        )
    except ConfigError as error:
        raise ConfigError(f"in {file!r}: {error}") from None


def record(path: str | os.PathLike[str]) -> Values:
    """The record of the run that wrote a configuration file or run folder: its table ``[run]``, empty if it has none.

    Raises
    ------
    ConfigError
        When the file cannot be read or is not TOML.
    """
    return dict(load(_file(path)).get(_RECORD, {}))


def text(
    model: ModelConfig,
    train: TrainConfig,
    *,
    data: Sequence[str],
    as_bytes: bool = False,
    encoding: str | None = None,
    escape: bool = False,
    init_from: str | None = None,
    record: Mapping[str, Any] | None = None,
) -> str:
    """The text of a configuration file that gives the same run again.

    Values that would otherwise be chosen, or that are the optimizer's own, are written as they are in effect.

    Parameters
    ----------
    model, train : the settings of the run, with the precision in effect.
    data : the texts; if empty, the default text.
    as_bytes : whether the symbols are bytes.
    encoding : of the texts, as it was given.
    escape : whether the vocabulary has an escape.
    init_from : path of the model from which training started.
    record : the table ``[run]``: strings, numbers, booleans, dates; ``None`` values are left out. Its keys must not be
        names of settings.

    Notes
    -----
    A path that is not valid Unicode cannot be written in TOML: the characters in question become ``?``.
    """
    texts = {
        "data": list(data) or [corpora.DEFAULT], "bytes": as_bytes, "encoding": encoding, "escape": escape,
        "init_from": init_from,
    }  # fmt: skip
    groups: dict[str, Values] = {"text": _present(texts)}
    for settings in (model, train.in_effect()):
        declared = _settings(type(settings))
        for name, value in spelling(settings.to_dict(), type(settings)).items():
            if name in declared:
                groups.setdefault(declared[name].declared.group, {})[name] = value
    parts = [f"# {heading}\n{_dumped(values)}" for heading, values in groups.items()]
    if record:
        about = "# a record of the run, which configures nothing"
        parts.append(f"{about}\n{_dumped({_RECORD: _present(record)})}")
    return "\n".join(parts)


def _file(path: str | os.PathLike[str]) -> str:
    path = os.fspath(path)
    return os.path.join(path, FILE_NAME) if os.path.isdir(path) else path


def load(file: str | os.PathLike[str]) -> Values:
    """The content of a file, as tomllib returns it, but that ``dtype`` becomes the precision.

    Raises
    ------
    ConfigError
        When the file cannot be read or is not TOML.
    """
    import tomllib

    file = os.fspath(file)
    try:
        with open(file, "rb") as opened:
            content = opened.read().decode("utf-8-sig")
        values = tomllib.loads(content)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration {file!r}: name a TOML file, or the folder of a run, which contains {FILE_NAME}"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {file!r} ({error.strerror}): check the file and its permissions") from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file!r} is not UTF-8 (byte 0x{error.object[error.start]:02X} at offset {error.start}): save it as UTF-8"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file!r} is not TOML: {error}; write settings as 'name = value'") from None
    except RecursionError:
        raise ConfigError(f"{file!r} is no configuration: its values are nested too deeply") from None
    except ValueError as error:  # a NUL in the path, or a number of thousands of digits
        raise ConfigError(f"cannot read {file!r}: {error}") from None
    if not isinstance(values.get(_RECORD, {}), dict):
        raise ConfigError(f"in {file!r}: {_RECORD} must be a table, the record of a run")
    if "dtype" in values:
        if "precision" in values:
            raise ConfigError(f"in {file!r}: dtype is the former name of precision: keep precision alone")
        values["precision"] = values.pop("dtype")
    return values


def _check_keys(values: Values, recorded: Values) -> None:
    """Refuse keys that name no setting, and settings that would be ignored because they stand in the record."""
    known = ["data", "bytes", "encoding", "escape", "init_from", *_settings(ModelConfig), *_settings(TrainConfig)]
    for key in known:
        if key in recorded:
            raise ConfigError(f"{key} is in the table [{_RECORD}], which configures nothing: write it above the table")
    for key, value in values.items():
        if key in known:
            continue
        if isinstance(value, dict):
            raise ConfigError(f"there is no table [{key}]: write settings at the top of the file, in no table")
        raise ConfigError(f"there is no setting {key!r}: {_nearest(key, known)}")


def _nearest(key: str, known: Sequence[str]) -> str:
    import difflib

    nearest = difflib.get_close_matches(key, known, n=1)
    return f"the nearest is {nearest[0]!r}" if nearest else "'train --help' lists most settings"


def _settings(cls: type[Settings]) -> dict[str, Setting]:
    """The settings of ``cls`` that a file can give."""
    return {name: one for name, one in settings_of(cls).items() if name not in _DERIVED}


def _texts(value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ConfigError(f'data must be a list of strings, such as ["notes.txt"], not {value!r}')
    return value


def _encoding(value: object) -> str | None:
    encoding: str | None = _typed("encoding", value, str, "a string")
    if encoding is not None:
        sources.codec_name(encoding)
    return encoding


def _typed(key: str, value: Any, kind: type, description: str) -> Any:
    if value is not None and not isinstance(value, kind):
        raise ConfigError(f"{key} must be {description}, not {value!r}")
    return value


def _given(values: Values, cls: type[Settings]) -> Values:
    """The fields of ``cls`` among the values of a file, validated."""
    found, groups = Values(), dict[str, str]()
    for name, one in _settings(cls).items():
        if name not in values:
            continue
        value = values[name]
        if (group := one.declared.exclusive) and (other := groups.setdefault(group, name)) != name:
            raise ConfigError(f"{other} and {name} exclude each other: keep one")
        found[name] = value if one.declared.inf_is_none and value == math.inf else one.validated(value)
    return from_spelling(found, cls)


def _present(values: Mapping[str, Any]) -> Values:
    return {name: value for name, value in values.items() if value is not None}


def _dumped(values: Mapping[str, Any]) -> str:
    import tomli_w

    return tomli_w.dumps(values).encode("utf-8", "replace").decode()
