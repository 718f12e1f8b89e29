"""The number of workers is adapted to the times of calls: on simulated machines, with a simulated clock."""

import numpy as np
import pytest

from fastlstm.kernels.pacing import Pacing


class Machine:
    """A simulated machine; ``seconds`` gives the time of a call for a number of workers at a time of the clock."""

    def __init__(self, seconds, most=2, cores=2):
        self.seconds, self.pacing = seconds, Pacing(most, cores)
        self.clock, self.calls, self.used = 0.0, 0, {}

    def run(self, duration):
        """Calls per second, over about ``duration`` seconds."""
        end, calls, started = self.clock + duration, self.calls, self.clock
        while self.clock < end:
            workers = self.pacing.workers
            taken = self.seconds(workers, self.clock)
            self.pacing.record(taken)
            self.clock, self.calls = self.clock + taken, self.calls + 1
            self.used[workers] = self.used.get(workers, 0.0) + taken
        return (self.calls - calls) / (self.clock - started)


#: Seconds of a call on an idle machine with two workers: for one lane, for many lanes, for a large network.
STEPS = [0.0002, 0.0008, 0.01, 0.08]


def idle(step, rng):
    """Two cores, no competitor: a second worker gives a factor of 1.95, further ones slow calls down."""
    return lambda workers, clock: {1: 1.95, 2: 1.0}.get(workers, 3.0) * step * np.exp(0.03 * rng.standard_normal())


def contended(step, rng, stall=0.006):
    """A competitor uses one core: while it runs there, both workers wait; a single worker is not disturbed."""

    def seconds(workers, clock):
        alone = 1.95 * step * np.exp(0.05 * rng.standard_normal())
        return alone if workers == 1 else step + stall * rng.poisson(step / 0.002) + stall * (rng.random() < 0.5)

    return seconds


@pytest.mark.parametrize("step", STEPS)
def test_trials_cost_less_than_a_hundredth_of_the_time_of_an_idle_machine(step, rng):
    machine = Machine(idle(step, rng))
    assert machine.run(60) > 0.99 / step / np.exp(0.03**2 / 2)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("stall", [0.006, 0.05])
def test_calls_on_a_busy_machine_are_as_fast_as_with_one_worker_or_faster(step, stall, rng):
    machine = Machine(contended(step, rng, stall))
    machine.run(5)
    one = 1 / (1.95 * step)
    assert machine.run(60) > 0.95 * one


@pytest.mark.parametrize("step", STEPS)
def test_the_number_of_workers_follows_a_competitor_that_comes_and_goes(step, rng):
    alone, together = idle(step, rng), contended(step, rng)
    machine = Machine(lambda *call: (together if 20 <= machine.clock < 40 else alone)(*call))
    machine.run(20)
    machine.run(10)
    assert machine.run(10) > 0.9 / (1.95 * step)
    machine.run(60)
    assert machine.run(60) > 0.98 / step


@pytest.mark.parametrize("step", STEPS[:2])
@pytest.mark.parametrize("disturbed", [0.02, 0.3, 1.2])
def test_after_a_disturbed_start_all_workers_are_soon_used(step, disturbed, rng):
    """Threads that start on the same core, a program that is about to end: the second worker is used soon after."""
    alone, together = idle(step, rng), contended(step, rng)
    machine = Machine(lambda *call: (together if machine.clock < disturbed else alone)(*call))
    machine.run(disturbed + 1.5)
    assert machine.run(1) > 0.95 / step


@pytest.mark.parametrize("step", STEPS[:2])
@pytest.mark.parametrize("pause", [0.03, 0.1])
def test_a_lucky_trial_is_soon_undone(step, pause, rng):
    """The competitor pauses during the trial of a second worker, and then continues."""
    alone, together = idle(step, rng), contended(step, rng, stall=0.003)

    def seconds(workers, clock):
        nonlocal pause
        is_lucky = workers == 2 and pause > 0 and 1 in machine.used
        taken = (alone if is_lucky else together)(workers, clock)
        pause -= is_lucky * taken
        return taken

    machine = Machine(seconds)
    machine.run(2)
    assert pause < 0
    assert machine.run(5) > 0.93 / (1.95 * step)


@pytest.mark.parametrize("cores", [2, 4])
def test_more_workers_than_cores_become_fewer(cores, rng):
    machine = Machine(idle(0.001, rng), most=4, cores=cores)
    assert machine.pacing.workers == cores
    machine.run(5)
    assert machine.run(60) > 0.98 / 0.001


def test_a_second_worker_that_gives_no_speedup_is_not_used(rng):
    machine = Machine(lambda workers, clock: (0.001 if workers == 1 else 0.0013) * np.exp(0.03 * rng.standard_normal()))
    machine.run(3)
    assert machine.run(60) > 0.98 / 0.001


def test_calls_are_compared_by_time_per_unit_of_work(rng):
    """Calls of very different lengths, for which one worker is as fast as two."""
    pacing, used = Pacing(2, 2), {1: 0.0, 2: 0.0}
    for _ in range(20_000):
        work, workers = float(rng.integers(1, 200)), pacing.workers
        pacing.record(work * (1e-5 if workers == 1 else 1.5e-5), work)
        used[workers] += work
    assert used[1] > 0.9 * (used[1] + used[2])


def test_the_callers_patience_is_a_share_of_the_time_of_a_call():
    pacing = Pacing(2, 2)
    assert pacing.patience == 100_000
    for seconds, nanoseconds in ((1e-4, 100_000), (0.01, 1_000_000), (1.0, 5_000_000)):
        pacing.record(seconds)
        assert pacing.patience == nanoseconds
