"""``python -m fastlstm.gradcheck``: check the gradients of a randomly initialised network, or of a trained model.

The check itself is `fastlstm.check_gradients`; in bf16 and float32 it is `fastlstm.checking.precision`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.config import ModelConfig, PrecisionName, TrainConfig
from fastlstm.settings import add_options, given, settings_of

if TYPE_CHECKING:
    from fastlstm.checking.centred import GradientReport
    from fastlstm.checking.precision import PrecisionReport
    from fastlstm.params import Parameters


def flip_sign(gradients: Parameters) -> None:
    """The negative control ``--inject sign``: negate the gradient of the first layer's weights."""
    gradients["layers.0.W"] *= -1


_INJECTIONS: dict[str, Callable[[Parameters], None]] = {"sign": flip_sign}


#: Defaults of the network that is checked: small enough to check every entry in a second.
_FRESH: dict[str, Any] = {"cell": "lstm", "layers": 1, "hidden": 9, "embedding": 5, "vocab_size": 11}

#: Defaults of T and B.
_SIZES = {"seq_len": 8, "batch": 2}

#: Default number of entries checked in each parameter of a trained model: all would take hours.
_ENTRIES_OF_A_MODEL = 50

#: Default precision, the only one in which gradients can be checked numerically.
_PRECISION = {"precision": "float64"}


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "gradcheck",
        "Check gradients against centred differences of the loss, in float64; in bf16 or float32, against float64.",
    )
    model = made.add_argument_group("model")
    model.add_argument("--model", metavar="FILE", help="check a trained model instead of a randomly initialised one")
    add_options(model, ModelConfig, only=_FRESH, defaults=_FRESH)
    what = made.add_argument_group("check")
    add_options(what, TrainConfig, only=_SIZES, defaults=_SIZES)
    what.add_argument(
        "--entries",
        type=int,
        metavar="N",
        help="check N random entries of each parameter, in float64"
        f" (default: all, or {_ENTRIES_OF_A_MODEL} of a trained model)",
    )
    what.add_argument(
        "--inject",
        choices=_INJECTIONS,
        help="negative control: corrupt the gradient (sign: negate that of layers.0.W); the check must then FAIL",
    )
    computing = made.add_argument_group("computing")
    add_options(computing, TrainConfig, only=("seed", "backend", "precision"), defaults=_PRECISION)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Check gradients as given by the arguments; returns the exit status: 0 if all are correct, else 1."""
    made = parser()
    options = made.parse_args(argv)
    what = TrainConfig(**(_SIZES | _PRECISION | given(options, TrainConfig)))
    model = _model(made, options, what.precision)
    report = _report(made, options, what, model)
    print(report)
    print("PASS" if report.passed else "FAIL", flush=True)
    if options.json:
        cli.print_json(report.to_dict())
    return 0 if report.passed else cli.FAILURE


def _model(made: cli.Parser, options: argparse.Namespace, precision: PrecisionName) -> ModelConfig | Parameters:
    """The configuration of a random network, or the parameters of a trained model."""
    shape = given(options, ModelConfig)
    if options.model is None:
        from fastlstm.precision import dtype_of_new

        return ModelConfig(**(_FRESH | shape), dtype=dtype_of_new(precision))
    if shape:
        declared = settings_of(ModelConfig)
        brought = " and ".join(str(declared[name].option) for name in shape)
        made.error(f"--model determines the shape: leave out {brought}")
    from fastlstm import checkpoint

    return checkpoint.load(options.model).parameters


def _report(
    made: cli.Parser, options: argparse.Namespace, what: TrainConfig, model: ModelConfig | Parameters
) -> GradientReport | PrecisionReport:
    """The result of the check in the precision that is asked for."""
    from fastlstm.backend import warm_up
    from fastlstm.checking.centred import check_gradients
    from fastlstm.checking.precision import compare_gradients
    from fastlstm.precision import effective

    config = model if isinstance(model, ModelConfig) else model.config
    precision = effective(what.precision, config, what.backend)
    if precision.name != "float64" and options.entries is not None:
        made.error("--entries is for float64: in other precisions all entries are compared")
    warm_up(what.backend, precision.applied(config), cli.say_compiling, bf16=precision.bf16)
    settings: dict[str, Any] = {
        "seq_len": what.seq_len,
        "batch": what.batch,
        "backend": what.backend,
        "seed": what.seed,
        "gradient": _INJECTIONS.get(options.inject),
    }
    if precision.name != "float64":
        return compare_gradients(model, precision, **settings)
    usual = None if options.model is None else _ENTRIES_OF_A_MODEL
    return check_gradients(model, **settings, entries=usual if options.entries is None else options.entries)


if __name__ == "__main__":
    cli.run(main)
