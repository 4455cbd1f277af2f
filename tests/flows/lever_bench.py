"""A bench on which levers are tried one at a time, as a test calls them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from prefect.states import Failed, Pending, Running

from pilotage.flows.execution.permits import reach_of, releasing_queues
from pilotage.flows.execution.receipts import Check, Delivery, Judgement, Lever
from pilotage.flows.levers import build_levers
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.guard import ADMITTED, TELLING, Permit, permitted
from pilotage.planner.actions.types import Action

if TYPE_CHECKING:
    from tests.flows.conftest import PrefectProbe

T = TypeVar("T")
FAR = timedelta(hours=6)


async def worker_has_released(run_id: str, after: datetime) -> bool:
    """A worker that lets go at once."""
    return True


async def holds_on(run_id: str, after: datetime) -> bool:
    """A worker that has not reported the end yet."""
    return False


class LeverBench:
    """Calls levers from a test, each time on a connection of its own, as a restarted process would."""

    def __init__(self, prefect_probe: PrefectProbe) -> None:
        self.prefect_probe = prefect_probe
        self.notices: PrefectApi | None = None

    def with_api(self, work: Callable[[PrefectApi], Awaitable[T]]) -> T:
        async def inside() -> T:
            async with PrefectApi.from_prefect_settings(guard=None).opened() as api:
                return await work(api)

        return asyncio.run(inside())

    def at_start(self, chore: Callable[[PrefectApi], Awaitable[T]]) -> T:
        """What a chore returned that the controller does before anything is delivered."""

        async def inside() -> T:
            async with PrefectApi.from_prefect_settings(guard=ADMITTED).opened() as api:
                with releasing_queues():
                    return await chore(api)

        return asyncio.run(inside())

    def lever(self, api: PrefectApi, action: Action) -> Lever:
        return build_levers(
            worker_has_released=worker_has_released, notifier=Notifier(api=self.notices or api), api=api
        )[action.kind]

    def wait_for_worker(self, run_id: str, within: float = 60.0) -> None:
        """Nothing, once the worker has reported the end of the run's process."""
        deadline = time.monotonic() + within
        started = self.prefect_probe.run(run_id).start_time
        assert started is not None
        while not self.with_api(lambda api: api.worker_released(run_id, started)):
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def carried_out(
        self,
        action: Action,
        idempotency_key: str,
        step: Callable[[Lever], Awaitable[T]],
        *,
        may_write: bool = True,
    ) -> T:
        """What the step returned, behind the guard under which the controller takes it."""

        async def inside() -> T:
            async with (
                PrefectApi.from_prefect_settings(guard=ADMITTED).opened() as api,
                PrefectApi.from_prefect_settings(guard=TELLING).opened() as self.notices,
            ):
                lever = self.lever(api, action)
                permit = Permit(
                    about=action.kind,
                    writes=lever.writes
                    if may_write
                    else [write for write in lever.writes if write.verifying],
                    reach=reach_of(action, idempotency_key),
                )
                with permitted(permit):
                    return await step(lever)

        return asyncio.run(inside())

    def execute(self, action: Action, idempotency_key: str, *, expected: str = "") -> Delivery:
        return self.carried_out(
            action,
            idempotency_key,
            lambda lever: lever.execute(
                action,
                idempotency_key=idempotency_key,
                expected_state_id=expected,
                message="pilotage p-0123456789ab",
            ),
        )

    def verify(self, action: Action, delivery: Delivery, idempotency_key: str) -> Check:
        return self.carried_out(
            action,
            idempotency_key,
            lambda lever: lever.verify(action, delivery, idempotency_key=idempotency_key),
            may_write=False,
        )

    def undo(self, action: Action, delivery: Delivery, idempotency_key: str) -> Delivery:
        return self.carried_out(
            action,
            idempotency_key,
            lambda lever: lever.undo(action, delivery, idempotency_key=idempotency_key),
        )

    def verified(
        self, action: Action, delivery: Delivery, idempotency_key: str, within: float = 90.0
    ) -> Check:
        deadline = time.monotonic() + within
        while (check := self.verify(action, delivery, idempotency_key)).judgement is Judgement.PENDING:
            assert time.monotonic() < deadline, check
            time.sleep(0.3)
        return check

    def failed_run(self, name: str = "push-ledger/demo") -> str:
        """A run far in the future that has been moved to Failed, so that no worker ever had it."""
        run_id = self.prefect_probe.start(name, at=datetime.now(UTC) + FAR)
        self.prefect_probe.move(run_id, Pending(), Running(), Failed(message="it failed"))
        return run_id

    def state_id(self, run_id: str) -> str:
        state = self.prefect_probe.run(run_id).state
        assert state is not None
        return str(state.id)

    def state_name(self, run_id: str) -> str:
        state = self.prefect_probe.run(run_id).state
        assert state is not None
        return str(state.name)
