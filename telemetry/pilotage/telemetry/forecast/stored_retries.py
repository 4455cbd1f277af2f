"""Reads from the telemetry store what became of retries: one decision for each attempt that followed a failed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from pilotage.telemetry.forecast.retry_file import RetryDecisions
from pilotage.telemetry.forecast.retry_texts import ERROR, LINES, log_tail
from pilotage.telemetry.store.protocol import Store

LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
MOST = 5_000
"""Decisions that are read, the newest."""

Classify = Callable[[str], str]
"""Gives the class of a failure from the end of its log; whoever has no classes gives an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryOutcome:
    """What became of one retry."""

    run_id: str
    workflow: str
    """Deployment id, or the flow's name."""
    attempt: int
    """Attempts of the run before it."""
    decided_at: float
    """Epoch seconds: when the attempt before it had failed."""
    known_at: float
    succeeded: bool
    log_tail: str
    failure_class: str


_OUTCOMES = """
    WITH again AS (
        SELECT run_id, coalesce(deployment_id, flow_name) AS workflow, created FROM runs
        WHERE run_count > 1 AND updated > $1
    ), told AS (
        SELECT e.run_id, e.occurred AS ended, CASE e.name WHEN 'prefect.flow-run.Completed' THEN 'COMPLETED'
            WHEN 'prefect.flow-run.Cancelled' THEN 'CANCELLED' ELSE 'FAILED' END AS outcome
        FROM events e SEMI JOIN again USING (run_id) WHERE e.resource_id = 'prefect.flow-run.' || e.run_id
        AND e.occurred < $2 AND e.occurred >= (SELECT min(created) FROM again)
        AND e.name IN ('prefect.flow-run.Completed', 'prefect.flow-run.Failed',
            'prefect.flow-run.Crashed', 'prefect.flow-run.TimedOut', 'prefect.flow-run.Cancelled')
    ), pairs AS (
        SELECT run_id, ended AS known_at, outcome, row_number() OVER run - 1 AS attempt,
            lag(ended) OVER run AS decided_at, lag(outcome) OVER run AS before, lag(ended, 2) OVER run AS since
        FROM told WINDOW run AS (PARTITION BY run_id ORDER BY ended)
    ), wanted AS (
        SELECT p.*, a.workflow FROM pairs p JOIN again a USING (run_id)
        WHERE before = 'FAILED' AND outcome <> 'CANCELLED' AND known_at > $1 ORDER BY known_at DESC LIMIT $3
    ), lines AS (
        SELECT w.run_id, w.attempt, l.message, l."at", row_number() OVER (
            PARTITION BY w.run_id, w.attempt ORDER BY l."at" DESC, l.log_id DESC) AS nth
        FROM wanted w JOIN logs l ON l.run_id = w.run_id AND l.level >= $4 AND l."at" <= w.decided_at
            + INTERVAL 5 SECOND AND (w.since IS NULL OR l."at" > w.since + INTERVAL 5 SECOND)
    )
    SELECT w.run_id, w.workflow, w.attempt, epoch(w.decided_at) AS decided_at, epoch(w.known_at) AS known_at,
        w.outcome = 'COMPLETED' AS succeeded,
        (SELECT list(message ORDER BY nth DESC) FROM lines l
         WHERE l.run_id = w.run_id AND l.attempt = w.attempt AND nth <= $5) AS messages
    FROM wanted w ORDER BY w.known_at, w.run_id
"""
"""A run whose events are gone tells of no retry: only its last state is known then."""


def retry_outcomes(store: Store, since: datetime, until: datetime, classify: Classify) -> list[RetryOutcome]:
    """Return the retries whose outcome became known between two moments, in that order. Raises StoreError."""
    found = []
    for row in store.rows(_OUTCOMES, [since, until, MOST, ERROR, LINES]):
        tail = log_tail(list(row["messages"] or ()))
        found.append(
            RetryOutcome(
                run_id=str(row["run_id"]),
                workflow=str(row["workflow"]),
                attempt=int(row["attempt"]),
                decided_at=float(row["decided_at"]),
                known_at=float(row["known_at"]),
                succeeded=bool(row["succeeded"]),
                log_tail=tail,
                failure_class=classify(tail) if tail else "",
            )
        )
    return found


def decisions_of(outcomes: list[RetryOutcome]) -> RetryDecisions:
    """Return outcomes as the decisions that a backtest walks through, in the order in which they came up."""
    ordered = sorted(outcomes, key=lambda each: (each.decided_at, each.run_id))
    place = {name: number for number, name in enumerate(dict.fromkeys(each.workflow for each in ordered))}
    return RetryDecisions(
        chain=tuple(each.run_id for each in ordered),
        workflow=np.array([place[each.workflow] for each in ordered], dtype=np.int64),
        attempt=np.array([each.attempt for each in ordered], dtype=np.float64),
        decided=np.array([each.decided_at for each in ordered], dtype=np.float64),
        known=np.array([each.known_at for each in ordered], dtype=np.float64),
        succeeded=np.array([each.succeeded for each in ordered], dtype=bool),
        failure_class=tuple(each.failure_class for each in ordered),
        log_tail=tuple(each.log_tail for each in ordered),
        stamped=True,
    )
