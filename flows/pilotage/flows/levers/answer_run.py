"""Answers a run that waits for input and lets it go on.

Prefect's own route would fill templates and workspace variables into an answer, and has no mark. So its three steps
are taken here: the answer is held against the schema that the flow asked with, put down under the key that the flow
looks at, which Prefect takes once, and the run is let go on under our mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.change_parameters import why_not_take
from pilotage.flows.levers.idempotency import after, marked, refused, untouched
from pilotage.flows.levers.resume_run import RESUMING
from pilotage.flows.levers.retry_run import settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.flows.prefect.writes import input_run, set_state
from pilotage.planner.actions.types import Action, AnswerRun
from pilotage.telemetry.facts import StateType

_SENDER = "pilotage"


class AnswerLever:
    """Answers a waiting run."""

    kind = "answer_run"
    window = timedelta(minutes=5)
    writes = (set_state(StateType.SCHEDULED, StateType.RUNNING), input_run())
    undoable = "What a run was told it knows; it goes on."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: AnswerRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. A death between answer and state is mended by repeating it: the answer is known by its mark."""
        history = await self._api.history(action.run_id)
        if marked(history, idempotency_key):
            return Delivery(effect=Effect.ALREADY)
        run = await self._api.run(action.run_id)
        keys = run.state.input_keys
        if run.state.type is not StateType.PAUSED or not keys.get("response"):
            return refused(f"the run is {run.state.name} and waits for no answer")
        if not untouched(run, history, expected_state_id):
            return refused("the run has moved on since this was proposed")
        answer = {given.name: given.value for given in action.answers}
        if reason := why_not_take(await self._api.input(run.id, keys["schema"]) or {}, answer, answer):
            return refused(reason)
        if not await self._put_down(run, keys["response"], answer, f"{_SENDER}:{idempotency_key}"):
            return refused("somebody else has answered the run already")
        ruling = await self._api.set_state_if(
            run.id,
            (StateType.PAUSED,),
            StateType.SCHEDULED if run.state.reschedules else StateType.RUNNING,
            RESUMING if run.state.reschedules else "Running",
            message=message,
            idempotency_key=idempotency_key,
            scheduled_for=self._api.now() if run.state.reschedules else None,
        )
        return await settled(self._api, run, idempotency_key, ruling, before={})

    async def verify(self, action: AnswerRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run went on."""
        history = await self._api.history(action.run_id)
        ours = marked(history, idempotency_key)
        if ours is None:
            return Check(judgement=Judgement.FAILED, detail="our answer is not in the run's history")
        since = (ours, *after(history, idempotency_key))
        now = since[-1]
        if any(state.type is StateType.RUNNING for state in since):
            detail = f"it went on with its answer and is {now.name}"
            return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=now.name)
        if now.ended:
            detail = f"it is {now.name} and did not go on"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=now.name)
        return Check(judgement=Judgement.PENDING, detail=f"it is {now.name}", final_state=now.name)

    async def undo(self, action: Action, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """A refusal: there is no way back."""
        return refused("what a run was told it knows; cancel it if it must not go on")

    async def _put_down(self, run: RunView, key: str, answer: Mapping[str, object], sender: str) -> bool:
        """Whether this answer is the one that stands."""
        if await self._api.send_answer(run.id, key, answer, sender=sender):
            return True
        # 409: there is one already; ours, when an earlier delivery died before the next step
        return any(each.key == key and each.sender == sender for each in await self._api.inputs(run.id, key))
