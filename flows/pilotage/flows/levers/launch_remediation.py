"""Starts a remediation as a child of the run in trouble, once.

Prefect shows a run below another only when it was started by one of its task runs. So a task run of our own
making stands in the run in trouble, for as long as it takes to start the remediation under it.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.cancel_run import CancelLever
from pilotage.flows.levers.idempotency import refused
from pilotage.flows.levers.made_run import cancel_made_run, how_it_ended
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import DeploymentView, RunView
from pilotage.flows.prefect.writes import create_run, own_task_run
from pilotage.planner.actions.types import LaunchRemediation
from pilotage.telemetry.facts import StateType

REMEDIATION = "pilotage:remediation"
"""The tag by which an owner offers a deployment as a remedy; no other is started."""
CAUSE = "cause_run_id"
"""The parameter that a remediation is given, where its flow takes one of this name."""
_TROUBLE = (StateType.FAILED, StateType.CRASHED)


class RemediationLever:
    """Starts a run of a remediation."""

    kind = "launch_remediation"
    window = timedelta(minutes=30)
    writes = (
        *own_task_run(),
        create_run("parameters", "tags", "labels", "parent_task_run_id", "state"),
        *CancelLever.writes,
    )
    undoable = "It is cancelled while it has not ended; what it did stays done."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: LaunchRemediation, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Task run and run have keys made from the mark, so a repetition finds both."""
        # three questions at once: this lever is there to be quick
        cause, existing, remedy = await asyncio.gather(
            self._api.run(action.run_id),
            self._api.runs_with_key(idempotency_key),
            self._api.deployment(action.deployment_id),
        )
        if not existing:
            if cause.state.type not in _TROUBLE:
                return refused(f"the run is {cause.state.name}; it is in no trouble")
            if expected_state_id and cause.state.id != expected_state_id:
                return refused("the run has moved on since this was proposed")
            if REMEDIATION not in remedy.tags:
                return refused(f"deployment {remedy.name!r} is not tagged {REMEDIATION}")
            if remedy.id == cause.deployment_id:
                return refused("a deployment is no remedy for itself")
        link = await self._api.create_task_run(_link(cause, idempotency_key))
        if not existing:
            run = await self._api.create_run_of(
                remedy.id,
                _remedy(
                    remedy, cause, link, idempotency_key, message, attempt=action.attempt, now=self._api.now()
                ),
            )
        await self._api.end_task_run(link, message=message)
        child = existing[0] if existing else run
        effect = Effect.ALREADY if existing else Effect.DONE
        return Delivery(effect=effect, after={"run_id": child.id, "task_run_id": link})

    async def verify(self, action: LaunchRemediation, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the remediation stands below the run in trouble, and how it ended."""
        wanted = delivery.after.get("run_id")
        child = next((run for run in await self._api.children(action.run_id) if run.id == wanted), None)
        if child is None:
            return Check(judgement=Judgement.FAILED, detail=f"run {wanted} is not below the run in trouble")
        return how_it_ended(child)

    async def undo(self, action: LaunchRemediation, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the remediation's cancellation."""
        return await cancel_made_run(
            self._api,
            idempotency_key,
            unknown="nothing is known of this remediation",
            message="pilotage took its remediation back",
        )


def _link(cause: RunView, idempotency_key: str) -> dict[str, Any]:
    return {
        "flow_run_id": cause.id,
        "name": "pilotage-remediation",
        "task_key": "pilotage.remediation",
        "dynamic_key": idempotency_key,
        "state": {"type": "RUNNING", "name": "Running"},
    }


def _remedy(
    remedy: DeploymentView,
    cause: RunView,
    link: str,
    idempotency_key: str,
    message: str,
    *,
    attempt: int,
    now: datetime,
) -> dict[str, Any]:
    takes_cause = CAUSE in (remedy.schema.get("properties") or {})
    return {
        "parameters": {CAUSE: cause.id} if takes_cause else {},
        "tags": ["remediation", f"cause:{cause.id}"],
        "labels": {"pilotage.cause": cause.id, "pilotage.attempt": attempt},
        "parent_task_run_id": link,
        "idempotency_key": idempotency_key,
        "state": {
            "type": "SCHEDULED",
            "name": "Scheduled",
            "message": message,
            "state_details": {"scheduled_time": now.isoformat()},
        },
    }
