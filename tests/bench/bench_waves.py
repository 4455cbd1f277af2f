"""A thousand runs that wait for one limit, parked and released in waves, while others want to start.

A real worker, a real holder of the limit's one slot, and two other deployments whose runs should start as on an idle
server: one in a queue of its own, one in the queue of the backlog. How late they start is measured idle, beside the
blocked thousand, while these are parked, and while waves come due. The lever's calls to Prefect are counted.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import httpx

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.report import Row, beside, publish
from tests.flows.lever_targets import PatientApi

from pilotage.flows.dev.embedded import EmbeddedPrefect
from pilotage.flows.execution.receipts import Delivery, Judgement
from pilotage.flows.levers.spread_runs import SpreadLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import SpreadRuns
from pilotage.telemetry.errors import OrchestratorError

RUNS = int(os.environ.get("BENCH_RUNS", "1000"))
STARTS = int(os.environ.get("BENCH_STARTS", "6"))
"""How often the other deployment wants to start, in each of the four situations."""
WAVE, EVERY = 100, timedelta(seconds=30)
PARKED_BY = timedelta(minutes=5)
"""The first wave, from when parking begins: by then the server is to be itself again."""
STARVED = 90.0
"""Seconds after which a start that does not come is counted as this late."""
POOL, WORKER, BACKLOGGED, QUIET = "waves", "pilot-worker", "default", "others"
FLOWS = """
import time
from prefect import flow

@flow
def quick():
    pass

@flow
def blocked(seconds: float = 0.0):
    time.sleep(seconds)
"""


class CountingApi(PrefectApi):
    """An API that counts its calls, and the requests that these took where Prefect was too busy at first."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.calls = self.requests = 0
        self._client.event_hooks = {"request": [self._requested]}

    async def _requested(self, request: httpx.Request) -> None:
        self.requests += 1

    async def _send(
        self, method: str, route: str, *, none_on: tuple[int, ...] = (), **sent: Any
    ) -> httpx.Response | None:
        self.calls += 1
        return await super()._send(method, route, none_on=none_on, **sent)


async def deployed(client: Any, home: Path, flow: str, queue: str = BACKLOGGED, **more: Any) -> str:
    """The id of a deployment of one of the flows."""
    flow_id = await client.create_flow_from_name(flow)
    made = await client.create_deployment(
        flow_id=flow_id,
        name=queue,
        work_queue_name=queue,
        work_pool_name=POOL,
        path=str(home),
        entrypoint=f"flows.py:{flow}",
        **more,
    )
    return str(made)


async def start_delay(api: PrefectApi, deployment_id: str) -> float:
    """Seconds from when somebody wanted a new run until it ran; `STARVED` when it did not come so far."""
    wanted, deadline = datetime.now(UTC), time.monotonic() + STARVED
    run = await api.create_run_of(deployment_id, {"state": {"type": "SCHEDULED"}})
    while time.monotonic() < deadline:
        running = [state for state in await api.history(run.id) if state.name == "Running"]
        if running:
            return (running[0].at - wanted).total_seconds()
        await asyncio.sleep(0.2)
    return STARVED


Delays = dict[str, list[float]]
"""Seconds by where the run waited: in a queue of its own, or in the queue of the backlog."""


async def once(api: PrefectApi, others: Mapping[str, str], found: Delays) -> None:
    """Start one run of each of the others and note its delay."""
    waited = await asyncio.gather(*(start_delay(api, each) for each in others.values()))
    for where, each in zip(others, waited, strict=True):
        found.setdefault(where, []).append(each)


async def throttle(api: PrefectApi) -> None:
    """Let the queue of the backlog hand out one run at a time, or none."""
    while not any(
        each.name == BACKLOGGED and (each.paused or each.limit == 1) for each in await api.queues(POOL)
    ):
        await asyncio.sleep(0.5)


async def delays(api: PrefectApi, others: Mapping[str, str], many: int) -> Delays:
    """The same, so many times."""
    found: Delays = {}
    for _ in range(many):
        await once(api, others, found)
    return found


async def backlog(client: Any, deployment_id: str) -> None:
    """Make the thousand due."""
    # not before all are made: Prefect that makes the first of them Late keeps its own database from making others
    due = datetime.now(UTC) + timedelta(seconds=RUNS / 10)
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    made = 0
    while made < RUNS:
        answer = await client._client.post(
            f"/deployments/{deployment_id}/create_flow_run/bulk",
            json=[{"state": state}] * min(100, RUNS - made),
            timeout=120,
        )
        answer.raise_for_status()
        # Prefect answers 200 although its database was locked and none of them was made
        made += sum(one["status"] == "CREATED" for one in answer.json()["results"])
    left = (due - datetime.now(UTC)).total_seconds()
    print(f"{made} runs made, due in {left:.0f} s", flush=True)
    await asyncio.sleep(max(0.0, left))


async def spread(lever: SpreadLever, action: SpreadRuns, idempotency_key: str) -> Delivery:
    """What was done. Where Prefect was too busy to answer it is asked again under the same mark, as the injector does."""
    while True:
        try:
            return await lever.execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="bench"
            )
        except OrchestratorError as error:
            if not error.transient:
                raise
            print(f"asked again: {error}", flush=True)


async def measured(home: Path) -> list[Row]:
    from prefect.client.orchestration import get_client

    (home / "flows.py").write_text(FLOWS)
    async with (
        CountingApi.from_prefect_settings(guard=None).opened() as api,
        PatientApi.from_prefect_settings(guard=None).opened() as asking,
        get_client() as client,
    ):
        others = {
            "own queue": await deployed(client, home, "quick", QUIET),
            "queue of the backlog": await deployed(client, home, "quick"),
        }
        blocked = await deployed(client, home, "blocked", concurrency_limit=1)
        holder = await client.create_flow_run_from_deployment(UUID(blocked), parameters={"seconds": 3600})
        while (await asking.run(str(holder.id))).state.name != "Running":
            await asyncio.sleep(0.2)
        await delays(asking, others, 1)  # which warms up
        idle = await delays(asking, others, STARTS)
        say("idle", idle)
        await backlog(client, blocked)
        before = await delays(asking, others, max(1, STARTS // 3))
        say("beside the blocked", before)

        action = SpreadRuns(
            deployment_id=blocked,
            first=datetime.now(UTC) + PARKED_BY,
            wave=WAVE,
            every=EVERY,
            most=RUNS,
        )
        idempotency_key, lever = str(uuid4()), SpreadLever(api)
        while_parking: Delays = {}
        parked_all = asyncio.Event()

        async def meanwhile(where: str, deployment_id: str) -> float:
            async with PatientApi.from_prefect_settings(guard=None).opened() as own:
                await throttle(own)
                took = time.monotonic() - began
                while not parked_all.is_set():
                    while_parking.setdefault(where, []).append(await start_delay(own, deployment_id))
            return took

        calls, requests, began = api.calls, api.requests, time.monotonic()
        starting = asyncio.gather(*(meanwhile(*each) for each in others.items()))
        done = await spread(lever, action, idempotency_key)
        took, calls, requests = time.monotonic() - began, api.calls - calls, api.requests - requests
        parked_all.set()
        check = await SpreadLever(asking).verify(action, done, idempotency_key=idempotency_key)
        calmed_after = min(await starting)  # until the last one has started that was wanted meanwhile
        say("while parking", while_parking)
        if check.judgement is not Judgement.VERIFIED:
            raise RuntimeError(f"the waves were not verified: {check}, {done}")
        parked = await delays(asking, others, STARTS)
        say("while parked", parked)
        await asyncio.sleep(max(0.0, (action.first - datetime.now(UTC)).total_seconds()))
        waves = await delays(asking, others, STARTS)
        say("while waves come", waves)
    incident_contexts = {
        "beside_blocked": before,
        "while_parking": while_parking,
        "while_parked": parked,
        "while_waves_come": waves,
    }
    medians = {where: statistics.median(each) for where, each in idle.items()}
    return [
        beside("runs_parked", "runs", 1, ours=float(done.after["moved"])),
        beside("runs_refused", "runs", 1, ours=float(done.after["refused"])),
        beside("queue_calm_after", "s", 1, ours=calmed_after),
        beside("park_time", "s", 1, ours=took),
        beside("park_calls_to_prefect", "calls", 1, ours=float(calls)),
        beside("park_requests_to_prefect", "requests", 1, ours=float(requests)),
        *(
            beside(
                f"start_in_{where.replace(' ', '_')}_{when}",
                "s",
                len(each),
                ours=statistics.median(each),
                peer="idle server",
                theirs=medians[where],
            )
            for when, found in incident_contexts.items()
            for where, each in found.items()
        ),
    ]


class Watch:
    """Starts the worker again when it ends, as a service manager does: beside a backlog Prefect's own gives up."""

    def __init__(self, server: EmbeddedPrefect) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        self._server.start_worker(POOL, name=WORKER)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(1):
            if WORKER not in self._server.alive():
                self.restarts += 1
                with suppress(OrchestratorError, httpx.HTTPError):  # the next look tries again
                    self._server.start_worker(POOL, name=WORKER)


def say(what: str, found: Delays) -> None:
    """Print the numbers."""
    for where, each in found.items():
        print(f"{what}, {where}: {', '.join(f'{one:.1f}' for one in each)} s", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, EmbeddedPrefect(Path(scratch) / "prefect") as server:
        os.environ.update(server.client_env)
        server.create_pool(POOL, queues=(QUIET, BACKLOGGED))
        with Watch(server) as watch:
            rows = asyncio.run(measured(Path(scratch)))
        publish("waves", [*rows, beside("worker_restarts", "times", 1, ours=float(watch.restarts))])


if __name__ == "__main__":
    main()
