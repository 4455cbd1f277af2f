"""Quarantines a deployment and brings it back.

Pausing stops schedules and makes Prefect delete the deployment's auto-scheduled runs that have not begun. They are
written down first, with what people changed in them; undo resumes, asks Prefect to make them again, and gives them
those changes. What was due before that is not started: its receipt names it, and catching up is another decision. A
run that somebody starts by hand still starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords, as_before, refused
from pilotage.flows.levers.scheduled_edits import EditedRuns
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import DeploymentView, RunView, moment
from pilotage.flows.prefect.writes import keep_note, switch_deployment
from pilotage.planner.actions.types import PauseDeployment

_REMEMBERED = 40
"""Future runs that are written down; Prefect schedules at most 100 and the note has to fit."""
_RESTORE_WITHIN = timedelta(seconds=10)
"""How long the runs are waited for; Prefect makes them while it is asked, its scheduler a minute later."""
_LOOK_EVERY = 0.5
_MOST = 1000
"""Waiting runs that are looked at."""
_WAITS_FOR_A_SLOT = "AwaitingConcurrencySlot"
"""Prefect leaves such runs alone."""
_NEAR = timedelta(seconds=5)
"""A run that is about to start may have started."""


class PauseLever:
    """Pauses a deployment for a while."""

    kind = "pause_deployment"
    window = timedelta(minutes=1)
    writes = (*switch_deployment(), *keep_note("pause"), *EditedRuns.writes)
    undoable = (
        "The deployment is resumed and its schedules make their runs again, with the parameters, tags, job variables "
        "and times that people had given them; runs that were due meanwhile are named in the receipt and not made."
    )

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)
        self._edited = EditedRuns(api)

    async def execute(
        self, action: PauseDeployment, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. What undo needs is written down before Prefect deletes it."""
        deployment = await self._api.deployment(action.deployment_id)
        note = await self._records.read("pause", idempotency_key)
        if note is not None and (deployment.paused or note.get("undone")):
            return Delivery(effect=Effect.ALREADY, before=note, after={"paused": deployment.paused})
        if note is None:
            if deployment.paused:
                return refused("the deployment is paused already, by somebody else")
            note = await self._snapshot(deployment, idempotency_key)
            await self._records.write("pause", idempotency_key, note)
        await self._api.pause_deployment(action.deployment_id)
        return Delivery(effect=Effect.DONE, before=note, after={"paused": True})

    async def verify(self, action: PauseDeployment, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the deployment is paused."""
        paused = (await self._api.deployment(action.deployment_id)).paused
        if paused:
            return Check(judgement=Judgement.VERIFIED, detail="paused", final_state="paused")
        return Check(judgement=Judgement.FAILED, detail="the deployment is not paused", final_state="active")

    async def undo(self, action: PauseDeployment, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the resumption."""
        note = await self._records.read("pause", idempotency_key)
        if note is None:
            return refused("nothing is known of this quarantine")
        if note.get("undone"):
            return as_before(note)
        deployment = await self._api.deployment(action.deployment_id)
        edited = int(note.get("edited") or 0)
        if not deployment.paused and note.get("resuming") is None:
            why = "somebody resumed the deployment already"
            if lost := await self._edited.give_up(edited, idempotency_key, why):
                why += (
                    f"; what had been changed in its runs is lost: {', '.join(edit['name'] for edit in lost)}"
                )
            await self._records.write("pause", idempotency_key, self._records.tombstone(note, why))
            return refused(why)
        await self._records.write("pause", idempotency_key, {**note, "resuming": True})
        await self._api.resume_deployment(action.deployment_id)
        restored, missing = await self._restored(action.deployment_id, note.get("starts") or ())
        edits = await self._edited.restore(action.deployment_id, edited, idempotency_key)
        await self._records.write("pause", idempotency_key, self._records.tombstone(note))
        after: dict[str, Any] = {"paused": False, "restored": restored, "missing": missing}
        notes = [f"{missing} of its scheduled runs have not been made again"] if missing else []
        if edits:
            after["edits"] = edits
            notes += [f"run {edit['name']}: {edit['lost']}" for edit in edits if "lost" in edit]
        if overdue := note.get("overdue"):
            after["overdue"] = overdue
            notes.append(
                f"Prefect deleted {overdue['runs']} that were due when it was paused, such as {overdue['first']}"
            )
        return Delivery(effect=Effect.DONE, before={"paused": True}, after=after, reason="; ".join(notes))

    async def _restored(self, deployment_id: str, starts: Sequence[str]) -> tuple[int, int]:
        """How many of the runs that Prefect deleted it has made again, and how many it has not in time."""
        deadline = self._api.now() + _RESTORE_WITHIN
        while True:
            now = self._api.now()
            wanted = {start for start in map(moment, starts) if start > now + _NEAR}
            there = {run.expected for run in await self._future(deployment_id)}
            if wanted <= there or now > deadline:
                return len(wanted & there), len(wanted - there)
            await asyncio.sleep(_LOOK_EVERY)

    async def _future(self, deployment_id: str) -> list[RunView]:
        now = self._api.now()
        waiting = await self._waiting(deployment_id)
        return [run for run in waiting if run.next_start and run.next_start > now]

    async def _waiting(self, deployment_id: str) -> list[RunView]:
        """The runs that Prefect deletes with the pause, soonest first."""
        where = {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}
        waiting = [
            run
            for run in await self._api.all_runs(where, most=_MOST)
            if run.auto_scheduled and run.run_count == 0 and run.state.name != _WAITS_FOR_A_SLOT
        ]
        return sorted(waiting, key=lambda run: (run.next_start or run.state.at, run.id))

    async def _snapshot(self, deployment: DeploymentView, idempotency_key: str) -> dict[str, Any]:
        now = self._api.now()
        waiting = await self._waiting(deployment.id)
        # what was only put before its schedule's time is made again as well
        future = [run for run in waiting if max(run.next_start or now, run.expected or now) > now]
        overdue = [run for run in waiting if run not in future]
        # a moved run has its schedule's time again, until its own is given back to it
        starts = [
            when.isoformat() for run in future[:_REMEMBERED] if (when := run.expected or run.next_start)
        ]
        return {
            "at": now.isoformat(),
            "active_schedules": [each["id"] for each in deployment.schedules if each.get("active")],
            "future_runs": len(future),
            "starts": starts,
            "edited": await self._edited.note(future, deployment, idempotency_key),
            **({"overdue": {"runs": len(overdue), "first": overdue[0].name}} if overdue else {}),
        }
