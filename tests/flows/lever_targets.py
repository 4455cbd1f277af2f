"""A pool that no worker serves, and in it a fresh target for every kind of action.

Each target says how it is to be looked at: everything that its lever could change, told so that the same change
of another target of the same kind looks the same. Two looks that are equal are two equal effects.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from tests.conftest import PrefectServer

from pilotage.flows.levers.idempotency import ChangeRecords, Purpose
from pilotage.flows.levers.notify_owner import STEP
from pilotage.flows.notify.notifier import Notifier, event_id
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import (
    Action,
    AnswerRun,
    CancelRun,
    CancelTree,
    CatchUp,
    ChangeParameters,
    Directive,
    HoldQueue,
    LaunchRemediation,
    LimitScope,
    MoveRun,
    NotifyOwner,
    OverrideResult,
    ParameterValue,
    PauseDeployment,
    RaiseRetries,
    ReleaseQueue,
    RescheduleRun,
    ReserveSlot,
    ResizeRun,
    ResolveAlert,
    ResumeRun,
    RetryRun,
    SendDirective,
    SetLimit,
    SetPriority,
    SizeRun,
    SpreadRuns,
    StartRun,
    SuspendRun,
)
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

T = TypeVar("T")
Look = Callable[[PrefectApi, str], Awaitable[Any]]
"""What there is to see of a target, after a change under this mark."""

POOL = "targets"
HOUR = timedelta(hours=1)
TAG = "targets-db"
GATE = "targets-gate"
SCHEMA = {"type": "object", "properties": {"size": {"type": "integer"}}}


class PatientApi(PrefectApi):
    """An API for setting the stage: on a server that is kept busy, it asks for as long as it takes."""

    async def _send(
        self, method: str, route: str, *, none_on: tuple[int, ...] = (), **sent: Any
    ) -> httpx.Response | None:
        for _ in range(10):
            try:
                return await super()._send(method, route, none_on=none_on, **sent)
            except OrchestratorError as error:
                if not error.transient:
                    raise
        return await super()._send(method, route, none_on=none_on, **sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something to be changed."""

    action: Action
    look: Look
    expected_state_id: str = ""


@dataclass(slots=True, kw_only=True)
class LeverTargets:
    """The pool, and what all targets in it share."""

    server: PrefectServer
    deployment_id: str = ""
    remedy_id: str = ""
    limited_id: str = ""
    base: datetime = field(default_factory=lambda: (datetime.now(UTC) + 6 * HOUR).replace(microsecond=0))
    """When runs of the targets are due."""

    def ask(self, work: Callable[[PrefectApi], Awaitable[T]]) -> T:
        """What the work returned."""

        async def inside() -> T:
            async with PatientApi.from_prefect_settings(guard=None).opened() as api:
                return await work(api)

        return asyncio.run(inside())

    async def deployment(self, api: PrefectApi, *tags: str, **more: Any) -> str:
        """The id of a new deployment in the pool."""
        name = uuid4().hex[:8]
        flow = await api._send("POST", "/flows/", json={"name": f"targets-{name}"})
        assert flow is not None
        made = await api._send(
            "POST",
            "/deployments/",
            json={
                "name": name,
                "flow_id": flow.json()["id"],
                "tags": ["env:dev", "tier:3", *tags],
                "work_pool_name": POOL,
                "work_queue_name": "a",
                "entrypoint": "none.py:none",
                "parameter_openapi_schema": SCHEMA,
                "enforce_parameter_schema": False,
                **more,
            },
        )
        assert made is not None
        return str(made.json()["id"])

    async def run(
        self, api: PrefectApi, *path: StateType, due: datetime | None = None, of: str = "", below: str = ""
    ) -> str:
        """The id of a new run that went through these states."""
        # a run that is due later would have to wait before it runs
        due = due or (datetime.now(UTC) if path else self.base)
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
        body: dict[str, Any] = {"state": state, "parameters": {"size": 1}}
        if below:
            link = {"flow_run_id": below, "task_key": "t", "dynamic_key": str(uuid4())}
            running = {"type": "RUNNING", "name": "Running"}
            body["parent_task_run_id"] = await api.create_task_run({**link, "state": running})
        run = await api.create_run_of(of or self.deployment_id, body)
        for type_ in path:
            idempotency_key = str(uuid4())
            moved = await api.set_state(
                run.id, type_, type_.value.title(), message="", idempotency_key=idempotency_key
            )
            if moved.ruling != "ACCEPT":
                # the answer to a first try was lost, and Prefect would not take the same again
                assert (await api.run(run.id)).state.transition_id == idempotency_key, moved
        return run.id

    def open(self) -> None:
        """Make the pool and what is shared."""
        self.server.embedded.create_pool(POOL, queues=("a", "b", "default"), concurrency_limit=9)

        async def work(api: PrefectApi) -> None:
            self.deployment_id = await self.deployment(api)
            self.remedy_id = await self.deployment(api, "pilotage:remediation")
            self.limited_id = await self.deployment(api, concurrency_limit=4)
            for name in (GATE, f"tag:{TAG}"):
                # another targets of the session may have made it
                await api._send(
                    "POST", "/v2/concurrency_limits/", none_on=(409,), json={"name": name, "limit": 4}
                )

        self.ask(work)

    def offset(self, at: datetime | None) -> int | None:
        """Minutes from the targets's time, to the nearest ten: when exactly a retry is due differs from try to try."""
        return None if at is None else round((at - self.base).total_seconds() / 600)


FAILED = (StateType.PENDING, StateType.RUNNING, StateType.FAILED)
RUNNING = (StateType.PENDING, StateType.RUNNING)


async def of_run(targets: LeverTargets, api: PrefectApi, run_id: str) -> dict[str, Any]:
    """Everything about a run that a lever could have changed."""
    run = await api.run(run_id)
    # Prefect itself makes an overdue run Late when it comes to it
    names = [state.name for state in await api.history(run_id) if state.name != "Late"]
    return {
        "states": names,
        "due": targets.offset(run.next_start),
        "queue": run.queue,
        "parameters": dict(run.parameters),
        "memory": run.job_variables.get("memory_mb"),
        "retries": run.policy.get("retries"),
        "inputs": sorted(each.value for each in await api.inputs(run_id, "pilotage-")),
        "children": [child.state.name for child in await api.children(run_id)],
    }


async def of_pool(api: PrefectApi) -> dict[str, Any]:
    """Everything about the pool, its queues and the limits that a lever could have changed."""
    pool = await api.pool(POOL)
    queues = await api.queues(POOL)
    return {
        "pool": [pool.limit, pool.paused],
        "queues": [[each.name, each.priority, each.limit, each.paused] for each in queues],
    }


def run_look(targets: LeverTargets, *runs: str, twins: bool = False) -> Look:
    """A look at these runs, and at the runs that were made under the mark."""

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        seen = [await of_run(targets, api, run_id) for run_id in runs]
        if twins:
            made = await api.runs_with_key(idempotency_key)
            seen += [await of_run(targets, api, each.id) for each in made]
        return {"runs": seen, **await of_pool(api)}

    return look


async def pool_look(api: PrefectApi, idempotency_key: str) -> Any:
    """A look at the pool."""
    return await of_pool(api)


def limit_look(name: str) -> Look:
    """A look at one limit."""

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        limit = await api.limit(name)
        return limit and limit.limit

    return look


Make = Callable[[LeverTargets, PrefectApi], Awaitable[Target]]


async def _of_run(targets: LeverTargets, api: PrefectApi, action: Any, run_id: str, **kind: bool) -> Target:
    state = (await api.run(run_id)).state
    return Target(action=action, look=run_look(targets, run_id, **kind), expected_state_id=state.id)


async def retry(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *FAILED)
    return await _of_run(targets, api, RetryRun(run_id=run_id, delay=2 * HOUR), run_id)


async def resize(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *FAILED)
    return await _of_run(targets, api, ResizeRun(run_id=run_id, memory_mb=192), run_id)


async def size(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api)
    return await _of_run(targets, api, SizeRun(run_id=run_id, memory_mb=192), run_id)


async def reschedule(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api)
    return await _of_run(targets, api, RescheduleRun(run_id=run_id, start=targets.base + HOUR), run_id)


async def reschedule_due(targets: LeverTargets, api: PrefectApi) -> Target:
    """One that is due, so that its queue is held while it is moved."""
    # a fixed distance from the targets's time, so that what a way back restores looks the same
    run_id = await targets.run(api, due=targets.base - 7 * HOUR)
    action = RescheduleRun(run_id=run_id, start=targets.base + HOUR)
    # no state is expected: Prefect makes it Late at any moment
    return Target(action=action, look=run_look(targets, run_id))


async def cancel(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api)
    return await _of_run(targets, api, CancelRun(run_id=run_id), run_id)


async def cancel_running(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *RUNNING)
    return await _of_run(targets, api, CancelRun(run_id=run_id), run_id)


async def parameters(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api)
    changes = (ParameterValue(name="size", value=7),)
    return await _of_run(targets, api, ChangeParameters(run_id=run_id, changes=changes), run_id)


async def move(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api)
    return await _of_run(targets, api, MoveRun(run_id=run_id, queue="b"), run_id, twins=True)


async def retries(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *RUNNING)
    return await _of_run(targets, api, RaiseRetries(run_id=run_id, retries=3), run_id)


async def directive(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *RUNNING)
    return await _of_run(targets, api, SendDirective(run_id=run_id, directive=Directive.DRAIN), run_id)


async def remediation(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *FAILED)
    action = LaunchRemediation(run_id=run_id, deployment_id=targets.remedy_id)
    return await _of_run(targets, api, action, run_id, twins=True)


async def start_again(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api)
    await api.set_state(
        run_id,
        StateType.CANCELLED,
        "Cancelled",
        message="pilotage p-0: cancel_run",
        idempotency_key=str(uuid4()),
    )
    return await _of_run(targets, api, StartRun(run_id=run_id), run_id, twins=True)


async def suspend(targets: LeverTargets, api: PrefectApi) -> Target:
    safe = await targets.deployment(api, "pilotage:suspend-safe")
    run_id = await targets.run(api, *RUNNING, of=safe)
    return await _of_run(targets, api, SuspendRun(run_id=run_id, hold=HOUR), run_id)


async def resume(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *RUNNING)
    details = {"pause_reschedule": True, "pause_timeout": (datetime.now(UTC) + HOUR).isoformat()}
    await api.set_state_if(
        run_id,
        (StateType.RUNNING,),
        StateType.PAUSED,
        "Suspended",
        message="",
        idempotency_key=str(uuid4()),
        details=details,
    )
    return await _of_run(targets, api, ResumeRun(run_id=run_id), run_id)


async def tree(targets: LeverTargets, api: PrefectApi) -> Target:
    root = await targets.run(api)
    child = await targets.run(api, below=root)
    grandchild = await targets.run(api, below=child)
    state = (await api.run(root)).state
    look = run_look(targets, root, child, grandchild)
    return Target(action=CancelTree(run_id=root), look=look, expected_state_id=state.id)


async def notify(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *FAILED)
    since = datetime.now(UTC)

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        told = await _event_within(api, idempotency_key, STEP, since, timedelta(seconds=12))
        return {"event": told, **await of_run(targets, api, run_id)}

    return Target(action=NotifyOwner(run_id=run_id), look=look)


async def _event_within(api: PrefectApi, key: str, step: str, since: datetime, within: timedelta) -> bool:
    """Whether the event can be read back; Prefect writes events in batches, seconds later."""
    deadline = datetime.now(UTC) + within
    while not await api.event_exists(event_id(key, step), since):
        if datetime.now(UTC) > deadline:
            return False
        await asyncio.sleep(0.3)
    return True


async def resolve(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id, since = await targets.run(api, *FAILED), datetime.now(UTC)
    key = str(uuid4())
    await Notifier(api=api).event(run_id, STEP, key=key, payload={})
    await _event_within(api, key, STEP, since, timedelta(seconds=60))

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        # one event has one id, so it is there once or not at all
        resolved = await _event_within(api, idempotency_key, "resolved", since, timedelta(seconds=12))
        return {"resolved": resolved, **await of_run(targets, api, run_id)}

    return Target(action=ResolveAlert(run_id=run_id), look=look)


async def override(targets: LeverTargets, api: PrefectApi) -> Target:
    overridable = await targets.deployment(api, "pilotage:overridable")
    run_id = await targets.run(api, *FAILED, of=overridable)
    return await _of_run(targets, api, OverrideResult(run_id=run_id, task="price", value=7), run_id)


async def answer(targets: LeverTargets, api: PrefectApi) -> Target:
    run_id = await targets.run(api, *RUNNING)
    keys = {"description": "d", "schema": "targets-schema", "response": "pilotage-targets-response"}
    await api.set_state_if(
        run_id,
        (StateType.RUNNING,),
        StateType.PAUSED,
        "Paused",
        message="",
        idempotency_key=str(uuid4()),
        details={"pause_timeout": (datetime.now(UTC) + HOUR).isoformat(), "run_input_keyset": keys},
    )
    # only now, as Prefect does it: since 3.9.1 the server drops at the pause what an earlier attempt left
    await api.send_input(run_id, keys["schema"], json.dumps(SCHEMA), sender="flow")
    answers = (ParameterValue(name="size", value=7),)
    return await _of_run(targets, api, AnswerRun(run_id=run_id, answers=answers), run_id)


async def pause(targets: LeverTargets, api: PrefectApi) -> Target:
    daily = {"schedule": {"interval": 86400, "anchor_date": targets.base.isoformat()}, "active": True}
    deployment_id = await targets.deployment(api, schedules=[daily])
    await api._send("POST", f"/deployments/{deployment_id}/schedule", json={})
    where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    # somebody has changed one of them
    await api.set_parameters((await api.runs(where))[-1].id, {"size": 5})

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        deployment = await api.deployment(deployment_id)
        ahead = await api.all_runs(where, most=400)
        active = [each.get("active") for each in deployment.schedules]
        # how many the scheduler has made already is its own affair; that there are some is not
        starts = [targets.offset(run.next_start) for run in ahead]
        return {
            "paused": deployment.paused,
            "active": active,
            "ahead": bool(ahead),
            "edited": [run.parameters for run in ahead if run.parameters],
            "doubled": len(starts) - len(set(starts)),
        }

    return Target(action=PauseDeployment(deployment_id=deployment_id, hold=HOUR), look=look)


async def spread(targets: LeverTargets, api: PrefectApi) -> Target:
    deployment_id, runs = await _backlog(targets, api)
    action = SpreadRuns(
        deployment_id=deployment_id, first=targets.base, wave=2, every=timedelta(minutes=30), most=100
    )
    return Target(action=action, look=run_look(targets, *runs))


async def catch_up(targets: LeverTargets, api: PrefectApi) -> Target:
    deployment_id, runs = await _backlog(targets, api)
    action = CatchUp(
        deployment_id=deployment_id, keep=2, first=targets.base, wave=1, every=timedelta(minutes=30)
    )
    return Target(action=action, look=run_look(targets, *runs))


async def _backlog(targets: LeverTargets, api: PrefectApi) -> tuple[str, list[str]]:
    """A deployment of which four runs are overdue."""
    deployment_id = await targets.deployment(api)
    # fixed distances from the targets's time, so that what a way back restores looks the same
    late = [targets.base - timedelta(hours=8) - number * HOUR for number in range(4)]
    return deployment_id, [await targets.run(api, due=due, of=deployment_id) for due in late]


def on_pool(action: Action, look: Look = pool_look, *, paused: bool = False) -> Make:
    """A target that is the pool, a queue or a limit: always the same one, taken back each time."""

    async def make(targets: LeverTargets, api: PrefectApi) -> Target:
        await cleanup(api)
        if paused:
            await api.set_queue_paused(POOL, "b", True)
        return Target(action=action, look=look)

    return make


async def limit_of_deployment(targets: LeverTargets, api: PrefectApi) -> Target:
    name = f"deployment:{targets.limited_id}"
    await cleanup(api)
    await api.set_limit(name, 4)
    action = SetLimit(scope=LimitScope.DEPLOYMENT, name=targets.limited_id, limit=2, hold=HOUR)
    return Target(action=action, look=limit_look(name))


async def cleanup(api: PrefectApi) -> None:
    """Bring pool, queues and limits back to what they were at first, and forget our changes to them."""
    notes = ChangeRecords(api)
    shared: tuple[Purpose, ...] = ("limit", "reserve", "priority")
    for purpose in shared:
        for idempotency_key in await notes.of(purpose):
            await notes.forget(purpose, idempotency_key)
    await api.set_pool_paused(POOL, False)
    await api.set_pool_limit(POOL, 9)
    for rank, queue in enumerate(("a", "b", "default"), start=1):
        await api.set_queue_priority(POOL, queue, rank)
        await api.set_queue_limit(POOL, queue, None)
        await api.set_queue_paused(POOL, queue, False)
    for name in (GATE, f"tag:{TAG}"):
        await api.set_limit(name, 4)


TARGETS: Mapping[str, Make] = {
    "retry_run": retry,
    "resize_run": resize,
    "size_run": size,
    "reschedule_run": reschedule,
    "reschedule_run, due": reschedule_due,
    "reserve_slot": on_pool(
        ReserveSlot(pool=POOL, busy_queue="a", starved_queue="default", limit=1, hold=HOUR)
    ),
    "cancel_run": cancel,
    "cancel_run, running": cancel_running,
    "pause_deployment": pause,
    "notify_owner": notify,
    "change_parameters": parameters,
    "move_run": move,
    "set_priority": on_pool(SetPriority(pool=POOL, queue="default", priority=1, hold=HOUR)),
    "set_limit, pool": on_pool(SetLimit(scope=LimitScope.POOL, name=POOL, limit=2, hold=HOUR)),
    "set_limit, queue": on_pool(SetLimit(scope=LimitScope.QUEUE, pool=POOL, name="a", limit=2, hold=HOUR)),
    "set_limit, global": on_pool(
        SetLimit(scope=LimitScope.GLOBAL, name=GATE, limit=2, hold=HOUR), limit_look(GATE)
    ),
    "set_limit, tag": on_pool(
        SetLimit(scope=LimitScope.TAG, name=TAG, limit=2, hold=HOUR), limit_look(f"tag:{TAG}")
    ),
    "set_limit, deployment": limit_of_deployment,
    "hold_queue": on_pool(HoldQueue(pool=POOL, queue="a", hold=HOUR)),
    "hold_queue, pool": on_pool(HoldQueue(pool=POOL, hold=HOUR)),
    "release_queue": on_pool(ReleaseQueue(pool=POOL, queue="b"), paused=True),
    "raise_retries": retries,
    "override_result": override,
    "answer_run": answer,
    "resolve_alert": resolve,
    "cancel_tree": tree,
    "launch_remediation": remediation,
    "start_run": start_again,
    "send_directive": directive,
    "suspend_run": suspend,
    "resume_run": resume,
    "spread_runs": spread,
    "catch_up": catch_up,
}
"""By action kind, and after a comma what sets it apart from another of its kind. The dead are in `dead_run_targets`."""
