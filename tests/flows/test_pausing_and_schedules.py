"""A schedule makes runs with the releases we pin; a quarantine stops it and undo brings it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import TypeVar
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import IntervalSchedule
from tests.flows.conftest import Floor

from pilotage.flows.levers.pause import PauseLever
from pilotage.flows.prefect_api import PrefectApi
from pilotage.flows.receipts import Effect, Judgement
from pilotage.planner.actions import PauseDeployment

pytestmark = pytest.mark.prefect

T = TypeVar("T")


@pytest.fixture
def scheduled(floor: Floor) -> Iterator[str]:
    """A deployment with a schedule of one run a day."""

    async def create(client: PrefectClient) -> str:
        flow_id = await client.create_flow_from_name("scheduled-for-a-test")
        schedule = DeploymentScheduleCreate(
            schedule=IntervalSchedule(interval=timedelta(days=1)), active=True
        )
        made = await client.create_deployment(
            flow_id=flow_id,
            name=f"daily-{uuid4().hex[:6]}",
            schedules=[schedule],
            work_pool_name="pilotage",
            entrypoint="none.py:none",
        )
        return str(made)

    deployment_id = floor.do(create)
    yield deployment_id
    floor.do(lambda client: client.delete_deployment(UUID(deployment_id)))


def future_runs(floor: Floor, deployment_id: str) -> int:
    where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
    return len(asked(lambda api: api.runs(where)))


def asked(work: Callable[[PrefectApi], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with PrefectApi.from_prefect_settings().opened() as api:
            return await work(api)

    return asyncio.run(inside())


def test_the_scheduler_makes_runs_by_itself(floor: Floor, scheduled: str) -> None:
    # nobody asks for them: with an SQLAlchemy that Prefect's metadata admits, none ever came
    deadline = time.monotonic() + 150
    while not future_runs(floor, scheduled):
        assert time.monotonic() < deadline, "the scheduler has made no run"
        time.sleep(1)


def test_a_quarantined_deployment_has_no_runs_ahead_and_gets_them_back(floor: Floor, scheduled: str) -> None:
    floor.do(lambda client: client.request("POST", f"/deployments/{scheduled}/schedule", json={}))  # type: ignore[arg-type]
    ahead = future_runs(floor, scheduled)
    assert ahead > 0
    mark = str(uuid4())
    action = PauseDeployment(deployment_id=scheduled, hold=timedelta(hours=1))

    def execute() -> Effect:
        return asked(
            lambda api: PauseLever(api).execute(action, mark=mark, expected_state_id="", message="m")
        ).effect

    delivery = asked(
        lambda api: PauseLever(api).execute(action, mark=mark, expected_state_id="", message="m")
    )
    assert delivery.effect is Effect.DONE
    assert delivery.before["future_runs"] == ahead
    assert future_runs(floor, scheduled) == 0
    assert (
        asked(lambda api: PauseLever(api).verify(action, delivery, mark=mark)).judgement is Judgement.VERIFIED
    )
    assert execute() is Effect.ALREADY
    # another quarantine of the same deployment is refused: its undo would end this one
    other = asked(
        lambda api: PauseLever(api).execute(action, mark=str(uuid4()), expected_state_id="", message="m")
    )
    assert other.effect is Effect.REFUSED
    back = asked(lambda api: PauseLever(api).undo(action, delivery, mark=mark))
    assert (back.effect, back.reason) == (Effect.DONE, "")
    assert dict(back.after) == {"paused": False, "restored": ahead, "missing": 0}
    assert future_runs(floor, scheduled) == ahead
    assert asked(lambda api: PauseLever(api).undo(action, delivery, mark=mark)).effect is Effect.ALREADY
    assert execute() is Effect.ALREADY
    assert not asked(lambda api: api.deployment(scheduled)).paused
