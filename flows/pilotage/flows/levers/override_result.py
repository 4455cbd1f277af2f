"""Puts a value in the place of what a task could not compute and tries the run again with it.

The value is an input of the run, under a key that carries the mark, so it is put down once. A task that its author
made ready for it (`@overridable`) takes it up in the next attempt, answers beside it, and Prefect keeps it as the
task's result with the flow's own storage. Prefect's result store itself is left alone: pilotage has neither its
credentials nor the flow's serializer. States of task runs are of no use here: Prefect ignores them in a retry.
"""

from __future__ import annotations

import json
from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import marked, refused
from pilotage.flows.levers.retry_run import RetryLever, WorkerReleased, why_not_retry
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import input_run, withdraw_input
from pilotage.flows.sdk.overrides import OVERRIDE, TAKEN
from pilotage.planner.actions.types import OverrideResult, RetryRun

OVERRIDABLE = "pilotage:overridable"
"""The tag by which an owner says that a deployment's flow takes values in the place of results."""


class OverrideLever:
    """Puts a value in the place of a task's result."""

    kind = "override_result"
    window = timedelta(minutes=15)
    writes = (input_run(), withdraw_input(), *RetryLever.writes)
    undoable = "The value is taken back and the retry cancelled, while the run has not started."

    def __init__(self, api: PrefectApi, *, worker_has_released: WorkerReleased) -> None:
        self._api = api
        self._retry = RetryLever(api, worker_has_released=worker_has_released)

    async def execute(
        self, action: OverrideResult, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. The value is there before the run is tried again."""
        retry = RetryRun(run_id=action.run_id)
        if not marked(await self._api.history(action.run_id), idempotency_key):
            run = await self._api.run(action.run_id)
            if reason := why_not_retry(run, expected_state_id):
                return refused(reason)
            if OVERRIDABLE not in (await self._api.deployment(run.deployment_id)).tags:
                return refused(
                    f"its deployment is not tagged {OVERRIDABLE}, so its tasks would not look for a value"
                )
            value = json.dumps({"task": action.task, "value": action.value})
            await self._api.send_input(run.id, f"{OVERRIDE}-{idempotency_key}", value, sender="pilotage")
        return await self._retry.execute(
            retry, idempotency_key=idempotency_key, expected_state_id=expected_state_id, message=message
        )

    async def verify(self, action: OverrideResult, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the task took the value, and how the run ended with it."""
        check = await self._retry.verify(
            RetryRun(run_id=action.run_id), delivery, idempotency_key=idempotency_key
        )
        taken = await self._api.input(action.run_id, f"{TAKEN}-{idempotency_key}") is not None
        if check.judgement is Judgement.VERIFIED and not taken:
            detail = f"{check.detail}, but no task called {action.task!r} took the value"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=check.final_state)
        how = "took the value" if taken else "has not taken the value yet"
        detail = f"{check.detail}; task {action.task!r} {how}"
        return Check(judgement=check.judgement, detail=detail, final_state=check.final_state)

    async def undo(self, action: OverrideResult, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the way back, while the run still waits."""
        back = await self._retry.undo(
            RetryRun(run_id=action.run_id), delivery, idempotency_key=idempotency_key
        )
        if back.effect is not Effect.REFUSED:
            await self._api.take_input_back(action.run_id, f"{OVERRIDE}-{idempotency_key}")
        return back
