"""What a run went through, as spans of time: its own states by its events, and its tasks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pilotage.telemetry.facts import TaskRunFact
from pilotage.telemetry.schema import facts_from_rows
from pilotage.telemetry.stores import Store

STATES = "prefect.flow-run."
"""What the names of a run's state events begin with."""
MOST_TASKS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One state for some time."""

    state: str
    """Prefect's name of it, such as `Running`, `AwaitingRetry`, `Failed`."""
    start: datetime
    end: datetime | None
    """None while it lasts, and of a last state."""


def states_of(store: Store, run_id: str) -> list[Span]:
    """The states of a run in order, as far as its events are kept."""
    rows = store.rows(
        "SELECT name, occurred FROM events WHERE run_id = ? AND starts_with(name, ?) "
        "ORDER BY occurred, event_id",
        [run_id, STATES],
    )
    named = [(str(row["name"]).removeprefix(STATES), row["occurred"]) for row in rows]
    # Prefect's states begin with a capital; heartbeats and our own events do not
    moves = [(name, occurred) for name, occurred in named if name[:1].isupper()]
    ends: list[datetime | None] = [*(occurred for _, occurred in moves[1:]), None]
    return [
        Span(state=name, start=occurred, end=end) for (name, occurred), end in zip(moves, ends, strict=False)
    ]


def tasks_of(store: Store, run_id: str) -> list[TaskRunFact]:
    """The first tasks of a run that began, in the order of their starts."""
    sql = "SELECT * FROM task_runs WHERE run_id = ? AND started IS NOT NULL ORDER BY started, task_run_id LIMIT ?"
    return facts_from_rows(TaskRunFact, store.rows(sql, [run_id, MOST_TASKS]))
