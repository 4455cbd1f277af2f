"""What happened: the frozen facts that the collector writes and everybody else reads.

Every time is an aware UTC `datetime`, every id is Prefect's own, as text. Text that users or their code
wrote (messages, log lines, names, parameters) has had its secrets redacted before it gets here, and stays
untrusted: it is data, to be escaped when shown and quoted when a model reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class StateType(StrEnum):
    """Prefect's state types."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"


TERMINAL: frozenset[StateType] = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFact:
    """One flow run, as Prefect last told it."""

    run_id: str
    name: str
    flow_name: str
    state_type: StateType
    state_name: str
    """Prefect's display name, such as `Late`, `AwaitingRetry`, `TimedOut`."""
    state_id: str
    state_message: str = ""
    """Redacted; untrusted."""
    deployment_id: str | None = None
    deployment_name: str | None = None
    pool: str | None = None
    queue: str | None = None
    run_count: int = 0
    """How many times it has entered Running."""
    created: datetime
    expected_start: datetime | None = None
    """The first scheduled time; Prefect keeps it when a run is rescheduled."""
    next_start: datetime | None = None
    """The time of the present Scheduled state, or None."""
    started: datetime | None = None
    ended: datetime | None = None
    updated: datetime
    tags: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """Redacted; untrusted."""
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    parent_task_run_id: str | None = None
    """The task run of another run that started this one."""
    retries: int | None = None
    """How many retries its own policy grants; None when nobody said."""
    auto_scheduled: bool = False
    """Whether a schedule made it."""
    state_at: datetime | None = None
    """When it entered its present state; None where that was not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupFact:
    """How the runs of one deployment that ended within one hour or day went."""

    grain: str
    """`hour` or `day`."""
    start: datetime
    """Its first moment, in UTC."""
    deployment_id: str
    """Empty for runs of no deployment."""
    deployment_name: str
    flow_name: str
    runs: int
    completed: int
    failed: int
    crashed: int
    cancelled: int
    retried: int
    """Those that were started more than once."""
    seconds: float
    """All their times from start to end together."""
    seconds_p50: float | None
    seconds_p95: float | None
    late_p95: float | None
    """Seconds after the expected start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRunFact:
    """One task run."""

    task_run_id: str
    run_id: str | None
    name: str
    task_key: str
    state_type: StateType
    state_name: str
    state_message: str = ""
    run_count: int = 0
    started: datetime | None = None
    ended: datetime | None = None
    updated: datetime
    attempt: int = 0
    """The attempt of its flow run in which it was made, from 1; each attempt makes its own. 0 when unknown."""
    kept: bool = False
    """Whether its result is in storage, where the next attempt looks for it."""
    tags: tuple[str, ...] = ()
    """What a limit by tag counts it under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFact:
    """One Prefect event. `event_id` is what makes a second delivery harmless."""

    event_id: str
    occurred: datetime
    name: str
    """Such as `prefect.flow-run.Failed`."""
    resource_id: str
    run_id: str | None = None
    payload: Mapping[str, Any] = field(default_factory=dict)
    """Redacted; untrusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One log record of a run."""

    log_id: str
    run_id: str
    task_run_id: str | None = None
    at: datetime
    level: int
    """Python's logging levels: 20 info, 30 warning, 40 error, 50 critical."""
    message: str
    """Redacted; untrusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFact:
    """One work queue at one moment."""

    at: datetime
    pool: str
    queue: str
    priority: int
    """1 is served first."""
    limit: int | None = None
    pool_limit: int | None = None
    paused: bool = False
    waiting: int = 0
    """Runs that are due and not yet picked up."""
    running: int = 0
    """Runs that hold a slot (pending, running or cancelling)."""
    oldest_due: datetime | None = None
    """Start time of the longest waiting due run, or None when nothing waits."""
    pool_paused: bool = False
    """Whether its pool is what is paused."""
    status: str = ""
    """As Prefect says it: `READY`, `NOT_READY`, `PAUSED`; empty where nobody asked."""
    last_polled: datetime | None = None
    """When a worker last asked for its runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFact:
    """One deployment: what governs its runs."""

    deployment_id: str
    name: str
    flow_name: str
    paused: bool = False
    tags: tuple[str, ...] = ()
    pool: str | None = None
    queue: str | None = None
    job_variables: Mapping[str, Any] = field(default_factory=dict)
    updated: datetime
    status: str = ""
    """`READY` while something asks for its runs, `NOT_READY` otherwise; empty where nobody asked."""
    last_polled: datetime | None = None
    """When its queue or a process that serves it last asked for its runs."""
    paused_since: datetime | None = None
    """When it was seen to become paused; None when it is not, or was so at the first look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFact:
    """One work pool as it is now."""

    pool: str
    type: str = ""
    paused: bool = False
    limit: int | None = None
    status: str = ""
    """`READY` while a worker is heard, `NOT_READY`, `PAUSED`."""
    changed: datetime | None = None
    """When its pause or status was seen to change; None when it was so at the first look."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Job variables of its template that bear on a run's size, each with its default, None where it has none."""
    seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFact:
    """One worker as it is now."""

    worker_id: str
    pool: str
    name: str
    status: str = ""
    """`ONLINE` or `OFFLINE`, as Prefect says it."""
    heard: datetime | None = None
    """Its last heartbeat."""
    every: float | None = None
    """Seconds between its heartbeats."""
    seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFact:
    """One concurrency limit as it is now: of a deployment (`deployment:<id>`), of a tag (`tag:<tag>`) or global."""

    limit_id: str
    name: str
    limit: int
    active: bool = True
    taken: int = 0
    """Slots that count as taken."""
    holders: tuple[str, ...] = ()
    """Task runs that hold them, where Prefect says (limits by tag)."""
    decay: float = 0.0
    """Slots a second that come free by themselves; not 0 for a rate limit."""
    full_since: datetime | None = None
    """When it was seen to become full; None while it is not."""
    seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleFact:
    """One schedule of a deployment as it is now."""

    schedule_id: str
    deployment_id: str
    active: bool = True
    cron: str = ""
    timezone: str = ""
    """Empty where none is given: Prefect then means UTC."""
    interval: float | None = None
    """Seconds."""
    anchor: datetime | None = None
    """Where the intervals are counted from."""
    rrule: str = ""
    changed: datetime | None = None
    """When it was last edited."""
    inactive_since: datetime | None = None
    """When it was seen to become inactive; None when it is active, or was inactive at the first look."""
    last_due: datetime | None = None
    """The last time it fires up to when it was seen; None where that cannot be told."""
    next_due: datetime | None = None
    """The next one."""
    every: float | None = None
    """Seconds between these two."""
    seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AutomationFact:
    """One of Prefect's automations as it is now."""

    automation_id: str
    name: str
    enabled: bool = True
    actions: tuple[str, ...] = ()
    """Kinds of its actions, such as `pause-deployment`."""
    targets: tuple[str, ...] = ()
    """Ids of deployments, queues and pools that its actions name."""
    seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedFact:
    """When a kind of fact was last asked for: its age."""

    kind: str
    """`pools`, `queues`, `deployments`, `limits`, `tag_limits`, `automations`, `workers:<pool>`; `api` for all requests."""
    at: datetime | None = None
    """When it was last answered."""
    ms: float = 0.0
    """How long the answer took; of `api` the 95th percentile of the last minutes."""
    requests: int = 0
    """How many requests that took; of `api` how many were made in the last minutes."""
    failures: int = 0
    """How many of them failed in a row; of `api` in the last minutes."""
    error: str = ""
    """What went wrong last, where something is wrong now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanFact:
    """One step of the agent as OpenTelemetry's conventions for generative AI tell it. No prompt and no answer is in it."""

    span_id: str
    trace_id: str
    parent_id: str | None = None
    at: datetime
    """When it began."""
    ms: float
    """How long it took."""
    name: str
    operation: str
    """`invoke_agent` for a whole turn or thought, `invoke_workflow` for its graph, `chat` for a call of the model,
    `execute_tool` for a look-up. Tokens and cost stand on `chat` alone, so that a sum counts each once."""
    conversation: str = ""
    """`chat:` and a session, or the id of the incident that was thought about."""
    model: str = ""
    tool: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """By the prices in the settings; 0 where none are set."""
    first_token_ms: float | None = None
    """Until the first piece of a streamed answer."""
    error: str = ""
    """The type of what went wrong, or empty."""
    agent: str = ""
    """Whose step it was, as the API knows who handed it in: `planner`, or `agent-of-` and a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionFact:
    """One step of a proposal's life, mirrored from the ledger so that readers need no key."""

    decision_id: str
    at: datetime
    proposal_id: str
    incident_id: str
    run_id: str | None
    step: str
    """`proposed`, `judged`, `approved`, `rejected`, `replaced`, `admitted`,
    `injected`, `verified`, `undone` or `refused`."""
    action: str
    outcome: str
    policy_ids: tuple[str, ...] = ()
    actor: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
