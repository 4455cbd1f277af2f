"""What happened when: runs over a stretch of time, and the states and tasks of one run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pilotage.telemetry.facts import RunFact, TaskRunFact
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.schema import facts_from_rows

SOON = timedelta(minutes=30)
MOST = 400
"""Runs of one picture; the newest are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A state that a run entered."""

    at: datetime
    type: str
    """Prefect's type of the state, such as `SCHEDULED`."""
    name: str
    """Prefect's name of the state, such as `AwaitingRetry`."""


def runs_between(store: Store, since: datetime, now: datetime) -> list[RunFact]:
    """The runs that were under way or ended after `since`, or are due within SOON of `now`, oldest first."""
    sql = """
        SELECT * FROM runs
        WHERE (started IS NOT NULL AND coalesce(ended, ?) >= ?)
           OR (started IS NULL AND ended >= ?)
           OR (state_type IN ('SCHEDULED', 'PENDING') AND next_start BETWEEN ? AND ?)
        ORDER BY coalesce(started, next_start, ended) DESC, run_id LIMIT ?
    """
    rows = store.rows(sql, [now, since, since, since, now + SOON, MOST])
    return facts_from_rows(RunFact, rows)[::-1]


def states_of(store: Store, run_id: str) -> list[Seen]:
    """The states that a run entered, oldest first, as Prefect's events tell them."""
    sql = """
        SELECT occurred, json_extract_string(payload, '$.validated_state.type') AS type,
               json_extract_string(payload, '$.validated_state.name') AS name
        FROM events WHERE run_id = ? AND starts_with(name, 'prefect.flow-run.') AND type IS NOT NULL
        ORDER BY occurred, event_id
    """
    rows = store.rows(sql, [run_id])
    return [Seen(at=row["occurred"], type=str(row["type"]), name=str(row["name"])) for row in rows]


def tasks_of(store: Store, run_id: str, limit: int = 20) -> list[TaskRunFact]:
    """The task runs of a run that have started, in that order."""
    sql = "SELECT * FROM task_runs WHERE run_id = ? AND started IS NOT NULL ORDER BY started, task_run_id LIMIT ?"
    return facts_from_rows(TaskRunFact, store.rows(sql, [run_id, limit]))
