"""What the fake server keeps of a flow run: the run, its states, and how they look in a reply.

Everything else that it keeps (deployments, pools, variables) is kept as the JSON of the reply itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Json = dict[str, Any]

TERMINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
STATE_TYPES = frozenset({"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"}) | TERMINAL
NO_DETAILS: Json = {
    "flow_run_id": None,
    "task_run_id": None,
    "child_flow_run_id": None,
    "scheduled_time": None,
    "cache_key": None,
    "cache_expiration": None,
    "deferred": False,
    "untrackable_result": False,
    "pause_timeout": None,
    "pause_reschedule": False,
    "pause_key": None,
    "run_input_keyset": None,
    "refresh_cache": None,
    "retriable": None,
    "transition_id": None,
    "task_parameters_id": None,
    "traceparent": None,
    "deployment_concurrency_lease_id": None,
}
"""Every detail that a state may have, with its default."""
NO_POLICY: Json = {
    "max_retries": 0,
    "retry_delay_seconds": 0.0,
    "retries": None,
    "retry_delay": None,
    "pause_keys": [],
    "resuming": False,
    "retry_type": None,
}
"""A run's `empirical_policy` with its defaults."""


def text_of(moment: datetime | None) -> str | None:
    """Return the moment as Prefect writes it in JSON."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def moment_of(text: str | None) -> datetime | None:
    """Return the moment that a JSON text says, in UTC; one without a zone is taken for UTC. Raises ValueError."""
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(slots=True, kw_only=True)
class State:
    """One state of a flow run or task run. Not changed once the run is in it."""

    id: str
    type: str
    name: str
    timestamp: datetime
    message: str | None = None
    data: Any = None
    details: Json = field(default_factory=dict)
    """As in `NO_DETAILS`, without those that have their default."""

    @property
    def scheduled_time(self) -> datetime | None:
        """When a run in this state is due."""
        return moment_of(self.details.get("scheduled_time"))

    @property
    def lease_id(self) -> str:
        """Of the slot that the deployment's limit keeps for the run, or empty."""
        return str(self.details.get("deployment_concurrency_lease_id") or "")

    @property
    def ended(self) -> bool:
        """Whether a run in this state is over."""
        return self.type in TERMINAL

    def reply(self) -> Json:
        """Return the state as JSON."""
        return {
            "id": self.id,
            "type": self.type,
            "name": self.name,
            "timestamp": text_of(self.timestamp),
            "message": self.message,
            "data": self.data,
            "state_details": NO_DETAILS | self.details,
        }


@dataclass(slots=True, kw_only=True)
class Run:
    """One flow run."""

    id: str
    name: str
    flow_id: str
    created: datetime
    updated: datetime
    deployment_id: str | None = None
    work_queue_id: str | None = None
    parameters: Json = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    labels: Json = field(default_factory=dict)
    job_variables: Json | None = None
    policy: Json = field(default_factory=lambda: dict(NO_POLICY))
    idempotency_key: str | None = None
    parent_task_run_id: str | None = None
    auto_scheduled: bool = False
    created_by: Json | None = None
    infrastructure_pid: str | None = None
    run_count: int = 0
    expected_start_time: datetime | None = None
    next_scheduled_start_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    total_run_time: timedelta = timedelta(0)
    states: list[State] = field(default_factory=list)

    @property
    def state(self) -> State:
        """The present state."""
        return self.states[-1]

    def reply(self, queue: Mapping[str, Any] | None) -> Json:
        """Return the run as JSON; `queue` is the work queue that it is in."""
        state = self.states[-1] if self.states else None
        return {
            "id": self.id,
            "created": text_of(self.created),
            "updated": text_of(self.updated),
            "name": self.name,
            "flow_id": self.flow_id,
            "state_id": state.id if state else None,
            "deployment_id": self.deployment_id,
            "deployment_version": None,
            "work_queue_id": self.work_queue_id,
            "work_queue_name": queue["name"] if queue else None,
            "work_pool_id": queue["work_pool_id"] if queue else None,
            "work_pool_name": queue["work_pool_name"] if queue else None,
            "flow_version": None,
            "parameters": self.parameters,
            "idempotency_key": self.idempotency_key,
            "context": {},
            "empirical_policy": self.policy,
            "tags": self.tags,
            "labels": self.labels,
            "parent_task_run_id": self.parent_task_run_id,
            "state_type": state.type if state else None,
            "state_name": state.name if state else None,
            "run_count": self.run_count,
            "expected_start_time": text_of(self.expected_start_time),
            "next_scheduled_start_time": text_of(self.next_scheduled_start_time),
            "start_time": text_of(self.start_time),
            "end_time": text_of(self.end_time),
            "total_run_time": self.total_run_time.total_seconds(),
            "estimated_run_time": self.total_run_time.total_seconds(),
            "estimated_start_time_delta": 0.0,
            "auto_scheduled": self.auto_scheduled,
            "infrastructure_document_id": None,
            "infrastructure_pid": self.infrastructure_pid,
            "created_by": self.created_by,
            "state": state.reply() if state else None,
            "job_variables": self.job_variables,
        }


@dataclass(slots=True, kw_only=True)
class TaskRun:
    """One task run."""

    id: str
    name: str
    task_key: str
    dynamic_key: str
    created: datetime
    updated: datetime
    flow_run_id: str | None = None
    tags: list[str] = field(default_factory=list)
    run_count: int = 0
    expected_start_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    total_run_time: timedelta = timedelta(0)
    states: list[State] = field(default_factory=list)

    def reply(self) -> Json:
        """Return the task run as JSON."""
        state = self.states[-1] if self.states else None
        return {
            "id": self.id,
            "created": text_of(self.created),
            "updated": text_of(self.updated),
            "name": self.name,
            "flow_run_id": self.flow_run_id,
            "task_key": self.task_key,
            "dynamic_key": self.dynamic_key,
            "cache_key": None,
            "cache_expiration": None,
            "task_version": None,
            "empirical_policy": NO_POLICY,
            "tags": self.tags,
            "labels": {},
            "state_id": state.id if state else None,
            "task_inputs": {},
            "state_type": state.type if state else None,
            "state_name": state.name if state else None,
            "run_count": self.run_count,
            "flow_run_run_count": 0,
            "expected_start_time": text_of(self.expected_start_time),
            "next_scheduled_start_time": None,
            "start_time": text_of(self.start_time),
            "end_time": text_of(self.end_time),
            "total_run_time": self.total_run_time.total_seconds(),
            "estimated_run_time": 0.0,
            "estimated_start_time_delta": 0.0,
            "state": state.reply() if state else None,
        }
