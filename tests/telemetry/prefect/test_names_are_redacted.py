"""A secret in any name that Prefect lets somebody choose is in no table of the store, and in no call of the webhook."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.telemetry.prefect.test_set_aside import Collected

from pilotage.flows.notify.notifier import Notifier
from pilotage.planner.actions.types import Severity
from pilotage.telemetry.redaction import MASK
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.schema import TABLES

SECRET = "hunter2hunter2"
NAMED = f"token={SECRET}"
START = datetime(2027, 3, 1, 12, 0, tzinfo=UTC)


def world(collected: Collected) -> None:
    """One of everything, with the secret wherever a name or text is somebody's to choose."""
    ask = collected.fake.ask
    flow = ask("POST", "/flows/", {"name": f"flow {NAMED}"})["id"]
    pool = f"pool {NAMED}"
    ask("POST", "/work_pools/", {"name": pool, "type": "process", "description": NAMED})
    ask("POST", f"/work_pools/{pool}/queues", {"name": f"queue {NAMED}"})
    ask("POST", f"/work_pools/{pool}/workers/heartbeat", {"name": f"worker {NAMED}"})
    deployment = ask(
        "POST",
        "/deployments/",
        {
            "name": f"deployment {NAMED}",
            "flow_id": flow,
            "work_pool_name": pool,
            "work_queue_name": f"queue {NAMED}",
            "tags": [f"api_key={SECRET}"],
            "parameters": {"password": SECRET},
            "job_variables": {"env": {"DB_PASSWORD": SECRET}},
            "schedules": [
                {
                    "active": True,
                    "schedule": {"cron": "0 9 * * *", "timezone": "UTC"},
                    "parameters": {"password": SECRET},
                }
            ],
        },
    )["id"]
    run = ask(
        "POST",
        f"/deployments/{deployment}/create_flow_run",
        {
            "name": f"run {NAMED}",
            "tags": [f"api_key={SECRET}"],
            "parameters": {"password": SECRET},
            "state": {"type": "SCHEDULED", "name": NAMED, "message": NAMED},
        },
    )["id"]
    ask("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "RUNNING", "name": NAMED}, "force": True})
    task = {"flow_run_id": run, "task_key": NAMED, "dynamic_key": "0", "name": f"task {NAMED}"}
    ask("POST", "/task_runs/", {**task, "tags": [NAMED], "state": {"type": "RUNNING", "name": NAMED}})
    ask(
        "POST",
        "/v2/concurrency_limits/",
        {"name": f"limit {NAMED}", "limit": 1, "active": True},
    )
    ask("POST", "/concurrency_limits/", {"tag": f"tag {NAMED}", "concurrency_limit": 1})
    line = {"name": NAMED, "level": 40, "message": NAMED, "timestamp": START.isoformat(), "flow_run_id": run}
    ask("POST", "/logs/", [line])
    failed = {"type": "FAILED", "name": NAMED, "message": f"it said {NAMED}"}
    ask("POST", f"/flow_runs/{run}/set_state", {"state": failed, "force": True})
    event = {
        "id": "00000000-0000-4000-8000-00000000000e",
        "occurred": collected.clock.now().isoformat(),
        "event": f"prefect.flow-run.{NAMED}",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": NAMED},
        "related": [],
        "payload": {"validated_state": {"name": NAMED, "message": NAMED}, "password": SECRET},
    }
    ask("POST", "/events", [event])


def test_no_table_of_the_store_holds_it(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    collected = Collected(store)
    world(collected)
    collected.clock.advance(timedelta(seconds=30))
    collected.collect()
    kept = {table: json.dumps(store.rows(f"FROM {table}"), default=str) for table in TABLES}
    filled = {table for table, rows in kept.items() if rows != "[]"}
    store.close()
    assert {"runs", "task_runs", "logs", "events", "queues", "deployments", "pools", "limits"} <= filled
    assert {table for table, rows in kept.items() if SECRET in rows} == set()
    assert MASK in kept["runs"]


@pytest.mark.parametrize("place", ["summary", "details", "nested", "list"])
def test_no_call_of_the_webhook_holds_it(place: str) -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(202)

    places: dict[str, dict[str, Any]] = {
        "details": {"state": NAMED},
        "nested": {"run": {"tags": [f"api_key={SECRET}"], "password": SECRET}},
        "list": {"runs": [f"run {NAMED}", {"name": "DB_PASSWORD", "value": SECRET}]},
    }
    details = places.get(place, {})
    notifier = Notifier(
        webhook_url="http://owner.example/hook", transport=lambda: httpx.MockTransport(answer)
    )
    told = asyncio.run(
        notifier.page(
            "trigger",
            incident_id="i-1",
            run_id="r-1",
            summary=NAMED if place == "summary" else "a run failed",
            severity=Severity.ERROR,
            details=details,
        )
    )
    assert told.ok
    assert SECRET not in json.dumps(sent)
