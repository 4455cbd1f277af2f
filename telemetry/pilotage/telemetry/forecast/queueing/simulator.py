"""Replays runs on a number of slots, event by event, in a given order, with or without EASY backfilling.

EASY (Lifka 1995; Mu'alem and Feitelson, TPDS 2001): the first run of the order that does not fit is promised
the earliest moment at which enough slots will be free, going by what the running ones asked for; others may
start before it where that does not move the promise.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pilotage.telemetry.forecast.queueing.orders import Order, Waiting
from pilotage.telemetry.forecast.run_history import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Jobs:
    """What is replayed, in the order of submission; an array element each."""

    submitted: Floats
    seconds: Floats
    """How long each really takes: known to the simulator, shown to nobody before the end."""
    slots: Floats
    """How many each takes; never more than there are."""
    requested_s: Floats
    """NaN where nothing was asked for."""
    deadline: Floats
    priority: Floats

    def __len__(self) -> int:
        """Return the number of jobs."""
        return len(self.submitted)


class Watcher:
    """Is told what becomes known, at the moment that it does. This one does not listen."""

    def submitted(self, job: int, now: float) -> None:
        """Take note of a submission."""

    def started(self, job: int, now: float) -> None:
        """Take note of a start."""

    def ended(self, job: int, now: float) -> None:
        """Take note of an end."""


class _Queue:
    """The jobs that wait, in an array with room to grow."""

    def __init__(self) -> None:
        self._jobs = np.empty(64, np.int64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def jobs(self) -> Ints:
        return self._jobs[: self._count]

    def add(self, job: int) -> None:
        if self._count == len(self._jobs):
            self._jobs = np.concatenate([self._jobs, np.empty(self._count, np.int64)])
        self._jobs[self._count] = job
        self._count += 1

    def remove(self, jobs: Sequence[int]) -> None:
        for job in jobs:
            place = int(np.flatnonzero(self.jobs == job)[0])
            self._count -= 1
            self._jobs[place] = self._jobs[self._count]


class Cluster:
    """Slots with a queue in front of them. It is told of submissions, and starts and ends runs as time passes."""

    def __init__(
        self,
        jobs: Jobs,
        slots: int,
        order: Order,
        *,
        backfill: bool,
        asked_s: Callable[[Ints], Floats],
        lasts_s: Callable[[int], float],
        watcher: Watcher,
    ) -> None:
        """`asked_s` is what jobs are taken to last at most, `lasts_s` what one that starts now lasts here."""
        self.starts = np.full(len(jobs), np.nan)
        self._jobs, self._order, self._backfill, self._asked_s = jobs, order, backfill, asked_s
        self._lasts_s, self._watcher = lasts_s, watcher
        self._taken = jobs.slots.tolist()
        self._free = float(slots)
        self._queue = _Queue()
        self._running: list[tuple[float, int]] = []
        self._promised: dict[int, float] = {}

    @property
    def waiting(self) -> Ints:
        """The jobs that wait, in no order."""
        return self._queue.jobs

    @property
    def next_end(self) -> float:
        """When the next job ends; infinite when none runs."""
        return self._running[0][0] if self._running else np.inf

    def pass_to(self, now: float, submitted: Sequence[int] = ()) -> None:
        """Let time go on to `now`, at which some jobs are submitted."""
        while self.next_end < now:
            self._settle(self.next_end, ())
        self._settle(now, submitted)

    def _settle(self, now: float, submitted: Sequence[int]) -> None:
        while self.next_end <= now:
            _, job = heapq.heappop(self._running)
            self._free += self._taken[job]
            self._promised.pop(job)
            self._watcher.ended(job, now)
        for job in submitted:
            self._queue.add(job)
            self._watcher.submitted(job, now)
        if not self._free or not len(self._queue):
            return
        chosen = _chosen(
            self._jobs, self._queue.jobs, self._order, now, self._free, self._promised, self._asked_s,
            backfill=self._backfill,
        )  # fmt: skip
        if not chosen:
            return
        self._queue.remove(chosen)
        asked = self._asked_s(np.array(chosen, dtype=np.int64)).tolist()
        for job, most in zip(chosen, asked, strict=True):
            self.starts[job] = now
            self._free -= self._taken[job]
            self._promised[job] = now + most
            heapq.heappush(self._running, (now + self._lasts_s(job), job))
            self._watcher.started(job, now)


def replay(
    jobs: Jobs,
    slots: int,
    order: Order,
    *,
    backfill: bool,
    asked_s: Callable[[Ints], Floats],
    watcher: Watcher,
) -> Floats:
    """Return the start of each job. `asked_s` is what jobs are taken to last at most, by what was known at submission."""
    submitted, seconds = jobs.submitted.tolist(), jobs.seconds.tolist()
    cluster = Cluster(
        jobs, slots, order, backfill=backfill, asked_s=asked_s, lasts_s=seconds.__getitem__, watcher=watcher
    )
    arrival, count = 0, len(jobs)
    while arrival < count:
        now, first = submitted[arrival], arrival
        while arrival < count and submitted[arrival] <= now:
            arrival += 1
        cluster.pass_to(now, range(first, arrival))
    while np.isfinite(cluster.next_end):
        cluster.pass_to(cluster.next_end)
    return cluster.starts


def _chosen(
    jobs: Jobs,
    queued: Ints,
    order: Order,
    now: float,
    free: float,
    promised: dict[int, float],
    asked_s: Callable[[Ints], Floats],
    *,
    backfill: bool,
) -> list[int]:
    """Return the jobs that start now."""
    if len(queued) == 1 and jobs.slots[queued[0]] > free:
        return []
    if jobs.slots[queued].sum() <= free:
        return [int(job) for job in np.sort(queued)]
    waiting = Waiting(
        run=queued,
        submitted=jobs.submitted[queued],
        slots=jobs.slots[queued],
        requested_s=asked_s(queued),
        deadline=jobs.deadline[queued],
        priority=jobs.priority[queued],
    )
    ranked = queued[np.lexsort((queued, order.scores(now, waiting)))]
    fits = np.cumsum(jobs.slots[ranked]) <= free
    first = len(ranked) if fits.all() else int(np.argmin(fits))
    chosen = ranked[:first]
    free -= float(jobs.slots[chosen].sum())
    if not backfill or not free:
        return [int(job) for job in chosen]
    rest = ranked[first + 1 :]
    rest = rest[jobs.slots[rest] <= free]
    if not len(rest):
        return [int(job) for job in chosen]
    ends = [(max(end, now + 1.0), float(jobs.slots[job])) for job, end in promised.items()]
    lasts = now + asked_s(chosen) if len(chosen) else np.empty(0)
    ends += [(float(end), float(jobs.slots[job])) for job, end in zip(chosen, lasts, strict=True)]
    reserved_at, spare = _reservation(sorted(ends), free, float(jobs.slots[ranked[first]]))
    picked = [int(job) for job in chosen]
    for job, asked in zip(rest.tolist(), asked_s(rest).tolist(), strict=True):
        need = float(jobs.slots[job])
        if need > free:
            continue
        if now + asked > reserved_at:
            if need > spare:
                continue
            spare -= need
        free -= need
        picked.append(job)
        if not free:
            break
    return picked


def _reservation(ends: list[tuple[float, float]], free: float, need: float) -> tuple[float, float]:
    """Return when `need` slots will be free, and how many more will be then."""
    for at, slots in ends:
        free += slots
        if free >= need:
            return at, free - need
    return np.inf, 0.0
