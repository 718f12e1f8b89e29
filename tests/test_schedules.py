"""Learning-rate schedules: each against its definition, and all of them positive and bounded."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastlstm import TrainConfig
from fastlstm.errors import ConfigError
from fastlstm.schedules import rate

NAMES = ("constant", "cosine", "linear", "wsd", "step", "plateau")


def rates(total=100, **settings):
    config = TrainConfig(lr=0.5, **settings)
    return [rate(config, step, total) for step in range(total)]


def test_the_cosine_goes_from_the_rate_to_zero():
    config = TrainConfig(lr=0.5)
    assert rate(config, 0, 100) == 0.5
    assert rate(config, 50, 100) == pytest.approx(0.25)
    assert rate(config, 100, 100) == pytest.approx(0.0, abs=1e-16)


def test_a_constant_rate_is_constant():
    assert set(rates(schedule="constant")) == set(rates(schedule="plateau")) == {0.5}


def test_linear_decay_is_linear():
    assert rates(schedule="linear") == pytest.approx([0.5 * (1 - step / 100) for step in range(100)])


def test_wsd_is_constant_and_then_decays_linearly():
    found = rates(schedule="wsd", decay_frac=0.25)
    assert set(found[:76]) == {0.5}
    assert found[75:] == pytest.approx([0.5 * (1 - n / 25) for n in range(25)])


def test_step_decay_multiplies_the_rate_at_every_decay():
    found = rates(schedule="step", decay_every=30, decay_factor=0.1)
    assert found == pytest.approx([0.5 * 0.1 ** (step // 30) for step in range(100)])
    assert rates(schedule="step") == pytest.approx([0.5 * 0.5 ** (step // 25) for step in range(100)])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_a_schedule_ends_at_its_final_rate(schedule):
    config = TrainConfig(lr=0.5, schedule=schedule, final_rate=0.1)
    assert rate(config, 100, 100) == pytest.approx(0.05)
    assert rate(config, 0, 100) == 0.5


@pytest.mark.parametrize("schedule", NAMES)
def test_the_warm_up_rises_linearly_to_the_start_of_the_schedule(schedule):
    found = rates(schedule=schedule, warmup=9)
    assert found[:9] == pytest.approx([0.5 * n / 10 for n in range(1, 10)])
    assert found[9:] == [rate(TrainConfig(lr=0.5, schedule=schedule), step, 91) for step in range(91)]


def test_the_warm_up_takes_at_most_half_of_the_run():
    assert rates(10, schedule="constant", warmup=100) == pytest.approx([0.5 * n / 6 for n in range(1, 6)] + 5 * [0.5])


@given(
    schedule=st.sampled_from(NAMES), total=st.integers(1, 2000), warmup=st.integers(0, 3000), final=st.floats(0, 1),
    part=st.floats(0.01, 1), data=st.data(),
)  # fmt: skip
def test_a_rate_is_never_negative_nor_above_the_highest(schedule, total, warmup, final, part, data):
    config = TrainConfig(lr=0.5, schedule=schedule, warmup=warmup, final_rate=final, decay_frac=part)
    found = rate(config, data.draw(st.integers(0, total - 1)), total)
    assert 0 <= found <= 0.5 * (1 + 1e-12)
    assert math.isfinite(found)


@pytest.mark.parametrize(
    ("name", "value", "domain"),
    [("decay_frac", 0.0, "above 0"), ("decay_frac", 1.5, "at most 1"), ("decay_every", 0, "of at least 1"),
     ("minutes", 0, "above 0"), ("warmup", -1, "of at least 0"), ("schedule", "cos", "one of constant, cosine")],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name, value, domain):
    with pytest.raises(ConfigError, match=domain):
        TrainConfig(**{name: value})
