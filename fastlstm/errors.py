"""The exceptions of fastlstm."""

from __future__ import annotations


class FastlstmError(Exception):
    """An error to show to the user: its message is one line that states what is wrong, where, and what to do."""


class TextError(FastlstmError):
    """A text is missing, unreadable, not decodable, too short, or cannot be downloaded."""


class VocabularyError(FastlstmError):
    """A symbol or an id is not in the vocabulary, or a vocabulary is invalid."""


class ModelFileError(FastlstmError):
    """A file of a run, such as a model or a checkpoint, cannot be read or written."""


class ModelExistsError(ModelFileError):
    """A model or a checkpoint was to be saved without overwriting, and the path exists."""


class ArchiveError(FastlstmError):
    """A compressed file is damaged, or was compressed with another model than the one given."""


class RunInUseError(FastlstmError):
    """A run folder is in use by another run."""


class DivergenceError(FastlstmError):
    """Training diverged: a loss, gradient, parameter or slot is not finite, or a loss is far above that of guessing."""


class StoppedError(Exception):
    """A computation ended early because the caller's ``stop`` returned true; there is no result."""


class ConfigError(FastlstmError):
    """A setting is out of range, or contradicts another setting or the text."""
