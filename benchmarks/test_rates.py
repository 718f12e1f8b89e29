"""The rates of the comparison's cells are measured in its own sizes and with its own recipe."""

from benchmarks import rates
from fastlstm import train
from fastlstm.comparison_plan import ORDER, ComparisonPlan, train_config
from fastlstm.config import TrainConfig
from fastlstm.settings import given


def test_the_settings_are_those_of_a_comparison_but_for_the_rate():
    plan = ComparisonPlan()
    for cell in ORDER:
        options = train.parser().parse_args(rates.options(rates.SIZES[cell], 0.01))
        wanted = train_config(plan, cell, rates.STEPS, 10**6)
        values = given(options, TrainConfig)
        assert {name: getattr(wanted, name) for name in values if name != "lr"} | {"lr": 0.01} == values


def test_the_table_has_a_row_for_each_rate_and_a_column_for_each_cell():
    results = [
        {
            "text": "shakespeare", "setting": rates.setting(cell, rate), "seed": 0, "val_nats": 1.5 + rate, "steps": 5,
            "cpu": "a processor", "cores_of_others": 0.0, "versions": {"fastlstm": "fastlstm 1"},
        }
        for cell in ORDER
        for rate in rates.RATES[1:]
    ]  # fmt: skip
    table = rates.markdown(results).splitlines()
    assert len(table) == 4 + len(rates.RATES)
    assert table[4].split("|")[1:3] == [" 0.003 ", "  "]
    assert table[5].split("|")[1:-1] == [" 0.005 ", *[" 1.5050 "] * 3]
