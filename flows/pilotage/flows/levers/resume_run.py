"""Resumes a suspended run; it starts again from the top."""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import (
    after,
    marked,
    refused,
    untouched,
)
from pilotage.flows.levers.retry_run import settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.flows.prefect.writes import set_state
from pilotage.planner.actions.types import Action, ResumeRun
from pilotage.telemetry.facts import StateType

SUSPENDED, RESUMING = "Suspended", "Resuming"


class ResumeLever:
    """Resumes a suspended run."""

    kind = "resume_run"
    window = timedelta(minutes=5)
    writes = (set_state(StateType.SCHEDULED),)
    undoable = "A run that runs again is not stopped by an undo; suspend it instead."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: ResumeRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        history = await self._api.history(action.run_id)
        if marked(history, idempotency_key):
            return Delivery(effect=Effect.ALREADY)
        run = await self._api.run(action.run_id)
        if run.state.type is not StateType.PAUSED or run.state.name != SUSPENDED:
            return refused(f"the run is {run.state.name}; only a suspended one is resumed")
        if run.state.input_keys:
            return refused("the run waits for an answer, and would fail without one: answer it")
        if not untouched(run, history, expected_state_id):
            return refused("the run has moved on since this was proposed")
        return await resume(self._api, run, idempotency_key, message)

    async def verify(self, action: ResumeRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run runs again."""
        history = await self._api.history(action.run_id)
        if marked(history, idempotency_key) is None:
            return Check(judgement=Judgement.FAILED, detail="our resumption is not in the run's history")
        since = after(history, idempotency_key)
        now = since[-1].name if since else RESUMING
        if any(state.type is StateType.RUNNING for state in since):
            return Check(judgement=Judgement.VERIFIED, detail=f"it ran again and is {now}", final_state=now)
        if since and since[-1].ended:
            return Check(judgement=Judgement.FAILED, detail=f"it is {now} and did not run", final_state=now)
        return Check(judgement=Judgement.PENDING, detail=f"it is {now}", final_state=now)

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """A refusal: there is no way back."""
        return refused("the run goes on; propose to suspend it instead")


async def resume(api: PrefectApi, run: RunView, idempotency_key: str, message: str) -> Delivery:
    """Propose the state that Prefect's own resume route proposes, under our key."""
    ruling = await api.set_state_if(
        run.id,
        (StateType.PAUSED,),
        StateType.SCHEDULED,
        RESUMING,
        message=message,
        idempotency_key=idempotency_key,
        scheduled_for=api.now(),
    )
    return await settled(api, run, idempotency_key, ruling, before={})
