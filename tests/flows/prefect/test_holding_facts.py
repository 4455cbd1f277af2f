"""What is looked up before a deployment or a queue is kept from its work: how its runs ended, and what waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pilotage.flows.dev.fake_prefect import API_URL, FakePrefect
from pilotage.flows.dev.fake_prefect.clock import FrozenClock
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import Action, CatchUp, HoldQueue, PauseDeployment
from pilotage.policies.types import TargetFacts

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Site:
    """A deployment on one queue, and its runs."""

    def __init__(self) -> None:
        self.fake = FakePrefect(FrozenClock(NOW))
        self.fake.ask("POST", "/work_pools/", {"name": "p", "type": "process"})
        self.fake.ask("POST", "/work_pools/p/queues", {"name": "q"})
        flow = self.fake.ask("POST", "/flows/", {"name": "f"})
        made = self.fake.ask(
            "POST",
            "/deployments/",
            {"name": "d", "flow_id": flow["id"], "work_pool_name": "p", "work_queue_name": "q"},
        )
        self.deployment_id: str = made["id"]

    def run(self, *path: str, due: datetime = NOW) -> None:
        """A run that went through these states, one a second."""
        details = {"scheduled_time": due.isoformat()}
        body = {"state": {"type": "SCHEDULED", "state_details": details}}
        run = self.fake.ask("POST", f"/deployments/{self.deployment_id}/create_flow_run", body)
        for type_ in path:
            self.fake.advance(timedelta(seconds=1))
            state = {"type": type_, "name": type_.capitalize()}
            self.fake.ask("POST", f"/flow_runs/{run['id']}/set_state", {"state": state, "force": True})

    def facts(self, action: Action) -> TargetFacts:
        async def look() -> TargetFacts:
            api = PrefectApi(API_URL, transport=self.fake.transport, clock=self.fake.clock.now)
            async with api.opened():
                return await PrefectFacts(api).target(action)

        return asyncio.run(look())


@pytest.mark.parametrize(
    ("ended", "failing"),
    [
        ((), 0),
        (("FAILED", "FAILED", "FAILED"), 3),
        (("COMPLETED", "FAILED", "CRASHED"), 2),
        (("FAILED", "FAILED", "COMPLETED"), 0),
        (("FAILED", "CANCELLED", "FAILED"), 2),
    ],
)
def test_failures_in_a_row_are_counted_by_how_runs_ended(ended: tuple[str, ...], failing: int) -> None:
    site = Site()
    for last in ended:
        site.run("PENDING", "RUNNING", last)
    site.run("PENDING", "RUNNING")
    held: tuple[Any, ...] = (
        PauseDeployment(deployment_id=site.deployment_id, hold=MINUTE),
        HoldQueue(pool="p", queue="q", hold=MINUTE),
    )
    assert [site.facts(action).failing for action in held] == [failing, failing]
    assert site.facts(HoldQueue(pool="p", hold=MINUTE)).failing == 0  # nothing proves it of a whole pool


def test_a_backlog_is_what_was_due_and_waits() -> None:
    site = Site()
    for due in (NOW - MINUTE, NOW - 2 * MINUTE, NOW + timedelta(hours=1)):
        site.run(due=due)
    site.run("PENDING", "RUNNING")
    site.fake.advance(timedelta(seconds=30))
    action = CatchUp(deployment_id=site.deployment_id, keep=1, first=NOW, wave=1, every=MINUTE)
    assert site.facts(action).overdue == 2
