"""Ranges of items, split among workers or tiles."""

from __future__ import annotations

from fastlstm.kernels import jit


@jit.device
def split(n: int, part: int, parts: int) -> tuple[int, int]:
    """Bounds of ``part`` when ``n`` items are split into ``parts`` as evenly as possible."""
    return n * part // parts, n * (part + 1) // parts
