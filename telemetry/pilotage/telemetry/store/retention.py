"""How long what happened is kept, and which of it is past its age."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

FOR_EVER = timedelta(0)
"""A life that never ends."""
# the last one tells up to where the audit log was read
_NOT_THE_LAST = '"at" < $1 AND decision_id < (SELECT max(decision_id) FROM decisions)'
_ENDED = "state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED') AND coalesce(ended, updated) < $1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Ages after which rows go; `FOR_EVER` for those that stay. What is now (deployments, pools) has no age."""

    payload: timedelta = timedelta(days=7)
    """Bodies of events, counted from when they occurred; Prefect itself keeps events for 7 days."""
    events: timedelta = timedelta(days=90)
    """The events' own columns."""
    logs: timedelta = timedelta(days=30)
    """Log lines."""
    runs: timedelta = timedelta(days=395)
    """Runs, thirteen months since they ended: a month can be held beside last year's. One that has not ended stays."""
    task_runs: timedelta = timedelta(days=395)
    """Task runs, since their last update."""
    queues: timedelta = timedelta(days=90)
    """Snapshots of queues."""
    forecasts: timedelta = timedelta(days=395)
    """Forecasts."""
    agent_spans: timedelta = timedelta(days=90)
    """Steps of the agent."""
    decisions: timedelta = timedelta(days=1095)
    """Steps of proposals, three years: the planner learns from them what helped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Rows of one table that are past their age."""

    kind: str
    """What is counted and archived: a table, or `payload` for the bodies of events."""
    table: str
    where: str
    """SQL with the moment before which is past the age as `$1`."""
    before: datetime
    of_runs: bool
    """Whether a row that belongs to a run which is still needed stays."""


def cuts(now: datetime, lives: Retention) -> Iterator[Cut]:
    """What of each table is past its age now.

    Runs go by whole days, so that no hour or day of the roll-ups loses a part of its runs.
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = (
        ("payload", "events", "occurred < $1 AND payload <> '{}'", lives.payload, True, now),
        ("events", "events", "occurred < $1", lives.events, True, now),
        ("logs", "logs", '"at" < $1', lives.logs, True, now),
        ("task_runs", "task_runs", "updated < $1", lives.task_runs, True, now),
        ("runs", "runs", f"updated < $1 AND {_ENDED}", lives.runs, True, midnight),
        ("queues", "queues", '"at" < $1', lives.queues, False, now),
        ("forecasts", "forecasts", "made_at < $1", lives.forecasts, True, now),
        ("agent_spans", "agent_spans", '"at" < $1', lives.agent_spans, False, now),
        ("decisions", "decisions", _NOT_THE_LAST, lives.decisions, True, now),
    )
    for kind, table, where, life, of_runs, end in rows:
        if life != FOR_EVER:
            yield Cut(kind=kind, table=table, where=where, before=end - life, of_runs=of_runs)
