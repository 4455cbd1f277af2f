"""Knows how to give a run another size before it starts.

Prefect takes job variables for a SCHEDULED run only, so a run that a worker has taken meanwhile is safe from it.
The old size is kept as a label of the run before it is replaced.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import refused, untouched, wrong_lever
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE
from pilotage.flows.levers.resize_run import VARIABLE
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, moment
from pilotage.planner.actions.types import Action, SizeRun
from pilotage.telemetry.facts import StateType

_UNSET = 0
"""The label's value for a run that had no size of its own."""


class SizeLever:
    """Sets `memory_mb` of a SCHEDULED run."""

    kind = "size_run"
    window = timedelta(minutes=2)
    undoable = "The old size is restored, while the run has not started."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: Action, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. What the run had is kept before it is replaced."""
        if not isinstance(action, SizeRun):
            wrong_lever(self.kind, action)
        run = await self._api.run(action.run_id)
        if _label(idempotency_key) in run.labels and (
            _undone(run, idempotency_key) or run.job_variables.get(VARIABLE) == action.memory_mb
        ):
            return Delivery(
                effect=Effect.ALREADY,
                before=_before(run, idempotency_key),
                after=_after(run, idempotency_key),
            )
        if reason := await self._why_not(run, action, expected_state_id):
            return refused(reason)
        if _label(idempotency_key) not in run.labels:
            old = run.job_variables.get(VARIABLE, _UNSET)
            now = datetime.now(UTC).isoformat()
            await self._api.add_labels(
                run.id, {_label(idempotency_key): old, f"{_label(idempotency_key)}.at": now}
            )
        await self._api.set_job_variables(run.id, {**run.job_variables, VARIABLE: action.memory_mb})
        await self._api.add_labels(run.id, {"pilotage.size": message[:200]})
        run = await self._api.run(run.id)
        return Delivery(
            effect=Effect.DONE, before=_before(run, idempotency_key), after=_after(run, idempotency_key)
        )

    async def verify(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run has the size, and had not begun when it got it."""
        if not isinstance(action, SizeRun):
            wrong_lever(self.kind, action)
        run = await self._api.run(action.run_id)
        state, size = run.state.name, run.job_variables.get(VARIABLE)
        if size != action.memory_mb:
            detail = f"the run has {VARIABLE}={size}, not {action.memory_mb}"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state)
        since = moment(str(delivery.after["at"]))
        history = await self._api.history(run.id)
        if any(each.at < since and each.type is not StateType.SCHEDULED for each in history):
            detail = "a worker had taken the run before it got its size"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state)
        return Check(
            judgement=Judgement.VERIFIED, detail=f"the run starts with {size} MiB", final_state=state
        )

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old size, while the run waits and nobody has set another."""
        if not isinstance(action, SizeRun):
            wrong_lever(self.kind, action)
        run = await self._api.run(action.run_id)
        if _label(idempotency_key) not in run.labels:
            return refused("nothing is known of this change")
        if _undone(run, idempotency_key):
            return Delivery(effect=Effect.ALREADY)
        if run.state.type is not StateType.SCHEDULED:
            return refused(f"the run is {run.state.name} already; it has its size")
        variables = {key: value for key, value in run.job_variables.items() if key != VARIABLE}
        old = run.labels[_label(idempotency_key)]
        if old != _UNSET:
            variables[VARIABLE] = old
        if run.job_variables.get(VARIABLE) not in (action.memory_mb, variables.get(VARIABLE)):
            return refused("somebody gave it another size since; it stays")
        await self._api.set_job_variables(run.id, variables)
        await self._api.add_labels(run.id, {f"{_label(idempotency_key)}.undone": True})
        return Delivery(effect=Effect.DONE, after={VARIABLE: variables.get(VARIABLE)})

    async def _why_not(self, run: RunView, action: SizeRun, expected_state_id: str) -> str:
        if run.state.type is not StateType.SCHEDULED:
            return f"the run is {run.state.name}; its process has its size"
        if not untouched(run, await self._api.history(run.id), expected_state_id):
            return "the run has moved on since this was proposed"
        if run.next_start is None or run.next_start <= datetime.now(UTC) + SAFE_DISTANCE:
            return "the run is about to start; a worker may have read its size"
        if not run.pool or not run.deployment_id:
            return "the run has no work pool or deployment, so nothing reads its job variables"
        if VARIABLE not in (await self._api.pool(run.pool)).variables:
            return f"the job template of work pool {run.pool!r} has no variable {VARIABLE!r}"
        own = (await self._api.deployment(run.deployment_id)).job_variables.get(VARIABLE)
        if isinstance(own, int) and action.memory_mb < own:
            return f"its deployment gives {own} MiB, and nothing goes below that"
        return ""


def _label(idempotency_key: str) -> str:
    return f"pilotage.memory_mb.of.{idempotency_key[:8]}"


def _undone(run: RunView, idempotency_key: str) -> bool:
    return bool(run.labels.get(f"{_label(idempotency_key)}.undone"))


def _before(run: RunView, idempotency_key: str) -> dict[str, Any]:
    old = run.labels.get(_label(idempotency_key), _UNSET)
    return {VARIABLE: old if old != _UNSET else None}


def _after(run: RunView, idempotency_key: str) -> dict[str, Any]:
    return {VARIABLE: run.job_variables.get(VARIABLE), "at": run.labels.get(f"{_label(idempotency_key)}.at")}
