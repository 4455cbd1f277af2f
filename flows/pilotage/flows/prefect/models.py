"""Types the few fields of Prefect's replies that levers and target facts use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from pilotage.telemetry.facts import TERMINAL, StateType
from pilotage.telemetry.pool_memory import placeholders


@dataclass(frozen=True, slots=True, kw_only=True)
class StateView:
    """One state of a run."""

    id: str
    type: StateType
    name: str
    message: str
    """Untrusted."""
    at: datetime
    scheduled_for: datetime | None
    transition_id: str
    """The mark of whoever set it, or empty."""
    lease_id: str = ""
    """Of the slot that its deployment's limit keeps for the run, or empty."""
    input_keys: Mapping[str, str] = field(default_factory=dict)
    """For a run that waits for input: the keys of its `schema` and of the `response` that is awaited."""
    reschedules: bool = False
    """Of a paused run: whether its process has ended, so that it is started again to go on."""

    @property
    def ended(self) -> bool:
        """Whether the run is over in this state."""
        return self.type in TERMINAL

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> StateView:
        """The state in a reply. Raises KeyError or ValueError when it is none."""
        details: Mapping[str, Any] = reply.get("state_details") or {}
        return cls(
            id=reply["id"],
            type=StateType(reply["type"]),
            name=reply["name"],
            message=reply.get("message") or "",
            at=moment(reply["timestamp"]),
            scheduled_for=_maybe_moment(details.get("scheduled_time")),
            transition_id=details.get("transition_id") or "",
            lease_id=details.get("deployment_concurrency_lease_id") or "",
            input_keys=dict(details.get("run_input_keyset") or {}),
            reschedules=bool(details.get("pause_reschedule")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One flow run."""

    id: str
    name: str
    state: StateView
    deployment_id: str
    """Empty when it was started without one: then nothing can start it again."""
    pool: str
    queue: str
    run_count: int
    next_start: datetime | None
    """The time of the present Scheduled state."""
    started: datetime | None
    ended: datetime | None
    tags: tuple[str, ...]
    auto_scheduled: bool
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Untrusted."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The empirical policy as Prefect tells it; a change of one field sends all of them back."""
    flow_id: str = ""
    parent_task_run_id: str = ""
    expected: datetime | None = None
    """When it was to start at first; moving a run does not change it."""
    worker: str = ""
    """The name of the worker that took it, or empty."""
    pid: str = ""
    """Of its process, as its worker tells it; a number for a process worker."""
    made_by: str = ""
    """The id of the schedule that made it, or of whatever else Prefect says, or empty."""

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> RunView:
        """The run in a reply. Raises KeyError, TypeError or ValueError when it is none."""
        return cls(
            id=reply["id"],
            name=reply["name"],
            state=StateView.read(reply["state"]),
            deployment_id=reply.get("deployment_id") or "",
            pool=reply.get("work_pool_name") or "",
            queue=reply.get("work_queue_name") or "",
            run_count=reply.get("run_count") or 0,
            next_start=_maybe_moment(reply.get("next_scheduled_start_time")),
            started=_maybe_moment(reply.get("start_time")),
            ended=_maybe_moment(reply.get("end_time")),
            tags=tuple(reply.get("tags") or ()),
            auto_scheduled=bool(reply.get("auto_scheduled")),
            job_variables=dict(reply.get("job_variables") or {}),
            labels=dict(reply.get("labels") or {}),
            parameters=dict(reply.get("parameters") or {}),
            policy=dict(reply.get("empirical_policy") or {}),
            flow_id=reply.get("flow_id") or "",
            parent_task_run_id=reply.get("parent_task_run_id") or "",
            expected=_maybe_moment(reply.get("expected_start_time")),
            worker=str((reply.get("labels") or {}).get("prefect.worker.name") or ""),
            pid=str(reply.get("infrastructure_pid") or ""),
            made_by=str((reply.get("created_by") or {}).get("id") or ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentView:
    """One deployment."""

    id: str
    name: str
    flow_id: str
    paused: bool
    tags: tuple[str, ...]
    pool: str
    queue: str
    schedules: tuple[Mapping[str, Any], ...]
    """As Prefect tells them; `id` and `active` matter to us."""
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """What its runs are given; each schedule may give others besides."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """What parameters the flow takes, as a JSON schema; empty when the deployment never said."""
    enforced: bool = True
    """Whether Prefect itself holds new runs to the schema."""

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> DeploymentView:
        """The deployment in a reply. Raises KeyError when it is none."""
        return cls(
            id=reply["id"],
            name=reply["name"],
            flow_id=reply["flow_id"],
            paused=bool(reply.get("paused")),
            tags=tuple(reply.get("tags") or ()),
            pool=reply.get("work_pool_name") or "",
            queue=reply.get("work_queue_name") or "",
            schedules=tuple(reply.get("schedules") or ()),
            job_variables=dict(reply.get("job_variables") or {}),
            parameters=dict(reply.get("parameters") or {}),
            schema=dict(reply.get("parameter_openapi_schema") or {}),
            enforced=reply.get("enforce_parameter_schema", True) is not False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueView:
    """One work queue of a pool."""

    name: str
    priority: int
    """1 is served first."""
    limit: int | None
    paused: bool

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> QueueView:
        """The queue in a reply. Raises KeyError when it is none."""
        return cls(
            name=reply["name"],
            priority=reply["priority"],
            limit=reply.get("concurrency_limit"),
            paused=bool(reply.get("is_paused")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """One work pool."""

    name: str
    limit: int | None
    variables: Mapping[str, Any]
    """The properties of its job template's variables, each with its `default` where it has one."""
    type: str = ""
    """As `kubernetes` or `ecs:push`."""
    used: frozenset[str] = frozenset()
    """The variables that its job template's configuration uses."""
    paused: bool = False

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> PoolView:
        """The pool in a reply. Raises KeyError when it is none."""
        template: Mapping[str, Any] = reply.get("base_job_template") or {}
        return cls(
            name=reply["name"],
            limit=reply.get("concurrency_limit"),
            variables=dict((template.get("variables") or {}).get("properties") or {}),
            type=reply.get("type") or "",
            used=placeholders(template.get("job_configuration")),
            paused=bool(reply.get("is_paused")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """One global concurrency limit; a tag's and a deployment's are of this kind too."""

    id: str
    name: str
    limit: int
    active_slots: int
    updated: datetime | None = field(default=None, compare=False)
    """When a slot was last taken or given back, or the limit changed."""

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> LimitView:
        """The limit in a reply. Raises KeyError when it is none."""
        return cls(
            id=reply["id"],
            name=reply["name"],
            limit=reply["limit"],
            active_slots=reply.get("active_slots") or 0,
            updated=_maybe_moment(reply.get("updated")),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker of a pool, as far as Prefect has heard of it."""

    name: str
    online: bool
    heard: datetime | None
    every: timedelta
    """From one of its heartbeats to the next."""

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> WorkerView:
        """The worker in a reply. Raises KeyError when it is none."""
        return cls(
            name=reply["name"],
            online=reply["status"] == "ONLINE",
            heard=_maybe_moment(reply.get("last_heartbeat_time")),
            every=timedelta(seconds=reply.get("heartbeat_interval_seconds") or 30),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One event that Prefect keeps."""

    name: str
    at: datetime

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> EventView:
        """The event in a reply. Raises KeyError or ValueError when it is none."""
        return cls(name=reply["event"], at=moment(reply["occurred"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class InputView:
    """One input that somebody gave a run, or that a run put down for others to read."""

    key: str
    value: str
    """Untrusted; JSON as a rule."""
    sender: str

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> InputView:
        """The input in a reply. Raises KeyError when it is none."""
        return cls(key=reply["key"], value=reply.get("value") or "", sender=reply.get("sender") or "")


Ruling = Literal["ACCEPT", "REJECT", "ABORT", "WAIT", "NONE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """What Prefect said to a proposed state. Read all three: a REJECT may still have had the effect."""

    ruling: Ruling
    """`NONE`: the guard did not match, so nothing was proposed to the run."""
    state: StateView | None
    reason: str = ""

    @classmethod
    def read(cls, reply: Mapping[str, Any]) -> Transition:
        """The ruling in a reply. Raises KeyError or ValueError when it is none."""
        state = reply.get("state")
        return cls(
            ruling=reply["status"],
            # a state that was refused comes back without an id or a time
            state=StateView.read(state) if state and state.get("id") and state.get("timestamp") else None,
            reason=str((reply.get("details") or {}).get("reason") or ""),
        )


def moment(text: str) -> datetime:
    """The aware time that an ISO 8601 text stands for."""
    return datetime.fromisoformat(text)


def _maybe_moment(text: str | None) -> datetime | None:
    return moment(text) if text else None
