"""The state of a run: one value that is copied and compared bit for bit, and changed in place by steps."""

import math

import numpy as np
import pytest
from runs_to_resume import VOCAB, model_config, run_config, steps_of, untrained

from fastlstm.errors import ConfigError
from fastlstm.params import Parameters, initialise
from fastlstm.run_state import RunState


@pytest.fixture
def state(rng):
    """A state in the middle of a run."""
    state = RunState.start(initialise(model_config(), rng), batch=3, slots=2)
    for array in (state.slots, state.carried):
        array[...] = rng.standard_normal(array.shape)
    state.step, state.cursor, state.loss, state.seconds = 7, 56, 1.25, 0.1 + 0.2
    state.smooth(0.9)
    state.val_nats, state.val_error, state.val_step = 1.5, 0.25, 5
    state.best_nats, state.best_step, state.worse, state.stalled = 1.25, 4, 2, 1
    state.rate_factor, state.recoveries = 0.5, 1
    return state


def differences(state):
    """For each part of a state, a copy in which only that part is changed."""
    for name in state.arrays():
        other = state.copy()
        other.arrays()[name].flat[-1] = np.nan
        yield name, other
    for name, value in state.scalars().items():
        other = state.copy()
        setattr(other, name, math.nextafter(value, math.inf) if isinstance(value, float) else value + 1)
        yield name, other


def test_states_differ_when_a_bit_differs(state, rng):
    assert state == state.copy()
    assert len(list(differences(state))) == 18
    for name, other in differences(state):
        assert other != state, name
        assert other == other.copy(), name
    state.loss, other = 0.0, state.copy()
    other.loss = -0.0
    assert other != state
    assert state != 1
    deeper = RunState.start(Parameters(model_config(layers=3)), 3, 2)
    assert deeper != RunState.start(Parameters(model_config()), 3, 2)
    assert RunState.start(Parameters(model_config()), 3, 1) != RunState.start(Parameters(model_config()), 3, 2)


def test_a_copy_shares_nothing(state):
    copy, before = state.copy(), state.copy()
    for array in copy.arrays().values():
        array += 1
    copy.smooth(0.5)
    assert state == before
    assert copy.parameters["output.b"].tobytes() == copy.parameters.flat[-len(VOCAB) :].tobytes()


@pytest.mark.parametrize("start", [None, 2.0])
def test_steps_change_a_state_in_place(start):
    """So the loop allocates nothing, and trains a model's own parameters."""
    config, model = run_config(), untrained("lstm").content
    state = RunState.start(model.parameters, config.batch, 1, start)
    assert state.smoothed_loss == start
    before = {name: (array, array.copy()) for name, array in state.arrays().items()}
    steps_of(model.config, config).take(state)
    for name, array in state.arrays().items():
        assert array is before[name][0]
        assert array.tobytes() != before[name][1].tobytes()
    assert state.arrays()["parameters"] is model.parameters.flat
    assert (state.step, state.cursor) == (1, config.seq_len)
    assert state.smoothed_loss == pytest.approx(state.loss if start is None else 0.9 * start + 0.1 * state.loss)


def test_a_state_of_other_lanes_is_refused(state):
    state.cursor = 10**6
    with pytest.raises(ConfigError, match="resume with the same text"):
        steps_of(state.parameters.config, run_config()).take(state)
