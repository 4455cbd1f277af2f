"""What was known of a run at the moment of forecasting, as numbers. Nothing that ended later is in it.

Outcomes count from the end of an attempt, never from its start: a history ordered by start has been seen to
leak unfinished runs into one row in six. A retried run is several attempts, told apart by its events.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np

from pilotage.telemetry.forecast import baseline
from pilotage.telemetry.pool_memory import memory_of
from pilotage.telemetry.store.protocol import Store

Matrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Vector = np.ndarray[tuple[int], np.dtype[np.float64]]

LOOK_BACK = timedelta(days=60)
"""How far back attempts are learned from."""
MOST_ATTEMPTS = 20_000
"""The newest attempts that are learned from."""

NAMES = (
    "ewma",
    "ewma_odds",
    "rate",
    "count",
    "failures_in_a_row",
    "successes_in_a_row",
    "since_success",
    "since_failure",
    "never_succeeded",
    "site_rate",
    "attempt",
    "memory",
    "queue_depth",
    "hour_sin",
    "hour_cos",
    "weekend",
)
EWMA_COLUMN = NAMES.index("ewma")
WEEK = 7 * 86400.0
"""Seconds of history from which the time of day may count: in less, any drift looks like an effect of the hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of one run, as it stood just before it started."""

    key: str
    """The workflow: deployment id, or flow name where there is no deployment."""
    start: float
    """Epoch seconds; what is forecast is forecast at this moment."""
    ended: float
    """Epoch seconds; infinite while it has not ended."""
    failed: bool = False
    earlier: int = 0
    """Attempts of the same run before this one."""
    memory_mb: float = 0.0
    """0 when nobody said."""
    queue_depth: float = 0.0
    """Due runs waiting in its queue."""
    clock: bool = True
    """Whether `start` is a time of day; the shipped trace has none."""


@dataclass(slots=True, kw_only=True)
class DeploymentStats:
    """What is known of one workflow so far."""

    ended: int = 0
    failures: int = 0
    average: float = 0.0
    failures_in_a_row: int = 0
    successes_in_a_row: int = 0
    last_success: float | None = None
    last_failure: float | None = None


@dataclass(slots=True, kw_only=True)
class History:
    """What has ended so far, by workflow. Fed in the order of ends."""

    prior: float
    """The failure rate that is expected of a site of which nothing is known."""
    began: float = math.inf
    """Start of the oldest attempt that has ended."""
    ended: int = 0
    failures: int = 0
    stats: dict[str, DeploymentStats] = field(default_factory=dict)

    @property
    def site_rate(self) -> float:
        """The failure rate of all workflows together."""
        return baseline.site_rate(self.ended, self.failures, self.prior)

    def learn(self, attempt: Attempt) -> None:
        """Takes the outcome of one ended attempt in."""
        past = self.stats.get(attempt.key)
        if past is None:
            past = self.stats[attempt.key] = DeploymentStats(average=self.site_rate)
        past.average = baseline.after(past.average, attempt.failed)
        self.began = min(self.began, attempt.start)
        past.ended += 1
        self.ended += 1
        if attempt.failed:
            past.failures += 1
            self.failures += 1
            past.failures_in_a_row += 1
            past.successes_in_a_row = 0
            past.last_failure = attempt.ended
        else:
            past.successes_in_a_row += 1
            past.failures_in_a_row = 0
            past.last_success = attempt.ended

    def row(self, attempt: Attempt) -> list[float]:
        """The numbers of `NAMES` for an attempt that starts now."""
        site = self.site_rate
        past = self.stats.get(attempt.key) or DeploymentStats(average=site)
        telling = attempt.clock and attempt.start - self.began >= WEEK
        moment = datetime.fromtimestamp(attempt.start, UTC) if telling else None
        angle = 0.0 if moment is None else 2 * math.pi * (moment.hour + moment.minute / 60) / 24
        average = baseline.shrunk(past.average, past.ended, site)
        return [
            average,
            _odds(average),
            _odds((past.failures + site) / (past.ended + 1)),
            math.log1p(past.ended),
            math.log1p(past.failures_in_a_row),
            math.log1p(past.successes_in_a_row),
            _age(attempt.start, past.last_success),
            _age(attempt.start, past.last_failure),
            float(past.ended > 0 and past.last_success is None),
            site,
            math.log1p(attempt.earlier),
            math.log1p(attempt.memory_mb),
            math.log1p(attempt.queue_depth),
            math.sin(angle) if moment else 0.0,
            math.cos(angle) if moment else 0.0,
            float(moment is not None and moment.weekday() >= 5),
        ]


def _odds(chance: float) -> float:
    """The log-odds, none beyond those of a thousandth."""
    sure = min(max(chance, 0.001), 0.999)
    return math.log(sure / (1 - sure))


def _age(now: float, then: float | None) -> float:
    return 0.0 if then is None else math.log1p(max(0.0, now - then))


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMatrix:
    """Attempts in the order of their starts with their numbers: row i was known when attempt i started."""

    attempts: tuple[Attempt, ...]
    rows: Matrix
    failed: Vector
    ended: Vector
    starts: Vector


def replay(attempts: Iterable[Attempt], history: History) -> FeatureMatrix:
    """The attempts as they looked when each started; `history` ends up knowing every outcome."""
    ordered = sorted(attempts, key=lambda attempt: attempt.start)
    running: list[tuple[float, int]] = []
    rows: list[list[float]] = []
    for index, attempt in enumerate(ordered):
        while running and running[0][0] < attempt.start:
            history.learn(ordered[heapq.heappop(running)[1]])
        rows.append(history.row(attempt))
        if math.isfinite(attempt.ended):
            heapq.heappush(running, (attempt.ended, index))
    while running:
        history.learn(ordered[heapq.heappop(running)[1]])
    return FeatureMatrix(
        attempts=tuple(ordered),
        rows=np.array(rows, dtype=np.float64).reshape(-1, len(NAMES)),
        failed=np.array([float(attempt.failed) for attempt in ordered], dtype=np.float64),
        ended=np.array([attempt.ended for attempt in ordered], dtype=np.float64),
        starts=np.array([attempt.start for attempt in ordered], dtype=np.float64),
    )


_ENDED_ATTEMPTS = """
    WITH known AS (
        SELECT run_id, coalesce(deployment_id, flow_name) AS key, pool, queue, job_variables, started, ended,
            state_type, run_count FROM runs
    ), told AS (
        SELECT e.run_id, e.occurred AS ended, e.name <> 'prefect.flow-run.Completed' AS failed
        FROM events e WHERE e.occurred > $1 AND e.occurred < $2 AND e.run_id IS NOT NULL
        AND e.resource_id = 'prefect.flow-run.' || e.run_id
        AND e.name IN ('prefect.flow-run.Completed', 'prefect.flow-run.Failed', 'prefect.flow-run.Crashed',
            'prefect.flow-run.TimedOut')
        UNION ALL
        -- a run whose events are gone or not here yet counts by its present state
        SELECT k.run_id, k.ended, k.state_type <> 'COMPLETED' FROM known k
        WHERE k.ended > $1 AND k.ended < $2 AND k.state_type IN ('COMPLETED', 'FAILED', 'CRASHED')
        AND NOT EXISTS (
            SELECT 1 FROM events e WHERE e.run_id = k.run_id AND e.occurred BETWEEN
            k.ended - INTERVAL 5 SECOND AND k.ended + INTERVAL 5 SECOND
            AND e.resource_id = 'prefect.flow-run.' || e.run_id
            AND e.name IN ('prefect.flow-run.Completed', 'prefect.flow-run.Failed',
                'prefect.flow-run.Crashed', 'prefect.flow-run.TimedOut')
        )
    ), numbered AS (
        SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY ended) - 1 AS earlier,
            lag(ended) OVER (PARTITION BY run_id ORDER BY ended) AS before,
            lead(ended) OVER (PARTITION BY run_id ORDER BY ended) IS NULL AS newest
        FROM told
    ), begun AS (
        SELECT n.*, s.occurred AS began FROM numbered n ASOF LEFT JOIN (
            SELECT run_id, occurred FROM events WHERE name = 'prefect.flow-run.Running'
        ) s ON n.run_id = s.run_id AND n.ended > s.occurred
    ), placed AS (
        SELECT k.key, b.ended, b.failed, b.earlier, b.newest, k.pool, k.queue, k.job_variables,
            CASE WHEN b.began IS NOT NULL AND (b.before IS NULL OR b.began >= b.before) THEN b.began
                WHEN b.earlier = 0 AND k.started <= b.ended THEN k.started ELSE b.ended END AS start
        FROM begun b JOIN known k USING (run_id)
    )
    SELECT p.key, epoch(p.start) AS start, epoch(p.ended) AS ended, p.failed, p.earlier,
        CASE WHEN p.newest THEN p.job_variables END AS job_variables, coalesce(q.waiting, 0) AS depth
    FROM placed p ASOF LEFT JOIN queues q ON p.pool = q.pool AND p.queue = q.queue AND p.start >= q."at"
    ORDER BY p.ended DESC LIMIT $3
"""


def ended_attempts(store: Store, now: datetime) -> list[Attempt]:
    """The newest attempts that ended before `now`, whatever became of their runs later."""
    return [
        Attempt(
            key=str(row["key"]),
            start=row["start"],
            ended=row["ended"],
            failed=row["failed"],
            earlier=row["earlier"],
            # the size of an attempt that was followed by another is not known: it may have been changed
            memory_mb=float(memory_of(json.loads(row["job_variables"] or "{}")) or 0),
            queue_depth=row["depth"],
        )
        for row in store.rows(_ENDED_ATTEMPTS, [now - LOOK_BACK, now, MOST_ATTEMPTS])
    ]


_OPEN_RUNS = """
    SELECT r.run_id, coalesce(r.deployment_id, r.flow_name) AS key, r.run_count, r.job_variables,
        coalesce(q.waiting, 0) AS depth
    FROM (SELECT *, $1::TIMESTAMPTZ AS moment FROM runs WHERE run_id IN (SELECT unnest($2::VARCHAR[]))) r
    ASOF LEFT JOIN queues q ON r.pool = q.pool AND r.queue = q.queue AND r.moment >= q."at"
"""


def next_attempts(store: Store, run_ids: Sequence[str], now: datetime) -> dict[str, Attempt]:
    """The next attempt of each known run, by run id, as if it started now."""
    return {
        row["run_id"]: Attempt(
            key=str(row["key"]),
            start=now.timestamp(),
            ended=math.inf,
            earlier=row["run_count"] or 0,
            memory_mb=float(memory_of(json.loads(row["job_variables"] or "{}")) or 0),
            queue_depth=row["depth"],
        )
        for row in store.rows(_OPEN_RUNS, [now, list(run_ids)])
    }
