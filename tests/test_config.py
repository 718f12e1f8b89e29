"""Configurations refuse what cannot be meant, in one line that names the field."""

import math

import pytest

from fastlstm import ModelConfig, TrainConfig
from fastlstm.errors import ConfigError
from fastlstm.params import table


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize("layers", [1, 2, 5])
def test_the_parameter_count_is_the_sum_of_the_table(cell, layers):
    config = ModelConfig(7, cell, layers, hidden=5, embedding=3)
    assert config.parameter_count == sum(math.prod(entry.shape) for entry in table(config))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": 10**11}, "parameters are more than"),
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
        ({"clip_norm": 0}, "a bound of 0"),
        ({"clip_value": 1.0}, "exclude each other"),
        ({"steps": 1, "epochs": 1}, "exclude each other"),
        ({"lr": math.inf}, "lr must be a finite number"),
    ],
)
def test_impossible_training_is_refused_at_once(settings, message):
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**settings)


def test_a_run_without_end_is_refused():
    with pytest.raises(ConfigError, match="give fewer"):
        TrainConfig(epochs=1e308).total_steps(1000)


def test_the_cosine_goes_from_the_rate_to_zero():
    config = TrainConfig(lr=0.5)
    rates = [config.rate(step, 100) for step in range(101)]
    assert rates[0] == 0.5
    assert rates[50] == pytest.approx(0.25)
    assert rates[100] == pytest.approx(0.0, abs=1e-16)
    assert TrainConfig(lr=0.5, schedule="constant").rate(77, 100) == 0.5
