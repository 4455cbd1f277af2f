"""How long runs would wait in the order of submission, told from the work that is ahead of each when it comes."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from pilotage.telemetry.forecast.queueing.simulator import Jobs

NEWEST = 2_000
"""Submissions of which the longest fair wait is taken."""


class FairWait:
    """The longest wait that the order of submission would have caused among the newest runs.

    The work ahead of a run does not depend on the order in which it is done. Divided by the slots, and by the share of
    them that could be kept busy while somebody waited, it is about what the run would have waited in turn. Work is the
    expected seconds times slots, corrected by how wrong such expectations were until now. Where little waits, that is
    too much, since a run starts long before all that was ahead of it is done: the wait in a queue that is worked off
    strictly in turn, with the expected durations, bounds it from above.
    """

    def __init__(self, jobs: Jobs, slots: int) -> None:
        """Start with an empty site."""
        self._submitted, self._taken, self._slots = jobs.submitted, jobs.slots.tolist(), float(slots)
        self._expected: dict[int, float] = {}
        self._begun: dict[int, float] = {}
        self._waiting_work = self._running_work = 0.0
        self._used = self._used_begun = 0.0
        self._done = self._said = 1.0
        self._time = 0.0
        self._busy = self._had = 1.0
        self._count = 0
        self._log_seconds = 0.0
        self._free_at = np.zeros(slots)
        self._last_start = 0.0
        self._longest: deque[tuple[int, float]] = deque()

    def submitted(self, job: int, now: float, expected_s: float) -> None:
        """Take note of a submission."""
        self._pass(now)
        ran = now * self._used - self._used_begun
        ahead = self._waiting_work + max(self._running_work - ran, 0.0)
        ahead *= max(self._done / self._said, 0.1)
        wait = ahead / self._slots / max(self._busy / self._had, 0.2) if self._waiting_work else 0.0
        wait = min(wait, self._wait_in_turn(job, now, expected_s))
        self._count += 1
        self._log_seconds += math.log(max(expected_s, 1.0))
        while self._longest and self._longest[-1][1] <= wait:
            self._longest.pop()
        self._longest.append((self._count, wait))
        while self._longest[0][0] <= self._count - NEWEST:
            self._longest.popleft()
        self._expected[job] = expected_s
        self._waiting_work += expected_s * self._taken[job]

    def started(self, job: int, now: float) -> None:
        """Take note of a start."""
        self._pass(now)
        taken, work = self._taken[job], self._expected[job] * self._taken[job]
        self._waiting_work = max(self._waiting_work - work, 0.0)
        self._running_work += work
        self._used += taken
        self._used_begun += taken * now
        self._begun[job] = now

    def ended(self, job: int, now: float, seconds: float) -> None:
        """Take note of an end."""
        self._pass(now)
        taken, expected = self._taken[job], self._expected.pop(job)
        self._running_work -= expected * taken
        self._used -= taken
        self._used_begun -= taken * self._begun.pop(job)
        self._done += seconds * taken
        self._said += expected * taken

    def longest(self) -> float:
        """Return the longest fair wait of the newest runs, in seconds."""
        return self._longest[0][1] if self._longest else 0.0

    def typical_s(self) -> float:
        """Return the geometric mean of the seconds that runs were expected to last."""
        return math.exp(self._log_seconds / self._count) if self._count else 0.0

    def _wait_in_turn(self, job: int, now: float, expected_s: float) -> float:
        """Return the wait where each run starts after the one that came before: Kiefer and Wolfowitz's recursion."""
        need = math.ceil(self._taken[job])
        start = max(now, self._last_start, float(self._free_at[need - 1]))
        self._free_at[:need] = start + expected_s * max(self._done / self._said, 0.1)
        self._free_at.sort()
        self._last_start = start
        return start - now

    def _pass(self, now: float) -> None:
        if self._waiting_work > 0 and self._time:
            self._busy += self._used * (now - self._time)
            self._had += self._slots * (now - self._time)
        self._time = now
