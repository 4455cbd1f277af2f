"""Knows how to quarantine a deployment and how to bring it back.

Pausing stops schedules and makes Prefect delete the deployment's future auto-scheduled runs. They are written
down first; undo resumes and asks Prefect to make them again. A run that somebody starts by hand still starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.flows.levers.marks import Notes, refused, wrong_lever
from pilotage.flows.prefect_api import PrefectApi
from pilotage.flows.prefect_views import DeploymentView, RunView, moment
from pilotage.flows.receipts import Check, Delivery, Effect, Judgement
from pilotage.planner.actions import Action, PauseDeployment

_REMEMBERED = 40
"""Future runs that are written down; Prefect schedules at most 100 and the note has to fit."""
_RESTORE_WITHIN = timedelta(seconds=10)
"""How long the runs are waited for; Prefect makes them while it is asked, its scheduler a minute later."""
_LOOK_EVERY = 0.5
_NEAR = timedelta(seconds=5)
"""A run that is about to start may have started."""


class PauseLever:
    """Pauses a deployment for a while."""

    kind = "pause_deployment"
    window = timedelta(minutes=1)
    undoable = (
        "The deployment is resumed and its schedules make their runs again; Prefect deletes its future "
        "auto-scheduled runs when it is paused, so changes that people made to those are lost."
    )

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._notes = Notes(api)

    async def execute(self, action: Action, *, mark: str, expected_state_id: str, message: str) -> Delivery:
        """The delivery. What undo needs is written down before Prefect deletes it."""
        if not isinstance(action, PauseDeployment):
            wrong_lever(self.kind, action)
        deployment = await self._api.deployment(action.deployment_id)
        note = await self._notes.read("pause", mark)
        if note is not None and (deployment.paused or note.get("undone")):
            return Delivery(effect=Effect.ALREADY, before=note, after={"paused": deployment.paused})
        if note is None:
            if deployment.paused:
                return refused("the deployment is paused already, by somebody else")
            note = await self._snapshot(deployment)
            await self._notes.write("pause", mark, note)
        await self._api.pause_deployment(action.deployment_id)
        return Delivery(effect=Effect.DONE, before=note, after={"paused": True})

    async def verify(self, action: Action, delivery: Delivery, *, mark: str) -> Check:
        """Whether the deployment is paused."""
        if not isinstance(action, PauseDeployment):
            wrong_lever(self.kind, action)
        paused = (await self._api.deployment(action.deployment_id)).paused
        if paused:
            return Check(judgement=Judgement.VERIFIED, detail="paused", final_state="paused")
        return Check(judgement=Judgement.FAILED, detail="the deployment is not paused", final_state="active")

    async def undo(self, action: Action, delivery: Delivery, *, mark: str) -> Delivery:
        """The delivery of the resumption."""
        if not isinstance(action, PauseDeployment):
            wrong_lever(self.kind, action)
        note = await self._notes.read("pause", mark)
        if note is None:
            return refused("nothing is known of this quarantine")
        if note.get("undone"):
            return Delivery(effect=Effect.ALREADY)
        tombstone = {"undone": datetime.now(UTC).isoformat()}
        deployment = await self._api.deployment(action.deployment_id)
        if not deployment.paused and note.get("resuming") is None:
            await self._notes.write("pause", mark, tombstone)
            return refused("somebody resumed the deployment already")
        await self._notes.write("pause", mark, {**note, "resuming": True})
        await self._api.resume_deployment(action.deployment_id)
        # kept, so that a delivery repeated after this does not pause it again
        restored, missing = await self._restored(action.deployment_id, note.get("starts") or ())
        await self._notes.write("pause", mark, tombstone)
        after = {"paused": False, "restored": restored, "missing": missing}
        why = f"{missing} of its scheduled runs have not been made anew" if missing else ""
        return Delivery(effect=Effect.DONE, before={"paused": True}, after=after, reason=why)

    async def _restored(self, deployment_id: str, starts: Sequence[str]) -> tuple[int, int]:
        """How many of the runs that Prefect deleted it has made again, and how many it has not in time."""
        deadline = datetime.now(UTC) + _RESTORE_WITHIN
        while True:
            now = datetime.now(UTC)
            wanted = {start for start in map(moment, starts) if start > now + _NEAR}
            there = {run.next_start for run in await self._future(deployment_id)}
            if wanted <= there or now > deadline:
                return len(wanted & there), len(wanted - there)
            await asyncio.sleep(_LOOK_EVERY)

    async def _future(self, deployment_id: str) -> list[RunView]:
        where = {
            "deployment_id": {"any_": [deployment_id]},
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "next_scheduled_start_time": {"after_": datetime.now(UTC).isoformat()},
        }
        return [run for run in await self._api.runs(where) if run.auto_scheduled]

    async def _snapshot(self, deployment: DeploymentView) -> dict[str, Any]:
        future = await self._future(deployment.id)
        return {
            "active_schedules": [each["id"] for each in deployment.schedules if each.get("active")],
            "future_runs": len(future),
            "starts": [run.next_start.isoformat() for run in future[:_REMEMBERED] if run.next_start],
        }
