"""A run that Prefect stores and cannot send costs nobody else's: it is named, set aside, and taken back when it can."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.planner.detect.waiting_worlds import reader_of

from pilotage.flows.dev.fake_prefect import API_URL, FakePrefect, FrozenClock
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.prefect.collector import WATERMARK, PrefectCollector
from pilotage.telemetry.prefect.http import FLOW_RUNS, PrefectReader
from pilotage.telemetry.store.duckdb import DuckDBStore

START = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)
HALF_A_PAIR = "\ud800"


class Collected:
    """A fake server and what is collected from it."""

    def __init__(self, store: DuckDBStore) -> None:
        self.clock = FrozenClock(START)
        self.fake = FakePrefect(self.clock)
        self.store = store
        self.readers: list[PrefectReader] = []
        self.flow = str(self.fake.ask("POST", "/flows/", {"name": "orders"})["id"])
        self.collector = PrefectCollector(store, clock=self.clock.now, reader=self.reader)

    def reader(self) -> PrefectReader:
        self.readers.append(reader_of(self.fake))
        return self.readers[-1]

    def run(self, **parameters: Any) -> str:
        body = {"flow_id": self.flow, "parameters": parameters, "state": {"type": "RUNNING"}}
        made = self.fake.ask("POST", "/flow_runs/", body)["id"]
        self.clock.advance(timedelta(milliseconds=1))  # ids sort by the time they were made
        return str(made)

    def collect(self) -> set[str]:
        asyncio.run(self.collector.reconcile(self.clock.now() - timedelta(hours=1)))
        return {str(row["run_id"]) for row in self.store.rows("SELECT run_id FROM runs")}

    def aside(self) -> set[str]:
        return {row.row_id for row in self.collector.set_aside}


@pytest.fixture
def collected(tmp_path: Path) -> Iterator[Collected]:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield Collected(store)
    store.close()


def test_one_run_that_cannot_be_sent_is_named_and_the_rest_is_collected(collected: Collected) -> None:
    good = {collected.run(x=1) for _ in range(130)}
    bad = collected.run(x=HALF_A_PAIR)
    good |= {collected.run(x=2) for _ in range(130)}
    assert collected.collect() == good
    assert collected.aside() == {bad}
    assert collected.store.watermark(WATERMARK) == collected.clock.now()
    assert collected.collector.last_error == ""


def test_what_is_set_aside_costs_no_more_requests(collected: Collected) -> None:
    collected.run(x=1)
    collected.collect()
    plain = collected.readers[-1].requests
    collected.run(x=HALF_A_PAIR)
    collected.collect()
    collected.collect()
    assert collected.readers[-1].requests <= plain


def test_a_run_whose_parameters_are_nested_beyond_reading_is_set_aside(collected: Collected) -> None:
    nested: dict[str, Any] = {}
    for _ in range(1100):
        nested = {"a": nested}
    good = {collected.run(x=1)}
    bad = collected.run(x=nested)
    good |= {collected.run(x=2)}
    assert (collected.collect(), collected.aside()) == (good, {bad})
    assert collected.store.watermark(WATERMARK) == collected.clock.now()


def test_two_of_them_side_by_side_and_one_alone(collected: Collected) -> None:
    bad = {collected.run(x=HALF_A_PAIR)}
    assert (collected.collect(), collected.aside()) == (set(), bad)
    bad |= {collected.run(x=HALF_A_PAIR), collected.run(y=HALF_A_PAIR)}
    good = collected.run(x=1)
    assert (collected.collect(), collected.aside()) == ({good}, bad)


def test_a_run_that_is_known_and_spoilt_later_is_not_taken_for_deleted(collected: Collected) -> None:
    run_id = collected.run(x=1)
    collected.collect()
    collected.fake.ask("PATCH", f"/flow_runs/{run_id}", {"parameters": {"x": HALF_A_PAIR}})
    assert (collected.collect(), collected.aside()) == ({run_id}, {run_id})
    collected.clock.advance(timedelta(minutes=2))
    assert collected.collect() == {run_id}


def test_what_can_be_sent_again_or_is_deleted_is_taken_back_within_a_minute(collected: Collected) -> None:
    mended, deleted = collected.run(x=HALF_A_PAIR), collected.run(x=HALF_A_PAIR)
    collected.collect()
    collected.fake.ask("PATCH", f"/flow_runs/{mended}", {"parameters": {"x": "well"}})
    collected.fake.ask("DELETE", f"/flow_runs/{deleted}")
    collected.clock.advance(timedelta(minutes=1))
    collected.collect()
    assert (collected.collect(), collected.aside()) == ({mended}, set())


def test_a_row_of_another_list_is_set_aside_by_its_place(collected: Collected) -> None:
    pool = {"name": "pool", "type": "process"}
    collected.fake.ask("POST", "/work_pools/", pool)
    for name, parameters in (("good", {}), ("bad", {"x": HALF_A_PAIR})):
        body = {"name": name, "flow_id": collected.flow, "work_pool_name": "pool", "parameters": parameters}
        collected.fake.ask("POST", "/deployments/", body)
    collected.collect()
    assert [row["name"] for row in collected.store.rows("SELECT name FROM deployments")] == ["good"]
    assert len(collected.aside()) == 1


@pytest.mark.parametrize("path", [FLOW_RUNS, "/deployments/filter"])
def test_a_server_that_fails_at_everything_is_an_outage_and_nothing_is_set_aside(path: str) -> None:
    asked: list[dict[str, Any]] = []

    async def refuse(response: httpx.Response) -> None:
        response.raise_for_status()

    def fail(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(500, json={"exception_message": "Internal Server Error"}, request=request)

    async def work() -> None:
        client = httpx.AsyncClient(
            transport=httpx.MockTransport(fail), base_url=API_URL, event_hooks={"response": [refuse]}
        )
        async with PrefectReader(client) as reader:
            for ask in (reader.every(path, {}), reader.by_id(path, "flow_runs", ["a", "b", "c"])):
                with pytest.raises(OrchestratorError) as raised:
                    await ask
                assert raised.value.transient
            assert reader.set_aside.rows() == ()

    asyncio.run(work())
    assert len(asked) < 20


def test_a_watermark_that_stands_still_is_told_with_its_reason_and_since_when(collected: Collected) -> None:
    assert collected.collector.stands_still(collected.clock.now()) == "", "nothing was read yet"
    collected.run(x=1)
    collected.collect()
    read_until = collected.clock.now()
    collected.clock.advance(timedelta(minutes=1))
    assert collected.collector.stands_still(collected.clock.now()) == ""
    collected.collector.last_error = "Asking Prefect for /logs/filter: HTTP 500"
    collected.clock.advance(timedelta(minutes=2))
    said = collected.collector.stands_still(collected.clock.now())
    assert said == (
        f"everything is read up to {read_until.isoformat(timespec='seconds')} and no further: "
        "Asking Prefect for /logs/filter: HTTP 500"
    )
    collected.collect()
    assert collected.collector.stands_still(collected.clock.now()) == ""
