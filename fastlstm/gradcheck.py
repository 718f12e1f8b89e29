"""The verb ``gradcheck``: check the gradients of a fresh network of any shape, or of a trained model.

From Python: `fastlstm.check_gradients`.
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
    """The negative control ``--inject sign``: the gradient of the first layer's weights with the wrong sign."""
    gradients["layers.0.W"] *= -1


_INJECTIONS: dict[str, Callable[[Parameters], None]] = {"sign": flip_sign}


#: The fresh network that is checked unless the options say otherwise: small enough to check all of it in a second.
_FRESH: dict[str, Any] = {"cell": "lstm", "layers": 1, "hidden": 9, "embedding": 5, "vocab_size": 11}

#: T and B of the check, unless the options say otherwise.
_SIZES = {"seq_len": 8, "batch": 2}

#: Entries of each parameter of a trained model that are checked: all would take hours.
_ENTRIES_OF_A_MODEL = 50


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser("gradcheck", "Check every gradient against centred differences of the loss, in float64.")
    model = made.add_argument_group("model")
    model.add_argument("--model", metavar="FILE", help="check at the parameters of a trained model, not of a fresh one")
    add_options(model, ModelConfig, only=_FRESH, defaults=_FRESH)
    what = made.add_argument_group("check")
    add_options(what, TrainConfig, only=_SIZES, defaults=_SIZES)
    what.add_argument(
        "--entries",
        type=int,
        metavar="N",
        help=f"check N random entries of each parameter (default: all; of a trained model {_ENTRIES_OF_A_MODEL})",
    )
    what.add_argument(
        "--inject",
        choices=_INJECTIONS,
        help="negative control: spoil the gradient first (sign: of layers.0.W), so that the check must FAIL",
    )
    add_options(made.add_argument_group("computing"), TrainConfig, only=("seed", "backend"))
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Check as the arguments say; returns the exit status: 0 when every gradient is right, 1 when one is not."""
    made = parser()
    options = made.parse_args(argv)
    shape, what = given(options, ModelConfig), TrainConfig(**(_SIZES | given(options, TrainConfig)))
    model: ModelConfig | Parameters = ModelConfig(**(_FRESH | shape), dtype="float64")
    entries: int | None = options.entries
    if options.model is not None:
        if shape:
            declared = settings_of(ModelConfig)
            brought = " and ".join(str(declared[name].option) for name in shape)
            made.error(f"--model brings its own shape: leave out {brought}")
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
