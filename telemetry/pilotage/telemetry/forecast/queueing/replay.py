"""What a history's waits would have been in another order: `pilotage queue replay`.

The whole history is replayed on an empty site, and the runs of its last quarter are scored, so that the queue has
filled and the durations are learned. What an order knows of durations it learns inside the replay, at the moment
at which a run ends there.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.durations import ExpectedDurations, durations_of
from pilotage.telemetry.forecast.queueing.fair_wait import FairWait
from pilotage.telemetry.forecast.queueing.orders import (
    F1,
    ORDERS,
    FirstComeFirstServed,
    Order,
    Pilotage,
    ShortestJobFirst,
)
from pilotage.telemetry.forecast.queueing.simulator import Jobs, Watcher, replay
from pilotage.telemetry.forecast.run_history import Flags, Floats, Ints, RunHistory

SCORED_SHARE = 0.25
"""The share of the history, at its end, that is scored."""
SHORT_S = 10.0
"""The bound of the bounded slowdown: a shorter run counts as this long (Feitelson)."""
LEAST_PROMISE_S = 3_600.0
"""A run that waits no longer than this, or than the time it asked for, is in time."""


class _Site(Watcher):
    """What has become known in the replay so far."""

    def __init__(self, history: RunHistory, jobs: Jobs, slots: int, *, backfill: bool) -> None:
        self._seconds = jobs.seconds
        self._durations = ExpectedDurations(history)
        self._expected = np.full(len(jobs), np.nan)
        self._has_asked = np.isfinite(jobs.requested_s)
        self._asked = np.where(self._has_asked, jobs.requested_s, 0.0)
        self._fair = FairWait(jobs, slots, backfill=backfill, asked_s=self.asked_s)

    def submitted(self, job: int, now: float) -> None:
        expected = self._durations.expected_s(job)
        if self._has_asked[job]:
            # a run that asked for less will not last longer
            expected = min(expected, max(self._asked[job], 1.0))
        else:
            self._asked[job] = self._durations.typical_s(job)
        self._expected[job] = expected
        self._fair.begun(job, now, expected)

    def ended(self, job: int, now: float) -> None:
        seconds = float(self._seconds[job])
        self._durations.ended(job, seconds)
        self._fair.lasted(job, seconds, float(self._expected[job]))

    def asked_s(self, jobs: Ints) -> Floats:
        """Return what was asked for, or what the deployment took before."""
        return self._asked[jobs]

    def expected_s(self, jobs: Ints) -> Floats:
        """Return the expected seconds, as known at submission."""
        return self._expected[jobs]

    def fair_wait_s(self, now: float) -> float:
        """Return the longest wait that the order of submission would lately have caused."""
        return self._fair.longest_s(now)


class _Asked(Watcher):
    """A site where every run says how long it will last, and nothing is learned."""

    def __init__(self, jobs: Jobs) -> None:
        self._asked = jobs.requested_s

    def asked_s(self, jobs: Ints) -> Floats:
        return self._asked[jobs]


def jobs_of(history: RunHistory, slots: int) -> tuple[RunHistory, Jobs]:
    """Return the runs that can be replayed: those that ran and ended. Raises ConfigError when there are none."""
    ran = np.flatnonzero(history.has_ended() & (history.ended > history.submitted))
    if slots < 1 or not len(ran):
        raise ConfigError(
            f"Replaying {len(ran)} runs that ended on {slots} slots: there is nothing to replay. Give a history "
            "with ended_at and a number of slots above 0."
        )
    history = history.rows(ran)
    count = len(history)

    def column(name: str, missing: float) -> Floats:
        values = history.numbers.get(name)
        return np.full(count, missing) if values is None else np.where(np.isfinite(values), values, missing)

    return history, Jobs(
        submitted=history.submitted,
        seconds=durations_of(history),
        slots=np.clip(column("procs", 1.0), 1.0, slots),
        requested_s=column("requested_s", np.nan),
        deadline=column("deadline", np.inf),
        priority=column("priority", 0.0),
    )


def starts_in(history: RunHistory, jobs: Jobs, slots: int, order: str, *, backfill: bool) -> Floats:
    """Return when each run would have started."""
    learns = order == "pilotage" or not np.isfinite(jobs.requested_s).all()
    site = _Site(history, jobs, slots, backfill=backfill) if learns else _Asked(jobs)
    chosen: Order
    match order:
        case "fifo":
            chosen = FirstComeFirstServed()
        case "sjf":
            chosen = ShortestJobFirst()
        case "f1":
            chosen = F1(float(jobs.submitted[0]))
        case "pilotage" if isinstance(site, _Site):
            chosen = Pilotage(backfill=backfill, expected_s=site.expected_s, fair_wait_s=site.fair_wait_s)
        case _:
            raise ConfigError(f"Replaying in the order {order!r}: valid are {', '.join(ORDERS)}.")
    return replay(jobs, slots, chosen, backfill=backfill, asked_s=site.asked_s, watcher=site)


def wait_scores(jobs: Jobs, starts: Floats, scored: Flags) -> dict[str, float]:
    """Return what the waits of some runs were like; times in seconds."""
    waits = (starts - jobs.submitted)[scored]
    seconds, asked = jobs.seconds[scored], jobs.requested_s[scored]
    promise = np.maximum(np.where(np.isfinite(asked), asked, seconds), LEAST_PROMISE_S)
    slowdown = np.maximum((waits + seconds) / np.maximum(seconds, SHORT_S), 1.0)
    deadline = jobs.deadline[scored]
    due = np.isfinite(deadline)
    return {
        "mean_wait_s": float(waits.mean()),
        "median_wait_s": float(np.median(waits)),
        "p95_wait_s": float(np.quantile(waits, 0.95)),
        "worst_wait_s": float(waits.max()),
        "bounded_slowdown": float(slowdown.mean()),
        "sla_miss_share": float((waits > promise).mean()),
    } | (
        {"deadline_miss_share": float((starts[scored] + seconds > deadline)[due].mean())} if due.any() else {}
    )


def queue_replay(
    history: RunHistory, slots: int, order: str, backfilling: str = "both", out: Path | None = None
) -> dict[str, object]:
    """Return the waits in one order: with EASY backfilling, without, or `both`. Raises ConfigError."""
    ways = {"easy": (True,), "none": (False,), "both": (True, False)}.get(backfilling)
    if ways is None:
        raise ConfigError(f"Replaying with backfilling {backfilling!r}: valid are easy, none and both.")
    history, jobs = jobs_of(history, slots)
    count = len(jobs)
    last = np.arange(count) >= count - round(SCORED_SHARE * count)
    scored = last & history.completed()
    if not scored.any():
        raise ConfigError("Scoring the waits: no run of the history's last quarter completed.")
    began = time.perf_counter()
    found = {way: starts_in(history, jobs, slots, order, backfill=way) for way in ways}
    if out is not None:
        _write(history, jobs, {("easy" if way else "none"): starts for way, starts in found.items()}, out)
    scores = {
        ("easy" if way else "no_backfilling"): wait_scores(jobs, starts, scored)
        for way, starts in found.items()
    }
    return {
        "order": order,
        "slots": slots,
        "backfilling": "easy" if True in found else "none",
        **next(iter(scores.values())),
        **scores,
        "runs": count,
        "scored": int(scored.sum()),
        "replay_s": time.perf_counter() - began,
    }


def _write(history: RunHistory, jobs: Jobs, found: dict[str, Floats], out: Path) -> None:
    columns = {"run_id": list(history.run_id), "submitted_at": jobs.submitted, "lasted_s": jobs.seconds}
    columns |= {f"start_{way}": starts for way, starts in found.items()}
    try:
        pq.write_table(pa.table(columns), out)
    except OSError as error:
        raise ConfigError(
            f"Writing the starts to {out}: {error}. Name a file in a folder that exists."
        ) from error
