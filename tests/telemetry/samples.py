"""Facts for tests, each one plausible and overridable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.telemetry.facts import EventFact, LogLine, QueueFact, RunFact, StateType, TaskRunFact

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """The moment so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def a_run(run_id: str = "r-1", state: StateType = StateType.FAILED, **changes: Any) -> RunFact:
    """A run of the deployment `d-1`, failed a minute after noon unless told otherwise."""
    ended = at(60) if state in (StateType.FAILED, StateType.COMPLETED, StateType.CRASHED) else None
    given: dict[str, Any] = {
        "run_id": run_id,
        "name": "brave-otter",
        "flow_name": "etl",
        "state_type": state,
        "state_name": state.value.title(),
        "state_id": f"s-{run_id}",
        "deployment_id": "d-1",
        "deployment_name": "nightly",
        "pool": "p",
        "queue": "default",
        "run_count": 1,
        "created": at(0),
        "expected_start": at(0),
        "started": at(1),
        "ended": ended,
        "updated": at(60),
        "tags": ("env:prod",),
        "parameters": {"day": "2026-11-02"},
        "job_variables": {"memory_mb": 64},
    }
    return RunFact(**(given | changes))


def an_event(number: int = 1, **changes: Any) -> EventFact:
    """An event of the run `r-1`, `number` seconds after noon."""
    given: dict[str, Any] = {
        "event_id": f"e-{number}",
        "occurred": at(number),
        "name": "prefect.flow-run.Running",
        "resource_id": "prefect.flow-run.r-1",
        "run_id": "r-1",
        "payload": {"n": number},
    }
    return EventFact(**(given | changes))


def a_log(number: int = 1, **changes: Any) -> LogLine:
    """A warning of the run `r-1`."""
    given: dict[str, Any] = {
        "log_id": f"l-{number}",
        "run_id": "r-1",
        "at": at(number),
        "level": 30,
        "message": f"line {number}",
    }
    return LogLine(**(given | changes))


def a_task_run(number: int = 1, **changes: Any) -> TaskRunFact:
    """A completed task run of the run `r-1`."""
    given: dict[str, Any] = {
        "task_run_id": f"t-{number}",
        "run_id": "r-1",
        "name": "load-0",
        "task_key": "load",
        "state_type": StateType.COMPLETED,
        "state_name": "Completed",
        "updated": at(number),
    }
    return TaskRunFact(**(given | changes))


def a_queue(seconds: float = 0, **changes: Any) -> QueueFact:
    """A snapshot of `p/default`."""
    given: dict[str, Any] = {"at": at(seconds), "pool": "p", "queue": "default", "priority": 1, "limit": 2}
    return QueueFact(**(given | changes))
