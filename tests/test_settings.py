"""A setting is declared once: validation, options, help and documentation follow from the declaration."""

import dataclasses
import importlib
import math
from typing import Literal

import pytest

from fastlstm import ModelConfig, TrainConfig, cli, compress, evaluate, train
from fastlstm.cells import CELLS
from fastlstm.comparison_plan import ComparisonPlan
from fastlstm.config import EvaluationConfig, SampleConfig
from fastlstm.defaults import choosable
from fastlstm.errors import ConfigError
from fastlstm.learning import TRAINED, Learning
from fastlstm.optimizers import OPTIMIZERS
from fastlstm.presets import PRESETS, preset
from fastlstm.settings import Settings, add_options, as_arguments, declare, documented, given, setting, settings_of
from fastlstm.train_settings import Given

TRAINING = [ModelConfig, TrainConfig]
CLASSES = [*TRAINING, SampleConfig, EvaluationConfig]
OPTIONS = {
    one.option: (cls, name)
    for cls in TRAINING
    for name, one in settings_of(cls).items()
    if one.option and name != "vocab_size"  # which follows from the text
}
EVERY = [pytest.param(cls, name, id=f"{cls.__name__}.{name}") for cls in CLASSES for name in settings_of(cls)]


@documented
@dataclasses.dataclass(frozen=True)
class Example(Settings):
    """An example."""

    need: int = dataclasses.field(metadata=declare("what must be given", "one"))
    count: int = setting(3, "things", "one", unit="C", at_least=2, at_most=5)
    share: float = setting(0.5, "share in 100 %", "one", below=1.0)
    limit: float = setting(2.0, "limit", "two", at_most=4.0)
    switch: bool = setting(False, "whether it is on", "one")
    mode: Literal["a", "b"] | None = setting(None, "way of doing it", "one", none="as it comes")
    near: float | None = setting(1.0, "bound", "one", none="no bound", inf_is_none=True, exclusive="bound")
    far: float | None = setting(None, "other bound", "one", none="no other", inf_is_none=True, exclusive="bound")
    hidden: int = setting(1, "not on the command line", "one", option=None)


def parsed(*arguments, only=(), defaults=None):
    parser = cli.Parser("train")
    add_options(parser.add_argument_group("one"), Example, only, defaults)
    return parser, parser.parse_args(list(map(str, arguments)))


def all_settings():
    """The settings of all classes by name; seed, which two share, is one declaration."""
    return {name: one for cls in CLASSES for name, one in settings_of(cls).items()}


def settings_of_verb(verb):
    """The settings that can be options of a verb; those of a comparison, and of learning while reading, are its own."""
    learning = settings_of(Learning)
    return {
        "compare": settings_of(ComparisonPlan),
        "compress": all_settings() | learning,
        "evaluate": all_settings() | {name: learning[name] for name in evaluate.LEARNING},
    }.get(verb, all_settings())


def actions(name):
    """The options of a verb that are settings, by field."""
    settings = settings_of_verb(name)
    parser = importlib.import_module(f"fastlstm.{name}").parser()
    return {action.dest: action for action in parser._actions if action.option_strings and action.dest in settings}


@pytest.mark.parametrize(("cls", "name"), EVERY)
def test_every_field_declares_its_meaning_and_its_group(cls, name):
    one = settings_of(cls)[name]
    assert one.declared.help
    assert one.declared.group in {"text", "model", "training", "computing", "progress and result"}
    assert bool(one.declared.none) == one.optional
    assert one.default is dataclasses.MISSING or one.validated(one.default) == one.default


def test_the_settings_of_a_class_are_its_fields():
    for cls in CLASSES:
        assert list(settings_of(cls)) == [field.name for field in dataclasses.fields(cls)]
    assert not set(settings_of(ModelConfig)) & set(settings_of(TrainConfig))


def test_sampling_has_the_option_of_every_setting_that_declares_one():
    assert set(settings_of(SampleConfig)) <= actions("sample").keys()
    assert set(settings_of(EvaluationConfig)) <= actions("evaluate").keys()


def test_training_has_the_option_of_every_setting_that_declares_one():
    found = {action.option_strings[0]: dest for dest, action in actions("train").items()}
    assert found == {option: name for option, (_, name) in OPTIONS.items()}


@pytest.mark.parametrize("option", OPTIONS)
def test_a_given_option_of_training_sets_its_field_and_no_other(option):
    cls, name = OPTIONS[option]
    one = settings_of(cls)[name]
    value = one.choices[-1] if one.choices else {int: 7, float: 0.25, bool: True}[one.type]
    arguments = [option] if one.type is bool else [option, str(value)]
    options = train.parser().parse_args(arguments)
    values = given(options, ModelConfig) | given(options, TrainConfig)
    assert {key: value for key, value in values.items() if value is not None} == {name: value}
    # Some settings are refused with an optimizer that does not have them.
    having = [optimizer for optimizer, declared in OPTIMIZERS.items() if name in declared.defaults]
    chosen = ["--optimizer", having[0]] if having else []
    wanted = Given.by(train.parser().parse_args(arguments + chosen), None)
    model, training = wanted.model, wanted.train
    assert getattr(TrainConfig(**training) if cls is TrainConfig else ModelConfig(5, **model), name) == value


@pytest.mark.parametrize("verb", cli.VERBS)
def test_help_shows_the_default_of_every_setting(verb):
    settings = settings_of_verb(verb)
    own = {
        "gradcheck": {
            "hidden": 9,
            "embedding": 5,
            "vocab_size": 11,
            "seq_len": 8,
            "batch": 2,
            "precision": "float64",
        },
        "sample": {"length": 1000},
        "evaluate": {"lr": TRAINED.lr},
        "compress": dict.fromkeys((*compress.SHAPE, *compress.LEARNING[:-1]), compress.CHOSEN),
        "train": dict.fromkeys(choosable(), "chosen"),
    }.get(verb, {})
    found = actions(verb)
    # The backend of `gradcheck` is an option of its own: it can be both.
    expected = {
        "info": set(), "runs": set(), "plot": set(), "gradcheck": {"seed"}, "compare": {*settings_of(ComparisonPlan)},
        "compress": {"seed", "lr"}, "decompress": {"threads"}, "score": {"backend"},
    }.get(verb, {"seed", "backend"})  # fmt: skip
    assert expected <= found.keys()
    for name, action in found.items():
        one = settings[name]
        default = own.get(name, one.default)
        assert action.help.startswith(one.declared.help)
        assert action.help.endswith(f"(default: {one.declared.none if default is None else default})")
        assert action.default is None


def test_options_that_are_not_given_set_nothing():
    options = train.parser().parse_args([])
    assert (given(options, ModelConfig), given(options, TrainConfig)) == ({}, {})
    assert Given.by(options, None) == Given(
        [], False, encoding=None, escape=True, init_from=None, model={}, train={}, is_complete=False
    )


def test_the_escape_is_left_out_by_an_option_else_a_preset_else_a_file(tmp_path):
    def escape(*arguments, file=""):
        path = tmp_path / "settings.toml"
        path.write_text(file)
        return Given.by(train.parser().parse_args(arguments), path).escape

    assert escape() is True
    assert escape("--no-escape") is False
    assert escape("--no-escape", file="escape = true") is False
    assert escape("--escape", "--preset", "assignment", file="escape = false") is True
    assert escape("--preset", "assignment") is False
    assert escape("--preset", "assignment", file="escape = true") is False
    assert escape(file="escape = false") is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1}, "count must be a whole number of at least 2, not 1"),
        ({"count": 6}, "count must be at most 5, not 6"),
        ({"count": None}, "count must be a whole number of at least 2, not None"),
        ({"share": 1}, "share must be a finite number below 1, not 1"),
        ({"limit": 4.5}, "limit must be at most 4.0, not 4.5"),
        ({"switch": 1}, "switch must be True or False, not 1"),
        ({"mode": "c"}, "mode must be one of a, b, not 'c'"),
        ({"near": math.inf}, "near must be a finite number, not inf"),
        ({"far": 1.0}, "near and far exclude each other: give one, set the other to None"),
    ],
)
def test_a_value_outside_its_declaration_is_refused(values, message):
    with pytest.raises(ConfigError) as error:
        Example(1, **values)
    assert str(error.value) == message


def test_values_are_read_from_a_dictionary_and_written_to_one():
    values = Example(7, mode="b").to_dict()
    assert values == dataclasses.asdict(Example(7, mode="b"))
    assert Example.from_dict(values) == Example(7, mode="b")
    with pytest.raises(ConfigError, match=r"^unknown setting 'nede' in Example$"):
        Example.from_dict({"need": 1, "nede": 2})
    with pytest.raises(ConfigError, match=r"^setting 'need' of Example is missing$"):
        Example.from_dict({"count": 3})


def test_options_follow_from_the_declarations_of_a_group():
    parser, options = parsed("--need", 1, "--count", 4, "--share", 0.25, "--switch", "--mode", "b")
    assert given(options, Example) == {"need": 1, "count": 4, "share": 0.25, "switch": True, "mode": "b"}
    assert given(parsed("--no-switch")[1], Example) == {"switch": False}
    text = " ".join(parser.format_help().split())
    for part in (
        "--need N what must be given --count C things (default: 3) --share X share in 100 % (default: 0.5)",
        "--mode {a,b} way of doing it (default: as it comes)",
        "--near X bound; inf: no bound (default: 1.0)",
    ):
        assert part in text
    assert "--limit" not in text
    assert "--hidden" not in text


def test_a_verb_can_select_options_and_change_defaults():
    parser, _ = parsed(only=("limit", "count"), defaults={"count": 5})
    text = " ".join(parser.format_help().split())
    assert "--limit X limit (default: 2.0) --count C things (default: 5)" in text
    assert "--need" not in text


def test_a_given_option_replaces_those_it_excludes():
    assert given(parsed("--far", 2)[1], Example) == {"near": None, "far": 2.0}
    assert given(parsed("--near", "inf")[1], Example) == {"near": None, "far": None}
    with pytest.raises(SystemExit):
        parsed("--near", 1, "--far", 2)


def test_the_docstring_lists_every_setting_with_its_bounds():
    for cls in CLASSES:
        for name, one in settings_of(cls).items():
            assert f"\n{name} : {one.domain}" in cls.__doc__
            assert one.declared.help in cls.__doc__
    assert "count : a whole number of at least 2, at most 5 (default: 3)\n    C: things." in Example.__doc__
    assert "need : a whole number\n    what must be given." in Example.__doc__


def test_a_field_of_an_unknown_type_is_no_setting():
    @dataclasses.dataclass(frozen=True)
    class Wrong(Settings):
        path: bytes = setting(b"", "where", "one")

    with pytest.raises(TypeError, match="bytes"):
        Wrong()


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_preset_is_a_valid_configuration_or_reports_that_it_has_none(name, cell):
    if cell in PRESETS[name]:
        chosen = preset(name, cell)
        assert TrainConfig(**chosen.train).seq_len == chosen.train["seq_len"]
        assert ModelConfig(5, cell, **chosen.model).hidden == chosen.model["hidden"]
    else:
        with pytest.raises(ConfigError) as error:
            preset(name, cell)
        assert str(error.value) == (
            f"the preset 'assignment' has no template for the cell {cell!r}: choose lstm or rnn, or no preset"
        )


def test_an_unknown_preset_is_refused():
    with pytest.raises(ConfigError, match=r"^preset must be one of assignment, not 'homework'$"):
        preset("homework", "lstm")


@pytest.mark.parametrize(
    "values",
    [{}, {"lr": 0.1, "steps": 3}, {"dropout_held": True, "nesterov": False}, {"clip_value": 2.0, "clip_norm": None},
     {"clip_norm": None, "clip_value": None}, {"minutes": 1e-7, "schedule": "wsd", "seed": 2**100}],
)  # fmt: skip
def test_arguments_are_the_inverse_of_what_is_given(values):
    found = given(train.parser().parse_args(as_arguments(values, TrainConfig)), TrainConfig)
    if values.get("clip_norm", 0) is None and values.get("clip_value", 0) is None:
        found.setdefault("clip_value", None)
    assert {name: value for name, value in found.items() if name in values} == values
    assert all(value is None for name, value in found.items() if name not in values)
