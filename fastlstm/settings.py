"""Settings: each is declared once, on a field of a dataclass.

The field has a name, a type and a default; `setting` adds meaning, bounds, and the option on the command line.
Validation (`Settings`), options and their help (`add_options`, `given`), and the documentation of the class
(`documented`) are derived from them.

A setting is a whole number (``int``), a number (``float``), a switch (``bool``) or one of several choices
(``Literal``). With ``| None`` it is optional; `Declaration.none` then describes the meaning of ``None``.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import inspect
import math
import numbers
import operator
from collections.abc import Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from fastlstm.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Declaration:
    """The declaration of a field beyond its name, type and default.

    Attributes
    ----------
    help : meaning, in a phrase.
    group : heading in the help text.
    unit : placeholder of the value in the help text, such as T, a dimension; empty: N, or X for a ``float``.
    at_least, above, at_most, below : bounds of a number.
    none : meaning of ``None``, if the type allows it.
    inf_is_none : whether ``inf`` on the command line and in files means ``None``, which has no other spelling there.
    exclusive : name of a group of settings of which at most one can be given; empty: none.
    option : option on the command line; empty: derived from the field's name; ``None``: no option.
    resumable : whether it may change when a run is resumed, because it does not change what a step computes.
    """

    help: str
    group: str
    unit: str = ""
    at_least: float = -math.inf
    above: float = -math.inf
    at_most: float = math.inf
    below: float = math.inf
    none: str = ""
    inf_is_none: bool = False
    exclusive: str = ""
    option: str | None = ""
    resumable: bool = False


def declare(help: str, group: str, **more: Any) -> dict[str, Declaration]:
    """Metadata that attach a `Declaration` to a field, for `dataclasses.field`."""
    return {"setting": Declaration(help, group, **more)}


def setting(default: Any, help: str, group: str, **more: Any) -> Any:
    """A field with a default and a `Declaration`; further arguments are attributes of the declaration."""
    return dataclasses.field(default=default, metadata=declare(help, group, **more))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A declared setting: a field with its name, type, default and `Declaration`.

    Attributes
    ----------
    name, default : of the field; the default is ``dataclasses.MISSING`` for a required setting.
    type : ``int``, ``float``, ``bool`` or, with choices, ``str``; validated values have exactly this type.
    choices : the allowed strings; empty for other types.
    optional : whether ``None`` is allowed.
    declared : the declaration of the field.
    """

    name: str
    default: Any
    type: type
    choices: tuple[str, ...]
    optional: bool
    declared: Declaration

    @property
    def option(self) -> str | None:
        """The option on the command line; ``None``: there is none."""
        option = self.declared.option
        return "--" + self.name.replace("_", "-") if option == "" else option

    @property
    def domain(self) -> str:
        """A description of the allowed values, to follow "must be"."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.type is bool:
            return "True or False"
        at_least, above, below = self.declared.at_least, self.declared.above, self.declared.below
        bounds = [f"of at least {at_least:g}"] if at_least > -math.inf else []
        bounds += [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"below {below:g}"] if below < math.inf else []
        return " ".join(["a whole number" if self.type is int else "a finite number", " and ".join(bounds)]).strip()

    def validated(self, value: object) -> Any:
        """The value as a plain Python type, ready for JSON; NumPy scalars and dtypes are accepted and converted.

        Raises
        ------
        ConfigError
            When the value has another type or is out of bounds.
        """
        if value is None and self.optional:
            return None
        plain = self._plain(value)
        if plain is None:
            raise ConfigError(f"{self.name} must be {self.domain}, not {_shown(value)}")
        if isinstance(plain, int | float) and plain > self.declared.at_most:
            raise ConfigError(f"{self.name} must be at most {self.declared.at_most:,}, not {_shown(value)}")
        return plain

    def _plain(self, value: object) -> Any:
        """The value as a plain Python type if it is in `domain`, else ``None``."""
        if self.choices:
            return str(value) if str(value) in self.choices else None
        if self.type is bool:
            return value if isinstance(value, bool) else None
        number = _whole(value) if self.type is int else _finite(value)
        if number is None or not self.declared.at_least <= number < self.declared.below:
            return None
        return number if number > self.declared.above else None

    def argument(self, default: Any) -> dict[str, Any]:
        """Arguments of ``add_argument``; ``default`` is shown in the help; an option not given is ``None``."""
        declared = self.declared
        inf = f"; inf: {declared.none}" if declared.inf_is_none else ""
        usual = f" (default: {declared.none if default is None else default})"
        about = f"{declared.help}{inf}{'' if default is dataclasses.MISSING else usual}".replace("%", "%%")
        if self.type is bool:
            return {"help": about, "action": argparse.BooleanOptionalAction}
        if self.choices:
            return {"help": about, "choices": self.choices}
        return {"help": about, "type": self.type, "metavar": declared.unit or {int: "N", float: "X"}[self.type]}

    def __str__(self) -> str:
        """Documentation of the setting, as a parameter in NumPy style."""
        declared = self.declared
        most = f", at most {declared.at_most:,}" if declared.at_most < math.inf else ""
        optional = ", or None" if self.optional else ""
        default = "" if self.default is dataclasses.MISSING else f" (default: {self.default})"
        unit = f"{declared.unit}: " if declared.unit else ""
        none = f"; None: {declared.none}" if self.optional else ""
        return f"{self.name} : {self.domain}{most}{optional}{default}\n    {unit}{declared.help}{none}."


class Settings:
    """Base class of a frozen dataclass whose fields are settings; they are validated on construction."""

    def __post_init__(self) -> None:
        """Validate each value and convert it to a plain Python type; raises `ConfigError`."""
        for name, one in settings_of(type(self)).items():
            object.__setattr__(self, name, one.validated(getattr(self, name)))
        for names in _exclusive(type(self)).values():
            if sum(getattr(self, name) is not None for name in names) > 1:
                has_default = any(settings_of(type(self))[name].default is not None for name in names)
                what_to_do = "give one" + (", set the other to None" if has_default else "")
                raise ConfigError(f"{' and '.join(names)} exclude each other: {what_to_do}")

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        return {name: getattr(self, name) for name in settings_of(type(self))}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Inverse of `to_dict`. An unknown key, or a missing one without a default, raises `ConfigError`."""
        known = settings_of(cls)
        if unknown := sorted(set(values) - set(known)):
            raise ConfigError(f"unknown setting {unknown[0]!r} in {cls.__name__}")
        for name, one in known.items():
            if name not in values and one.default is dataclasses.MISSING:
                raise ConfigError(f"setting {name!r} of {cls.__name__} is missing")
        return cls(**values)


def settings_of(cls: type[Settings]) -> dict[str, Setting]:
    """All settings of a class by name, in the order of its fields."""
    return _resolved(cls)  # type: ignore[arg-type]  # mypy 2.4 does not consider a class hashable


@functools.cache
def _resolved(cls: type) -> dict[str, Setting]:
    hints = get_type_hints(cls)
    return {
        field.name: Setting(field.name, field.default, *_type(hints[field.name]), field.metadata["setting"])
        for field in dataclasses.fields(cls)
    }


def add_options(
    group: argparse._ArgumentGroup,
    cls: type[Settings],
    only: Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Add options that set fields of ``cls``: those declared for the group's title, or those named by ``only``.

    The help shows the declared default, or the verb's own from ``defaults``. An option that is not given is ``None``.
    """
    settings, own = settings_of(cls), defaults or {}
    names = only or [name for name, one in settings.items() if one.option and one.declared.group == group.title]
    exclusive: dict[str, argparse._MutuallyExclusiveGroup] = {}
    for name in names:
        one = settings[name]
        place: argparse._ActionsContainer = group
        if word := one.declared.exclusive:
            place = exclusive[word] = exclusive.get(word) or group.add_mutually_exclusive_group()
        place.add_argument(one.option or "", dest=name, **one.argument(own.get(name, one.default)))


def given(options: argparse.Namespace, cls: type[Settings]) -> dict[str, Any]:
    """Fields of ``cls`` that are set by options; those that a given option excludes are set to ``None``."""
    values = {name: getattr(options, name, None) for name in settings_of(cls)}
    return from_spelling({name: value for name, value in values.items() if value is not None}, cls)


def from_spelling(values: Mapping[str, Any], cls: type[Settings]) -> dict[str, Any]:
    """Fields of ``cls`` from values spelled without ``None``; those that a given one excludes are set to ``None``."""
    settings = settings_of(cls)
    found = {
        name: None if settings[name].declared.inf_is_none and value == math.inf else value
        for name, value in values.items()
    }
    for names in _exclusive(cls).values():
        if not found.keys().isdisjoint(names):
            found = dict.fromkeys(names) | found
    return found


def spelling(values: Mapping[str, Any], cls: type[Settings]) -> dict[str, Any]:
    """The inverse of `from_spelling`: ``None`` becomes ``inf`` where that means ``None``, else it is left out."""
    settings, found = settings_of(cls), dict[str, Any]()
    settled = {one.declared.exclusive for name, one in settings.items() if values.get(name) is not None} - {""}
    for name, one in settings.items():
        value, group = values.get(name), one.declared.exclusive
        if name in values and value is None and one.declared.inf_is_none and group not in settled:
            settled |= {group} - {""}  # one setting of a group is enough: it excludes the others
            value = math.inf
        if value is not None:
            found[name] = value
    return found


def as_arguments(values: Mapping[str, Any], cls: type[Settings]) -> list[str]:
    """The inverse of `given`: the arguments that set fields of ``cls`` to ``values``, as far as they have options."""
    settings, arguments = settings_of(cls), list[str]()
    for name, value in spelling(values, cls).items():
        option = settings[name].option
        if option is None:
            continue
        if isinstance(value, bool):
            arguments.append(option if value else "--no-" + option.removeprefix("--"))
        else:
            arguments += [option, str(value)]
    return arguments


_RAISES = """\
Raises
------
ConfigError
    When a value is out of range or contradicts another; the message names the setting.
"""


_Class = TypeVar("_Class", bound=Settings)


def documented(cls: type[_Class]) -> type[_Class]:
    """Class decorator: add a list of the settings to the docstring."""
    if cls.__doc__ is not None:  # with -OO, Python removes docstrings
        parameters = "\n".join(map(str, settings_of(cls).values()))
        cls.__doc__ = f"{inspect.cleandoc(cls.__doc__)}\n\nParameters\n----------\n{parameters}\n\n{_RAISES}"
    return cls


def _exclusive(cls: type[Settings]) -> dict[str, list[str]]:
    """Names of the settings in each group of mutually exclusive ones."""
    groups: dict[str, list[str]] = {}
    for name, one in settings_of(cls).items():
        if word := one.declared.exclusive:
            groups.setdefault(word, []).append(name)
    return groups


def _type(annotation: Any) -> tuple[type, tuple[str, ...], bool]:
    """Type, choices, and whether ``None`` is allowed."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    (kind,) = (part for part in parts if part is not NoneType)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if not choices and kind not in (int, float, bool):
        raise TypeError(f"no setting can be of type {annotation}")
    return str if choices else kind, choices, NoneType in parts


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _finite(value: object) -> float | None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of floats
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    try:
        return repr(value)
    except ValueError:  # Python does not convert integers of more than about 4,300 digits to a string
        return "a number of thousands of digits"
