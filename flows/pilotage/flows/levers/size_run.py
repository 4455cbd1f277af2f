"""Gives a run another size before it starts.

Prefect takes job variables for a SCHEDULED run only, so a run that a worker has taken meanwhile is safe from it.
The old size is kept as a label of the run before it is replaced.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import refused, untouched
from pilotage.flows.levers.reschedule_run import SAFE_DISTANCE
from pilotage.flows.levers.run_memory import RunMemory, is_set, not_set
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, moment
from pilotage.flows.prefect.writes import edit_run, label_run
from pilotage.planner.actions.types import SizeRun
from pilotage.telemetry.facts import StateType


class SizeLever:
    """Set the size of a SCHEDULED run, in the job variables of its type of work pool."""

    kind = "size_run"
    window = timedelta(minutes=2)
    writes = (edit_run("job_variables"), label_run())
    undoable = "The old size is restored, while the run has not started."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: SizeRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. What the run had is kept before it is replaced."""
        run = await self._api.run(action.run_id)
        memory = await RunMemory.read(self._api, run, _label(idempotency_key))
        change = memory.change(run, action.memory_mb)
        if memory.keeps(run):
            if _undone(run, idempotency_key):
                return Delivery(
                    effect=Effect.ALREADY, before=memory.before(run), after=_at(run, idempotency_key)
                )
            if not isinstance(change, str) and is_set(run, change):
                after = memory.after(run, change) | _at(run, idempotency_key)
                return Delivery(effect=Effect.ALREADY, before=memory.before(run), after=after)
        if reason := await self._why_not(run, expected_state_id):
            return refused(reason)
        if isinstance(change, str):
            return refused(change)
        own = memory.of_deployment()
        if own is not None and change.memory_mb < own:
            return refused(f"its deployment gives {own} MiB, and nothing goes below that")
        if not memory.keeps(run):
            now = self._api.now().isoformat()
            await self._api.add_labels(
                run.id,
                {
                    _label(idempotency_key): memory.to_keep(run, change),
                    f"{_label(idempotency_key)}.at": now,
                },
            )
        await self._api.set_job_variables(run.id, {**run.job_variables, **change.variables})
        await self._api.add_labels(run.id, {"pilotage.size": message[:200]})
        run = await self._api.run(run.id)
        after = memory.after(run, change) | _at(run, idempotency_key)
        return Delivery(effect=Effect.DONE, before=memory.before(run), after=after)

    async def verify(self, action: SizeRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run has the size, and had not begun when it got it."""
        run = await self._api.run(action.run_id)
        state = run.state.name
        memory = await RunMemory.read(self._api, run, _label(idempotency_key))
        change = memory.change(run, action.memory_mb)
        if isinstance(change, str) or not is_set(run, change):
            detail = change if isinstance(change, str) else not_set(memory, run, change)
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state)
        since = moment(str(delivery.after["at"]))
        history = await self._api.history(run.id)
        if any(each.at < since and each.type is not StateType.SCHEDULED for each in history):
            detail = "a worker had taken the run before it got its size"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state)
        return Check(
            judgement=Judgement.VERIFIED,
            detail=f"the run starts with {change.memory_mb} MiB",
            final_state=state,
        )

    async def undo(self, action: SizeRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old size, while the run waits and nobody has set another."""
        run = await self._api.run(action.run_id)
        if _label(idempotency_key) not in run.labels:
            return refused("nothing is known of this change")
        if _undone(run, idempotency_key):
            return Delivery(effect=Effect.ALREADY)
        if run.state.type is not StateType.SCHEDULED:
            return refused(f"the run is {run.state.name} already; it has its size")
        memory = await RunMemory.read(self._api, run, _label(idempotency_key))
        change, original = memory.change(run, action.memory_mb), memory.original(run)
        ours = not isinstance(change, str) and is_set(run, change)
        if not ours and run.job_variables != original:
            return refused("somebody gave it another size since; it stays")
        await self._api.set_job_variables(run.id, original)
        await self._api.add_labels(run.id, {f"{_label(idempotency_key)}.undone": True})
        return Delivery(effect=Effect.DONE, after=memory.before(run))

    async def _why_not(self, run: RunView, expected_state_id: str) -> str:
        if run.state.type is not StateType.SCHEDULED:
            return f"the run is {run.state.name}; its process has its size"
        if not untouched(run, await self._api.history(run.id), expected_state_id):
            return "the run has moved on since this was proposed"
        if run.next_start is None or run.next_start <= self._api.now() + SAFE_DISTANCE:
            return "the run is about to start; a worker may have read its size"
        if not run.pool or not run.deployment_id:
            return "the run has no work pool or deployment, so nothing reads its job variables"
        return ""


def _label(idempotency_key: str) -> str:
    return f"pilotage.memory_mb.of.{idempotency_key[:8]}"


def _undone(run: RunView, idempotency_key: str) -> bool:
    return bool(run.labels.get(f"{_label(idempotency_key)}.undone"))


def _at(run: RunView, idempotency_key: str) -> dict[str, Any]:
    return {"at": run.labels.get(f"{_label(idempotency_key)}.at")}
