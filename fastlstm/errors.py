"""The errors that fastlstm raises for people to read."""

from __future__ import annotations


class FastlstmError(Exception):
    """An error meant for a person: its message is one clear line that says what is wrong, where, and what to do."""


class TextError(FastlstmError):
    """A text cannot be had: missing, unreadable, undecodable, empty, or not to be fetched."""


class VocabularyError(FastlstmError):
    """A symbol or an id outside a vocabulary, or a stored vocabulary that is not one."""


class ModelFileError(FastlstmError):
    """A file of a model, or of the state of a run, that cannot be read or written."""


class ModelExistsError(ModelFileError):
    """A model, or a state, was to be saved where something is already, without replacing it."""


class DivergenceError(FastlstmError):
    """A training that went so wrong that its parameters predict nothing any more."""


class StoppedError(Exception):
    """A computation ended early because its caller's ``stop`` said so; there is no result."""


class ConfigError(FastlstmError):
    """A setting out of range, or settings that contradict each other or the text."""
