"""Training and sampling in float32 give the same bits on every machine."""

import sys

import pytest
from bits import RUNS, UNITS, Machine, differences, hashes, here, named, supported

from fastlstm.kernels import jit
from fastlstm.kernels.host import multiply_add

pytestmark = pytest.mark.skipif(
    jit.DISABLED or multiply_add() == "fast", reason="the bits are those of compiled kernels that round once"
)

#: Hashes of some of `RUNS` on every machine. A change of the arithmetic changes them, and then this.
PINNED = {
    "lstm": {"parameters": "b1c042de", "slots": "a925ad6c", "nats": "17ff22f5", "samples": "4c28a8cc"},
    "lstm-escape": {"parameters": "0190d14a", "slots": "3b2a24f4", "nats": "b618047b", "samples": "7e603737"},
}


@pytest.mark.parametrize("name", PINNED)
def test_a_run_gives_the_very_bits_that_it_gives_everywhere(name):
    assert hashes(RUNS[name], threads=2) == PINNED[name]


@pytest.mark.slow  # it compiles all kernels for other units
@pytest.mark.parametrize("unit", UNITS)
def test_another_vector_unit_gives_the_same_bits(unit):
    if unit not in supported():
        pytest.skip("this machine cannot stand for it")
    there = Machine(sys.executable, UNITS[unit]).hashes(RUNS)
    assert differences(named("this one", here(RUNS)) | named(unit, there)) == []


def test_a_difference_is_found():
    """A negative control: one kind of one run, on one machine."""
    same = {"rnn": {"nats": "1", "slots": "2"}, "gru": {"nats": "3", "slots": "4"}}
    other = same | {"gru": {"nats": "3", "slots": "5"}}
    assert differences({"a": same, "b": same}) == []
    assert differences({"a": same, "b": same, "c": other}) == ["slots of gru"]
