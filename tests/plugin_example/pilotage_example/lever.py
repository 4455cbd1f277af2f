"""The lever of `label_run`."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement, Lever
from pilotage.flows.levers.idempotency import refused
from pilotage.flows.levers.registry import LeverTools
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import label_run
from pilotage_example.action import LabelRun


class LabelLever:
    """Puts a label on a run."""

    kind = "label_run"
    window = timedelta(minutes=1)
    writes = (label_run(),)
    undoable = "Prefect keeps labels: the label stays, with the value `false`."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: LabelRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """Set the label to `true`, once however often it is repeated."""
        run = await self._api.run(action.run_id)
        if run.labels.get(action.label) is True:
            return Delivery(effect=Effect.ALREADY)
        await self._api.add_labels(run.id, {action.label: True})
        return Delivery(effect=Effect.DONE, after={"label": action.label})

    async def verify(self, action: LabelRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Return whether the run has the label."""
        there = (await self._api.run(action.run_id)).labels.get(action.label) is True
        return Check(
            judgement=Judgement.VERIFIED if there else Judgement.FAILED,
            detail=f"label {action.label}: {there}",
        )

    async def undo(self, action: LabelRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """Set the label to `false`."""
        if (await self._api.run(action.run_id)).labels.get(action.label) is not True:
            return refused("the run has no such label")
        await self._api.add_labels(action.run_id, {action.label: False})
        return Delivery(effect=Effect.DONE)


def label_lever(tools: LeverTools) -> Lever:
    """Build the lever."""
    return LabelLever(tools.api)
