"""The arithmetic of training and inference: the setting ``precision``, and what it means for a model.

=========  ====================================================================================================
precision  meaning
=========  ====================================================================================================
bf16       parameters, sums and state are float32; operands of products are rounded to bfloat16, see
           `fastlstm.contract.Network`
float32    everything is float32
float64    everything is float64
auto       that of the model's parameters, float32 for a new model; but training is in bf16 where that is as good and
           faster, see `AUTO_BF16_HIDDEN`
=========  ====================================================================================================

For inference, parameters of another dtype are converted, rounded to nearest. Training changes parameters in place, so
they must have the dtype already; `fastlstm.checkpoint.Content.astype` and ``Model.astype`` convert them.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from fastlstm.backend import NO_BF16, has_bf16
from fastlstm.config import BackendName, DType, ModelConfig, PrecisionName, TrainConfig
from fastlstm.errors import ConfigError
from fastlstm.settings import settings_of

#: With ``auto``, float32 models of at least so many hidden units are trained in bf16 by processors that can do it. From
#: here on validation losses do not differ by more than with another seed (`benchmarks.precision`). Evaluation and
#: sampling stay in float32: a text has the same loss, and a seed gives the same text, on every machine.
AUTO_BF16_HIDDEN = 256


class Precision(NamedTuple):
    """A precision in effect.

    Attributes
    ----------
    dtype : of parameters, sums and state.
    bf16 : whether the operands of products are rounded to bfloat16.
    """

    dtype: DType
    bf16: bool = False

    @property
    def name(self) -> PrecisionName:
        """The setting that gives this precision for any model."""
        return "bf16" if self.bf16 else self.dtype

    def applied(self, model: ModelConfig) -> ModelConfig:
        """The configuration of a model in this precision: with its dtype."""
        return dataclasses.replace(model, dtype=self.dtype)


def dtype_of_new(wanted: PrecisionName) -> DType:
    """The dtype of a new model's parameters for a setting ``precision``."""
    return "float64" if wanted == "float64" else "float32"


def effective(wanted: PrecisionName, model: ModelConfig, backend: BackendName) -> Precision:
    """The precision in which a backend computes a model, other than to train it: that is `settled`.

    Parameters
    ----------
    wanted : the setting ``precision``.
    model : the configuration of the model, with the dtype of its parameters.

    Raises
    ------
    ConfigError
        When there is no such precision, or this processor has no instructions for bf16.
    """
    wanted = settings_of(TrainConfig)["precision"].validated(wanted)
    if wanted == "auto":
        return Precision(model.dtype)
    if wanted == "bf16" and not has_bf16(backend):
        raise ConfigError(f"{NO_BF16}: choose precision float32 or auto, or the backend reference, which emulates it")
    return Precision(dtype_of_new(wanted), wanted == "bf16")


def settled(config: TrainConfig, model: ModelConfig) -> TrainConfig:
    """The same training with the precision that is in effect for a model.

    Raises
    ------
    ConfigError
        As by `effective`, and when the model's parameters have another dtype.
    """
    found = effective(config.precision, model, config.backend)
    if config.precision == "auto" and config.backend == "fast" and model.hidden >= AUTO_BF16_HIDDEN:
        found = found._replace(bf16=found.dtype == "float32" and has_bf16(config.backend))
    if found.dtype != model.dtype:
        raise ConfigError(
            f"precision {found.name} trains parameters of type {found.dtype}, and those of the model are {model.dtype}:"
            f" convert it (model.astype({found.dtype!r})), or choose another precision"
        )
    return dataclasses.replace(config, precision=found.name)


def check_can_go_on(run: TrainConfig) -> None:
    """Raise `ConfigError` if a run was begun in bf16, and cannot go on in it here."""
    if run.is_bf16 and not has_bf16(run.backend):
        raise ConfigError(
            f"{NO_BF16}, in which the run computes: resume it on one that has them, or train its model further with"
            " --init-from and another precision"
        )
