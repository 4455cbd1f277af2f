"""Spreads a backlog of waiting runs in waves."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery
from pilotage.flows.levers.queue_pause import QUEUE_PAUSE
from pilotage.flows.levers.reschedule_run import SETTLE
from pilotage.flows.levers.staggered import StaggeredRelease, WaitingRuns
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import keep_note, set_state
from pilotage.planner.actions.types import SpreadRuns
from pilotage.telemetry.facts import StateType


class SpreadLever:
    """Parks the waiting runs of a deployment and releases them in waves."""

    kind = "spread_runs"
    window = timedelta(minutes=5)
    writes = (set_state(StateType.SCHEDULED), *keep_note("waves"), *QUEUE_PAUSE)
    undoable = "Runs that still wait in their waves get their old times back."

    def __init__(self, api: PrefectApi, *, settle: timedelta = SETTLE) -> None:
        self._runs = WaitingRuns(api, settle=settle)

    async def execute(
        self, action: SpreadRuns, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery, with what became of the runs."""
        return await self._runs.execute(
            action.deployment_id, _waves(action), idempotency_key=idempotency_key, message=message
        )

    async def verify(self, action: SpreadRuns, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether none waits where it waited."""
        return await self._runs.verify(
            action.deployment_id, _waves(action), delivery, idempotency_key=idempotency_key
        )

    async def undo(self, action: SpreadRuns, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old times."""
        return await self._runs.undo(action.deployment_id, idempotency_key=idempotency_key)


def _waves(action: SpreadRuns) -> StaggeredRelease:
    return StaggeredRelease(first=action.first, wave=action.wave, every=action.every, most=action.most)
