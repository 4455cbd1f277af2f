"""A run whose worker and process are killed, on a server and workers of its own, from its death to its retry."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import psutil
import pytest
from tests.flows.running_controller import eventually

from pilotage.flows.dev.embedded import POOL, EmbeddedPrefect
from pilotage.flows.execution.receipts import Delivery, Effect, Judgement
from pilotage.flows.levers import build_levers
from pilotage.flows.levers.mark_crashed import MarkCrashedLever
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.liveness import THIS_HOST
from pilotage.flows.prefect.target_facts import PrefectFacts
from pilotage.planner.actions.types import MarkCrashed, RetryRun
from pilotage.telemetry.errors import OrchestratorError

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

T = TypeVar("T")
HERE = Path(__file__).parents[1]


class Ground:
    """A server of one's own, to be torn down as one likes."""

    def __init__(self, server: EmbeddedPrefect) -> None:
        self.server = server

    def do(self, work: Callable[[PrefectApi], Awaitable[T]]) -> T:
        async def inside() -> T:
            api = PrefectApi(self.server.api_url, auth_string=self.server.auth_string, guard=None)
            async with api.opened():
                return await work(api)

        return asyncio.run(inside())

    def ask(self, method: str, route: str, body: Any = None) -> Any:
        user, _, password = self.server.auth_string.partition(":")
        with httpx.Client(base_url=self.server.api_url, auth=(user, password), timeout=60) as client:
            answer = client.request(method, route, json=body)
            while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # SQLite is busy
                time.sleep(0.5)
                answer = client.request(method, route, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def begin(self, *tags: str, **parameters: Any) -> str:
        """The id of a run of `steps`, which waits in its third task."""
        flow = self.ask("POST", "/flows/", {"name": f"steps-{uuid4().hex[:6]}"})
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(HERE)}}
        body = {
            "name": "live",
            "flow_id": flow["id"],
            "tags": list(tags),
            "entrypoint": "live_flows.py:steps",
            "path": str(HERE),
            "work_pool_name": POOL,
            "pull_steps": [step],
            "enforce_parameter_schema": False,
            "concurrency_limit": 1,
        }
        deployment = self.ask("POST", "/deployments/", body)["id"]
        run = self.ask("POST", f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run_id: str) -> str:
        return str(self.ask("GET", f"/flow_runs/{run_id}")["state"]["name"])

    def slots(self, run_id: str) -> int:
        deployment = self.ask("GET", f"/flow_runs/{run_id}")["deployment_id"]
        return int(self.ask("GET", f"/v2/concurrency_limits/deployment:{deployment}")["active_slots"])

    def idempotency_key(self, run_id: str, idempotency_key: str) -> Delivery:
        return self.do(
            lambda api: MarkCrashedLever(api).execute(
                MarkCrashed(run_id=run_id), idempotency_key=idempotency_key, expected_state_id="", message="m"
            )
        )

    def death(self, run_id: str) -> str:
        return self.do(lambda api: PrefectFacts(api).target(MarkCrashed(run_id=run_id))).death


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with EmbeddedPrefect(tmp_path / "own", settings={"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}) as server:
        server.create_pool()
        yield Ground(server)


def test_a_killed_run_of_a_killed_worker_is_found_marked_and_run_again(
    ground: Ground, tmp_path: Path
) -> None:
    ground.server.start_worker(name="first")
    runs = {
        "dead": ground.begin(THIS_HOST, place=str(tmp_path)),
        "slow": ground.begin(THIS_HOST, place=str(tmp_path)),
        "elsewhere": ground.begin(place=str(tmp_path)),
    }
    eventually(
        lambda: {ground.state(run_id) for run_id in runs.values()} == {"Running"},
        within=240,
        what="three running runs",
    )
    time.sleep(35)  # two heartbeats of each
    pids = {
        name: int(ground.ask("GET", f"/flow_runs/{run_id}")["infrastructure_pid"])
        for name, run_id in runs.items()
    }
    try:
        (worker,) = [child for child in ground.server._children if child.name == "first"]
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        # what a worker started lives on without it
        assert all(psutil.pid_exists(pid) for pid in pids.values())
        killed = datetime.now(UTC)
        for name in ("dead", "elsewhere"):
            os.kill(pids[name], signal.SIGKILL)
        assert ground.idempotency_key(runs["dead"], str(uuid4())).effect is Effect.REFUSED
        ground.server.start_worker(name="second")
        idempotency_key = str(uuid4())

        def marked() -> Delivery | None:
            assert {ground.state(runs[name]) for name in runs} == {"Running"}
            assert ground.slots(runs["dead"]) == 1
            try:
                delivery = ground.idempotency_key(runs["dead"], idempotency_key)
            except OrchestratorError as exc:
                if not exc.transient:
                    raise
                return None
            return delivery if delivery.effect is Effect.DONE else None

        delivery = eventually(marked, within=400, what="a proof of death")
        took = datetime.now(UTC) - killed
        print(f"\nmarked {took.total_seconds():.0f} s after its death")
        # three heartbeats and some slack, from the last one that was heard
        assert took.total_seconds() > 90
        assert delivery.before["signs"] == "process"
        assert ground.slots(runs["dead"]) == 0
        # its worker's silence bears out another, whose host nobody named; a slow run is nothing of the kind
        eventually(lambda: ground.death(runs["elsewhere"]) == "worker", within=300, what="a worker offline")
        assert ground.death(runs["slow"]) == ""
        assert ground.idempotency_key(runs["slow"], str(uuid4())).effect is Effect.REFUSED
        assert ground.state(runs["slow"]) == "Running"
        check = ground.do(
            lambda api: MarkCrashedLever(api).verify(
                MarkCrashed(run_id=runs["dead"]), delivery, idempotency_key=idempotency_key
            )
        )
        assert check.judgement in (Judgement.VERIFIED, Judgement.PENDING), check

        # and then lever 1: the other worker runs it again
        async def retry(api: PrefectApi) -> Delivery:
            levers = build_levers(
                worker_has_released=api.worker_released, notifier=Notifier(api=api), api=api
            )
            return await levers["retry_run"].execute(
                RetryRun(run_id=runs["dead"]), idempotency_key=str(uuid4()), expected_state_id="", message="m"
            )

        def retried() -> bool:
            try:
                return ground.do(retry).effect is Effect.DONE
            except OrchestratorError as exc:
                if not exc.transient:
                    raise
                return False

        eventually(retried, within=120, what="a retry")
        (tmp_path / "go").touch()
        eventually(lambda: ground.state(runs["dead"]) == "Completed", within=180, what="the second attempt")
        assert ground.ask("GET", f"/flow_runs/{runs['dead']}")["run_count"] == 2
        # the slow run ends by its own word; without its worker Prefect may end it at its next step
        eventually(lambda: ground.state(runs["slow"]) != "Running", within=180, what="the slow run")
        end = ground.ask("GET", f"/flow_runs/{runs['slow']}")["state"]
        assert not str(end["message"]).startswith("m"), end
    finally:
        for pid in pids.values():
            if psutil.pid_exists(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_server_that_restarts_forgets_who_held_its_slots_and_counts_them_for_good(
    tmp_path: Path,
) -> None:
    home = tmp_path / "own"
    body = {"slots": 1, "names": ["db"], "holder": {"type": "flow_run", "id": str(uuid4())}}
    with EmbeddedPrefect(home) as server:
        before = Ground(server)
        before.ask("POST", "/v2/concurrency_limits/", {"name": "db", "limit": 5})
        lease = before.ask("POST", "/v2/concurrency_limits/increment-with-lease", body)["lease_id"]
        assert before.do(lambda api: api.lease_stands(lease))
    with EmbeddedPrefect(home) as server:
        after = Ground(server)
        assert not after.do(lambda api: api.lease_stands(lease))
        # the lease that would lapse is gone, and the slot is not
        assert after.ask("GET", "/v2/concurrency_limits/db")["active_slots"] == 1
