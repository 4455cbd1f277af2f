"""Makes a run that ought to be there: in the place of one that we cancelled, or for a start that a schedule missed.

A cancelled run is never scheduled again itself: what carried it may still come up, and Prefect lets it end only because
its run is Cancelled. So another run does the work, with the same parameters, once: it is made under our key.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.idempotency import refused
from pilotage.flows.levers.made_run import cancel_made_run, how_it_ended
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import DeploymentView, RunView
from pilotage.flows.prefect.writes import create_run
from pilotage.planner.actions.types import StartRun
from pilotage.telemetry.facts import StateType

OURS = "pilotage"
"""How every message begins that we set a state with."""
MISSED_AT_MOST = timedelta(hours=24)
"""A start that was missed longer ago is made up for by a person."""
_GOING = (StateType.CANCELLING, StateType.CANCELLED)
_MOST = 200


class StartLever:
    """Makes a run in the place of another, or for a missed start."""

    kind = "start_run"
    window = timedelta(minutes=30)
    writes = (
        create_run(
            "name",
            "parameters",
            "enforce_parameter_schema",
            "job_variables",
            "tags",
            "labels",
            "work_queue_name",
            "state",
        ),
        *CancelLever.writes,
    )
    undoable = "It is cancelled while it has not ended; what it did stays done."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: StartRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. The run has a key made from the mark, so a repetition finds it."""
        if existing := await self._api.runs_with_key(idempotency_key):
            return Delivery(effect=Effect.ALREADY, after={"run_id": existing[0].id})
        model = await self._api.run(action.run_id)
        if not model.deployment_id:
            return refused("the run has no deployment, so no worker would start another")
        deployment = await self._api.deployment(model.deployment_id)
        if action.missed is None:
            reason = await self._why_not_instead(model, expected_state_id)
        else:
            reason = await self._why_not_missed(deployment, action.missed)
        if reason:
            return refused(reason)
        body = _body(model, action.missed, idempotency_key, message, now=self._api.now())
        made = await self._api.create_run_of(deployment.id, body)
        return Delivery(effect=Effect.DONE, after={"run_id": made.id})

    async def verify(self, action: StartRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run that was made has completed."""
        made = await self._api.runs_with_key(idempotency_key)
        if not made:
            return Check(judgement=Judgement.FAILED, detail="the run that was made is not there any more")
        return how_it_ended(made[0])

    async def undo(self, action: StartRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the cancellation of the run that was made."""
        return await cancel_made_run(
            self._api,
            idempotency_key,
            unknown="nothing is known of a run that was made",
            message="pilotage took back the run that it had made",
        )

    async def _why_not_instead(self, run: RunView, expected_state_id: str) -> str:
        if run.state.type is not StateType.CANCELLED:
            return f"the run is {run.state.name}; only a cancelled one is made again"
        if expected_state_id and run.state.id != expected_state_id:
            return "the run has moved on since this was proposed"
        history = await self._api.history(run.id)
        end = [state for state in history if state.type in _GOING]
        if not any(state.message.startswith(OURS) for state in end):
            return "somebody else cancelled it, and may not want it"
        others = await self._api.all_runs({"tags": {"all_": [f"cause:{run.id}"]}}, most=_MOST)
        if others:
            return f"run {others[0].id} stands in its place already"
        return ""

    async def _why_not_missed(self, deployment: DeploymentView, missed: datetime) -> str:
        now = self._api.now()
        if not timedelta(0) < now - missed <= MISSED_AT_MOST:
            return "that start is still to come, or too long ago"
        if deployment.paused or not any(each.get("active") for each in deployment.schedules):
            return "its deployment is paused, or has no active schedule: somebody may not want its runs"
        since = (missed - timedelta(seconds=1)).isoformat()
        where = {
            "deployment_id": {"any_": [deployment.id]},
            "expected_start_time": {"after_": since, "before_": now.isoformat()},
        }
        if made := await self._api.all_runs(where, most=_MOST):
            return f"run {made[0].id} was made for that start, or a later one"
        return ""


def _body(
    model: RunView, missed: datetime | None, idempotency_key: str, message: str, *, now: datetime
) -> dict[str, Any]:
    state = {
        "type": "SCHEDULED",
        "name": "Scheduled",
        "message": message,
        "state_details": {"scheduled_time": now.isoformat()},
    }
    if missed is not None:
        # as the schedule would have made it: with what the deployment gives
        tags = ["missed-start"]
        return {"tags": tags, "labels": {"pilotage.missed": missed.isoformat()}, "state": state,
                "idempotency_key": idempotency_key}  # fmt: skip
    return {
        "name": model.name,
        "parameters": dict(model.parameters),
        # they were accepted once; a schema that has changed since must not lose the run
        "enforce_parameter_schema": False,
        "job_variables": dict(model.job_variables),
        "tags": sorted({*model.tags, f"cause:{model.id}"}),
        "labels": {"pilotage.cause": model.id},
        "work_queue_name": model.queue or None,
        "idempotency_key": idempotency_key,
        "state": state,
    }
