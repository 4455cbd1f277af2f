"""While the event stream stands Prefect is asked seldom, and at once when the stream may have missed something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.planner.detect.waiting_worlds import reader_of

from pilotage.flows.dev.fake_prefect import FakePrefect
from pilotage.telemetry.prefect import collector as collecting
from pilotage.telemetry.prefect.collector import PrefectCollector
from pilotage.telemetry.store.duckdb import DuckDBStore

RUNS = "POST /flow_runs/filter"
LOGS = "POST /logs/filter"


class Site:
    """A fake server, its stream, and a collector that polls every few milliseconds where it is in doubt."""

    def __init__(self, store: DuckDBStore) -> None:
        self.fake = FakePrefect()
        self.store = store
        self.stream: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.flow = str(self.fake.ask("POST", "/flows/", {"name": "orders"})["id"])

    async def events(self, connected: Callable[[], None]) -> AsyncIterator[dict[str, Any]]:
        connected()
        while (event := await self.stream.get()) is not None:
            yield event

    @asynccontextmanager
    async def collected(self) -> AsyncIterator[PrefectCollector]:
        made = PrefectCollector(
            self.store, poll=timedelta(milliseconds=20), interval=timedelta(milliseconds=20),
            reader=lambda: reader_of(self.fake), events=self.events,
        )  # fmt: skip
        stop = asyncio.Event()
        running = asyncio.create_task(made.run(stop))
        try:
            yield made
        finally:
            stop.set()
            await running

    def asked(self) -> int:
        return sum(self.fake.asked.values())

    async def quiet(self) -> int:
        """Returns how often was asked once nothing more is asked for a while."""
        before = -1
        while before != (before := self.asked()):
            await asyncio.sleep(0.5)
        return before

    async def until(self, condition: Callable[[], Any]) -> None:
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.02)

    def run(self, state: str = "RUNNING") -> str:
        return str(
            self.fake.ask("POST", "/flow_runs/", {"flow_id": self.flow, "state": {"type": state}})["id"]
        )

    def newest_events(self, many: int = 1) -> list[dict[str, Any]]:
        return list(self.fake.tables.events.values())[-many:]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield Site(store)
    store.close()


@pytest.fixture(autouse=True)
def _long_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUIET_POLL", "QUIET_SWEEP"):
        monkeypatch.setattr(collecting, name, timedelta(minutes=10))


def states(site: Site) -> dict[str, str]:
    return {
        row["run_id"]: row["state_type"] for row in site.store.rows("SELECT run_id, state_type FROM runs")
    }


def test_nothing_is_asked_while_the_stream_stands_and_nothing_happens(site: Site) -> None:
    async def story() -> None:
        site.run()
        async with site.collected() as collector:
            await site.until(lambda: collector.connected and states(site))
            before = await site.quiet()
            await asyncio.sleep(1.0)
            assert site.asked() == before

    asyncio.run(asyncio.wait_for(story(), 60))


def test_without_the_stream_everything_is_looked_at_every_few_moments(site: Site) -> None:
    async def story() -> None:
        async with site.collected() as collector:
            await site.until(lambda: collector.connected)
            await site.quiet()
            run = site.run()  # nobody is told
            await site.stream.put(None)  # the stream ends, and stands again half a second later
            await site.until(lambda: run in states(site))

    asyncio.run(asyncio.wait_for(story(), 60))


def test_after_a_burst_the_stream_is_not_trusted(site: Site) -> None:
    async def story() -> None:
        async with site.collected() as collector:
            await site.until(lambda: collector.connected)
            told = site.run()
            event = site.newest_events()[0]
            missed = site.run()
            await site.quiet()
            for number in range(collecting.BURST):
                await site.stream.put({**event, "id": f"{number:08x}-0000-4000-8000-000000000000"})
            await site.until(lambda: {told, missed} <= states(site).keys())

    asyncio.run(asyncio.wait_for(story(), 60))


def test_a_completed_run_costs_two_requests_and_a_failed_one_brings_its_logs(site: Site) -> None:
    async def story() -> None:
        runs = [site.run() for _ in range(20)]
        failing = site.run()
        async with site.collected() as collector:
            await site.until(lambda: collector.connected and len(states(site)) == 21)
            before = await site.quiet()
            for run in runs:
                site.fake.ask(
                    "POST", f"/flow_runs/{run}/set_state", {"state": {"type": "COMPLETED"}, "force": True}
                )
                for event in site.newest_events():
                    await site.stream.put(event)
            await site.until(lambda: list(states(site).values()).count("COMPLETED") == 20)
            asked = await site.quiet() - before - 20  # each of our own set_state
            assert asked <= 2 * 20
            logs = site.fake.asked[LOGS]
            body = {"state": {"type": "FAILED", "message": "no answer"}, "force": True}
            site.fake.ask("POST", f"/flow_runs/{failing}/set_state", body)
            for event in site.newest_events():
                await site.stream.put(event)
            await site.until(lambda: states(site)[failing] == "FAILED" and site.fake.asked[LOGS] > logs)

    asyncio.run(asyncio.wait_for(story(), 60))
