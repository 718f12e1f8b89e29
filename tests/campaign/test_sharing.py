"""A model used by several threads, processes and copies at the same time."""

import copy
import multiprocessing
import os
import pickle
import threading
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
from forks import fork, status_of
from harness import LONGEST_WAIT, Outcome, part, require
from subjects import KINDS, SHORT_RUN, TEXT, fresh_model

from fastlstm import Model

#: Number of units from which two workers share even the time step of a single lane.
HIDDEN = 96


def evaluate(model):
    return model.evaluate(TEXT[:400], threads=2).nats_per_char


def sample(model):
    return model.sample("so it", 30, threads=2)


def loss_and_grads(model):
    ids = np.random.default_rng(1).integers(5, size=(6, 8))
    loss, gradients, _ = model.loss_and_grads(ids, ids, threads=2)
    return loss, gradients.flat.tobytes()


USES = (evaluate, sample, loss_and_grads)


@part("threads of the caller", full=40, small=2)
def test_eight_threads_may_use_one_model_at_once(trials):
    """Every thread gets the same bits as a single thread."""
    trials.run(use_by_threads)


def use_by_threads(trial):
    model = fresh_model(trial.number % len(KINDS), HIDDEN)
    rng = trial.generator()
    expected = {use: use(model) for use in USES}
    plans = [[USES[n] for n in rng.integers(len(USES), size=4)] for _ in range(8)]
    differing = []

    def work(plan):
        differing.extend(use.__name__ for use in plan if use(model) != expected[use])

    threads = [threading.Thread(target=work, args=[plan], daemon=True) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST_WAIT)
    require(not any(thread.is_alive() for thread in threads), Outcome.HANG, "a thread does not end")
    require(not differing, Outcome.WRONG, f"other results: {differing}")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@part("forks", full=20, small=2, seconds=20)
def test_a_fork_at_any_instant_can_use_the_model(trials):
    """A forked process and its parent get the same bits, also when another thread is inside a call during the fork."""
    trials.run(fork_and_use)


def fork_and_use(trial):
    model = fresh_model(trial.number % len(KINDS), HIDDEN)
    expected = evaluate(model)
    over = threading.Event()

    def keep_using():
        while not over.is_set():
            evaluate(model)

    other = threading.Thread(target=keep_using, daemon=True)
    if trial.number % 2:
        other.start()
        time.sleep(0.01 * trial.generator().random())
    try:
        status = status_of(fork(lambda: int(evaluate(model) != expected)))
        require(status >= 0, Outcome.CRASH, f"the child ended with {status}")
        require(status == 0, Outcome.WRONG, "the child gets another result, or an error")
        require(evaluate(model) == expected, Outcome.WRONG, "the parent gets another result")
    finally:
        over.set()
        if other.ident:
            other.join()


def unpickled_out_of_band(model):
    buffers = []
    data = pickle.dumps(model, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


COPIES = (
    copy.deepcopy,
    unpickled_out_of_band,
    *(lambda model, n=n: pickle.loads(pickle.dumps(model, protocol=n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
)


@part("copies that train on", full=40, small=8)
def test_a_copy_that_trains_on_is_saved_as_it_is(trials):
    """A copied or unpickled model is trained further; its file equals its memory, and the original is unchanged."""
    trials.run(copy_and_train)


def copy_and_train(trial):
    model = fresh_model(trial.number % len(KINDS))
    before = model.parameters.flat.tobytes()
    other = COPIES[trial.number % len(COPIES)](model)
    other.fit(TEXT, SHORT_RUN)
    require_same_when_loaded(other, trial.folder)
    require(other.parameters.flat.tobytes() != before, Outcome.WRONG, "the copy has not been trained")
    require(model.parameters.flat.tobytes() == before, Outcome.WRONG, "training the copy has changed the original")


def require_same_when_loaded(model, folder):
    model.save(folder / "model.safetensors")
    loaded = Model.load(folder / "model.safetensors")
    require(evaluate(loaded) == evaluate(model), Outcome.WRONG, "the file holds another model than the memory")


@part("process pools", full=3, small=0, seconds=120)
def test_a_model_may_be_trained_in_a_process_pool(trials):
    """A model that is passed to the pool and returned behaves like any other."""
    trials.run(train_in_a_pool)


def train_in_a_pool(trial):
    model = fresh_model(trial.number % len(KINDS))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        trained = pool.submit(trained_on, model).result()
    require_same_when_loaded(trained, trial.folder)
    trained.fit(TEXT, SHORT_RUN)
    require_same_when_loaded(trained, trial.folder)


def trained_on(model):
    model.fit(TEXT, SHORT_RUN)
    return model
