"""Catches up after an outage: keeps the newest overdue runs of a deployment and cancels the superseded."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery
from pilotage.flows.levers.queue_pause import QUEUE_PAUSE
from pilotage.flows.levers.reschedule_run import SETTLE
from pilotage.flows.levers.staggered import StaggeredRelease, WaitingRuns
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import keep_note, set_state
from pilotage.planner.actions.types import CatchUp
from pilotage.telemetry.facts import StateType


class CatchUpLever:
    """Keeps the newest of a deployment's overdue runs and cancels the superseded."""

    kind = "catch_up"
    window = timedelta(minutes=5)
    writes = (set_state(StateType.SCHEDULED, StateType.CANCELLED), *keep_note("waves"), *QUEUE_PAUSE)
    undoable = (
        "Runs that still wait in their waves get their old times back; the cancelled ones stay cancelled."
    )

    def __init__(self, api: PrefectApi, *, settle: timedelta = SETTLE) -> None:
        self._runs = WaitingRuns(api, settle=settle)

    async def execute(
        self, action: CatchUp, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery, with what became of the runs."""
        return await self._runs.execute(
            action.deployment_id, _waves(action), idempotency_key=idempotency_key, message=message
        )

    async def verify(self, action: CatchUp, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether none waits where it waited."""
        return await self._runs.verify(
            action.deployment_id, _waves(action), delivery, idempotency_key=idempotency_key
        )

    async def undo(self, action: CatchUp, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old times of those that were kept."""
        return await self._runs.undo(action.deployment_id, idempotency_key=idempotency_key)


def _waves(action: CatchUp) -> StaggeredRelease:
    return StaggeredRelease(first=action.first, wave=action.wave, every=action.every, keep=action.keep)
