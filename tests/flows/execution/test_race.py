"""A real worker picks runs up while they are being moved. No run is executed twice, whoever wins.

Each execution leaves a line in a file, so what is counted is what processes did, not what Prefect believes. Runs
are due at moments that are spread over the guard's window: some are in the worker's hands already, some are about to
be, some are so far out that they are moved without holding their queue, and some are just at that edge.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient
from tests.conftest import PrefectServer
from tests.flows.conftest import PrefectProbe
from tests.flows.lever_targets import PatientApi
from tests.flows.soak_report import progress, record

from pilotage.flows.execution.receipts import Effect
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE, RescheduleLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import RescheduleRun
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

pytestmark = pytest.mark.prefect

RACED = """
import os, sys
from prefect import flow
from prefect.runtime import flow_run

@flow
def raced(folder: str):
    with open(os.path.join(folder, flow_run.id), "a") as file:
        file.write("x")
"""
EDGE = SAFE_DISTANCE.total_seconds()
PARKED = timedelta(hours=2)
"""Where most runs are moved to: they are never to be executed."""
SOON = timedelta(seconds=1)
"""Where some are moved to: they are to be executed once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """One run, and what became of it."""

    run_id: str
    lead: float
    """Seconds from the start of the race to when the run was due."""
    boosted: bool
    """Whether it was moved to where it is executed soon, not to where it is parked."""
    refused: bool


def leads(races: int, reach: float) -> list[float]:
    """When the runs are due: a third about the worker's reach, a third at the guard's edge, a third anywhere."""
    dice = random.Random(20)
    about = [
        lambda: dice.uniform(-1, reach + 2),
        lambda: dice.uniform(EDGE - 0.5, EDGE + 1.5),
        lambda: dice.uniform(reach, EDGE + 6),
    ]
    return [about[race % 3]() for race in range(races)]


async def race_on(
    api: PrefectApi, queue: str, deployment_id: str, folder: Path, lead: float, boosted: bool
) -> Race:
    """The race of one run that is due in `lead` seconds."""
    due = datetime.now(UTC) + timedelta(seconds=lead)
    body = {
        "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}},
        "work_queue_name": queue,
        "parameters": {"folder": str(folder)},
    }
    run = await api.create_run_of(deployment_id, body)
    start = datetime.now(UTC) + (SOON if boosted else PARKED)
    action, idempotency_key = RescheduleRun(run_id=run.id, start=start), str(uuid4())
    while True:
        try:
            done = await RescheduleLever(api).execute(
                action, idempotency_key=idempotency_key, expected_state_id="", message="m"
            )
            break
        except OrchestratorError as error:
            # as the injector does: the same delivery once more, for as long as the server is busy
            if not error.transient:
                raise
            await asyncio.sleep(0.5)
    return Race(run_id=run.id, lead=lead, boosted=boosted, refused=done.effect is Effect.REFUSED)


async def run_races(
    lanes: Sequence[str], deployment_id: str, folder: Path, due: Sequence[float]
) -> list[Race]:
    """All races, one at a time in each lane: a lane is a queue, and a queue is held by one delivery at a time."""
    waiting = list(enumerate(due))
    ended: list[Race] = []

    async def lane(queue: str) -> None:
        async with PatientApi.from_prefect_settings(guard=None).opened() as api:
            while waiting:
                number, lead = waiting.pop(0)
                ended.append(await race_on(api, queue, deployment_id, folder, lead, boosted=number % 7 == 0))
                if len(ended) % 20 == 0:
                    progress(
                        f"race: {len(ended)} of {len(due)}, {sum(each.refused for each in ended)} of them refused"
                    )

    await asyncio.gather(*(lane(queue) for queue in lanes))
    return ended


async def all_ended(races: Sequence[Race], within: float) -> dict[str, str]:
    """Why runs crashed, by id, once all that are to be executed have come to an end, and some seconds more."""
    crashed: dict[str, str] = {}
    going = {each.run_id for each in races if each.boosted or each.refused}
    deadline = time.monotonic() + within
    async with PatientApi.from_prefect_settings(guard=None).opened() as api:
        while going:
            assert time.monotonic() < deadline, f"{len(going)} runs have not ended"
            for run_id in tuple(going):
                state = (await api.run(run_id)).state
                if state.ended:
                    going.discard(run_id)
                if state.type is StateType.CRASHED:
                    crashed[run_id] = state.message
            await asyncio.sleep(0.5)
        # a worker that had a run in hand which was moved away under it would start it now
        await asyncio.sleep(5)
        for each in races:
            if (await api.run(each.run_id)).state.type is StateType.SCHEDULED:
                await api.set_state(
                    each.run_id, StateType.CANCELLED, "Cancelled", message="m", idempotency_key=str(uuid4())
                )
    return crashed


def deploy(prefect_probe: PrefectProbe, home: Path, pool: str, queue: str) -> str:
    """The id of the deployment that is raced about."""
    (home / "raced.py").write_text(RACED)

    async def create(client: PrefectClient) -> str:
        flow_id = await client.create_flow_from_name("raced")
        made: UUID = await client.create_deployment(
            flow_id=flow_id,
            name=f"of-{uuid4().hex[:6]}",
            work_pool_name=pool,
            work_queue_name=queue,
            path=str(home),
            entrypoint="raced.py:raced",
        )
        return str(made)

    return prefect_probe.do(create)


@contextmanager
def worker_of(server: PrefectServer, pool: str, log: Path) -> Iterator[None]:
    """A worker that asks each second, for all that is due within Prefect's default of ten."""
    asks = {"PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_PREFETCH_SECONDS": "10"}
    with log.open("w") as sink:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "pilotage.flows.dev.supervised_child", str(os.getpid()), "prefect"),
                *("worker", "start", "--type", "process", "--pool", pool),
            ],
            env={**server.env, **asks},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def count(races: Sequence[Race], folder: Path, crashed: Mapping[str, str]) -> dict[str, Any]:
    """What became of the races, by what the processes left behind."""
    executed = {path.name: len(path.read_text()) for path in folder.iterdir()}
    accepted = [each for each in races if not each.refused]
    refused = [each for each in races if each.refused]
    doubled = [
        each
        for each in races
        # what was parked and executed all the same will be executed again
        if executed.get(each.run_id, 0) > (0 if each in accepted and not each.boosted else 1)
    ]
    silent = [each for each in races if (each.refused or each.boosted) and executed.get(each.run_id, 0) == 0]
    return {
        "races": len(races),
        "accepted": len(accepted),
        "refused": len(refused),
        "doubled": len(doubled),
        # a machine that is too busy fails to start a process; Prefect calls that Crashed, and it can be retried
        "crashed_at_start": sorted(crashed[each.run_id] for each in silent if each.run_id in crashed),
        "lost": sum(each.run_id not in crashed for each in silent),
        "accepted_at_the_guards_edge": sum(abs(each.lead - EDGE) <= 1.5 for each in accepted),
        "accepted_within_the_workers_reach": sum(each.lead <= 10 for each in accepted),
        "executed": sum(executed.values()),
    }


def test_a_run_is_executed_once_whether_the_worker_or_the_pilot_gets_it(
    prefect_probe: PrefectProbe, tmp_path: Path
) -> None:
    folder = tmp_path / "executions"
    folder.mkdir()
    deployment_id = deploy(prefect_probe, tmp_path, "pilotage", "low")
    # the worker of the session asks each second, for what is due within two
    races = asyncio.run(run_races(("high", "default", "low"), deployment_id, folder, leads(6, reach=2)))
    crashed = asyncio.run(all_ended(races, within=120))
    counts = count(races, folder, crashed)
    assert (counts["doubled"], counts["lost"]) == (0, 0), counts
    assert counts["accepted"] >= 3, counts
    assert counts["accepted"] + counts["refused"] == 6


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_runs_are_raced_for(prefect_server: PrefectServer, tmp_path: Path) -> None:
    folder = tmp_path / "executions"
    folder.mkdir()
    prefect_probe, pool = PrefectProbe(prefect_server), f"raced-{uuid4().hex[:6]}"
    lanes = tuple(f"lane{number}" for number in range(5))
    prefect_server.embedded.create_pool(pool, queues=lanes, concurrency_limit=6)
    deployment_id = deploy(prefect_probe, tmp_path, pool, lanes[0])
    with worker_of(prefect_server, pool, tmp_path / "worker.log"):
        races = asyncio.run(run_races(lanes, deployment_id, folder, leads(200, reach=10)))
        crashed = asyncio.run(all_ended(races, within=1200))
    counts = count(races, folder, crashed)
    record("race", counts)
    progress(f"race: {counts}")
    assert (counts["doubled"], counts["lost"]) == (0, 0), counts
    assert counts["accepted"] >= 100, counts
    assert counts["refused"] >= 1, counts
    assert counts["accepted_at_the_guards_edge"] >= 10, counts
    assert counts["accepted"] + counts["refused"] == 200
