"""Optional libraries, which are imported when they are used: those of the extras in ``pyproject.toml``."""

from __future__ import annotations

import importlib
from typing import Any

from fastlstm.errors import FastlstmError


def load(module: str, *, extra: str, purpose: str) -> Any:
    """Import a module of an optional library.

    Parameters
    ----------
    module : its full name.
    extra : the extra of fastlstm that installs the library.
    purpose : what needs it, to begin the error message.

    Raises
    ------
    FastlstmError
        When the library is missing or cannot be imported; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a library that does not fit another one raises errors of any type when imported
        library = module.partition(".")[0]
        missing = isinstance(error, ModuleNotFoundError) and error.name == library
        why = "" if missing else f", which cannot be imported ({' '.join(str(error).split())[:200]})"
        raise FastlstmError(f"{purpose} needs {library}{why}: pip install 'fastlstm[{extra}]'") from None
