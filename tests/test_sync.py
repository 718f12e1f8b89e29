"""Workers run together, wait for each other, never hang, and do not change any bit of a result."""

import queue
import threading
import time

import numpy as np
import pytest
from problems import problem

from fastlstm.cells import CELLS
from fastlstm.drawing import Drawing
from fastlstm.kernels import jit
from fastlstm.kernels.network import FastNetwork
from fastlstm.kernels.sync import (
    ALL_WORKERS,
    FIRST_TEAM,
    atomic_add,
    atomic_load,
    barrier,
    meet,
    prepare_sync,
)
from fastlstm.kernels.tile.shape import ROWS
from fastlstm.kernels.workers import Workers
from fastlstm.optimizers import UpdateRule
from fastlstm.params import Parameters


@jit.kernel
def rally(call, seat, wanted, patience, sync, arrivals, early, rounds):
    """Meet at a barrier ``rounds`` times; ``early`` counts workers that passed it before all had arrived."""
    worker, workers = meet(sync, call, seat, wanted, patience)
    if worker >= 0:
        for n in range(rounds):
            atomic_add(arrivals, 0, 1)
            barrier(sync, ALL_WORKERS, workers)
            if atomic_load(arrivals, 0) < (n + 1) * workers:
                atomic_add(early, 0, 1)
            barrier(sync, ALL_WORKERS, workers)
    return worker


def counters():
    return np.zeros(FIRST_TEAM, np.int64)


def all_of(count):
    """Workers that all take part in every call."""
    workers = Workers(count, counters())
    workers.adaptive = False
    return workers


@pytest.mark.parametrize("count", [1, 2, 8])
def test_no_worker_passes_a_barrier_early_and_none_hangs(count):
    """Many machines have fewer than eight cores: the workers then sleep and wake each other."""
    rounds = 300
    arrivals, early = np.zeros(1, np.int64), np.zeros(1, np.int64)
    workers = all_of(count)
    run = threading.Thread(
        target=workers.run, args=(lambda *call: rally(*call, workers.sync, arrivals, early, rounds),), daemon=True
    )
    run.start()
    run.join(timeout=100)
    assert not run.is_alive(), f"hangs after {arrivals[0]} arrivals"
    assert arrivals[0] == rounds * count
    assert early[0] == 0


def test_every_worker_runs_once_per_call_and_the_result_is_that_of_worker_0():
    workers, everybody = all_of(4), threading.Barrier(4, timeout=60)
    seen = []

    def call(number, seat, *_):
        seen.append((seat, threading.get_ident()))
        everybody.wait()
        return f"answer of {seat}"

    for _ in range(3):
        seen.clear()
        assert workers.run(call) == "answer of 0"
        assert sorted(seat for seat, _ in seen) == [0, 1, 2, 3]
        assert len({thread for _, thread in seen}) == 4
        assert (0, threading.get_ident()) in seen


def helpers():
    return {thread for thread in threading.enumerate() if thread.name.startswith("fastlstm-")}


def rallied(workers):
    """How many workers took part in a call."""
    arrivals, early = np.zeros(1, np.int64), np.zeros(1, np.int64)
    assert workers.run(lambda *call: rally(*call, workers.sync, arrivals, early, 3)) == 0
    assert early[0] == 0
    return arrivals[0] // 3


def test_worker_threads_end_when_their_workers_object_is_deleted():
    before = helpers()
    workers = all_of(3)
    assert rallied(workers) == 3
    made = helpers() - before
    assert len(made) == 2
    del workers
    for thread in made:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_a_call_proceeds_without_a_failed_helper_and_the_next_call_has_a_new_one():
    workers, arrivals, early = all_of(3), np.zeros(1, np.int64), np.zeros(1, np.int64)
    assert rallied(workers) == 3
    failed = threading.Event()

    def call(number, seat, wanted, patience):
        if seat == 1:
            failed.set()
            raise MemoryError
        return rally(number, seat, wanted, patience, workers.sync, arrivals, early, 5)

    run = threading.Thread(target=workers.run, args=(call,), daemon=True)
    run.start()
    run.join(timeout=60)
    assert not run.is_alive(), "the caller waits for ever"
    assert failed.is_set()
    assert (arrivals[0], early[0]) == (5 * 2, 0)
    workers._helpers[0].thread.join(timeout=60)
    assert rallied(workers) == 3


def test_an_error_in_the_caller_releases_helpers_that_have_joined():
    workers, arrivals = all_of(2), np.zeros(2, np.int64)
    assert rallied(workers) == 2
    joined, left = threading.Event(), queue.SimpleQueue()

    def call(number, seat, wanted, patience):
        if seat == 0:
            assert joined.wait(60)
            raise MemoryError
        joined.set()
        left.put(rally(number, seat, wanted, patience, workers.sync, arrivals, arrivals[1:], 1))

    with pytest.raises(MemoryError):
        workers.run(call)
    assert left.get(timeout=60) == -1
    assert not arrivals.any()
    assert rallied(workers) == 2


def test_a_late_helper_does_not_take_part_in_a_later_call():
    sync, none = counters(), np.zeros(2, np.int64)
    prepare_sync(sync)
    assert rally(8, 0, 2, 1000, sync, none, none[1:], 1) == 0  # the caller waits a microsecond and proceeds alone
    for number in (6, 8):
        assert rally(number, 1, 2, 10**9, sync, none, none[1:], 1) == -1
    assert none[0] == 1


@pytest.mark.parametrize("error", [RuntimeError, MemoryError])
def test_a_thread_that_cannot_be_started_leaks_none_of_the_others(error, monkeypatch):
    before, start = helpers(), threading.Thread.start

    def fail(thread):
        if thread.name == "fastlstm-2":
            raise error("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail)
    if error is RuntimeError:
        workers = all_of(4)
        assert rallied(workers) == 2  # as many as the system allows
        monkeypatch.setattr(threading.Thread, "start", start)
        assert rallied(workers) == 4
        made = helpers() - before
        del workers
    else:
        with pytest.raises(MemoryError):
            all_of(4)
        made = helpers() - before
    for thread in made:
        thread.join(timeout=60)
    assert not helpers() - before


def test_a_worker_that_waits_long_sleeps():
    """Half a second of waiting uses at most a tenth of that in processor time."""
    workers, none = all_of(2), np.zeros(2, np.int64)
    assert rallied(workers) == 2

    def call(number, seat, wanted, patience):
        if seat == 0:
            time.sleep(0.5)
        return rally(number, seat, wanted, patience, workers.sync, none, none[1:], 1)

    started = time.process_time()
    workers.run(call)
    assert none[0] == 2
    assert time.process_time() - started < 0.05


def trained(p, threads):
    """Losses, parameters, slots and state after 200 steps, as bytes."""
    parameters = Parameters(p.config, p.parameters.flat.copy())
    rule = UpdateRule(0.05, clip_norm=0.5)
    gradients, slots = Parameters(p.config), p.slots(rule)
    net, state = FastNetwork(p.config, p.seq_len, p.batch, threads), p.state.copy()
    assert net.workers.count == threads
    net.workers.adaptive = False
    steps = [net.train_step(parameters, gradients, slots, p.x, p.y, state, 1 / p.x.size, rule) for _ in range(200)]
    losses = [step.nats for step in steps]
    assert losses[-1] < losses[0]
    return np.array(losses).tobytes(), parameters.flat.tobytes(), slots.tobytes(), state.tobytes()


#: Lanes: enough for teams of one worker each, which synchronise only between phases; for four workers in two teams; and
#: so few that all workers form one team, which synchronises at every time step and splits the units.
LANES = {"many": 26, "some": 3 * ROWS, "few": 2, "one": 1}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("cell", CELLS)
def test_training_is_the_same_for_any_number_of_workers(cell, lanes, dtype, rng, monkeypatch):
    monkeypatch.setattr("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0)
    p = problem(rng, cell, layers=2, hidden=37, vocab=30, seq_len=6, batch=LANES[lanes], dtype=dtype)
    alone = trained(p, 1)
    assert trained(p, 1) == alone
    for threads in (2, 4, 5):
        assert trained(p, threads) == alone
    # A second run, because the assignment of tasks to workers differs from run to run.
    assert trained(p, 4) == alone


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("lanes", LANES)
def test_a_drawn_text_is_the_same_for_any_number_of_workers(lanes, table, rng, monkeypatch):
    monkeypatch.setattr("fastlstm.kernels.network.SMALLEST_SHARED_STEP", 0)
    monkeypatch.setattr("fastlstm.kernels.workspace.LARGEST_TABLE", 1 << 22 if table else 0)
    p = problem(rng, "lstm", layers=3, hidden=37, vocab=50, batch=LANES[lanes], dtype="float32")
    uniforms = rng.random((30, p.batch))

    def drawn(threads):
        net, state = FastNetwork(p.config, 1, p.batch, threads, training=False), p.state.copy()
        assert net.plan.all_symbols == table
        net.workers.adaptive = False
        found = [
            net.generate(p.parameters, p.x[0], state, part, Drawing()).tobytes() for part in (uniforms, uniforms[:1])
        ]
        return found, state.tobytes()

    alone = drawn(1)
    for threads in (2, 3, 4):
        assert drawn(threads) == alone


def test_small_steps_are_not_shared(rng):
    """One worker computes steps that would take longer if they were shared."""
    p = problem(rng, "lstm", hidden=16, batch=1)
    assert FastNetwork(p.config, p.seq_len, p.batch, 4).workers.count == 1
