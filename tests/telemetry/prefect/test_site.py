"""The facts about what governs runs: what is kept of them, how old they become, and what asking for them costs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.planner.detect.waiting_worlds import reader_of

from pilotage.flows.dev.fake_prefect import FakePrefect, FrozenClock
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.fact_ages import EVERY
from pilotage.telemetry.facts import AskedFact
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.prefect.site import REQUESTS_A_MINUTE, SiteSync
from pilotage.telemetry.prefect.sync import RunSync
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store.duckdb import DuckDBStore

START = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


class Site:
    """A fake server, a store, and what copies the one into the other over the fake's clock."""

    def __init__(self, path: Path) -> None:
        self.clock = FrozenClock(START)
        self.fake = FakePrefect(self.clock)
        self.store = DuckDBStore(path / "telemetry.duckdb")
        self.made: deque[datetime] = deque()
        self.sync = self.new_sync()

    def new_sync(self) -> SiteSync:
        return SiteSync(self.store, RunSync(self.store), clock=self.clock.now)

    def reader(self) -> PrefectReader:
        return reader_of(self.fake)

    def passes(self, minutes: float, *, every: float = 5) -> None:
        """Let time pass with a refresh every so many seconds; requests are noted with their times."""

        async def work() -> None:
            async with self.reader() as reader:
                for _ in range(round(minutes * 60 / every)):
                    before = reader.requests
                    await self.sync.refresh(reader)
                    self.made.extend([self.clock.now()] * (reader.requests - before))
                    self.fake.advance(timedelta(seconds=every))

        asyncio.run(work())

    def everything(self) -> None:
        async def work() -> None:
            async with self.reader() as reader:
                await self.sync.everything(reader)

        asyncio.run(work())

    def hint(self, *events: str, ago: timedelta = timedelta(0)) -> bool:
        """These events occur."""
        return self.sync.hint((event, self.clock.now() - ago) for event in events)

    def deployment(self, name: str, pool: str, queue: str = "default", **more: Any) -> str:
        flow = self.fake.ask("POST", "/flows/", {"name": f"flow-{name}"})
        body = {"name": name, "flow_id": flow["id"], "work_pool_name": pool, "work_queue_name": queue, **more}
        return str(self.fake.ask("POST", "/deployments/", body)["id"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.store.close()


def test_two_hundred_deployments_and_twenty_queues_cost_ten_requests_a_minute_at_most(site: Site) -> None:
    for pool in range(5):
        site.fake.ask("POST", "/work_pools/", {"name": f"pool-{pool}", "type": "process"})
        for queue in range(3):
            site.fake.ask("POST", f"/work_pools/pool-{pool}/queues", {"name": f"q{queue}"})
        site.fake.ask("POST", f"/work_pools/pool-{pool}/workers/heartbeat", {"name": "w"})
    for number in range(200):
        site.deployment(f"d{number}", f"pool-{number % 5}", schedules=[{"schedule": {"interval": 3600}}])
    site.fake.ask("POST", "/v2/concurrency_limits", {"name": "tag:db", "limit": 3})

    site.passes(15)

    for began in site.made:
        in_a_minute = sum(began <= each < began + timedelta(minutes=1) for each in site.made)
        assert in_a_minute <= REQUESTS_A_MINUTE
    facts = site_facts(site.store, site.clock.now())
    assert (len(facts.deployments), len(facts.queues), len(facts.pools), len(facts.schedules)) == (
        200,
        0,
        5,
        200,
    )
    assert len(facts.workers) == 5
    assert [limit.name for limit in facts.limits.values()] == ["tag:db"]
    for kind, asked in facts.asked.items():
        if kind != "api" and asked.at is not None:
            # with so many pools each fact is a little older than it would be on a small site
            assert site.clock.now() - asked.at <= 1.5 * EVERY[kind.partition(":")[0]], kind


def test_an_event_has_the_fact_asked_for_at_once_and_many_do_not_cost_more(site: Site) -> None:
    site.fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
    site.passes(2)
    site.fake.ask("PATCH", "/work_pools/pool", {"is_paused": True})
    assert site.hint("prefect.work-pool.paused")
    assert not site.hint("prefect.flow-run.Running", "prefect.concurrency-limit.acquired")
    site.passes(0.1)
    assert site_facts(site.store, site.clock.now()).pools["pool"].paused
    site.made.clear()
    for _ in range(120):
        site.hint("prefect.work-pool.updated", "prefect.deployment.ready", "prefect.work-queue.ready")
        site.passes(1 / 30, every=1)
    for began in site.made:
        assert sum(began <= each < began + timedelta(minutes=1) for each in site.made) <= REQUESTS_A_MINUTE


def test_what_a_start_costs_and_older_events_leave_the_requests_of_the_next_minute_alone(site: Site) -> None:
    for pool in range(8):
        site.fake.ask("POST", "/work_pools/", {"name": f"pool-{pool}", "type": "process"})
    site.everything()
    assert not site.hint("prefect.work-pool.created", "prefect.deployment.created", ago=timedelta(minutes=1))
    site.fake.ask("PATCH", "/work_pools/pool-3", {"is_paused": True})
    site.fake.advance(timedelta(seconds=2))
    assert site.hint("prefect.work-pool.paused")
    site.passes(0.1)
    assert site_facts(site.store, site.clock.now()).pools["pool-3"].paused


def test_the_queues_of_all_pools_are_renewed_at_once_so_that_none_seems_gone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pool in range(3):
        site.fake.ask("POST", "/work_pools/", {"name": f"pool-{pool}", "type": "process"})
    site.everything()
    assert site_facts(site.store, site.clock.now()).age("queues") is None, (
        "asked for, and none of them stored"
    )
    seen: list[int] = []
    whole = DuckDBStore.add_queues

    def counted(self: DuckDBStore, facts: Any) -> int:
        added = whole(self, facts)
        seen.append(len(site_facts(site.store, site.clock.now()).queues))
        return added

    monkeypatch.setattr(DuckDBStore, "add_queues", counted)
    for _ in range(2):
        asyncio.run(site.sync.snapshot([]))
        site.fake.advance(timedelta(hours=1))  # the next one is late
    assert seen == [3, 3]
    assert site_facts(site.store, site.clock.now()).age("queues") == timedelta(hours=2)


def test_tasks_that_wait_for_a_limit_are_known_although_they_never_started(site: Site) -> None:
    site.fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
    made = site.deployment("d", "pool")
    run = site.fake.ask("POST", f"/deployments/{made}/create_flow_run", {})["id"]
    for state in ("PENDING", "RUNNING"):
        site.fake.ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": state}})
    body = {
        "flow_run_id": run,
        "task_key": "t",
        "dynamic_key": "0",
        "tags": ["db"],
        "state": {"type": "PENDING"},
    }
    task = site.fake.ask("POST", "/task_runs/", body)["id"]
    site.passes(1)
    rows = site.store.rows("SELECT task_run_id, state_type FROM task_runs")
    assert rows == [{"task_run_id": task, "state_type": "PENDING"}]


def test_since_when_something_is_paused_is_kept_and_survives_a_restart(site: Site) -> None:
    site.fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
    made = site.deployment("d", "pool", schedules=[{"schedule": {"interval": 600}}])
    before = site.deployment("e", "pool", paused=True)
    site.passes(2)
    paused_at = site.clock.now()
    site.fake.ask("POST", f"/deployments/{made}/pause_deployment")
    site.fake.ask("PATCH", "/work_pools/pool", {"is_paused": True})
    site.passes(3)
    site.sync = site.new_sync()
    site.passes(3)
    facts = site_facts(site.store, site.clock.now())
    assert facts.deployments[made].paused_since == paused_at
    assert facts.deployments[before].paused
    assert facts.deployments[before].paused_since is None
    changed = facts.pools["pool"].changed
    assert changed is not None
    assert timedelta(0) <= changed - paused_at <= timedelta(seconds=40)


def test_limits_say_who_holds_them_and_since_when_they_are_full(site: Site) -> None:
    site.fake.ask("POST", "/v2/concurrency_limits", {"name": "tag:db", "limit": 1})
    site.fake.ask("POST", "/v2/concurrency_limits", {"name": "rows", "limit": 2})
    site.passes(1)
    site.fake.ask("POST", "/concurrency_limits/increment", {"names": ["db"], "task_run_id": "t-1"})
    full_from = site.clock.now()
    site.passes(4)
    limits = {limit.name: limit for limit in site_facts(site.store, site.clock.now()).limits.values()}
    assert limits["tag:db"].holders == ("t-1",)
    assert limits["tag:db"].taken == 1
    since = limits["tag:db"].full_since
    assert since is not None
    assert since - full_from <= timedelta(seconds=75)
    assert limits["rows"].full_since is None


def test_a_fact_that_was_never_asked_for_or_has_grown_old_is_told_by_its_age(site: Site) -> None:
    facts = site_facts(site.store, site.clock.now())
    assert facts.age("pools") is None
    site.everything()
    site.fake.advance(timedelta(minutes=9))
    assert site_facts(site.store, site.clock.now()).age("pools") == timedelta(minutes=9)


def test_a_refusal_is_kept_with_the_kind_and_stops_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PrefectReader.every

    async def refused(self: PrefectReader, path: str, *given: Any, **more: Any) -> Any:
        if path == "/automations/filter":
            self.requests += 1
            raise OrchestratorError("Asking Prefect for /automations/filter: HTTP 404. Check the address.")
        return await whole(self, path, *given, **more)

    monkeypatch.setattr(PrefectReader, "every", refused)
    site.fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
    site.passes(3)
    facts = site_facts(site.store, site.clock.now())
    assert facts.asked["automations"].at is None
    assert "HTTP 404" in facts.asked["automations"].error
    assert facts.pools
    assert isinstance(facts.asked["api"], AskedFact)
