"""A backlog that is moved while a worker takes its runs, on the real server: no run is executed twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from tests.conftest import PrefectServer
from tests.flows.conftest import PrefectProbe
from tests.flows.levers.test_staggered import POOL, Unserved, backlog, deployment

from pilotage.flows.execution.receipts import Effect
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE, RescheduleLever
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import RescheduleRun
from pilotage.telemetry.facts import StateType

pytestmark = pytest.mark.prefect


@pytest.fixture
def bench(prefect_server: PrefectServer) -> Unserved:
    """A bench on the real server, in a pool that no worker serves."""
    prefect_server.embedded.create_pool(POOL, queues=("default",))
    return Unserved(PrefectProbe(prefect_server))


RACES = 6


class _Racing(PrefectApi):
    """An API beside which a worker takes the run at a moment that is spread over the guarded write."""

    before_write: Callable[[], Awaitable[None]]

    async def set_state_if(self, *given: Any, **named: Any) -> Any:
        await self.before_write()
        return await super().set_state_if(*given, **named)


@pytest.mark.parametrize(
    "races", [RACES, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_a_run_that_a_worker_takes_while_it_is_moved_is_never_executed_twice(
    bench: Unserved, races: int
) -> None:
    deployment_id = deployment(bench)
    accepted = refused = 0
    for race in range(races):
        # at the near edge of the guard: far enough for the direct write, with no queue held
        due = datetime.now(UTC) + SAFE_DISTANCE + timedelta(seconds=2)
        (run_id,) = backlog(bench, deployment_id, 1, first=due)
        go = threading.Event()

        def worker(run_id: str = run_id, wait: float = 0.004 * (race % 12), go: threading.Event = go) -> None:
            async def take() -> None:
                async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
                    await asyncio.to_thread(go.wait, 20)
                    await asyncio.sleep(wait)
                    # as a worker does: Pending, and only a run that it got is submitted and started
                    for type_, name in (
                        (StateType.PENDING, "Pending"),
                        (StateType.PENDING, "Submitting"),
                        (StateType.RUNNING, "Running"),
                    ):
                        taken = await api.set_state(
                            run_id, type_, name, message="w", idempotency_key=str(uuid4())
                        )
                        if taken.ruling != "ACCEPT":
                            return

            asyncio.run(take())

        thread = threading.Thread(target=worker)
        thread.start()

        async def move(run_id: str = run_id, go: threading.Event = go) -> Effect:
            async with _Racing.from_prefect_settings(guard=None).opened() as api:

                async def before_write() -> None:
                    go.set()

                api.before_write = before_write
                action = RescheduleRun(run_id=run_id, start=datetime.now(UTC) + timedelta(hours=2))
                lever = RescheduleLever(api)
                made = await lever.execute(
                    action, idempotency_key=str(uuid4()), expected_state_id="", message="m"
                )
                return made.effect

        effect = asyncio.run(move())
        go.set()
        thread.join(30)
        assert not thread.is_alive()
        names = [state.name for state in bench.prefect_probe.history(run_id)]
        accepted += effect is Effect.DONE
        refused += effect is Effect.REFUSED
        # executed twice would be: it ran, was put back among those that wait, and would run again
        assert names.count("Running") <= 1
        if "Running" in names:
            assert "Scheduled" not in names[names.index("Running") :], names
    assert accepted + refused == races
    assert accepted
