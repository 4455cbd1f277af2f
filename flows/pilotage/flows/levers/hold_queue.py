"""Holds a queue or a whole pool. Running runs are not touched.

Held runs become Late in Prefect; that is what it calls waiting, and it passes when the queue is released.
"""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery
from pilotage.flows.levers.queue_switch import QueueSwitch
from pilotage.flows.prefect.api import PrefectApi
from pilotage.planner.actions.types import HoldQueue


class HoldLever:
    """Holds a queue or a pool for a while."""

    kind = "hold_queue"
    window = timedelta(minutes=1)
    writes = QueueSwitch.writes
    undoable = "It is released again, unless somebody has released it already."

    def __init__(self, api: PrefectApi) -> None:
        self._switch = QueueSwitch(api, paused=True)

    async def execute(
        self, action: HoldQueue, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        return await self._switch.execute(action.pool, action.queue, idempotency_key, message)

    async def verify(self, action: HoldQueue, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether it is held."""
        return await self._switch.verify(action.pool, action.queue)

    async def undo(self, action: HoldQueue, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the release."""
        return await self._switch.undo(action.pool, action.queue, idempotency_key)
