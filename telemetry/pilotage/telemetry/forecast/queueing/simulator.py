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

    def ended(self, job: int, now: float, seconds: float) -> None:
        """Take note of an end, and of how long the job ran."""


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
    starts = np.full(len(jobs), np.nan)
    queue = _Queue()
    running: list[tuple[float, int]] = []
    promised: dict[int, float] = {}
    free, arrival, count = float(slots), 0, len(jobs)
    submitted, seconds, taken = jobs.submitted.tolist(), jobs.seconds.tolist(), jobs.slots.tolist()
    while arrival < count or running:
        now = min(
            submitted[arrival] if arrival < count else np.inf,
            running[0][0] if running else np.inf,
        )
        while running and running[0][0] <= now:
            _, job = heapq.heappop(running)
            free += taken[job]
            promised.pop(job)
            watcher.ended(job, now, seconds[job])
        while arrival < count and submitted[arrival] <= now:
            queue.add(arrival)
            watcher.submitted(arrival, now)
            arrival += 1
        if not free or not len(queue):
            continue
        chosen = _chosen(jobs, queue.jobs, order, now, free, promised, asked_s, backfill=backfill)
        queue.remove(chosen)
        asked = asked_s(np.array(chosen, dtype=np.int64)).tolist() if chosen else []
        for job, lasts in zip(chosen, asked, strict=True):
            starts[job] = now
            free -= taken[job]
            promised[job] = now + lasts
            heapq.heappush(running, (now + seconds[job], job))
            watcher.started(job, now)
    return starts


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
