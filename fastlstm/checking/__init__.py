"""Checks of gradients: against numerical ones, and between implementations and precisions.

``fastlstm.checking.check`` is all of them: `fastlstm.checking.full.check`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlstm.checking.full import check

__all__ = ["check"]


def __getattr__(name: str) -> Any:
    if name == "check":
        from fastlstm.checking.full import check

        return check
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
