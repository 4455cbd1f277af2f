"""How long runs would wait in the order of submission: a second cluster is kept beside, and serves the same runs so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np

from pilotage.telemetry.forecast.queueing.orders import FirstComeFirstServed
from pilotage.telemetry.forecast.queueing.simulator import Cluster, Jobs, Watcher
from pilotage.telemetry.forecast.run_history import Floats, Ints

NEWEST_SHARE, FEWEST, MOST = 0.25, 100, 5_000
"""Of which runs the longest fair wait is taken: this share of all so far, the newest; at least and at most so many."""


class FairWait(Watcher):
    """The longest wait that the order of submission would have caused among the newest runs.

    A run lasts there what it really lasted where that is known, and what was expected of it where it has not ended yet.
    Under load nearly all is known: what waits longest in the order of submission has long ended in a better one.
    """

    def __init__(self, jobs: Jobs, slots: int, *, backfill: bool, asked_s: Callable[[Ints], Floats]) -> None:
        """Start with an empty site."""
        self._submitted, self._taken, self._slots = jobs.submitted, jobs.slots.tolist(), float(slots)
        self._lasted: dict[int, float] = {}
        self._expected: dict[int, float] = {}
        self._cluster = Cluster(
            jobs, slots, FirstComeFirstServed(), backfill=backfill, asked_s=asked_s, lasts_s=self._lasts_s,
            watcher=self,
        )  # fmt: skip
        self._longest: deque[tuple[int, float]] = deque()
        self._count = 0
        self._waiting_work = 0.0
        self._said = self._done = 1.0

    def begun(self, job: int, now: float, expected_s: float) -> None:
        """Take note of a submission to the site."""
        self._expected[job] = expected_s
        self._waiting_work += expected_s * self._taken[job]
        self._cluster.pass_to(now, (job,))

    def lasted(self, job: int, seconds: float, expected_s: float) -> None:
        """Take note of an end on the site."""
        self._done += seconds * self._taken[job]
        self._said += expected_s * self._taken[job]
        if job in self._expected:
            self._lasted[job] = seconds

    def started(self, job: int, now: float) -> None:
        """Take note of a start in the order of submission."""
        wait = now - float(self._submitted[job])
        self._count += 1
        while self._longest and self._longest[-1][1] <= wait:
            self._longest.pop()
        self._longest.append((self._count, wait))
        newest = min(max(NEWEST_SHARE * self._count, FEWEST), MOST)
        while self._longest[0][0] <= self._count - newest:
            self._longest.popleft()

    def longest_s(self, now: float) -> float:
        """Return the longest wait of the newest runs, in seconds; what waits still counts with what it will have waited."""
        waiting = self._cluster.waiting
        if not len(waiting):
            return self._longest[0][1] if self._longest else 0.0
        # the newest run's turn comes when all that is ahead of it is done; expectations are corrected by what they missed
        ahead = self._waiting_work / self._slots * self._done / self._said
        still = now - float(np.min(self._submitted[waiting]))
        return max(still, ahead, self._longest[0][1] if self._longest else 0.0)

    def _lasts_s(self, job: int) -> float:
        expected = self._expected.pop(job)
        self._waiting_work -= expected * self._taken[job]
        return self._lasted.pop(job, expected)
