"""The range coder: symbols come back, one at a time or many, and none is free."""

import sys

import numpy as np
import pytest

from fastlstm.errors import FastlstmError
from fastlstm.range_coder import RangeDecoder, RangeEncoder, most_symbols


def distributions(rng, count, symbols):
    p = rng.random((count, symbols)).astype(np.float32) ** 8
    return p / p.sum(axis=1, keepdims=True)


def test_symbols_come_back_in_groups_of_any_size(rng):
    p, symbols = distributions(rng, 60, 7), rng.integers(8, size=60)  # the last choice has no probability
    encoder = RangeEncoder(8)
    encoder.encode(symbols[:20], p[:20])
    encoder.encode(symbols[20:], p[20:])
    encoder.encode_uniform(np.array([0, 1_000_000, 5]), 1_114_000)
    decoder = RangeDecoder(encoder.code(), 8)
    found = [decoder.decode(p[n : n + 3]) for n in range(0, 60, 3)]
    assert np.array_equal(np.concatenate(found), symbols)
    assert decoder.decode_uniform(3, 1_114_000).tolist() == [0, 1_000_000, 5]


def test_the_code_is_as_long_as_the_probabilities_demand(rng):
    p = distributions(rng, 3000, 50)
    symbols = np.array([rng.choice(50, p=row.astype(float) / row.sum(dtype=float)) for row in p])
    encoder = RangeEncoder(50)
    encoder.encode(symbols, p)
    bits = -np.log2(p[np.arange(3000), symbols]).sum()
    # What the uniform share costs, at most log2(1 / (1 - 2**-12)) bits a symbol, and 64 bits at the end.
    assert 8 * len(encoder.code()) <= bits + 3000 * 3.6e-4 + 64


@pytest.mark.parametrize("choices", [2, 5, 300, 5000])
def test_no_code_is_shorter_than_the_bound_on_its_symbols(choices):
    """Even a symbol that is certain takes a little: it bounds what a short file can demand."""
    count = 200_000 if choices < 10 else 2_000
    p = np.zeros((count, choices), np.float32)
    p[:, 1] = 1
    encoder = RangeEncoder(choices)
    encoder.encode(np.ones(count, np.int32), p)
    assert count <= most_symbols(len(encoder.code()))
    assert most_symbols(1000) < 100_000_000


def test_what_no_encoder_writes_is_an_error(rng):
    p = np.tile(distributions(rng, 50, 7), (20, 1))
    with pytest.raises(ValueError, match="invalid"):
        RangeDecoder(b"\xff" * 12, 7).decode(p)
    with pytest.raises(ValueError, match="NaN"):
        RangeDecoder(b"", 7).decode(p * np.float32(np.nan))


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(FastlstmError, match=r"^compressing files needs constriction.*: pip install 'fastlstm\[compr"):
        RangeEncoder(2)
