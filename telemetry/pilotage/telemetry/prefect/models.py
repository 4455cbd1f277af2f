"""How what Prefect's API says becomes our facts. Pure: JSON in, facts out, secrets masked on the way.

Field names are those of the REST API of Prefect 3.8; what an older server leaves out becomes a default.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pilotage.telemetry.facts import (
    AutomationFact,
    DeploymentFact,
    EventFact,
    LimitFact,
    LogLine,
    PoolFact,
    QueueFact,
    RunFact,
    ScheduleFact,
    StateType,
    TaskRunFact,
    WorkerFact,
)
from pilotage.telemetry.pool_memory import size_variables
from pilotage.telemetry.redaction import redact, redact_json

Json = Mapping[str, Any]

HOLDS_A_SLOT = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
_FLOW_RUN = "prefect.flow-run."
_AUTOMATION_DID = "prefect.automation.action."
"""Events of automations are kept with what they were done to."""


def moment(text: str | None) -> datetime | None:
    """The time that an ISO 8601 text names, in UTC; None for none."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


def _moment(text: str | None) -> datetime:
    return moment(text) or datetime.fromtimestamp(0, UTC)


def _name(name: str | None) -> str | None:
    return redact(name) if name else None


def _state(raw: Json) -> Json:
    return raw.get("state") or {}


def _state_type(raw: Json) -> StateType:
    # a run without a state has been made and not yet been scheduled
    return StateType(raw.get("state_type") or _state(raw).get("type") or "PENDING")


def run_fact(raw: Json, *, flow_name: str, deployment_name: str | None) -> RunFact:
    """One flow run, from a row of `/flow_runs/filter`."""
    state = _state(raw)
    return RunFact(
        run_id=str(raw["id"]),
        name=redact(raw.get("name") or ""),
        flow_name=redact(flow_name),
        state_type=_state_type(raw),
        state_name=redact(raw.get("state_name") or state.get("name") or ""),
        state_id=str(raw.get("state_id") or state.get("id") or ""),
        state_message=redact(state.get("message") or ""),
        deployment_id=raw.get("deployment_id"),
        deployment_name=redact(deployment_name) if deployment_name else None,
        pool=_name(raw.get("work_pool_name")),
        queue=_name(raw.get("work_queue_name")),
        run_count=raw.get("run_count") or 0,
        created=_moment(raw.get("created")),
        expected_start=moment(raw.get("expected_start_time")),
        next_start=moment(raw.get("next_scheduled_start_time")),
        started=moment(raw.get("start_time")),
        ended=moment(raw.get("end_time")),
        updated=_moment(raw.get("updated")),
        tags=tuple(redact(str(tag)) for tag in raw.get("tags") or ()),
        parameters=redact_json(raw.get("parameters") or {}),
        job_variables=redact_json(raw.get("job_variables") or {}),
        parent_task_run_id=raw.get("parent_task_run_id"),
        retries=(raw.get("empirical_policy") or {}).get("retries"),
        auto_scheduled=bool(raw.get("auto_scheduled")),
        state_at=moment(state.get("timestamp")),
    )


def task_run_fact(raw: Json) -> TaskRunFact:
    """One task run, from a row of `/task_runs/filter`."""
    state = _state(raw)
    return TaskRunFact(
        task_run_id=str(raw["id"]),
        run_id=raw.get("flow_run_id"),
        name=redact(raw.get("name") or ""),
        task_key=redact(raw.get("task_key") or ""),
        state_type=_state_type(raw),
        state_name=redact(raw.get("state_name") or state.get("name") or ""),
        state_message=redact(state.get("message") or ""),
        run_count=raw.get("run_count") or 0,
        started=moment(raw.get("start_time")),
        ended=moment(raw.get("end_time")),
        updated=_moment(raw.get("updated")),
        attempt=raw.get("flow_run_run_count") or 0,
        # a result that was kept says where; without persistence the state has no data at all
        kept=bool(isinstance(data := state.get("data"), Mapping) and data.get("storage_key")),
        tags=tuple(redact(str(tag)) for tag in raw.get("tags") or ()),
    )


def event_fact(raw: Json) -> EventFact:
    """One event, from `/events/filter` or the stream."""
    resource_id = str(raw["resource"].get("prefect.resource.id", ""))
    payload = raw.get("payload") or {}
    if str(raw["event"]).startswith(_AUTOMATION_DID):
        related = (str(each.get("prefect.resource.id", "")) for each in raw.get("related") or ())
        name = str(raw["resource"].get("prefect.resource.name", ""))
        payload = {**payload, "automation": name, "related": [each for each in related if each]}
    return EventFact(
        event_id=str(raw["id"]),
        occurred=_moment(raw["occurred"]),
        name=redact(str(raw["event"])),
        resource_id=redact(resource_id),
        run_id=_run_of(resource_id, raw.get("related") or ()),
        payload=redact_json(payload),
    )


def _run_of(resource_id: str, related: Iterable[Json]) -> str | None:
    for candidate in (
        resource_id,
        *(
            str(resource.get("prefect.resource.id", ""))
            for resource in related
            if resource.get("prefect.resource.role") == "flow-run"
        ),
    ):
        if candidate.startswith(_FLOW_RUN):
            return candidate.removeprefix(_FLOW_RUN)
    return None


def log_line(raw: Json, message: str | None = None) -> LogLine | None:
    """One log line, from a row of `/logs/filter`; None when it belongs to no flow run.

    `message` is the row's own, when the stream that it belongs to was redacted before.
    """
    if not raw.get("flow_run_id"):
        return None
    return LogLine(
        log_id=str(raw["id"]),
        run_id=str(raw["flow_run_id"]),
        task_run_id=raw.get("task_run_id"),
        at=_moment(raw.get("timestamp")),
        level=int(raw.get("level") or 0),
        message=redact(raw.get("message") or "") if message is None else message,
    )


def deployment_fact(raw: Json, *, flow_name: str) -> DeploymentFact:
    """One deployment, from a row of `/deployments/filter`."""
    return DeploymentFact(
        deployment_id=str(raw["id"]),
        name=redact(raw.get("name") or ""),
        flow_name=redact(flow_name),
        paused=bool(raw.get("paused")),
        tags=tuple(redact(str(tag)) for tag in raw.get("tags") or ()),
        pool=_name(raw.get("work_pool_name")),
        queue=_name(raw.get("work_queue_name")),
        job_variables=redact_json(raw.get("job_variables") or {}),
        updated=_moment(raw.get("updated")),
        status=str(raw.get("status") or ""),
        last_polled=moment(raw.get("last_polled")),
    )


def queue_facts(
    pool: Json, queues: Sequence[Json], live: Iterable[RunFact], now: datetime
) -> tuple[QueueFact, ...]:
    """The queues of one pool as they are now, counted from the runs that have not ended."""
    name = redact(str(pool["name"]))
    waiting: dict[str | None, list[datetime]] = {}
    holding: dict[str | None, int] = {}
    for run in live:
        if run.pool != name:
            continue
        if run.state_type in HOLDS_A_SLOT:
            holding[run.queue] = holding.get(run.queue, 0) + 1
        elif run.state_type is StateType.SCHEDULED and run.next_start is not None and run.next_start <= now:
            waiting.setdefault(run.queue, []).append(run.next_start)
    return tuple(
        QueueFact(
            at=now,
            pool=name,
            queue=redact(str(queue["name"])),
            priority=int(queue.get("priority") or 1),
            limit=queue.get("concurrency_limit"),
            pool_limit=pool.get("concurrency_limit"),
            paused=bool(queue.get("is_paused") or pool.get("is_paused")),
            waiting=len(waiting.get(redact(str(queue["name"])), ())),
            running=holding.get(redact(str(queue["name"])), 0),
            oldest_due=min(waiting.get(redact(str(queue["name"])), ()), default=None),
            pool_paused=bool(pool.get("is_paused")),
            status=str(queue.get("status") or ""),
            last_polled=moment(queue.get("last_polled")),
        )
        for queue in queues
    )


def pool_fact(raw: Json, now: datetime) -> PoolFact:
    """One work pool, from a row of `/work_pools/filter`."""
    return PoolFact(
        pool=str(raw["name"]),
        type=str(raw.get("type") or ""),
        paused=bool(raw.get("is_paused")),
        limit=raw.get("concurrency_limit"),
        status=str(raw.get("status") or ""),
        sizes=size_variables(raw.get("base_job_template"), str(raw.get("type") or "")),
        seen=now,
    )


def worker_fact(raw: Json, pool: str, now: datetime) -> WorkerFact:
    """One worker, from a row of `/work_pools/{name}/workers/filter`."""
    return WorkerFact(
        worker_id=str(raw["id"]),
        pool=pool,
        name=redact(str(raw.get("name") or "")),
        status=str(raw.get("status") or ""),
        heard=moment(raw.get("last_heartbeat_time")),
        every=raw.get("heartbeat_interval_seconds"),
        seen=now,
    )


def limit_fact(raw: Json, now: datetime) -> LimitFact:
    """One concurrency limit, from a row of `/v2/concurrency_limits/filter`."""
    return LimitFact(
        limit_id=str(raw["id"]),
        name=redact(str(raw["name"])),
        limit=int(raw["limit"]),
        active=bool(raw.get("active", True)),
        taken=round(float(raw.get("active_slots") or 0)),
        decay=float(raw.get("slot_decay_per_second") or 0),
        seen=now,
    )


def schedule_facts(raw: Json, now: datetime) -> tuple[ScheduleFact, ...]:
    """The schedules of one deployment, from a row of `/deployments/filter`."""
    return tuple(
        ScheduleFact(
            schedule_id=str(each["id"]),
            deployment_id=str(raw["id"]),
            active=bool(each.get("active", True)),
            cron=str(of.get("cron") or ""),
            timezone=str(of.get("timezone") or ""),
            interval=_seconds(of.get("interval")),
            anchor=moment(of.get("anchor_date")),
            rrule=str(of.get("rrule") or ""),
            changed=moment(each.get("updated")),
            seen=now,
        )
        for each in raw.get("schedules") or ()
        if isinstance(of := each.get("schedule"), Mapping)
    )


def _seconds(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def automation_fact(raw: Json, now: datetime) -> AutomationFact:
    """One automation, from a row of `/automations/filter`."""
    actions = [each for each in raw.get("actions") or () if isinstance(each, Mapping)]
    named = ("deployment_id", "work_queue_id", "work_pool_id", "automation_id")
    return AutomationFact(
        automation_id=str(raw["id"]),
        name=redact(str(raw.get("name") or "")),
        enabled=bool(raw.get("enabled", True)),
        actions=tuple(str(each.get("type") or "") for each in actions),
        targets=tuple(str(each[key]) for each in actions for key in named if each.get(key)),
        seen=now,
    )
