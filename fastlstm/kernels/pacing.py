"""How many workers a call uses: all on an idle machine, fewer while other programs compete for the cores.

Results do not depend on the number of workers, so it may change from call to call. `Pacing` measures the time of calls:
it keeps one number of workers, and from time to time tries the next smaller or larger one. A trial of a worse number
costs time, its *excess* over what the present number would have taken. So a trial ends as soon as it is clearly worse,
and the next trial waits until that excess is a small share of the time that has passed. The next trial comes sooner
when calls become slower than they were, and while cores are left unused, because the load that made them useless may
end at any moment. When calls become slower than those of the other number were when it was last used, that number is
tried at once: the trial that led to the present number may have been lucky.

Time is the sum of the durations of calls; the time between calls does not count.
"""

from __future__ import annotations

import math

#: Share of the time that trials may cost: normally, and when calls have become slower or cores are left unused.
PATIENT, EAGER = 0.0025, 0.01

#: Lower bound on a trial's excess, as a share of its time: measurements are no more exact than that.
LEAST_EXCESS = 0.05

#: Calls have become slower when their mean time is more than this multiple of the fastest.
SLOWER = 1.3

#: A number of workers is better when it takes less than the first multiple of the present number's time. It is clearly
#: worse when it takes more than the second and its excess is more than the third, in seconds.
BETTER, WORSE, WORSE_SECONDS = 0.95, 1.2, 0.002

#: Minimum seconds and calls of a trial that is not clearly worse: several time slices of the system's scheduler.
TRIAL_SECONDS, TRIAL_CALLS = 0.02, 3

#: The mean of the present number covers about so many seconds, and at least about so many calls.
MEMORY_SECONDS, MEMORY_CALLS = 0.05, 4

#: Seconds before the first trial, and calls before the first one that is caused by slow calls.
FIRST_SECONDS, FIRST_CALLS = 1.0, 10

#: Seconds after a change before the next number is tried.
SETTLING_SECONDS = 0.2

#: A change that is undone within so many seconds was a mistake, and its total cost counts as a trial's excess.
MISTAKE_SECONDS = 2.0

#: Longest waits for the next trial, in seconds, because the machine may have become idle: the first unless it would
#: exceed the share ``EAGER``, the second always.
LONG_WAIT, LONGEST_WAIT = 20.0, 60.0

#: Time constant in seconds with which the record of the fastest call grows: machines change their speed.
FADING_SECONDS = 100.0

#: The caller waits for a helper for this share of a call's time; minimum and maximum in nanoseconds.
PATIENCE, SHORTEST_PATIENCE, LONGEST_PATIENCE = 0.1, 100_000, 5_000_000


class _Sum:
    """Total seconds and units of work of some calls."""

    def __init__(self) -> None:
        self.seconds = self.work = 0.0
        self.calls = 0

    @property
    def cost(self) -> float:
        """Seconds per unit of work."""
        return self.seconds / self.work

    def add(self, seconds: float, work: float, keep: float = 1.0) -> None:
        """Add a call, after multiplying the previous totals by ``keep``."""
        self.seconds = keep * self.seconds + seconds
        self.work = keep * self.work + work
        self.calls += 1

    def excess(self, cost: float) -> float:
        """Seconds beyond what the same work would have taken at ``cost``."""
        return self.seconds - self.work * cost


class Pacing:
    """Chooses the number of workers for calls of one kind.

    Parameters
    ----------
    most : maximum number of workers; the numbers tried are ``most``, half of it, and so on down to 1.
    cores : number of cores that the process may use: it starts with at most so many workers.

    Attributes
    ----------
    workers : number of workers for the next call.
    """

    def __init__(self, most: int, cores: int) -> None:
        self._numbers = sorted({max(1, most >> k) for k in range(most.bit_length())})
        self._full = max(n for n, number in enumerate(self._numbers) if number <= max(1, cores))
        self._present = self._full
        self._before = self._tried = self._present
        self._tried = self._next_to_try()
        self.workers = self._numbers[self._present]
        self._clock = self._last = 0.0
        self._recent, self._stay = _Sum(), _Sum()
        self._fastest = math.inf
        self._costs = [math.inf] * len(self._numbers)  # of each number, as last measured
        self._trial: _Sum | None = None
        self._next, self._next_if_slow = FIRST_SECONDS, 0.0

    @property
    def patience(self) -> int:
        """Nanoseconds for which the caller waits for a helper to arrive."""
        return int(min(max(1e9 * PATIENCE * self._last, SHORTEST_PATIENCE), LONGEST_PATIENCE))

    def record(self, seconds: float, work: float = 1.0) -> None:
        """Record the time of the call with `workers`, and its units of work."""
        self._clock += seconds
        self._last = seconds
        if self._trial is not None:
            self._trial.add(seconds, work)
            self._judge(self._trial)
            return
        self._stay.add(seconds, work)
        self._recent.add(seconds, work, keep=max(math.exp(-seconds / MEMORY_SECONDS), 1 - 1 / MEMORY_CALLS))
        self._fastest = min(self._fastest * (1 + seconds / FADING_SECONDS), seconds / work)
        if self._due():
            self._begin_trial()

    def _due(self) -> bool:
        if len(self._numbers) == 1:
            return False
        calls, cost = self._recent.calls, self._recent.cost
        if calls >= MEMORY_CALLS and cost > WORSE * self._costs[self._tried]:
            return True
        slow = calls >= FIRST_CALLS and cost > SLOWER * self._fastest
        return self._clock >= (self._next_if_slow if slow else self._next)

    def _next_to_try(self) -> int:
        """The next smaller or larger number: of two, the one that was not tried last."""
        neighbours = [n for n in (self._present - 1, self._present + 1) if 0 <= n < len(self._numbers)]
        return next((n for n in neighbours if n != self._tried), self._tried)

    def _begin_trial(self) -> None:
        self.workers = self._numbers[self._tried]
        self._trial = _Sum()

    def _judge(self, trial: _Sum) -> None:
        """End the trial when it is clearly worse, or has lasted long enough."""
        cost = self._recent.cost
        if trial.seconds > WORSE * trial.work * cost and trial.excess(cost) > WORSE_SECONDS:
            self._stay_at_present(trial)
        elif trial.seconds >= TRIAL_SECONDS and trial.calls >= TRIAL_CALLS:
            if trial.cost < BETTER * cost:
                self._change(trial)
            else:
                self._stay_at_present(trial)

    def _stay_at_present(self, trial: _Sum) -> None:
        self._trial = None
        self._costs[self._tried] = trial.cost
        self._tried = self._next_to_try()
        self.workers = self._numbers[self._present]
        self._fastest = self._recent.cost  # calls may be slower now, but this number is still the best
        self._put_off(max(trial.excess(self._recent.cost), LEAST_EXCESS * trial.seconds))

    def _change(self, trial: _Sum) -> None:
        mistaken = self._tried == self._before and self._stay.seconds < MISTAKE_SECONDS
        excess = self._stay.excess(trial.cost)
        self._costs[self._present] = self._recent.cost
        self._before, self._present = self._present, self._tried
        self._tried = self._next_to_try()
        self._trial, self._recent, self._stay, self._fastest = None, trial, _Sum(), trial.cost
        if mistaken:
            self._put_off(excess)
        else:
            self._next = self._next_if_slow = self._clock + SETTLING_SECONDS

    def _put_off(self, excess: float) -> None:
        """Schedule the next trial for when ``excess`` is a small share of the time since."""
        eager, patient = min(excess / EAGER, LONGEST_WAIT), min(excess / PATIENT, LONG_WAIT)
        self._next_if_slow = self._clock + eager
        self._next = self._clock + (eager if self._present < self._full else max(eager, patient))
