"""The comparison of precisions: the table states the difference of the means, and whether seeds differ as much."""

import pytest

from benchmarks import precision
from benchmarks.table import insert


def result(name, seed, val_nats, seconds=60.0):
    return {
        "text": "shakespeare", "setting": name, "seed": seed, "val_nats": val_nats, "steps": 5000, "cpu": "a processor",
        "trained": {"seconds": seconds}, "cores_of_others": 0.0, "versions": {"fastlstm": "fastlstm 1"},
    }  # fmt: skip


FLOAT32 = [result("1x256, float32", seed, 1.50 + 0.01 * seed) for seed in range(3)]


@pytest.mark.parametrize(("difference", "within"), [(0.02, "yes"), (-0.02, "yes"), (0.03, "no"), (-0.03, "no")])
def test_a_difference_is_within_if_it_is_at_most_the_spread_over_the_seeds_of_float32(difference, within):
    bf16 = [result("1x256, bf16", seed, 1.51 + difference * 0.999, 40.0) for seed in range(3)]
    name, *_, shown, spread, verdict, faster, seeds = precision.row(256, [*FLOAT32, *bf16])
    assert (name, shown, spread, verdict, seeds) == ("1x256", f"{difference * 0.999:+.4f}", "0.0200", within, "3 + 3")
    assert faster == "1.50"


def test_a_model_without_results_or_with_a_loss_that_is_not_finite_is_not_within():
    assert precision.row(512, FLOAT32)[-3] == "no"
    assert precision.row(256, [*FLOAT32, result("1x256, bf16", 0, None)])[-3] == "no"


def test_the_table_has_a_row_for_each_model_and_can_be_put_between_its_marks():
    found = precision.markdown(FLOAT32)
    assert "after 5,000 steps on shakespeare (a processor, fastlstm 1):" in found
    assert "\n| 1x256 | 1.5100 | 1.5000 to 1.5200 |" in found
    assert "\n| 1x512 |" in found
    assert found in insert("<!-- precision:begin -->\n<!-- precision:end -->", found, "precision")


def test_the_settings_of_a_model_differ_in_precision_alone():
    for hidden in precision.HIDDEN:
        options = [precision.GRID[precision.setting(hidden, one)] for one in precision.PRECISIONS]
        assert [given[:-1] for given in options] == [options[0][:-1]] * 2
        assert [given[-1] for given in options] == list(precision.PRECISIONS)
