"""Releases a queue or a whole pool that is paused, whoever paused it."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery
from pilotage.flows.levers.queue_switch import QueueSwitch
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import ReleaseQueue


class ReleaseLever:
    """Releases a queue or a pool that is paused, whoever paused it."""

    kind = "release_queue"
    window = timedelta(minutes=1)
    writes = QueueSwitch.writes
    undoable = "It is paused again, unless somebody has done so already; runs that began meanwhile go on."

    def __init__(self, api: PrefectApi) -> None:
        self._switch = QueueSwitch(api, paused=False)

    async def execute(
        self, action: ReleaseQueue, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        return await self._switch.execute(action.pool, action.queue, idempotency_key, message)

    async def verify(self, action: ReleaseQueue, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether it hands out runs."""
        return await self._switch.verify(action.pool, action.queue)

    async def undo(self, action: ReleaseQueue, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the pause that was there before."""
        return await self._switch.undo(action.pool, action.queue, idempotency_key)
