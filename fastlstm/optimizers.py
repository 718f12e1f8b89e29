"""What an update of the parameters needs to know; each backend carries it out over flat arrays."""

from __future__ import annotations

from typing import NamedTuple


class UpdateRule(NamedTuple):
    """Clipping, then Adagrad: ``m += g*g; p -= lr * g / sqrt(m + eps)``.

    ``clip_value`` bounds each entry of the gradient, ``clip_norm`` the norm of the whole; ``None``: no bound.
    """

    lr: float
    clip_value: float | None = None
    clip_norm: float | None = None
    eps: float = 1e-8
