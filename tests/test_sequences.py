"""Time and lanes: three chunks equal one sequence, and B lanes equal B single runs, on both backends."""

import numpy as np
import pytest
from problems import problem

from fastlstm.backend import build
from fastlstm.cells import CELLS
from fastlstm.params import Parameters

both = pytest.mark.parametrize(
    ("cell", "backend"), [(cell, backend) for cell in CELLS for backend in ("fast", "reference")]
)

# The same products in another grouping: the difference is a few hundred roundings of float64.
EXACT = {"rtol": 0, "atol": 1e-12}


def run(p, backend, net=None):
    """Loss, state carried out and gradients of one forward and backward pass."""
    net = net or build(backend, p.config, p.seq_len, p.batch, 1)
    state, gradients = p.state.copy(), Parameters(p.config)
    loss = net.forward(p.parameters, p.x, p.y, state)
    net.backward(p.parameters, 1.0, gradients)
    return loss, state, gradients


def chunks(p, backend, net=None):
    """The results of `run` for three equal chunks, each from the state that the previous one carried out."""
    results, size = [], p.seq_len // 3
    for n in range(3):
        steps = slice(n * size, (n + 1) * size)
        results.append(run(p._replace(x=p.x[steps].copy(), y=p.y[steps].copy()), backend, net))
        p = p._replace(state=results[-1][1])
    return results


@both
def test_three_chunks_are_one_sequence(cell, backend, rng):
    p = problem(rng, cell, layers=2, seq_len=12, batch=3)
    loss, state, _ = run(p, backend)
    parts = chunks(p, backend)
    assert sum(part[0] for part in parts) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(parts[-1][1], state, **EXACT)


@both
def test_a_chunk_without_its_state_is_another_sequence(cell, backend, rng):
    """Negative control: with the state reset between chunks, losses and state differ visibly."""
    p = problem(rng, cell, layers=2, seq_len=12, batch=3)
    tail = p._replace(x=p.x[8:].copy(), y=p.y[8:].copy(), state=np.zeros_like(p.state))
    last_loss, last_state, _ = chunks(p, backend)[-1]
    loss, state, _ = run(tail, backend)
    assert abs(loss - last_loss) > 1e-3
    assert np.abs(state - last_state).max() > 1e-3


@both
def test_a_chunks_gradient_does_not_depend_on_other_chunks(cell, backend, rng):
    """One network that runs chunk after chunk leaks nothing from one into the next, and gradients are truncated.

    A new network for each chunk gives the same gradients. Their sum is not the gradient of the whole sequence, because
    nothing flows back through the carried state.
    """
    p = problem(rng, cell, layers=2, seq_len=12, batch=3)
    reused = chunks(p, backend, build(backend, p.config, 4, 3, 1))
    fresh = chunks(p, backend)
    for (_, _, found), (_, _, expected) in zip(reused, fresh, strict=True):
        assert np.array_equal(found.flat, expected.flat)
    whole, truncated = run(p, backend)[2], sum(part[2].flat for part in fresh)
    assert np.abs(truncated - whole.flat).max() > 1e-2
    # The output layer has no state, so truncation does not change its gradient.
    output = sum(part[2]["output.W"] for part in fresh)
    np.testing.assert_allclose(output, whole["output.W"], **EXACT)


@both
def test_truncation_cuts_the_carried_state_only(cell, backend, rng):
    """The last chunk's gradient is that of its loss with the carried-in state held fixed."""
    p = problem(rng, cell, seq_len=12, batch=2)
    state_in = chunks(p, backend)[1][1]
    last = p._replace(x=p.x[8:].copy(), y=p.y[8:].copy(), state=state_in)
    net = build(backend, p.config, 4, 2, 1)
    direction = rng.standard_normal(p.parameters.flat.size)
    direction /= np.linalg.norm(direction)

    def loss(h):
        shifted = Parameters(p.config, p.parameters.flat + h * direction)
        return net.forward(shifted, last.x, last.y, last.state.copy())

    h = 1e-5
    numeric = (loss(h) - loss(-h)) / (2 * h)
    # The truncation error h**2 and the rounding error 1e-16 * 20 / h are both about 1e-10.
    assert run(last, backend)[2].flat @ direction == pytest.approx(numeric, abs=1e-8)


@both
def test_lanes_are_single_runs(cell, backend, rng):
    p = problem(rng, cell, layers=2, batch=7)
    loss, state, gradients = run(p, backend)
    lanes = [
        run(
            p._replace(x=p.x[:, b : b + 1].copy(), y=p.y[:, b : b + 1].copy(), state=p.state[:, :, b : b + 1].copy()),
            backend,
        )
        for b in range(7)
    ]
    assert sum(lane[0] for lane in lanes) == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(np.concatenate([lane[1] for lane in lanes], axis=2), state, **EXACT)
    np.testing.assert_allclose(sum(lane[2].flat for lane in lanes), gradients.flat, **EXACT)
