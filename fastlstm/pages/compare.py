"""The page of a comparison of cells: its exhibits as figures, and what was found, in sentences with the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastlstm.cells import CellName
from fastlstm.comparison import Comparison, Trained
from fastlstm.comparison_plan import RATES, SAMPLE_LENGTH, Role
from fastlstm.exhibits.lags import GradientByLag
from fastlstm.exhibits.recall import RecallCurve
from fastlstm.pages import gates, recovery
from fastlstm.pages.cells import cells as cells_over_text
from fastlstm.pages.figures import COLOURS, LINE_STYLES, draw, power_of_ten
from fastlstm.pages.page import Figure, Section, fill, render, table
from fastlstm.pages.phrases import count, large, listed, percent, scientific
from fastlstm.pages.recovery import Course
from fastlstm.presets import UNFAIR
from fastlstm.terminal import printable

#: The lag, and the number of distractors, that the sentences are about.
LAG, DISTRACTORS = 50, 50

#: Fraction of a training, at its beginning, where losses may be above the figure, so that the later ones can be told
#: apart.
_CUT = 0.12

#: Samples of a training that are shown: its first, a middle one, its last.
_SHOWN_SAMPLES = 3

#: Recall within this of guessing is said to be near it.
_NEAR_CHANCE = 0.1

#: Line styles of the assignment's networks.
_RECOVERY_STYLES = ("-.", "-", ":")

#: Line styles of the LSTM's forget biases.
_BIAS_STYLES = (":", "-", "--", "-.")

#: How lines are drawn, by their labels.
_Styles = Mapping[str, Mapping[str, Any]]


def page(found: Comparison) -> tuple[str, tuple[Figure, ...]]:
    """The page of a comparison, and its figures.

    Raises
    ------
    FastlstmError
        When a library of the extra ``plot`` is missing.
    """
    sections = tuple(_sections(found))
    title = f"{listed([_name(cell) for cell in found.cells])} on one text"
    document = render(title, _lead(found), sections, _facts(found))
    return document, tuple(figure for section in sections for figure in section.figures)


def findings(found: Comparison) -> list[str]:
    """What was found, in sentences with the measured numbers."""
    losses = {cell: found.losses(cell) for cell in found.cells}
    sentences = [
        loss_sentence(losses, found.symbol),
        gradient_sentence(_first_gradients(found)),
        recall_sentence(found.recall),
    ]
    return [sentence for sentence in sentences if sentence]


def _sections(found: Comparison) -> Iterator[Section]:
    yield _loss(found)
    yield _gradients(found)
    if found.recall:
        yield _recall(found)
    yield _saturation(found)
    yield _samples(found)
    yield _single_cells(found)
    if found.recovery:
        yield _recovery(found)


def _lead(found: Comparison) -> str:
    plan = found.plan
    if plan.preset is not None:
        return f"The assignment's own networks, trained on {found.text.name}. Beware: {UNFAIR}."
    alike = "the same number of steps" if plan.equal == "steps" else "the same time"
    return (
        f"Networks with about {_parameters(found):,} parameters each, trained on {found.text.name} for {alike}, with"
        f" {count(plan.seeds, 'seed')} for each cell: what they reach, what they remember, and why."
    )


def _parameters(found: Comparison) -> int:
    """The parameters of the networks, on average, rounded to three digits."""
    mean = np.mean([one.training.model.parameter_count for cell in found.cells for one in found.of(cell)])
    return int(float(f"{mean:.3g}"))


# The losses


def loss_sentence(losses: Mapping[CellName, NDArray[np.float64]], symbol: str = "character") -> str:
    """Whether the LSTM predicts better than the RNN, by the validation losses (seeds,) of each cell, in nats."""
    if not {"lstm", "rnn"} <= losses.keys():
        return ""
    lstm, rnn = losses["lstm"], losses["rnn"]
    difference = float(rnn.mean() - lstm.mean())
    which = "below" if difference > 0 else "above"
    sentence = (
        f"The LSTM's validation loss is {_loss_and_range(lstm)} nats per {symbol}, {abs(difference):.3f} {which} the"
        f" RNN's {_loss_and_range(rnn)}."
    )
    if len(lstm) == 1:
        return f"{sentence} There is one seed of each, so chance may have a part in this."
    apart = lstm.max() < rnn.min() or rnn.max() < lstm.min()
    return f"{sentence} The spreads of the seeds {'do not overlap' if apart else 'overlap'}."


def _loss_and_range(losses: NDArray[np.float64]) -> str:
    around = f" ({losses.min():.3f} to {losses.max():.3f})" if len(losses) > 1 else ""
    return f"{losses.mean():.3f}{around}"


def _loss(found: Comparison) -> Section:
    seeds = found.plan.seeds
    caption = (
        f"Means of {seeds} seeds; bands and bars reach from the lowest to the highest."
        if seeds > 1 else "One seed of each cell."
    )  # fmt: skip
    about = f"{caption} Lines are estimates on a part of the validation text; the dots are exact, of the kept models."
    figures = tuple(
        draw(
            f"loss-{axis}", f"Validation loss over {title}",
            f"Curves of the validation loss of {listed(list(map(_name, found.cells)))} over {title}.",
            about, _paint_losses(found, axis, label),
        )
        for axis, title, label in (("step", "steps", "steps"), ("seconds", "time", "seconds of training"))
    )  # fmt: skip
    words = loss_sentence({cell: found.losses(cell) for cell in found.cells}, found.symbol)
    beware = "" if found.plan.preset is None else f"Beware: {UNFAIR}."
    return Section("Loss", "loss", tuple(filter(None, (words, beware))), figures, _loss_table(found))


def _paint_losses(found: Comparison, axis: str, label: str) -> Callable[[Any], None]:
    def paint(axes: Any) -> None:
        later = []
        for cell in found.cells:
            x, losses = _curves(found.of(cell), axis)
            style = {"color": COLOURS[cell], "linestyle": LINE_STYLES[cell]}
            axes.plot(x[:-1], losses[:, :-1].mean(axis=0), label=_name(cell), **style)
            axes.fill_between(
                x[:-1], losses[:, :-1].min(axis=0), losses[:, :-1].max(axis=0), color=COLOURS[cell], alpha=0.18,
                linewidth=0,
            )  # fmt: skip
            exact = losses[:, -1]
            around = [[exact.mean() - exact.min()], [exact.max() - exact.mean()]]
            axes.errorbar(x[-1:], [exact.mean()], around, color=COLOURS[cell], marker="o", markersize=5, capsize=3)
            later.append(losses[:, x >= _CUT * x[-1]])
        low, high = min(part.min() for part in later), max(part.max() for part in later)
        span = (high - low) or 0.1
        axes.set_ylim(low - 0.04 * span, high + 0.02 * span)
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.xaxis.set_major_formatter("{x:,.10g}")
        axes.set_ylabel(f"nats per {found.symbol}")
        axes.legend()

    return paint


def _curves(trainings: Sequence[Trained], axis: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curves of several seeds: their steps or mean seconds (P,), and their losses (seeds, P)."""
    points = min(len(one.curve.step) for one in trainings)  # a training that went back may have fewer
    x = np.mean([getattr(one.curve, axis)[-points:] for one in trainings], axis=0)
    return x, np.array([one.curve.val_nats[-points:] for one in trainings])


def _loss_table(found: Comparison) -> str:
    header = ("cell", "units", "parameters", "rate", "steps", "seconds", "nats", "bits", "real words")
    rows = []
    for cell in found.cells:
        trainings = found.of(cell)
        one, losses = trainings[0], found.losses(cell)
        rows.append(
            (
                _name(cell),
                f"{one.training.model.layers} x {one.training.model.hidden}",
                f"{one.training.model.parameter_count:,}",
                f"{one.training.train.highest_rate:g}",
                f"{one.steps:,}",
                f"{np.mean([other.seconds for other in trainings]):.1f}",
                f"{losses.mean():.3f}",
                f"{losses.mean() / math.log(2):.3f}",
                percent(float(np.mean([other.word_share for other in trainings]))),
            )
        )
    return table(header, rows)


# The gradients


def gradient_sentence(after: Mapping[CellName, GradientByLag]) -> str:
    """How the trained LSTM's gradient at the lag `LAG` compares with the RNN's."""
    if not {"lstm", "rnn"} <= after.keys():
        return ""
    lstm, rnn = (_at_lag(after[cell]) for cell in ("lstm", "rnn"))
    numbers = f"{scientific(lstm)} against {scientific(rnn)}"
    if rnn == 0:
        return f"At lag {LAG} the trained LSTM's gradient is {scientific(lstm)}, and the RNN's is 0."
    ratio = lstm / rnn
    times = f"{large(ratio)} times the RNN's" if ratio >= 1 else f"smaller than the RNN's, {ratio:.2g} times it"
    return f"At lag {LAG} the trained LSTM's gradient is {times}: {numbers}."


def _at_lag(gradient: GradientByLag) -> float:
    """The norm at the lag `LAG`, of the last layer."""
    return float(gradient.norms[-1, LAG])


def _first_gradients(found: Comparison) -> dict[CellName, GradientByLag]:
    """Gradients of the trained network of each cell, by cell."""
    return {cell: found.after[found.of(cell)[0].training.name] for cell in found.cells}


def _gradients(found: Comparison) -> Section:
    about = (
        f"Of the network with the first seed: mean over 64 places of the {found.shown_part} of the norm of d(loss of a"
        f" {found.symbol})/dh, h being k earlier."
    )
    names = {_name(cell): found.of(cell)[0].training.name for cell in found.cells}
    styles: _Styles = {_name(cell): {"color": COLOURS[cell], "linestyle": LINE_STYLES[cell]} for cell in found.cells}
    biases = _forget_biases(found)
    bias_styles: _Styles = {
        label: {"color": COLOURS["lstm"], "linestyle": style}
        for label, style in zip(biases, _BIAS_STYLES, strict=False)
    }
    drawings: list[tuple[str, str, Mapping[str, GradientByLag], dict[str, str], _Styles]] = [
        ("gradient-before", "Before training", found.before, names, styles),
        ("gradient-after", "After training", found.after, names, styles),
    ]
    if len(biases) > 1:
        drawings += [
            ("forget-bias-before", "LSTM before training, by forget bias", found.before, biases, bias_styles),
            ("forget-bias-after", "LSTM after training, by forget bias", found.after, biases, bias_styles),
        ]
    figures = tuple(
        draw(
            name, title, f"Norm of the gradient against the lag, on a logarithmic axis: {title.lower()}.", about,
            _paint_lags({label: of[training] for label, training in which.items()}, style, found),
        )
        for name, title, of, which, style in drawings
    )  # fmt: skip
    words = (
        f"Learning that a {found.symbol} depends on one k steps before needs a gradient that reaches k steps back. In"
        " the RNN each step multiplies it by a matrix; in the LSTM and the GRU there is also a carry that gates let"
        " through."
    )
    found_sentence = gradient_sentence(_first_gradients(found))
    paragraphs = (words, *((found_sentence,) if found_sentence else ()), *_bias_sentences(found, biases))
    return Section("How far the gradient reaches", "gradients", paragraphs, figures)


def _forget_biases(found: Comparison) -> dict[str, str]:
    """The names of the LSTM's trainings that have gradients, by label; ascending by their forget bias."""
    trainings = [found.trained[name].training for name in found.after]
    lstms = sorted((one for one in trainings if one.cell == "lstm"), key=lambda one: one.model.forget_bias)
    return {f"forget bias {one.model.forget_bias:g}": one.name for one in lstms}


def _bias_sentences(found: Comparison, biases: Mapping[str, str]) -> Iterator[str]:
    if len(biases) > 1:
        values = [
            f"{label.removeprefix('forget bias ')}: {scientific(_at_lag(found.before[name]))} before training and"
            f" {scientific(_at_lag(found.after[name]))} after"
            for label, name in biases.items()
        ]
        yield f"The LSTM's gradient at lag {LAG} by its initial forget bias is, with {'; with '.join(values)}."


def _norm_limits(found: Comparison) -> tuple[float, float]:
    """The ends of the figures' axis; gradients of float32 below the lower one would not count."""
    norms = np.concatenate([one.norms[-1] for one in (*found.before.values(), *found.after.values())])
    return max(float(norms[norms > 0].min(initial=1.0)), 1e-20), max(float(norms.max()), 5.0)


def _paint_lags(gradients: Mapping[str, GradientByLag], styles: _Styles, found: Comparison) -> Callable[[Any], None]:
    low, high = _norm_limits(found)

    def paint(axes: Any) -> None:
        for label, one in gradients.items():
            axes.plot(one.lags, np.maximum(one.norms[-1], low / 10), label=label, **styles[label])
        axes.set_yscale("log")
        axes.set_ylim(low / 2, 2 * high)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(power_of_ten)
        axes.set_xlabel(f"lag k ({found.symbol}s)")
        axes.set_ylabel("gradient norm (nats)")
        axes.legend(loc="lower left")

    return paint


# The recall task


def recall_sentence(recall: Mapping[CellName, RecallCurve]) -> str:
    """How many symbols each cell recalls after `DISTRACTORS` distractors, or the most that were measured."""
    if not recall:
        return ""
    chance = next(iter(recall.values())).chance
    parts, after = [], 0
    for cell, one in recall.items():
        place = int(np.argmin(np.abs(one.distractors - DISTRACTORS)))
        after, accuracy = int(one.distractors[place]), float(one.accuracy[place])
        near = " (near guessing)" if abs(accuracy - chance) <= _NEAR_CHANCE else ""
        parts.append(f"{percent(accuracy)} for the {_name(cell)}{near}")
    return (
        f"After {after} distractors, the share of symbols that are recalled is {listed(parts)}; guessing gives"
        f" {100 * chance:.3g} %."
    )


def _recall(found: Comparison) -> Section:
    def paint(axes: Any) -> None:
        for cell, one in found.recall.items():
            axes.plot(
                one.distractors, 100 * one.accuracy, color=COLOURS[cell], linestyle=LINE_STYLES[cell], marker="o",
                markersize=4, label=_name(cell),
            )  # fmt: skip
        chance = 100 * next(iter(found.recall.values())).chance
        axes.axhline(chance, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)), label="guessing")
        axes.set_ylim(0, 104)
        axes.set_xlabel("distractors between symbol and question")
        axes.set_ylabel("recalled (%)")
        axes.legend()

    figure = draw(
        "recall", "Recall after distractors", "Share of recalled symbols against the number of distractors, by cell.",
        "Fresh sequences, generated from a seed.", paint,
    )  # fmt: skip
    words = (
        "A task with a known answer: a network reads a symbol, then k distractors, then a question, and is to name the"
        " symbol. Networks of equal size were trained on it for equally many steps, with mixed k."
    )
    beware = (
        "This is about learning, not about room: a cell that only guesses here can be taught to hold a symbol where"
        " the task is easier to learn, as with a few distractors first."
    )
    return Section("Recall of a symbol", "recall", (words, recall_sentence(found.recall), beware), (figure,))


# The gates


def _saturation(found: Comparison) -> Section:
    words = (
        "A sigmoid gate at its lower end is closed, at its upper end open; a tanh at either end passes next to no"
        f" gradient. Measured over windows of the {found.shown_part}, with the first seed. The RNN has no gates; h is"
        " its state."
    )
    figure = gates.saturation(found.saturation)
    return Section("Saturation of the gates", "gates", (words, *_gate_sentences(found)), (figure,))


def _gate_sentences(found: Comparison) -> Iterator[str]:
    if "lstm" in found.saturation:
        one = found.saturation["lstm"]
        place = one.names.index("f")
        yield f"The LSTM's forget gates are open, above 0.9, at {percent(float(one.high[:, place].mean()))} of values."
    if "rnn" in found.saturation:
        one = found.saturation["rnn"]
        yield f"The RNN's units are saturated at {percent(float((one.low + one.high).mean()))} of values."


# Samples and cells


def _samples(found: Comparison) -> Section:
    def paint(axes: Any) -> None:
        for cell in found.cells:
            samples = [one.samples for one in found.of(cell)]
            steps = [sample.step for sample in samples[0]]
            shares = 100 * np.array([[sample.word_share for sample in one[: len(steps)]] for one in samples])
            style = {"color": COLOURS[cell], "linestyle": LINE_STYLES[cell], "marker": "o", "markersize": 4}
            axes.plot(steps, np.nan_to_num(shares).mean(axis=0), label=_name(cell), **style)
        chance = 100 * found.chance_share
        axes.axhline(chance, color=COLOURS["muted"], linewidth=1, linestyle=(0, (1, 2)), label="shuffled text")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter("{x:,.10g}")
        axes.set_xlabel("steps")
        axes.set_ylabel("real words (%)")
        axes.legend(loc="center right")

    figure = draw(
        "words", "Real words in samples", "Share of real words in samples over the steps of training, by cell.",
        f"A word is real if it occurs in the text. Each point: {count(found.plan.seeds, 'sample')} of"
        f" {SAMPLE_LENGTH} {found.symbol}s.",
        paint,
    )  # fmt: skip
    shares = [
        f"the {_name(cell)}'s {percent(float(np.mean([one.word_share for one in found.of(cell)])))}"
        for cell in found.cells
    ]
    words = (
        f"Of the words that the trained networks generate, these shares are words of the text: {listed(shares)}. Of a"
        f" shuffled text it would be {percent(found.chance_share)}."
    )
    return Section("Samples side by side", "samples", (words,), (figure,), _sample_cards(found))


def _sample_cards(found: Comparison) -> str:
    """Samples of the networks with the first seed: one of each cell from the same step, then from later ones."""
    firsts = {cell: found.of(cell)[0].samples for cell in found.cells}
    last = min(map(len, firsts.values())) - 1
    places = np.unique(np.linspace(0, last, min(last + 1, _SHOWN_SAMPLES)).round().astype(int)).tolist()
    shown = [(cell, samples[place]) for place in places for cell, samples in firsts.items()]
    return fill(
        "samples.html",
        samples=[
            (f"{_name(cell)}, step {one.step:,}", f"{percent(one.word_share)} real words", printable(one.text))
            for cell, one in shown
        ],
    )


def _single_cells(found: Comparison) -> Section:
    shown = len(next(iter(found.activations.values())).ids)
    words = (
        f"The first {shown:,} {found.symbol}s of the {found.shown_part}, as the trained networks with the first seed"
        f" read them from the zero state. The colour of a {found.symbol} is the value of one unit after it was read, or"
        " of a gate when it was read, or the surprise: how unexpected it was."
    )
    return Section("Single cells over a text", "cells", (words,), html=cells_over_text(found.activations))


def _recovery(found: Comparison) -> Section:
    of_assignment = [
        Course(f"{_name(one.training.cell)} of {one.training.model.hidden} units", COLOURS[one.training.cell], style,
               found.recovery[one.training.name])
        for one, style in zip(_recovering(found, "assignment"), _RECOVERY_STYLES, strict=False)
    ]  # fmt: skip
    of_compared = [
        Course(_name(one.training.cell), COLOURS[one.training.cell], LINE_STYLES[one.training.cell],
               found.recovery[one.training.name])
        for one in _recovering(found, "compared")
    ]  # fmt: skip
    figures: tuple[Figure, ...] = ()
    if of_assignment:
        figures += recovery.figures("assignment", "the assignment's networks", found.symbol, of_assignment)
    figures += recovery.figures("compared", "the compared networks", found.symbol, of_compared)
    words = (
        "The state of a network is replaced in the middle of the text: by that at the beginning of a new text, by"
        f" random numbers, or by what 50 random {found.symbol}s leave. Then it reads on, and from the same state it"
        " writes. A network with a second attractor writes garbage for ever: such a text is one whose last 300"
        f" {found.symbol}s, by the pairs of neighbours, are nearer to a shuffled text than to the text."
    )
    if of_assignment:
        words += " The assignment's networks were trained on the default text, with the assignment's settings."
    courses = of_assignment + of_compared
    return Section(
        "Recovery after a disturbance",
        "recovery",
        (words, recovery.sentence(courses)),
        figures,
        recovery.table(courses),
    )


def _recovering(found: Comparison, role: Role) -> list[Trained]:
    """The trainings of a role whose recovery was measured."""
    return [found.trained[name] for name in found.recovery if found.trained[name].training.role == role]


# What was measured


def _facts(found: Comparison) -> dict[str, str]:
    """The settings, the text and the machine."""
    plan, of = found.plan, found.of(found.cells[-1])[0].training.train
    one_step = "differ with the cell" if plan.preset else f"{of.batch} x {of.seq_len} {found.symbol}s"
    facts = {
        "text": f"{found.text.name}: {found.text.symbols:,} {found.symbol}s, {found.text.distinct} distinct",
        "validation": f"the last {100 * of.val_frac:.3g} % of the text",
        "SHA-256 of vocabulary and ids": found.text.sha256,
        "equal": f"{'sizes of the preset' if plan.preset else 'parameters'}, {plan.equal}",
        "one step": one_step,
        "optimizer": "that of the assignment" if plan.preset else f"{of.optimizer}, {of.schedule}, {of.precision}",
        "seeds": ", ".join(str(plan.seed + n) for n in range(plan.seeds)),
    }
    if not plan.preset:
        rates = ", ".join(f"{_name(cell)} {RATES[cell]:g}" for cell in found.cells)
        facts["highest learning rate"] = f"{rates}; the best for such networks on tinyshakespeare"
        facts["dropout before the output"] = f"{of.dropout_output:g}"
    return facts | dict(found.machine) | {"began": found.started}


def _name(cell: CellName) -> str:
    return cell.upper()
