"""The choice of settings: a function of the text's size and the minutes, in which everything that is given wins."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import ModelConfig, TrainConfig
from fastlstm.defaults import chosen


@given(symbols=st.integers(1, 10**10), minutes=st.none() | st.floats(1e-6, 1e5))
def test_every_choice_is_a_valid_configuration(symbols, minutes):
    choice = chosen(symbols, {}, {} if minutes is None else {"minutes": minutes})
    ModelConfig(65, **choice.model)
    config = TrainConfig(**{"minutes": minutes, **choice.train})
    assert config.total_steps(10) > 0 or minutes is not None
    assert config.minutes == minutes


@pytest.mark.parametrize("minutes", [None, 1.0, 60.0])
@pytest.mark.parametrize("symbols", [1000, 10**6])
def test_what_is_given_is_not_chosen(symbols, minutes):
    length = {} if minutes is None else {"minutes": minutes}
    whole = chosen(symbols, {}, length)
    for name in whole.model:
        assert name not in chosen(symbols, {name: 7}, length).model
    for name, value in whole.train.items():
        left = chosen(symbols, {}, {**length, name: value}).train
        assert name not in left
        assert {**left, name: value} == whole.train


def test_settings_of_the_chosen_optimizer_go_with_it():
    left = chosen(10**6, {}, {"optimizer": "sgd"}).train
    assert not {"lr", "beta2", "weight_decay", "optimizer"} & set(left)
    TrainConfig(optimizer="sgd", **left)


def test_a_bound_on_elements_replaces_the_chosen_bound_on_the_norm():
    assert "clip_norm" not in chosen(10**6, {}, {"clip_value": 1.0, "clip_norm": None}).train


def test_no_length_is_chosen_where_one_is_given():
    for length in ({"steps": 3}, {"epochs": 2.0}, {"minutes": 1.0}):
        assert not {"steps", "epochs", "minutes"} & set(chosen(10**6, {}, length).train)


def test_more_minutes_never_mean_a_smaller_model_nor_more_text_less_validation_than_is_read():
    sizes = [chosen(10**6, {}, {"minutes": m}).model["hidden"] for m in (0.1, 0.5, 1, 3, 10, 30, 100)]
    assert all(a <= b for a, b in itertools.pairwise(sizes))
    for symbols in (10**4, 10**6, 10**8):
        assert symbols * chosen(symbols, {}, {}).train["val_frac"] <= 125_000
