"""Properties of a text, and the units that follow them."""

import numpy as np
import pytest

from fastlstm.exhibits.features import explained, features


def test_properties_are_those_of_the_symbols():
    found = features(list('AB c,\n"d"'))
    assert found["the position in the line"].tolist() == [1, 2, 3, 4, 5, 0, 1, 2, 3]
    assert found["the position in the word"].tolist() == [1, 2, 0, 1, 0, 0, 0, 1, 0]
    assert found["whether it is a capital letter"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert found["whether it is a punctuation mark"].tolist() == [0, 0, 0, 0, 1, 0, 1, 0, 1]
    assert found["whether it is in quotation marks"].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 0]


def test_what_is_the_same_at_every_symbol_is_no_property():
    assert "whether it ends a line" not in features(list("one line"))
    assert features(list("a")) == {}


def test_a_unit_that_is_a_linear_function_of_a_property_is_explained_by_it(rng):
    properties = {"one": rng.standard_normal(400), "two": rng.standard_normal(400)}
    values = np.zeros((2, 400, 3), np.float32)
    values[1, :, 0] = 0.5 - 2 * properties["one"]
    values[0, :, 2] = rng.standard_normal(400)
    shares = explained(values, properties)
    assert shares.shape == (2, 2, 3)
    assert shares[0, 1, 0] == pytest.approx(1, abs=1e-6)  # float32 values
    assert shares[0, 0, 0] == 0  # a constant unit
    assert shares[:, 0, 2].max() < 0.05  # 400 independent symbols: (4 / sqrt(400))^2 = 0.04 is 4 standard deviations


def test_shares_are_squared_correlations(rng):
    properties = {"one": rng.standard_normal(50)}
    values = rng.standard_normal((1, 50, 4)).astype(np.float32)
    expected = [np.corrcoef(properties["one"], values[0, :, n])[0, 1] ** 2 for n in range(4)]
    assert explained(values, properties)[0, 0] == pytest.approx(expected, abs=1e-6)


def test_without_properties_nothing_is_explained():
    assert explained(np.zeros((1, 5, 3), np.float32), {}).shape == (0, 1, 3)
