"""Workers run together, wait for each other, never hang, and change nothing in the result, to the last bit."""

import threading

import numpy as np
import pytest
from problems import problem

from fastlstm.kernels import jit
from fastlstm.kernels.network import FastNetwork
from fastlstm.kernels.sync import ALL_WORKERS, atomic_add, atomic_load, barrier
from fastlstm.kernels.tile import ROWS
from fastlstm.kernels.workers import Workers
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters


@jit.kernel
def meet(sync, arrivals, early, workers, rounds):
    """Arrive and meet, ``rounds`` times; ``early`` counts who was let through before all had arrived."""
    for n in range(rounds):
        atomic_add(arrivals, 0, 1)
        barrier(sync, ALL_WORKERS, workers)
        if atomic_load(arrivals, 0) < (n + 1) * workers:
            atomic_add(early, 0, 1)
        barrier(sync, ALL_WORKERS, workers)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_a_barrier_lets_nobody_through_early_and_never_hangs(count):
    """Eight workers are more than the cores of many machines: they offer their cores to each other."""
    rounds = 300
    sync, arrivals, early = np.zeros(64, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64)
    workers = Workers(count, sync)
    run = threading.Thread(
        target=workers.run, args=(lambda worker: meet(sync, arrivals, early, count, rounds),), daemon=True
    )
    run.start()
    run.join(timeout=100)
    assert not run.is_alive(), f"hangs after {arrivals[0]} arrivals"
    assert arrivals[0] == rounds * count
    assert early[0] == 0


def test_every_worker_runs_once_a_call_and_the_first_one_answers():
    workers, everybody = Workers(4, np.zeros(64, np.int64)), threading.Barrier(4, timeout=60)
    seen = []

    def call(worker):
        seen.append((worker, threading.get_ident()))
        everybody.wait()
        return f"answer of {worker}"

    for _ in range(3):
        seen.clear()
        assert workers.run(call) == "answer of 0"
        assert sorted(worker for worker, _ in seen) == [0, 1, 2, 3]
        assert len({thread for _, thread in seen}) == 4
        assert (0, threading.get_ident()) in seen


def test_workers_leave_when_nobody_needs_them():
    def threads():
        return {thread for thread in threading.enumerate() if thread.name.startswith("fastlstm-")}

    before = threads()
    workers = Workers(3, np.zeros(64, np.int64))
    made = threads() - before
    assert len(made) == 2
    del workers
    for thread in made:
        thread.join(timeout=60)
        assert not thread.is_alive()


def trained(p, threads):
    """Losses, parameters, slots and state after 200 steps, as bytes."""
    parameters = Parameters(p.config, p.parameters.flat.copy())
    gradients, slots = Parameters(p.config), Parameters(p.config)
    net, state = FastNetwork(p.config, p.seq_len, p.batch, threads), p.state.copy()
    assert net.workers.count == threads
    losses = [
        net.train_step(parameters, gradients, slots, p.x, p.y, state, 1 / p.x.size, UpdateRule(0.05, clip_norm=0.5))
        for _ in range(200)
    ]
    assert losses[-1] < losses[0]
    return np.array(losses).tobytes(), parameters.flat.tobytes(), slots.flat.tobytes(), state.tobytes()


#: Lanes: enough for teams of one worker each, which meet between phases; for four workers in two teams; and so few
#: that all workers are one team, which meets at every time step and shares the units.
LANES = {"many": 26, "some": 3 * ROWS, "few": 2, "one": 1}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("cell", ["lstm", "rnn"])
def test_training_is_the_same_for_any_number_of_workers(cell, lanes, dtype, rng, monkeypatch):
    monkeypatch.setattr("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0)
    p = problem(rng, cell, layers=2, hidden=37, vocab=30, seq_len=6, batch=LANES[lanes], dtype=dtype)
    alone = trained(p, 1)
    assert trained(p, 1) == alone
    for threads in (2, 4, 5):
        assert trained(p, threads) == alone
    # Once more: which worker takes which task differs from run to run.
    assert trained(p, 4) == alone


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("lanes", LANES)
def test_a_drawn_text_is_the_same_for_any_number_of_workers(lanes, table, rng, monkeypatch):
    monkeypatch.setattr("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0)
    monkeypatch.setattr("fastlstm.kernels.plan.LARGEST_TABLE", 1 << 22 if table else 0)
    p = problem(rng, "lstm", layers=3, hidden=37, vocab=50, batch=LANES[lanes], dtype="float32")
    uniforms = rng.random((30, p.batch))

    def drawn(threads):
        net, state = FastNetwork(p.config, 1, p.batch, threads, training=False), p.state.copy()
        assert net.plan.all_symbols == table
        found = [net.generate(p.parameters, p.x[0], state, part, 1.0).tobytes() for part in (uniforms, uniforms[:1])]
        return found, state.tobytes()

    alone = drawn(1)
    for threads in (2, 3, 4):
        assert drawn(threads) == alone


def test_small_steps_are_not_shared(rng):
    """One worker does what would take longer to share."""
    p = problem(rng, "lstm", hidden=16, batch=1)
    assert FastNetwork(p.config, p.seq_len, p.batch, 4).workers.count == 1
