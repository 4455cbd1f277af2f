"""Targets that are dead: a run that is Running by its state, and slots that stand for nobody.

What proves a death takes minutes of silence. The levers of the dying injector have their clock set ahead by `AHEAD`
instead: what was heard is really in Prefect, and old by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import prefect
from tests.flows.execution.dying_injector import AHEAD
from tests.flows.lever_targets import POOL, LeverTargets, Make, Target

from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.liveness import HEARTBEAT, THIS_HOST
from pilotage.planner.actions.types import LimitScope, MarkCrashed, ReleaseSlot

EVERY = timedelta(seconds=40)
"""From one heartbeat of the dead to the next."""
AS_PREFECT = {"User-Agent": f"prefect/{prefect.__version__} (API 0.8.4)"}
"""Prefect thinks others too old for leases."""


async def zombie(targets: LeverTargets, api: PrefectApi) -> Target:
    """A dead run that holds a slot of its deployment's limit, beside a living one."""
    deployment_id = await targets.deployment(api, THIS_HOST, concurrency_limit=4, work_pool_name=POOL)
    dead, living = [await _running(api, deployment_id) for _ in range(2)]
    limit, now = f"deployment:{deployment_id}", datetime.now(UTC)
    beats = [(dead, HEARTBEAT, now - back) for back in (EVERY, timedelta(0))]
    others = heard_from_others(now, timedelta(minutes=5))
    await api.emit(told(*beats, *others))
    deadline = now + timedelta(minutes=1)
    while len(await api.events_about(dead, now - 2 * EVERY, names=[HEARTBEAT])) < 2 or not (
        await api.events_between(others[-1][2] - EVERY / 4, others[-1][2] + EVERY / 4)
    ):
        assert datetime.now(UTC) < deadline, "Prefect does not tell what it was told"
        await asyncio.sleep(0.2)

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        found = await api.limit(limit)
        return {
            "states": [[each.name for each in await api.history(one)] for one in (dead, living)],
            "slots": found and found.active_slots,
        }

    state = (await api.run(dead)).state
    return Target(action=MarkCrashed(run_id=dead), look=look, expected_state_id=state.id)


async def slot_of_tag(targets: LeverTargets, api: PrefectApi) -> Target:
    """A tag's limit of which the task of a dead run holds a slot, and the task of a living run another."""
    tag = f"targets-{uuid4().hex[:8]}"
    name = f"tag:{tag}"
    await api._send("POST", "/v2/concurrency_limits/", json={"name": name, "limit": 4})
    dead, living = [await _running(api, targets.deployment_id) for _ in range(2)]
    tasks = []
    for run_id in (dead, living):
        task = await api.create_task_run(
            {"flow_run_id": run_id, "task_key": "t", "dynamic_key": "0", "tags": [tag]}
        )
        held = {"slots": 1, "names": [name], "holder": {"type": "task_run", "id": task}}
        await api._send("POST", "/v2/concurrency_limits/increment-with-lease", json=held, headers=AS_PREFECT)
        tasks.append(task)
    await _go(api, dead, "CRASHED")

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        holders, limit = await api.holders_of_tag(tag), await api.limit(name)
        return {"hold": [task in holders for task in tasks], "slots": limit and limit.active_slots}

    return Target(action=ReleaseSlot(scope=LimitScope.TAG, name=tag), look=look)


async def slots_of_deployment(targets: LeverTargets, api: PrefectApi) -> Target:
    """A deployment's limit of which a living run holds a slot, and two more are counted for nobody."""
    deployment_id = await targets.deployment(api, concurrency_limit=5)
    name = f"deployment:{deployment_id}"
    await _running(api, deployment_id)
    # as a restart of the server leaves them
    await api._send("POST", "/v2/concurrency_limits/increment", json={"slots": 2, "names": [name]})

    async def look(api: PrefectApi, idempotency_key: str) -> Any:
        limit = await api.limit(name)
        return limit and limit.active_slots

    return Target(action=ReleaseSlot(scope=LimitScope.DEPLOYMENT, name=deployment_id), look=look)


async def _running(api: PrefectApi, deployment_id: str) -> str:
    due = {"type": "SCHEDULED", "state_details": {"scheduled_time": datetime.now(UTC).isoformat()}}
    run_id = (await api.create_run_of(deployment_id, {"state": due})).id
    for type_ in ("PENDING", "RUNNING"):
        await _go(api, run_id, type_)
    return run_id


async def _go(api: PrefectApi, run_id: str, type_: str) -> None:
    body = {"state": {"type": type_, "name": type_.title()}, "force": False}
    await api._send("POST", f"/flow_runs/{run_id}/set_state", json=body, headers=AS_PREFECT)
    assert (await api.run(run_id)).state.type.value == type_


def heard_from_others(now: datetime, lasting: timedelta) -> list[tuple[str, str, datetime]]:
    """Events of somebody else in each interval in which the dead are silent, for whoever looks within that time."""
    first, every = now + AHEAD - 4 * EVERY, EVERY / 2
    return [
        (str(uuid4()), "somebody.else", first + number * every)
        for number in range(int((4 * EVERY + lasting) / every))
    ]


def told(*events: tuple[str, str, datetime]) -> list[dict[str, Any]]:
    """These events of runs, by id, name and time, as Prefect is told them."""
    return [
        {
            "id": str(uuid4()),
            "event": name,
            "occurred": at.isoformat(),
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        }
        for run_id, name, at in events
    ]


DEAD_RUNS: Mapping[str, Make] = {
    "mark_crashed": zombie,
    "release_slot, tag": slot_of_tag,
    "release_slot, deployment": slots_of_deployment,
}
"""As the targets's `TARGETS`."""
