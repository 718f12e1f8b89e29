"""What both implementations of `fastlstm.backend.Network` check of what they are given, and how they refuse it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.config import ModelConfig
from fastlstm.errors import FastlstmError


def check_array(name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: Any, *, written: bool = False) -> None:
    """Raise `ValueError` unless an array is C-contiguous, of this shape and dtype, and writable where it is written."""
    if written and not array.flags.writeable:
        raise ValueError(f"{name} would be written to, but the array is read-only")
    if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} must be a C-contiguous array of shape {shape} and dtype {np.dtype(dtype)},"
            f" not {array.shape} and {array.dtype}"
        )


def bad_ids(config: ModelConfig) -> ValueError:
    """The error of ids that are out of range; nothing has been computed from them."""
    return ValueError(f"x, y and first must be ids from 0 to {config.vocab_size - 1}")


def no_distribution() -> FastlstmError:
    """The error of logits from which no symbol can be drawn."""
    return FastlstmError(
        "the model's logits are no finite numbers, so there is nothing to draw from: its parameters are too large,"
        " use another model"
    )
