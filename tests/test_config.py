"""Configurations refuse invalid values, with one line that names the field."""

import dataclasses
import json
import math
from fractions import Fraction

import numpy as np
import pytest

from fastlstm import ModelConfig, TrainConfig
from fastlstm.cells import CELLS
from fastlstm.errors import ConfigError
from fastlstm.params import initialise, table


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_parameter_count_is_the_sum_of_the_table(cell, layers):
    config = ModelConfig(7, cell, layers, hidden=5, embedding=3)
    assert config.parameter_count == sum(math.prod(entry.shape) for entry in table(config))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 10**6}, "parameters are more than"),
        ({"hidden": 10**11}, "hidden must be at most 2,147,483,648, not 100000000000"),
        ({"embedding": 10**5000}, "embedding must be at most .*, not a number of thousands of digits"),
        ({"vocab_size": -(10**5000)}, "vocab_size must be a whole number of at least 1, not a number of thousands"),
        ({"hidden": True}, "hidden must be a whole number of at least 1, not True"),
        ({"hidden": 8.0}, "hidden must be a whole number of at least 1, not 8.0"),
        ({"dtype": np.dtype("int32")}, r"dtype must be one of float32, float64, not dtype\('int32'\)"),
        ({"cell": None}, f"cell must be one of {', '.join(CELLS)}, not None"),
        ({"cell": ["lstm"]}, f"cell must be one of {', '.join(CELLS)}, not"),
        ({"forget_bias": 1e308}, r"forget_bias must be at most 3.4e\+38 in float32, not 1e\+308"),
        ({"forget_bias": -1e39}, r"forget_bias must be at most 3.4e\+38 in float32, not -1e\+39"),
        ({"forget_bias": -math.inf}, "forget_bias must be a finite number, not -inf"),
        ({"forget_bias": 10**5000}, "forget_bias must be a finite number, not a number of thousands"),
        ({"forget_bias": "1"}, "forget_bias must be a finite number, not '1'"),
        ({"weight_std": 1e38}, r"weight_std must be at most 2.13e\+37 in float32"),
        ({"output_std": 1e308, "dtype": "float64"}, r"output_std must be at most 1.12e\+307 in float64"),
        ({"layers": 10**9}, "layers must be at most"),
        ({"hidden": 0}, "hidden must be a whole number of at least 1"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64"),
        ({"weight_std": math.nan}, "weight_std must be a finite number"),
    ],
)
def test_impossible_models_are_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message) as error:
        ModelConfig(**({"vocab_size": 5} | settings))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 3000}, "threads must be at most"),
        ({"seq_len": 99999999999999999999}, "seq_len must be at most 2,147,483,647, not 99999999999999999999"),
        ({"batch": 2**31}, "batch must be at most"),
        ({"seq_len": 2**16, "batch": 2**15}, "seq_len times batch must be at most 2,147,483,647, not 65,536 times 32,"),
        ({"steps": 2**53 + 1}, "steps must be at most"),
        ({"eval_every": 10**30}, "eval_every must be at most"),
        ({"sample_every": 10**30}, "sample_every must be at most"),
        ({"sample_length": 10**10}, "sample_length must be at most 1,000,000,000"),
        ({"seed": 2**128}, "seed must be at most"),
        ({"lr": 10**400}, "lr must be a finite number of at least 0, not 1000"),
        ({"clip_norm": 0}, "a bound of 0"),
        ({"clip_value": 1.0}, "exclude each other"),
        ({"steps": 1, "epochs": 1}, "exclude each other"),
        ({"lr": math.inf}, "lr must be a finite number"),
        ({"optimizer": "lion"}, "optimizer must be one of adagrad, sgd, rmsprop, adam, adamw, not 'lion'"),
        ({"optimizer": "adam", "beta2": 1.0}, "beta2 must be a finite number of at least 0 and below 1, not 1.0"),
        ({"optimizer": "adam", "beta1": -0.1}, "beta1 must be a finite number of at least 0 and below 1, not -0.1"),
        ({"optimizer": "sgd", "momentum": 1}, "momentum must be a finite number of at least 0 and below 1, not 1"),
        ({"eps": 0.0}, "eps must be a finite number of at least 1e-30, not 0.0"),
        ({"weight_decay": -1e-9}, "weight_decay must be a finite number of at least 0"),
        (
            {"beta1": 0.9},
            r"the optimizer adagrad has no beta1: leave it out, or choose an optimizer that has it \(adam, adamw\)",
        ),
        ({"optimizer": "adamw", "momentum": 0.9}, r"adamw has no momentum: .* \(sgd, rmsprop\)"),
        ({"optimizer": "rmsprop", "nesterov": False}, r"rmsprop has no nesterov: .* \(sgd\)"),
        ({"optimizer": "sgd", "eps": 1e-8}, r"sgd has no eps: .* \(adagrad, rmsprop, adam, adamw\)"),
        ({"optimizer": "sgd", "momentum": 0, "nesterov": True}, "nesterov needs a momentum above 0"),
    ],
)
def test_impossible_training_is_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


def test_numpy_scalars_and_dtypes_become_plain_values_that_can_be_saved():
    config = ModelConfig(
        np.int64(5), cell=np.str_("rnn"), hidden=np.uint8(9), dtype=np.dtype("float64"), forget_bias=np.float32(0.5)
    )
    assert config == ModelConfig(5, cell="rnn", hidden=9, dtype="float64", forget_bias=0.5)
    assert {type(value) for value in config.to_dict().values()} == {int, str, float, type(None)}
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    training = TrainConfig(seq_len=np.int32(7), lr=np.float32(0.5), epochs=Fraction(1, 2), schedule=np.str_("constant"))
    assert training == TrainConfig(seq_len=7, lr=0.5, epochs=0.5, schedule="constant")
    assert TrainConfig.from_dict(json.loads(json.dumps(training.to_dict()))) == training


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_settings_of_a_dtype_give_finite_parameters(dtype, rng):
    largest = float(np.finfo(dtype).max)
    config = ModelConfig(50, dtype=dtype, weight_std=largest / 16, output_std=largest / 16, forget_bias=largest)
    assert np.isfinite(initialise(config, rng).flat).all()


def test_a_run_without_end_is_refused():
    with pytest.raises(ConfigError, match="give fewer"):
        TrainConfig(epochs=1e308).total_steps(1000)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("parameters", [1, 5_000, 111_361])
def test_no_other_size_is_nearer_to_a_number_of_parameters(cell, parameters):
    found = ModelConfig(65, "lstm", layers=2, forget_bias=3.0).with_parameters(parameters, cell)
    assert (found.cell, found.layers, found.forget_bias) == (cell, 2, 3.0)
    others = [dataclasses.replace(found, hidden=n) for n in range(1, found.hidden + 3)]
    assert found == min(others, key=lambda one: abs(one.parameter_count - parameters))
