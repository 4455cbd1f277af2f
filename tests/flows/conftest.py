"""The shipped project on the session's server, and a few ways to look at its runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Scheduled
from tests.conftest import PrefectServer, PrefectWorker
from tests.flows.fake_server import a_fake_server
from tests.flows.lever_bench import LeverBench

T = TypeVar("T")


class PrefectProbe:
    """Makes runs and waits for them with Prefect's own client, so that nothing of ours is in the way."""

    def __init__(self, server: PrefectServer) -> None:
        self.server = server

    def do(self, work: Callable[[PrefectClient], Coroutine[Any, Any, T]]) -> T:
        """What the coroutine returned."""

        async def inside() -> T:
            async with get_client() as client:
                return await work(client)

        return asyncio.run(inside())

    def deployment_id(self, name: str) -> str:
        """The id of `flow/deployment`."""
        return str(self.do(lambda client: client.read_deployment_by_name(name)).id)

    def start(self, name: str, *, at: datetime | None = None, **parameters: Any) -> str:
        """The id of a new run of `flow/deployment`, due now or `at`."""

        async def create(client: PrefectClient) -> str:
            deployment = await client.read_deployment_by_name(name)
            run = await client.create_flow_run_from_deployment(
                deployment.id, parameters=parameters, state=Scheduled(scheduled_time=at)
            )
            return str(run.id)

        return self.do(create)

    def run(self, run_id: str) -> FlowRun:
        """The run as it is now."""
        return self.do(lambda client: client.read_flow_run(UUID(run_id)))

    def history(self, run_id: str) -> list[State]:
        """Every state of the run, oldest first."""
        states = self.do(lambda client: client.read_flow_run_states(UUID(run_id)))
        return sorted(states, key=lambda state: state.timestamp)

    def move(self, run_id: str, *states: State) -> None:
        """Take the run through these states without any process."""

        async def go(client: PrefectClient) -> None:
            for state in states:
                await client.set_flow_run_state(UUID(run_id), state, force=True)

        self.do(go)

    def ended(self, run_id: str, within: float = 90.0) -> FlowRun:
        """The run once it has ended; fails the test when it has not `within` that many seconds."""
        deadline = time.monotonic() + within
        while True:
            run = self.run(run_id)
            if run.state is not None and run.state.is_final():
                return run
            assert time.monotonic() < deadline, f"run {run_id} is still {run.state}"
            time.sleep(0.3)


@pytest.fixture
def bench(prefect_probe: PrefectProbe) -> LeverBench:
    """A bench whose levers work on the session's server."""
    return LeverBench(prefect_probe)


@pytest.fixture
def idempotency_key() -> str:
    """The mark of a delivery."""
    return str(uuid4())


@pytest.fixture(scope="session")
def prefect_probe(prefect_server: PrefectServer, prefect_worker: PrefectWorker) -> PrefectProbe:
    """The shipped deployments, on the session's server, with its worker."""
    prefect_server.embedded.deploy_examples()
    return PrefectProbe(prefect_server)


@pytest.fixture
def fake_server() -> Iterator[PrefectServer]:
    """A fake Prefect of the test's own, to which this process's settings lead meanwhile."""
    with a_fake_server() as server:
        yield server


@pytest.fixture(scope="module")
def fake_probe() -> Iterator[PrefectProbe]:
    """The shipped deployments on a fake Prefect of the module's own, without a worker."""
    with a_fake_server() as server:
        yield PrefectProbe(server)
