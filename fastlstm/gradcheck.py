"""``python -m fastlstm.gradcheck``: check the gradients of a randomly initialised network, or of a trained model.

The checks are `fastlstm.checking.full.check`; in bf16 and float32, `fastlstm.checking.full.compare`.
"""

from __future__ import annotations

import argparse
import contextlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastlstm import cli
from fastlstm.config import BackendName, ModelConfig, PrecisionName, TrainConfig
from fastlstm.settings import add_options, given, settings_of

if TYPE_CHECKING:
    from fastlstm.charts import Format
    from fastlstm.checking.full import FullReport
    from fastlstm.params import Parameters
    from fastlstm.precision import Precision

#: Defaults of the network that is checked: small enough to check every entry in seconds.
_FRESH: dict[str, Any] = {"cell": "lstm", "layers": 1, "hidden": 9, "embedding": 5, "vocab_size": 11}

#: Defaults of T and B.
_SIZES = {"seq_len": 8, "batch": 2}

#: By default, all entries of a random network of up to so many parameters are checked, and of larger ones and of
#: trained models so many of each parameter: all would take minutes or hours.
_MOST_CHECKED, _USUAL = 5000, 50

#: Default precision, the only one in which gradients can be checked numerically.
_PRECISION = {"precision": "float64"}

#: What ``--backend`` stands for.
_BACKENDS: dict[str, tuple[BackendName, ...]] = {
    "both": ("fast", "reference"),
    "fast": ("fast",),
    "reference": ("reference",),
}

#: Given in place of a bug, it makes ``--inject`` explain all bugs.
_LIST = "list"


def parser() -> cli.Parser:
    """The verb's arguments."""
    made = cli.parser(
        "gradcheck",
        "Check gradients against numerical ones, in float64: with centred differences of the loss, along a random"
        " direction, with complex steps and over a sweep of steps; and fast against reference, chunks against whole"
        " sequences, lanes against single ones. In bf16 or float32, gradients are compared with those in float64.",
    )
    model = made.add_argument_group("model")
    model.add_argument("--model", metavar="FILE", help="check a trained model instead of a randomly initialised one")
    add_options(model, ModelConfig, only=_FRESH, defaults=_FRESH)
    what = made.add_argument_group("check")
    add_options(what, TrainConfig, only=_SIZES, defaults=_SIZES)
    entries = what.add_mutually_exclusive_group()
    entries.add_argument(
        "--per-param",
        type=int,
        metavar="N",
        help=f"check N random entries of each parameter, spread over its gates (default: all, or {_USUAL} of a trained"
        f" model and of networks of more than {_MOST_CHECKED:,} parameters)",
    )
    entries.add_argument("--all", action="store_true", help="check every entry")
    what.add_argument(
        "--inject",
        metavar="BUG",
        help=f"negative control: break the reference; a check must then FAIL ({_LIST}: print and explain the bugs)",
    )
    what.add_argument(
        "--certify", action="store_true", help="if all pass, write what was checked and found into the file of --model"
    )
    what.add_argument("--plot", metavar="FILE", help="draw the sweep into FILE, by its suffix as PNG or SVG")
    what.add_argument("--overwrite", action="store_true", help="overwrite a FILE that is no chart of fastlstm")
    computing = made.add_argument_group("computing")
    computing.add_argument(
        "--backend",
        dest="backends",
        choices=_BACKENDS,
        default="both",
        help="implementation: fast (numba kernels), reference (NumPy) or both, also against each other (default: both)",
    )
    add_options(computing, TrainConfig, only=("seed", "precision"), defaults=_PRECISION)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Check gradients as given by the arguments; returns the exit status: 0 if all are correct, else 1."""
    made = parser()
    options = made.parse_args(argv)
    if options.inject == _LIST:
        _explain_bugs(json=options.json)
        return 0
    if options.certify and (options.model is None or options.inject is not None):
        made.error("--certify needs a --model, without --inject: it certifies what is in its file")
    if options.inject is not None and "reference" not in _BACKENDS[options.backends]:
        made.error(f"--inject breaks the reference, and --backend {options.backends} leaves it out")
    what = TrainConfig(**(_SIZES | _PRECISION | given(options, TrainConfig)))
    model = _model(made, options, what.precision)
    format = _format_of_plot(made, options)
    report = _report(made, options, what, model)
    print(report)
    certified = None
    try:
        if format is not None:
            _plot(report, Path(options.plot), format)
        certified = _certify(options, model, report)
    finally:  # a file that cannot be written costs no result
        print("PASS" if report.passed else "FAIL", flush=True)
        if options.json:
            cli.print_json(report.to_dict() | {"injected": options.inject, "certified": certified})
    return 0 if report.passed else cli.FAILURE


def _explain_bugs(*, json: bool) -> None:
    """Print the bugs that can be injected."""
    from fastlstm.checking.bugs import BUGS
    from fastlstm.checking.reports import WIDTH

    for bug in BUGS.values():
        print(f"{bug.name} ({bug.stage} pass; {', '.join(bug.cells)})")
        print(textwrap.fill(bug.about, WIDTH, initial_indent="    ", subsequent_indent="    "))
    if json:
        fields = ("name", "stage", "about", "cells")
        cli.print_json({"bugs": [{field: getattr(bug, field) for field in fields} for bug in BUGS.values()]})


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


def _format_of_plot(made: cli.Parser, options: argparse.Namespace) -> Format | None:
    """The format of the chart that is asked for, if any; a file that is not ours is refused before the checks."""
    if options.plot is None:
        return None
    from fastlstm import charts

    formats: dict[str, Format] = {".png": "png", ".svg": "svg"}
    path = Path(options.plot)
    if path.suffix not in formats:
        made.error(f"--plot needs a name that ends in {' or '.join(formats)}, not {options.plot!r}")
    if not options.overwrite:
        charts.refuse_foreign([path])
    return formats[path.suffix]


def _plot(report: FullReport, path: Path, format: Format) -> None:
    """Draw the sweeps of a report."""
    from fastlstm import charts
    from fastlstm.checking import sweep_chart
    from fastlstm.checking.sweep import SweepReport

    sweeps = [one for one in report.reports if isinstance(one, SweepReport)]
    charts.write(sweep_chart.figure(sweeps), path, format)
    print(f"the sweep is in {path}")


def _certify(options: argparse.Namespace, model: ModelConfig | Parameters, report: FullReport) -> str | None:
    """Write the certificate of a check that passed into the model's file, if asked to; returns the file's path."""
    if not options.certify or isinstance(model, ModelConfig):
        return None
    from fastlstm import __version__, certificate, checkpoint

    if not report.passed:
        print(f"{options.model} is not certified, and unchanged")
        return None
    made = certificate.of(
        model, report.findings, seq_len=report.seq_len, batch=report.batch, seed=report.seed,
        per_param=_per_param(options, model.config), backends=report.backends, version=__version__,
    )  # fmt: skip
    file = str(checkpoint.certify(options.model, made))
    print(f"the certificate is in {file}")
    return file


def _report(
    made: cli.Parser, options: argparse.Namespace, what: TrainConfig, model: ModelConfig | Parameters
) -> FullReport:
    """The result of the checks in the precision that is asked for."""
    from fastlstm.checking import full
    from fastlstm.precision import effective

    config = model if isinstance(model, ModelConfig) else model.config
    backends = _BACKENDS[options.backends]
    (precision,) = {effective(what.precision, config, backend) for backend in backends}
    settings: dict[str, Any] = {
        "seq_len": what.seq_len,
        "batch": what.batch,
        "backends": backends,
        "seed": what.seed,
    }
    if precision.name == "float64":
        _warm_up(backends, config, [precision, precision._replace(dtype="float32")])
        with _broken(made, options.inject, config):
            return full.check(model, **settings, per_param=_per_param(options, config))
    for option in ("per_param", "all", "inject", "certify", "plot"):
        if getattr(options, option) is not None and getattr(options, option) is not False:
            made.error(f"--{option.replace('_', '-')} is for float64: in other precisions gradients are only compared")
    _warm_up(backends, config, [precision])
    return full.compare(model, precision, **settings)


def _warm_up(backends: Sequence[BackendName], config: ModelConfig, precisions: Sequence[Precision]) -> None:
    """Compile the kernels that the checks need."""
    from fastlstm.backend import warm_up

    for backend in backends:
        for precision in precisions:
            warm_up(backend, precision.applied(config), cli.say_compiling, bf16=precision.bf16)


def _per_param(options: argparse.Namespace, config: ModelConfig) -> int | None:
    """The number of entries of each parameter to check; ``None``: all."""
    if options.all:
        return None
    if options.per_param is None and options.model is None and config.parameter_count <= _MOST_CHECKED:
        return None
    return _USUAL if options.per_param is None else int(options.per_param)


def _broken(made: cli.Parser, name: str | None, config: ModelConfig) -> contextlib.AbstractContextManager[None]:
    """A context in which the reference has the bug that is asked for, if any."""
    if name is None:
        return contextlib.nullcontext()
    from fastlstm.checking.bugs import BUGS, injected

    if name not in BUGS:
        made.error(f"there is no bug {name!r}: --inject {_LIST} explains all")
    return injected(name, config)


if __name__ == "__main__":
    cli.run(main)
