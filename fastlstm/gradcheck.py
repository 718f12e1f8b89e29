"""``python -m fastlstm.gradcheck``: check the gradients of a randomly initialised network, or of a trained model.

The check itself is `fastlstm.check_gradients`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.config import ModelConfig, TrainConfig
from fastlstm.settings import add_options, given, settings_of

if TYPE_CHECKING:
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


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser("gradcheck", "Check gradients against centred differences of the loss, in float64.")
    model = made.add_argument_group("model")
    model.add_argument("--model", metavar="FILE", help="check a trained model instead of a randomly initialised one")
    add_options(model, ModelConfig, only=_FRESH, defaults=_FRESH)
    what = made.add_argument_group("check")
    add_options(what, TrainConfig, only=_SIZES, defaults=_SIZES)
    what.add_argument(
        "--entries",
        type=int,
        metavar="N",
        help=f"check N random entries of each parameter (default: all, or {_ENTRIES_OF_A_MODEL} of a trained model)",
    )
    what.add_argument(
        "--inject",
        choices=_INJECTIONS,
        help="negative control: corrupt the gradient (sign: negate that of layers.0.W); the check must then FAIL",
    )
    add_options(made.add_argument_group("computing"), TrainConfig, only=("seed", "backend"))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Check gradients as given by the arguments; returns the exit status: 0 if all are correct, else 1."""
    made = parser()
    options = made.parse_args(argv)
    shape, what = given(options, ModelConfig), TrainConfig(**(_SIZES | given(options, TrainConfig)))
    model: ModelConfig | Parameters = ModelConfig(**(_FRESH | shape), dtype="float64")
    entries: int | None = options.entries
    if options.model is not None:
        if shape:
            declared = settings_of(ModelConfig)
            brought = " and ".join(str(declared[name].option) for name in shape)
            made.error(f"--model determines the shape: leave out {brought}")
        from fastlstm import checkpoint

        model = checkpoint.load(options.model).parameters
        entries = _ENTRIES_OF_A_MODEL if entries is None else entries
    from fastlstm.backend import warm_up
    from fastlstm.gradient_check import check_gradients

    config = model if isinstance(model, ModelConfig) else model.config
    warm_up(what.backend, dataclasses.replace(config, dtype="float64"), cli.say_compiling)
    report = check_gradients(
        model,
        seq_len=what.seq_len,
        batch=what.batch,
        backend=what.backend,
        seed=what.seed,
        entries=entries,
        gradient=_INJECTIONS.get(options.inject),
    )
    print(report)
    print("PASS" if report.passed else "FAIL", flush=True)
    if options.json:
        cli.print_json(report.to_dict())
    return 0 if report.passed else cli.FAILURE


if __name__ == "__main__":
    cli.run(main)
