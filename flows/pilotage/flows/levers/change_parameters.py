"""Changes parameters of a run that has not started.

Prefect takes any parameters for any run, writes no event and tells nobody, so everything is checked here: the
names against the deployment's schema, the merged whole by JSON schema, and afterwards whether the run was
still waiting. What undo restores is kept in Prefect; the values may be secrets, so the receipt has names only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError, ValidationError  # type: ignore[import-untyped]
from referencing import Registry
from referencing.exceptions import Unresolvable

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import (
    ChangeRecords,
    fits_a_record,
    refused,
    untouched,
)
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, moment
from pilotage.flows.prefect.writes import edit_run, keep_note, label_run
from pilotage.planner.actions.types import ChangeParameters, ParameterValue
from pilotage.telemetry.facts import StateType


class ParametersLever:
    """Changes parameters of a SCHEDULED run."""

    kind = "change_parameters"
    window = timedelta(minutes=2)
    writes = (edit_run("parameters"), label_run(), *keep_note("parameters"))
    undoable = "The old values are restored, while the run has not started and nobody changed them since."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)

    async def execute(
        self, action: ChangeParameters, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. The old values are written down before they are replaced."""
        run = await self._api.run(action.run_id)
        wanted = {change.name: change.value for change in action.changes}
        note = await self._records.read("parameters", idempotency_key)
        if note is not None and (note.get("undone") or _has(run.parameters, wanted)):
            return Delivery(effect=Effect.ALREADY, before=_names(wanted), after={"at": note["at"]})
        if run.state.type is not StateType.SCHEDULED:
            return refused(f"the run is {run.state.name}; its process would not read the parameters again")
        if not untouched(run, await self._api.history(run.id), expected_state_id):
            return refused("the run has moved on since this was proposed")
        if not run.deployment_id:
            return refused("the run has no deployment, so nothing says which parameters it takes")
        schema = (await self._api.deployment(run.deployment_id)).schema
        merged = {**run.parameters, **wanted}
        if reason := why_not_take(schema, wanted, merged):
            return refused(reason)
        if note is None:
            note = {
                "at": self._api.now().isoformat(),
                "old": {name: run.parameters[name] for name in wanted if name in run.parameters},
            }
            if not fits_a_record(note):
                return refused("the old values are too long to be remembered, so they could not be restored")
            await self._records.write("parameters", idempotency_key, note)
        await self._api.set_parameters(run.id, merged)
        await self._api.add_labels(run.id, {"pilotage.parameters": message[:200]})
        return Delivery(effect=Effect.DONE, before=_names(wanted), after={"at": note["at"]})

    async def verify(self, action: ChangeParameters, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run has the new values and had not begun when it got them."""
        run = await self._api.run(action.run_id)
        state = run.state.name
        wanted = {change.name: change.value for change in action.changes}
        if not _has(run.parameters, wanted):
            return Check(
                judgement=Judgement.FAILED, detail="the run has other values already", final_state=state
            )
        since = moment(str(delivery.after["at"]))
        history = await self._api.history(run.id)
        # runs that are tried again begin more than once; only what began last reads the parameters
        waited = max((each.at for each in history if each.type is StateType.SCHEDULED), default=since)
        begun = next((each.at for each in history if each.at > waited), None)
        if begun is not None and begun < since:
            detail = "a worker had taken the run before it got its new values"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state)
        return Check(
            judgement=Judgement.VERIFIED, detail=f"the run has its new {_listed(wanted)}", final_state=state
        )

    async def undo(self, action: ChangeParameters, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old values."""
        note = await self._records.read("parameters", idempotency_key)
        if note is None:
            return refused("nothing is known of this change")
        if note.get("undone"):
            return Delivery(effect=Effect.ALREADY)
        run = await self._api.run(action.run_id)
        wanted = {change.name: change.value for change in action.changes}
        old: Mapping[str, Any] = note["old"]
        if run.state.type is not StateType.SCHEDULED:
            return refused(f"the run is {run.state.name} already; it has read its parameters")
        kept = {name: value for name, value in run.parameters.items() if name not in wanted}
        if not _has(run.parameters, wanted) and run.parameters != {**kept, **old}:
            return refused("somebody changed the same parameters since; they stay")
        await self._api.set_parameters(run.id, {**kept, **old})
        await self._records.write("parameters", idempotency_key, self._records.tombstone(note))
        return Delivery(effect=Effect.DONE, after=_names(wanted))


async def give(
    api: PrefectApi, run: RunView, changes: Sequence[ParameterValue], idempotency_key: str, message: str
) -> str:
    """Why the run cannot have these parameters, or an empty text when it has them; what was there is noted first."""
    notes = ChangeRecords(api)
    wanted = {change.name: change.value for change in changes}
    note = await notes.read("parameters", idempotency_key)
    if note is not None and note.get("undone"):
        return "the change was taken back"
    if note is not None and _has(run.parameters, wanted):
        return ""
    merged = {**run.parameters, **wanted}
    if reason := why_not_take((await api.deployment(run.deployment_id)).schema, wanted, merged):
        return reason
    if note is None:
        old = {name: run.parameters[name] for name in wanted if name in run.parameters}
        note = {"at": api.now().isoformat(), "old": old}
        if not fits_a_record(note):
            return "the old values are too long to be remembered, so they could not be restored"
        await notes.write("parameters", idempotency_key, note)
    await api.set_parameters(run.id, merged)
    await api.add_labels(run.id, {"pilotage.parameters": message[:200]})
    return ""


async def take_back(
    api: PrefectApi, run_id: str, changes: Sequence[ParameterValue], idempotency_key: str
) -> None:
    """Give the run what it had before `give`, unless it is under way or somebody changed it since."""
    notes = ChangeRecords(api)
    note = await notes.read("parameters", idempotency_key)
    if note is None or note.get("undone"):
        return
    run = await api.run(run_id)
    wanted = {change.name: change.value for change in changes}
    if _has(run.parameters, wanted) and (run.state.ended or run.state.type is StateType.SCHEDULED):
        kept = {name: value for name, value in run.parameters.items() if name not in wanted}
        await api.set_parameters(run.id, {**kept, **note["old"]})
    await notes.write("parameters", idempotency_key, notes.tombstone(note))


def why_not_take(schema: Mapping[str, Any], wanted: Mapping[str, Any], merged: Mapping[str, Any]) -> str:
    """Why a flow with this schema does not take these parameters, or an empty text. Quotes no value."""
    known = schema.get("properties")
    if not isinstance(known, Mapping) or not known:
        return "the deployment does not say which parameters its flow takes"
    if unknown := sorted(set(wanted) - set(known)):
        return f"the flow takes no parameter {', '.join(unknown)}; it takes {', '.join(sorted(known))}"
    try:
        # an empty registry: references are followed within the schema, never out into the network
        Draft202012Validator(dict(schema), registry=Registry()).validate(dict(merged))
    except ValidationError as error:
        where = ".".join(str(part) for part in error.absolute_path) or "the parameters"
        return f"{where} would not fit the flow's schema (its `{error.validator}`)"
    except (SchemaError, Unresolvable, RecursionError) as error:
        return f"the deployment's schema of parameters is no valid one ({type(error).__name__})"
    return ""


def _has(parameters: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    return all(
        name in parameters and parameters[name] == value and type(parameters[name]) is type(value)
        for name, value in wanted.items()
    )


def _names(wanted: Mapping[str, Any]) -> dict[str, Any]:
    return {"changed": sorted(wanted)}


def _listed(wanted: Mapping[str, Any]) -> str:
    return ", ".join(sorted(wanted))
