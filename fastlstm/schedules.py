"""Learning-rate schedules: the rate of every step of a run, as a function of the step alone."""

from __future__ import annotations

import math

from fastlstm.config import TrainConfig
from fastlstm.elementary import cos, power


def rate(config: TrainConfig, step: int, total: int) -> float:
    """Learning rate of step ``step``, counted from 0, in a run of ``total`` steps.

    It rises linearly over the first ``config.warmup`` steps, at most half of the run, and then follows
    ``config.schedule`` over the others. The schedule "plateau" is constant here: its rate also depends on validations
    (`fastlstm.run_state.RunState`).
    """
    warmup = min(config.warmup, total // 2)
    if step < warmup:
        return config.highest_rate * (step + 1) / (warmup + 1)
    done, steps = step - warmup, max(total - warmup, 1)
    if config.schedule == "step":
        return config.highest_rate * power(config.decay_factor, _decays(config, done, steps))
    return config.highest_rate * (config.final_rate + (1.0 - config.final_rate) * _shape(config, done / steps))


def _decays(config: TrainConfig, done: int, steps: int) -> int:
    """How often the rate has been multiplied by ``decay_factor``: without ``decay_every``, thrice in the run."""
    return done // (config.decay_every or max(math.ceil(steps / 4), 1))


def _shape(config: TrainConfig, part: float) -> float:
    """The schedule's curve from 1 to 0 over ``part``, the fraction of the steps that are done."""
    if config.schedule == "cosine":
        root = cos(0.5 * math.pi * part)
        return root * root  # (1 + cos(pi part)) / 2
    if config.schedule == "linear":
        return 1.0 - part
    if config.schedule == "wsd":
        return min(1.0, (1.0 - part) / config.decay_frac)
    return 1.0
