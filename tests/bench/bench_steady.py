"""What an installation costs while it grows: idle, with one new failure, with one completed run.

The whole controller and its agent run in this process, on the fake Prefect, over a history of 2,000, 20,000 and 200,000
ended runs and 1,000, 10,000 and 50,000 outcomes; processor time is that of the process with all its threads. Beside it,
`pilotage up` with nothing to do is measured next to a real Prefect server, which `PILOTAGE_BENCH_REAL=no` leaves out.
`PILOTAGE_BENCH_SIZES=2000:1000,20000:10000` measures other sizes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.long_history import ended_runs, outcomes_of
from tests.bench.report import Row, beside, publish

from pilotage.flows.agent import process as agent
from pilotage.flows.bench.simulated_pilot import _raise_for_errors
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.settings import Settings, load_settings
from pilotage.flows.controller.controller import Controller
from pilotage.flows.controller.outside import AgentStart, Outside
from pilotage.flows.dev.fake_prefect import API_URL, FakePrefect
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.checkpoints import MemoryCheckpoints
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.forecast.live import LiveForecaster
from pilotage.telemetry.prefect.http import PrefectReader
from pilotage.telemetry.store.duckdb import DuckDBStore

SIZES = [
    (int(runs), int(outcomes))
    for runs, _, outcomes in (
        pair.partition(":")
        for pair in os.environ.get("PILOTAGE_BENCH_SIZES", "2000:1000,20000:10000,200000:50000").split(",")
    )
]
SETTLE, IDLE, WINDOW, TIMES = 20.0, 30.0, 6.0, 5
"""Seconds until the start is over, of idling, in which one change has been dealt with; and how many changes."""
MOST_GROWTH = 1.3


@dataclass
class Asked:
    """Counts what reaches the fake."""

    fake: FakePrefect
    by_route: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """Requests so far."""
        return sum(self.fake.asked.values())


def outside(fake: FakePrefect, settings: Settings) -> Outside:
    """The fake Prefect as the controller's outside, and the agent in this process, on real sockets."""

    def reader() -> PrefectReader:
        hooks = {"response": [_raise_for_errors]}
        return PrefectReader(httpx.AsyncClient(transport=fake.transport, base_url=API_URL, event_hooks=hooks))

    async def events(connected: Callable[[], None]) -> AsyncIterator[dict[str, Any]]:
        connected()
        told = len(fake.tables.events)
        while True:
            await asyncio.sleep(0.25)
            for event in list(fake.tables.events.values())[told:]:
                yield event
            told = len(fake.tables.events)

    async def keep_agent(start: AgentStart) -> None:
        await agent.run(
            settings,
            token=start.token,
            watch_from=start.watch_from,
            stop=start.stop,
            checkpoints=MemoryCheckpoints(),
        )

    return Outside(
        address=lambda: API_URL,
        reader=reader,
        events=events,
        prefect=lambda guard: PrefectApi(API_URL, transport=fake.transport, guard=guard),
        agent=keep_agent,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Processor milliseconds at one size, and requests."""

    idle_second: float
    failure: float
    completed: float
    requests_a_minute: float
    requests_a_completed_run: float
    forecast_p50: float


async def cost_of(root: Path, runs: int, outcomes: int) -> Cost:
    """Fill a state directory, run on it, and measure."""
    paths = StatePaths(root=root)
    root.mkdir(mode=0o700, parents=True)
    now = datetime.now(UTC)
    store = DuckDBStore(paths.telemetry)
    ended_runs(store, runs, now)
    forecast = forecast_p50(store, now)
    store.close()
    ledger = SqlLedger(f"sqlite:///{paths.ledger}")
    outcomes_of(ledger, outcomes, now)
    ledger.close()
    (root / "pilotage.toml").write_text('mode = "approve"\n')
    settings = load_settings(config=root / "pilotage.toml", state_dir=root)
    fake = FakePrefect()
    flow = fake.ask("POST", "/flows/", {"name": "orders"})["id"]
    fake.ask("POST", "/work_pools/", {"name": "pool", "type": "process"})
    body = {"name": "hourly", "flow_id": flow, "work_pool_name": "pool", "tags": ["env:staging"]}
    deployment = fake.ask("POST", "/deployments/", {**body, "entrypoint": "none.py:none"})["id"]
    stop = asyncio.Event()
    running = asyncio.create_task(Controller(settings, outside=outside(fake, settings)).run(stop))
    asked = Asked(fake)

    async def spent(seconds: float) -> tuple[float, int]:
        """Processor milliseconds and requests within so many seconds."""
        cpu, requests = time.process_time(), asked.total
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if done:
            await running
        return (time.process_time() - cpu) * 1000, asked.total - requests

    def begun() -> str:
        made = fake.ask("POST", f"/deployments/{deployment}/create_flow_run", {"state": {"type": "RUNNING"}})
        return str(made["id"])

    async def one(state: dict[str, Any]) -> tuple[float, int]:
        """What it costs that a running run ends so, beyond idling."""
        run = begun()
        await spent(WINDOW)
        own = asked.total
        fake.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
        own = asked.total - own
        cpu, requests = await spent(WINDOW)
        return cpu - idle * WINDOW / IDLE, requests - own

    try:
        await spent(SETTLE)
        idle, idle_requests = await spent(IDLE)
        completed = [await one({"type": "COMPLETED"}) for _ in range(TIMES)]
        failed = [
            await one({"type": "FAILED", "name": "Failed", "message": "connection reset by peer"})
            for _ in range(TIMES)
        ]
    finally:
        stop.set()
        await running
    extra = statistics.median(requests for _, requests in completed) - idle_requests * WINDOW / IDLE
    return Cost(
        idle_second=idle / IDLE,
        failure=statistics.median(cpu for cpu, _ in failed),
        completed=statistics.median(cpu for cpu, _ in completed),
        requests_a_minute=idle_requests * 60 / IDLE,
        requests_a_completed_run=max(extra, 0.0),
        forecast_p50=forecast,
    )


def forecast_p50(store: DuckDBStore, now: datetime) -> float:
    """Milliseconds of one forecast of a run that is due, once the history has been taken in: the median."""
    forecaster = LiveForecaster(store)
    forecaster.follow(now)
    ids = [row["run_id"] for row in store.rows("SELECT run_id FROM runs ORDER BY run_id LIMIT 200")]
    took = []
    for run_id in ids:
        began = time.perf_counter()
        forecaster.forecast([run_id])
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def beside_a_real_server() -> Iterator[Row]:
    """What `pilotage up` and the Prefect server use of a core while nothing happens, and how often it asks."""
    from tests.flows.running_controller import running_controller

    from pilotage.flows.dev.embedded import EmbeddedPrefect

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "prefect"
        home.mkdir()
        with EmbeddedPrefect(home) as server:
            server.create_pool()
            state = Path(scratch) / "state"
            with running_controller(state, server.env, mode="approve", settings="[loop]\n") as up:
                time.sleep(2 * SETTLE)
                ours, theirs = psutil.Process(up.pid), psutil.Process(server.processes()["server"])

                def asked() -> float:
                    rows = up.control_api().call("measures")
                    name = "pilotage_prefect_requests_total"
                    return float(sum(row["value"] for row in rows if row["name"] == name))

                before = _cpu(ours), _cpu(theirs), asked(), time.monotonic()
                time.sleep(2 * IDLE)
                took = time.monotonic() - before[3]
                yield beside(
                    "idle, all processes", "% of a core", 1,
                    ours=(_cpu(ours) - before[0]) / took * 100,
                    peer="the Prefect server", theirs=(_cpu(theirs) - before[1]) / took * 100,
                )  # fmt: skip
                yield beside(
                    "requests idle, real server", "a minute", 1, ours=(asked() - before[2]) / took * 60
                )


def _cpu(process: psutil.Process) -> float:
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        times = each.cpu_times()
        total += times.user + times.system
    return total


def main() -> None:
    """Measure, and write `.bench/steady.json`."""
    costs: list[Cost] = []
    for runs, outcomes in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            costs.append(asyncio.run(cost_of(Path(scratch) / "s", runs, outcomes)))
    rows = []
    for name, unit in (("idle_second", "ms CPU"), ("failure", "ms CPU"), ("completed", "ms CPU")):
        for (runs, outcomes), cost in zip(SIZES, costs, strict=True):
            rows.append(
                beside(f"{name}, {runs:,} runs, {outcomes:,} outcomes", unit, 1, ours=getattr(cost, name))
            )
    for measure, name in (
        ("idle_tick_growth", "idle_second"),
        ("failure_tick_growth", "failure"),
        ("outcome_growth", "completed"),
    ):
        values = [max(getattr(cost, name), 0.1) for cost in costs]
        rows.append(
            beside(
                measure,
                "largest/smallest",
                1,
                ours=max(values) / min(values),
                peer="wanted",
                theirs=MOST_GROWTH,
            )
        )
    last = costs[-1]
    rows.append(beside("requests_idle", "a minute", 1, ours=last.requests_a_minute, peer="wanted", theirs=30))
    rows.append(
        beside(
            "requests_completed_run", "a run", 1, ours=last.requests_a_completed_run, peer="wanted", theirs=2
        )
    )
    rows.append(beside("forecast_p50", "ms", 1, ours=last.forecast_p50, peer="wanted", theirs=1))
    if os.environ.get("PILOTAGE_BENCH_REAL") != "no":
        rows += list(beside_a_real_server())
    publish("steady", rows)


if __name__ == "__main__":
    main()
