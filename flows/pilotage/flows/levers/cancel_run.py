"""Cancels a run that has not ended.

A waiting run is set Cancelled directly, which keeps our mark and message. A running one is asked with
Cancelling; the worker ends its process. Prefect may answer REJECT and put Cancelled in its place: it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import marked, refused, step_key, untouched
from pilotage.flows.levers.retry_run import settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, StateView, moment
from pilotage.flows.prefect.writes import set_state
from pilotage.planner.actions.types import CancelRun
from pilotage.telemetry.facts import StateType

_WAITING = (StateType.SCHEDULED, StateType.PAUSED)
_UNDER_WAY = (StateType.PENDING, StateType.RUNNING)
_GONE = (StateType.CANCELLING, StateType.CANCELLED)


class CancelLever:
    """Cancels a run."""

    kind = "cancel_run"
    # a worker without PREFECT_WORKER_ENABLE_CANCELLATION leaves a pending run in Cancelling for 300 s
    window = timedelta(minutes=6)
    writes = (set_state(StateType.CANCELLED, StateType.CANCELLING, StateType.SCHEDULED),)
    undoable = (
        "A run that had not started is scheduled again for its old time; a run that had cannot be restored."
    )

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: CancelRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        history = await self._api.history(action.run_id)
        run = await self._api.run(action.run_id)
        if marked(history, idempotency_key):
            return Delivery(effect=Effect.ALREADY, before=_before(history, idempotency_key))
        if run.state.type in _GONE and _ours_it_seems(history, expected_state_id):
            # Prefect drops our mark when it turns Cancelling into Cancelled by itself
            return Delivery(effect=Effect.ALREADY)
        if run.state.type not in _WAITING and run.state.type not in _UNDER_WAY:
            return refused(f"the run is {run.state.name}; there is nothing to cancel")
        if not untouched(run, history, expected_state_id):
            return refused("the run has moved on since this was proposed")
        before = _before_run(run)
        if run.state.type in _WAITING:
            ruling = await self._api.set_state_if(
                run.id,
                _WAITING,
                StateType.CANCELLED,
                "Cancelled",
                message=message,
                idempotency_key=idempotency_key,
            )
        else:
            ruling = await self._api.set_state_if(
                run.id,
                _UNDER_WAY,
                StateType.CANCELLING,
                "Cancelling",
                message=message,
                idempotency_key=idempotency_key,
            )
        if ruling.ruling == "REJECT":
            now = await self._api.run(run.id)
            if now.state.type in _GONE:
                return Delivery(effect=Effect.DONE, before=before, after={"state_name": now.state.name})
        return await settled(self._api, run, idempotency_key, ruling, before=before)

    async def verify(self, action: CancelRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run is cancelled."""
        state = (await self._api.run(action.run_id)).state
        if state.type is StateType.CANCELLED:
            return Check(judgement=Judgement.VERIFIED, detail="cancelled", final_state=state.name)
        if state.ended:
            detail = f"it ended {state.type.value} before it could be cancelled"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=state.name)
        return Check(judgement=Judgement.PENDING, detail=f"it is {state.name}", final_state=state.name)

    async def undo(self, action: CancelRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old schedule, for a run that had not started."""
        back = step_key(idempotency_key, "undo")
        history = await self._api.history(action.run_id)
        if marked(history, back):
            return Delivery(effect=Effect.ALREADY)
        before = delivery.before or _before(history, idempotency_key)
        if before.get("state_type") != StateType.SCHEDULED.value or not before.get("start"):
            return refused(
                "the run had started; what its process did is not taken back. Start a new run instead"
            )
        run = await self._api.run(action.run_id)
        if run.state.type is not StateType.CANCELLED or run.state.transition_id != idempotency_key:
            return refused(f"the run is {run.state.name} already and no longer as we left it")
        ruling = await self._api.set_state_if(
            run.id,
            (StateType.CANCELLED,),
            StateType.SCHEDULED,
            str(before["state_name"]) if before.get("state_name") == "AwaitingRetry" else "Scheduled",
            message="pilotage took its cancellation back",
            idempotency_key=back,
            scheduled_for=moment(str(before["start"])),
        )
        return await settled(self._api, run, back, ruling, before={})


def _before_run(run: RunView) -> dict[str, object]:
    start = run.next_start.isoformat() if run.next_start else None
    return {"state_type": run.state.type.value, "state_name": run.state.name, "start": start}


def _before(history: Sequence[StateView], idempotency_key: str) -> dict[str, object]:
    for earlier, later in pairwise(history):
        if later.transition_id == idempotency_key:
            start = earlier.scheduled_for.isoformat() if earlier.scheduled_for else None
            return {"state_type": earlier.type.value, "state_name": earlier.name, "start": start}
    return {}


def _ours_it_seems(history: Sequence[StateView], expected_state_id: str) -> bool:
    before_it = [state for state in history if state.type not in _GONE]
    return bool(before_it) and before_it[-1].id == expected_state_id
