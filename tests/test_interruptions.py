"""A Model that uses worker threads works after signals, forks and copies, and with several calling threads."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from fastlstm import Model
from fastlstm.kernels import network
from fastlstm.params import Parameters

TEXT = "so it goes, and so it went; and where it went nobody knows. " * 20


@pytest.fixture
def shared(monkeypatch):
    """A small model whose networks use two workers."""
    monkeypatch.setattr(network, "SMALLEST_SHARED_STEP", 0)
    return Model.for_text(TEXT, hidden=16, embedding=4)


class InterruptionError(Exception):
    """Replaces KeyboardInterrupt, which pytest would handle itself."""


class Interrupting:
    """A queue whose writing is interrupted by a signal."""

    def put(self, job):
        raise InterruptionError


@pytest.mark.parametrize("begun", [0, 1])
def test_an_interruption_before_all_workers_have_begun_cancels_the_call_for_the_others(shared, begun):
    x, net = np.zeros((20, 6), np.int32), network.FastNetwork(shared.config, 20, 6, 3)
    net.workers.adaptive = False
    expected = net.forward(shared.parameters, x, x, shared.zero_state(6))
    helper = net.workers._helpers[begun]
    queue, helper.jobs = helper.jobs, Interrupting()
    with pytest.raises(InterruptionError):
        net.forward(shared.parameters, x, x, shared.zero_state(6))
    helper.jobs = queue
    for _ in range(3):
        assert net.forward(shared.parameters, x, x, shared.zero_state(6)) == expected


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there is no timer here that sends signals")
def test_a_network_is_usable_after_signals_at_any_instant(shared):
    ids = shared.encode(TEXT)[:121].astype(np.int32)
    x, y = ids[:-1].reshape(20, 6), ids[1:].reshape(20, 6)
    lent = network.FastNetwork(shared.config, 20, 6, 2)
    lent.workers.adaptive = False

    def nats():
        return lent.forward(shared.parameters, x, y, shared.zero_state(6))

    expected, caught = nats(), 0

    def interrupt(*_):
        raise InterruptionError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(300):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + 2e-7 * n)
                nats()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except InterruptionError:
                caught += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert caught > 10
    assert nats() == expected


def test_several_calling_threads_get_correct_results(shared):
    expected = shared.evaluate(TEXT).nats_per_char
    found = []

    def evaluate():
        found.extend(shared.evaluate(TEXT).nats_per_char for _ in range(5))

    callers = [threading.Thread(target=evaluate) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [expected] * 15


FORK = """
import os, sys
from fastlstm import Model
from fastlstm.kernels import network
network.SMALLEST_SHARED_STEP = 0
text = "so it goes, and so it went. " * 20
model = Model.for_text(text, hidden=16, embedding=4)
expected = model.evaluate(text, threads=2)
child = os.fork()
if child == 0:
    os._exit(0 if model.evaluate(text, threads=2) == expected else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_gets_separate_workers():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=120)


FORK_DURING_A_CALL = """
import os, sys, threading, time
import numpy as np
from fastlstm import ModelConfig
from fastlstm.kernels.network import FastNetwork
from fastlstm.params import initialise
config = ModelConfig(20, hidden=256, embedding=64)
parameters, state = initialise(config, np.random.default_rng(0)), np.zeros(config.state_shape(16), np.float32)
net, x = FastNetwork(config, 256, 16, 2), np.zeros((256, 16), np.int32)
net.workers.adaptive = False
expected = net.forward(parameters, x, x, state.copy())
def work():
    for _ in range(20):
        net.forward(parameters, x, x, state.copy())
busy = threading.Thread(target=work)
busy.start()
for n in range(10):
    time.sleep(0.003 * n)  # a different instant of a call each time
    child = os.fork()
    if child == 0:
        os._exit(0 if net.forward(parameters, x, x, state.copy()) == expected else 3)
    if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit(status)
busy.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_forked_during_a_call_resets_the_counters():
    """In the child's copy of the memory, the lock of the other thread is held, and its arrivals are counted."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK_DURING_A_CALL], check=True, timeout=120)


def test_calls_of_one_network_run_one_at_a_time(shared):
    x, net = np.zeros((20, 6), np.int32), network.FastNetwork(shared.config, 20, 6, 2)
    expected = net.forward(shared.parameters, x, x, shared.zero_state(6))
    found = []

    def call():
        found.extend(net.forward(shared.parameters, x, x, shared.zero_state(6)) for _ in range(200))

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [expected] * 800


def test_a_backward_pass_needs_a_forward_pass_in_the_same_thread(shared):
    x, net = np.zeros((20, 6), np.int32), network.FastNetwork(shared.config, 20, 6, 1)
    other = threading.Thread(target=net.forward, args=(shared.parameters, x, x, shared.zero_state(6)))
    other.start()
    other.join()
    with pytest.raises(RuntimeError, match="in the same thread"):
        net.backward(shared.parameters, 1.0, Parameters(shared.config))


def test_a_used_model_can_be_copied_and_pickled(shared):
    expected = shared.evaluate(TEXT, threads=2)
    for other in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        assert other.evaluate(TEXT, threads=2) == expected
        assert other.parameters["output.b"].base is not shared.parameters.flat
