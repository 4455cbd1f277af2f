"""Saves what people changed in scheduled runs that Prefect is about to delete, and restores it.

A schedule makes each of its runs again from the deployment: what differs from that was changed by somebody. It is
noted, one Prefect variable for each run, and given to the run that the schedule makes for the same time, or to one
that is made for it where that time has passed and its own has not. Nothing that was due meanwhile is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.execution.receipts import Effect
from pilotage.flows.levers.idempotency import ChangeRecords, fits_a_record, step_key
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE
from pilotage.flows.levers.retry_run import settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import DeploymentView, RunView, moment
from pilotage.flows.prefect.writes import create_run, edit_run, keep_note, set_state
from pilotage.telemetry import times
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

FIELDS = ("parameters", "tags", "job_variables")
"""What of a run is replaced as a whole where somebody changed it."""
_AUTO = "auto-scheduled"
"""The tag that Prefect gives to what a schedule makes."""
_NEAR = timedelta(seconds=5)
"""A run that is about to start may have started."""


def changed_in(run: RunView, deployment: DeploymentView) -> dict[str, Any]:
    """What of a scheduled run is not as its schedule made it, by field; `due` where it was moved. Empty for most."""
    own = next((each for each in deployment.schedules if str(each.get("id")) == run.made_by), {})
    fields = {
        "parameters": {**deployment.parameters, **(own.get("parameters") or {})},
        "tags": sorted({_AUTO, *deployment.tags}),
        "job_variables": {},
    }
    now = {
        "parameters": dict(run.parameters),
        "tags": sorted(set(run.tags)),
        "job_variables": dict(run.job_variables),
    }
    changed = {field: now[field] for field in FIELDS if now[field] != fields[field]}
    if run.next_start and run.expected and run.next_start != run.expected:
        changed["due"] = run.next_start.isoformat()
    return changed


class EditedRuns:
    """The changed runs of one deployment, noted under one mark."""

    writes = (
        edit_run("name", *FIELDS),
        create_run("name", "state", "enforce_parameter_schema", *FIELDS),
        set_state(StateType.SCHEDULED),
        *keep_note("edit"),
    )

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)

    async def note(self, runs: Sequence[RunView], deployment: DeploymentView, idempotency_key: str) -> int:
        """How many of these runs somebody changed; each has a note now."""
        edited = [(run, changed) for run in runs if (changed := changed_in(run, deployment))]
        for number, (run, changed) in enumerate(edited):
            kept = {
                "at": self._api.now().isoformat(),
                "name": run.name,
                "schedule": run.made_by,
                "expected": (run.expected or run.next_start or self._api.now()).isoformat(),
                "changed": changed,
            }
            if not fits_a_record(kept):
                kept["changed"] = {"too_long": sorted(changed)}
            await self._records.write("edit", _key(idempotency_key, number), kept)
        return len(edited)

    async def restore(self, deployment_id: str, many: int, idempotency_key: str) -> list[dict[str, str]]:
        """What became of each noted run: its `name`, and `run_id` of the one that has its changes now or `lost`, why.

        The values are in no receipt, for they may be secrets, and in no note any more. Repeated, it goes on.
        """
        edits = []
        for number in range(many):
            key = _key(idempotency_key, number)
            note = await self._records.read("edit", key)
            if note is None:
                continue
            if not note.get("undone"):
                done = await self._put_back(deployment_id, note, key)
                note = {**self._records.tombstone(note), "told": {"name": str(note["name"]), **done}}
                await self._records.write("edit", key, note)
            edits.append(dict(note["told"]))
        return edits

    async def give_up(self, many: int, idempotency_key: str, why: str) -> list[dict[str, str]]:
        """What is lost, as `restore` tells it; nothing is put back."""
        edits = []
        for number in range(many):
            note = await self._records.read("edit", _key(idempotency_key, number))
            if note is not None:
                lost = note.get("told") or {"name": str(note["name"]), "lost": why}
                await self._records.write(
                    "edit", _key(idempotency_key, number), {**self._records.tombstone(note), "told": lost}
                )
                edits.append(dict(lost))
        return edits

    async def _put_back(self, deployment_id: str, note: Mapping[str, Any], key: str) -> dict[str, str]:
        changed: dict[str, Any] = dict(note["changed"])
        if fields := changed.pop("too_long", None):
            return {"lost": f"its {_listed(fields)} were too long to be remembered"}
        expected = moment(str(note["expected"]))
        due = moment(str(changed.pop("due", note["expected"])))
        try:
            run = await self._made_again(deployment_id, expected, str(note["schedule"]))
            if run is None:
                if expected > self._api.now():
                    # made here it would be there twice once the schedule makes its own
                    return {"lost": f"its schedule has made no run again for {times.local(expected)}"}
                if due <= self._api.now() + _NEAR:
                    return {"lost": f"it was due at {times.local(due)}, which has passed"}
                run = await self._made_for_it(deployment_id, due, changed, str(note["name"]), key)
            if run.state.type is not StateType.SCHEDULED:
                return {"lost": f"the run that was made for its time is {run.state.name} already"}
            await self._api.patch_run(run.id, {**changed, "name": str(note["name"])})
            not_moved = await self._moved(run, due, key) if run.next_start != due else ""
        except OrchestratorError as error:
            if error.transient:
                raise
            # its words may quote a value
            return {"lost": "Prefect refused it; its server's log says why"}
        kept = {"run_id": run.id}
        return {**kept, "lost": f"its start at {times.local(due)}: {not_moved}"} if not_moved else kept

    async def _made_again(self, deployment_id: str, expected: datetime, schedule: str) -> RunView | None:
        """The run that the schedule has made again for the same time, or None."""
        where = {
            "deployment_id": {"any_": [deployment_id]},
            "expected_start_time": {"after_": expected.isoformat(), "before_": expected.isoformat()},
        }
        runs = await self._api.runs(where)
        return next((run for run in runs if run.auto_scheduled and run.made_by == schedule), None)

    async def _made_for_it(
        self, deployment_id: str, due: datetime, changed: Mapping[str, Any], name: str, key: str
    ) -> RunView:
        """A new run with the old one's time and changes; the same one however often it is asked for."""
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
        body = {**changed, "name": name, "state": state, "idempotency_key": key}
        # Prefect took the values when they were changed, and does not hold a run's changes to the schema
        body["enforce_parameter_schema"] = False
        return await self._api.create_run_of(deployment_id, body)

    async def _moved(self, run: RunView, due: datetime, key: str) -> str:
        """Why the run keeps the time of its schedule, or an empty text when it has its own again."""
        now = self._api.now()
        if due <= now + _NEAR:
            return "it has passed"
        if run.next_start is not None and run.next_start <= now + SAFE_DISTANCE:
            return "a worker may have taken the run already"
        idempotency_key = step_key(key, "due")
        ruling = await self._api.set_state_if(
            run.id,
            (StateType.SCHEDULED,),
            StateType.SCHEDULED,
            "Scheduled",
            message="pilotage gave a run the time that it had before its deployment was paused",
            idempotency_key=idempotency_key,
            scheduled_for=due,
            due_after=now + SAFE_DISTANCE,
        )
        stood = await settled(self._api, run, idempotency_key, ruling, before={})
        return stood.reason if stood.effect is Effect.REFUSED else ""


def _key(idempotency_key: str, number: int) -> str:
    return step_key(idempotency_key, f"edit:{number}")


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(fields)
