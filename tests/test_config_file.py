"""A configuration file gives the same run again, and what is wrong with one is said in one line."""

import dataclasses
import math
import os

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from fastlstm import ModelConfig, TrainConfig, config_file, schedules
from fastlstm.errors import ConfigError
from fastlstm.optimizers import OPTIMIZERS
from fastlstm.precision import dtype_of_new
from fastlstm.presets import PRESETS
from fastlstm.settings import settings_of
from fastlstm.train_settings import Given

V = 65


def values_of(one):
    """Values of a setting, its bounds included where they are finite."""
    declared = one.declared
    if one.choices:
        values = st.sampled_from(one.choices)
    elif one.type is bool:
        values = st.booleans()
    elif one.type is int:
        values = st.integers(int(declared.at_least), int(min(declared.at_most, 2**130)))
    else:
        low, high = max(declared.at_least, declared.above), min(declared.at_most, declared.below)
        values = st.floats(
            None if low == -math.inf else low, None if high == math.inf else high,
            exclude_min=declared.above > -math.inf, exclude_max=declared.below < math.inf, allow_nan=False,
            allow_infinity=False,
        )  # fmt: skip
    return st.none() | values if one.optional else values


def configurations(cls):
    """Valid configurations of a class, in which some settings have their defaults."""
    every = {name: values_of(one) for name, one in settings_of(cls).items() if name != "vocab_size"}
    required = {"vocab_size": st.just(V)} if cls is ModelConfig else {}

    @st.composite
    def valid(draw):
        values = draw(st.fixed_dictionaries(required, optional=every))
        try:
            return cls(**values)
        except ConfigError:  # values that exclude each other: keep those that do not
            kept = dict.fromkeys(required, V)
            for name, value in values.items():
                try:
                    cls(**{**kept, name: value})
                except ConfigError:
                    continue
                kept[name] = value
            return cls(**kept)

    return valid()


def as_run(read, symbols=10**6):
    """The configurations of a run with a file and no options: what the file does not give is chosen."""
    model, train = Given([], False, None, True, None, read.model, read.train, is_complete=False).completed(symbols)
    return ModelConfig(V, **model), TrainConfig(**train)


def rules(train):
    """What the run computes with: the updates of some of its steps, and its length."""
    steps = None if train.minutes else train.total_steps(100)
    total = steps or 100
    rates = [schedules.rate(train, step, total) for step in range(0, min(total, 50), 7)]
    return steps, train.minutes, rates, [train.rule(rate, step) for step, rate in enumerate(rates)]


@given(model=configurations(ModelConfig), train=configurations(TrainConfig), symbols=st.integers(1, 10**9))
def test_a_written_configuration_gives_the_same_run(tmp_path_factory, model, train, symbols):
    """The dtype of a new model is not written: it follows from the precision."""
    try:
        model = dataclasses.replace(model, dtype=dtype_of_new(train.precision))
    except ConfigError:  # initial values beyond its range
        reject()
    path = tmp_path_factory.getbasetemp() / "round-trip.toml"
    text = config_file.text(model, train, data=["a.txt"])
    path.write_text(text, encoding="utf-8")
    try:
        expected = rules(train)
    except ConfigError:  # more epochs than there can be steps
        expected = None
    same_model, same_train = as_run(config_file.read(path), symbols)
    assert same_model == model
    if expected:
        assert rules(same_train) == expected
    in_effect = dict.fromkeys(("lr", "epochs", *OPTIMIZERS[train.optimizer].defaults))
    for name in settings_of(TrainConfig).keys() - in_effect.keys():
        assert getattr(same_train, name) == getattr(train, name)
    assert config_file.text(same_model, same_train, data=["a.txt"]) == text


@pytest.mark.parametrize("cell", PRESETS["assignment"])
def test_the_assignment_written_to_a_file_is_the_assignment(cell, write):
    preset = PRESETS["assignment"][cell]
    model, train = ModelConfig(V, cell, **preset.model), TrainConfig(**preset.train)
    same_model, same_train = as_run(config_file.read(write(config_file.text(model, train, data=[]))))
    assert same_model == model
    assert rules(same_train) == rules(train)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "settings.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_file_is_grouped_under_headings_and_ends_with_the_record():
    record = {"fastlstm": "1.2", "symbols": 1000, "command": "fastlstm train --data 'a b'", "git": None}
    text = config_file.text(
        ModelConfig(V), TrainConfig(epochs=2), data=["notes.txt"], init_from="runs/a", record=record
    )
    assert text.startswith(
        '# text\ndata = [\n    "notes.txt",\n]\nbytes = false\nescape = false\ninit_from = "runs/a"\nval_frac = 0.1\n'
    )
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[:-1] == ["# text", "# model", "# training", "# progress and result", "# computing"]
    assert "\nlr = 0.05\n" in text
    assert "\nclip_norm = 5.0\n" in text
    assert text.endswith('\n[run]\nfastlstm = "1.2"\nsymbols = 1000\ncommand = "fastlstm train --data \'a b\'"\n')


ALL_KINDS = """
data = []
bytes = true
encoding = "cp1252"
escape = true
init_from = "m"
hidden = 3
lr = 1
dropout_held = true
"""


def test_only_what_a_file_says_is_given(write):
    nothing = config_file.Configuration(None, None, None, None, None, {}, {})
    assert config_file.read(write("")) == nothing
    assert config_file.read(write("# only a comment\n[run]\nsymbols = 3\n")) == nothing
    read = config_file.read(write(ALL_KINDS))
    assert read == ([], True, "cp1252", True, "m", {"hidden": 3}, {"lr": 1.0, "dropout_held": True})
    assert type(read.train["lr"]) is float


def test_the_file_of_a_run_from_before_there_was_an_escape_is_of_one_without(write):
    assert config_file.read(write('hidden = 3\n[run]\nfastlstm = "0.1.0"\n')).escape is False
    assert config_file.read(write('hidden = 3\nescape = true\n[run]\nfastlstm = "0.1.0"\n')).escape is True


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("steps = 7", {"steps": 7, "epochs": None, "minutes": None}),
        ("clip_value = inf", {"clip_value": None, "clip_norm": None}),
        ("clip_norm = inf", {"clip_value": None, "clip_norm": None}),
        ("clip_value = 2", {"clip_value": 2.0, "clip_norm": None}),
    ],
)
def test_a_setting_of_an_exclusive_group_excludes_the_others(line, expected, write):
    assert config_file.read(write(line)).train == expected


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_accepted(write):
    assert config_file.read(write(b"\xef\xbb\xbfhidden = 3\r\nlayers = 2\r\n")).model == {"hidden": 3, "layers": 2}


def test_a_run_folder_stands_for_its_file(tmp_path):
    record = {"symbols": 3, "started": "2030-01-02T03:04:05"}
    text = config_file.text(ModelConfig(V), TrainConfig(), data=[], record=record)
    (tmp_path / config_file.FILE_NAME).write_text(text)
    for path in (tmp_path, str(tmp_path), tmp_path / config_file.FILE_NAME):
        assert config_file.read(path).data == ["input"]
        assert config_file.record(path) == record


def test_a_file_without_a_record_has_an_empty_one(write):
    assert config_file.record(write("hidden = 3")) == {}


@pytest.mark.parametrize("path", ["a b.txt", "été.txt", "quote'\"\\.txt", "line\nend\t\x00\x7f.txt", "\U0001f600"])
def test_every_path_of_valid_unicode_is_read_back(path, write):
    text = config_file.text(ModelConfig(V), TrainConfig(), data=[path, "-"], init_from=path, record={"command": path})
    file = write(text)
    read = config_file.read(file)
    assert (read.data, read.init_from, config_file.record(file)) == ([path, "-"], path, {"command": path})


def test_a_path_that_is_not_unicode_does_not_prevent_a_run(write):
    path = os.fsdecode(b"caf\xe9.txt")
    text = config_file.text(ModelConfig(V), TrainConfig(), data=[path])
    assert config_file.read(write(text)).data == ["caf?.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hiden = 3", "in {}: there is no setting 'hiden': the nearest is 'hidden'"),
        ("seq-len = 3", "in {}: there is no setting 'seq-len': the nearest is 'seq_len'"),
        ("init-from = 'a'", "in {}: there is no setting 'init-from': the nearest is 'init_from'"),
        ("zzz = 3", "in {}: there is no setting 'zzz': 'train --help' lists most settings"),
        ("vocab_size = 3", "in {}: there is no setting 'vocab_size': "),
        ("[model]\nhidden = 3", "in {}: there is no table [model]: write settings at the top of the file, in no table"),
        ("[run]\nsymbols = 3\nsteps = 5", "in {}: steps is in the table [run], which configures nothing: write it"),
        ("run = 3", "in {}: run must be a table"),
        ("hidden = 8.0", "in {}: hidden must be a whole number of at least 1, not 8.0"),
        ("hidden = true", "in {}: hidden must be a whole number of at least 1, not True"),
        ("layers = 2000", "in {}: layers must be at most 1,000, not 2000"),
        ("lr = '0.1'", "in {}: lr must be a finite number of at least 0, not '0.1'"),
        ("lr = inf", "in {}: lr must be a finite number of at least 0, not inf"),
        ("lr = nan", "in {}: lr must be a finite number of at least 0, not nan"),
        ("clip_norm = -inf", "in {}: clip_norm must be a finite number of at least 0, not -inf"),
        ("cell = 'lstn'", "in {}: cell must be one of lstm, "),
        ("lr = 2030-01-02", "in {}: lr must be a finite number of at least 0, not datetime.date(2030, 1, 2)"),
        ("hidden = {a = 1}", "in {}: hidden must be a whole number of at least 1, not {{'a': 1}}"),
        ("steps = 1\nepochs = 2", "in {}: steps and epochs exclude each other: keep one"),
        ("clip_value = inf\nclip_norm = inf", "in {}: clip_value and clip_norm exclude each other: keep one"),
        ("data = 'a.txt'", "in {}: data must be a list of strings, such as [\"notes.txt\"], not 'a.txt'"),
        ("data = [1]", "in {}: data must be a list of strings"),
        ("encoding = 8", "in {}: encoding must be a string, not 8"),
        ("encoding = 'uft-8'", "in {}: there is no text encoding 'uft-8': name one such as utf-8"),
        ("bytes = 1", "in {}: bytes must be true or false, not 1"),
        ("init_from = 1", "in {}: init_from must be a string, not 1"),
        ("hidden = 3\nlr = \n", "{} is not TOML: Invalid value (at line 2, column 6); write settings as"),
        ("hidden = 3\nhidden = 4\n", "{} is not TOML: Cannot overwrite a value (at line 2,"),
        ("once upon a time", "{} is not TOML: "),
        (b"hidden = 3 # caf\xe9", "{} is not UTF-8 (byte 0xE9 at offset 16): save it as UTF-8"),
        (b"\xff\xfeh\x00", "{} is not UTF-8 (byte 0xFF at offset 0)"),
        ("hidden = " + "9" * 5000, "cannot read {}: "),
        ("hidden = " + "[" * 100_000, "{} is no configuration: its values are nested too deeply"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_one_line(content, message, write):
    path = write(content)
    with pytest.raises(ConfigError) as error:
        config_file.read(path)
    assert str(error.value).startswith(message.format(repr(str(path))))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path, monkeypatch):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(ConfigError, match=r"there is no configuration '.*\.toml': name a TOML file, or the folder"):
            config_file.read(path)
    with pytest.raises(ConfigError, match=r"cannot read 'a\\x00b': "):
        config_file.read("a\0b")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ConfigError, match=r"cannot read 'a.toml' \(Permission denied\): check the file"):
        config_file.read("a.toml")


def test_what_is_given_wins_over_a_file(write):
    read = config_file.read(write("hidden = 3\nlayers = 2\nsteps = 5\nseq_len = 7"))
    model, train = read.overridden({"hidden": 4}, {"epochs": 1.0, "steps": None, "minutes": None})
    assert (model, train) == (
        {"hidden": 4, "layers": 2},
        {"seq_len": 7, "epochs": 1.0, "steps": None, "minutes": None},
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_another_optimizer_leaves_out_the_settings_of_that_in_the_file(optimizer, write):
    text = config_file.text(ModelConfig(V), TrainConfig(optimizer="adamw", lr=0.25, beta1=0.5), data=[])
    _, train = config_file.read(write(text)).overridden({}, {"optimizer": optimizer})
    config = TrainConfig(**train)
    assert config.optimizer == optimizer
    assert (config.lr, config.beta1) == ((0.25, 0.5) if optimizer == "adamw" else (None, None))


def test_settings_of_an_optimizer_that_the_file_does_not_name_stay(write):
    read = config_file.read(write("lr = 0.25"))
    assert read.overridden({}, {"optimizer": "sgd"}) == ({}, {"lr": 0.25, "optimizer": "sgd"})
