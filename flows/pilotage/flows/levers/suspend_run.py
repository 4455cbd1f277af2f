"""Suspends a running run between two of its tasks, for deployments that say it is safe.

Prefect sets the state at once and tells the run's process a while later; it ends at the first task that it comes to
after that, so tasks that begin meanwhile are done.

A suspended run starts again from the top: only tasks that keep their results are not done twice. A flow without
tasks runs on to its end, unseen, and does everything again. So an owner says which deployments are safe.
"""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import (
    after,
    marked,
    refused,
    step_key,
    still_running,
)
from pilotage.flows.levers.resume_run import SUSPENDED, resume
from pilotage.flows.levers.retry_run import WorkerReleased, settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView
from pilotage.flows.prefect.writes import set_state
from pilotage.planner.actions.types import SuspendRun
from pilotage.telemetry.facts import StateType

SUSPEND_SAFE = "pilotage:suspend-safe"
"""The tag by which an owner says so; on the deployment, not on the run, for anybody can tag a run."""
_GRACE = timedelta(hours=1)
"""Prefect fails a run that is suspended for longer than it was told; we resume it before that."""


class SuspendLever:
    """Suspends a RUNNING run for a while."""

    kind = "suspend_run"
    window = timedelta(minutes=5)
    writes = (set_state(StateType.PAUSED, StateType.SCHEDULED),)
    undoable = "The run is resumed, from the top; tasks that kept their results are not done again."

    def __init__(self, api: PrefectApi, *, worker_has_released: WorkerReleased) -> None:
        self._api = api
        self._worker_has_released = worker_has_released

    async def execute(
        self, action: SuspendRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        only = "only a running one is suspended"
        run = await still_running(
            self._api,
            action.run_id,
            idempotency_key=idempotency_key,
            expected_state_id=expected_state_id,
            only=only,
        )
        if isinstance(run, Delivery):
            return run
        if reason := await self._why_not(run):
            return refused(reason)
        ruling = await self._api.set_state_if(
            run.id,
            (StateType.RUNNING,),
            StateType.PAUSED,
            SUSPENDED,
            message=message,
            idempotency_key=idempotency_key,
            details={
                "pause_reschedule": True,
                "pause_key": idempotency_key,
                "pause_timeout": (self._api.now() + action.hold + _GRACE).isoformat(),
            },
        )
        return await settled(self._api, run, idempotency_key, ruling, before={})

    async def verify(self, action: SuspendRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether its process has ended and the run still stands suspended."""
        history = await self._api.history(action.run_id)
        ours = marked(history, idempotency_key)
        if ours is None:
            return Check(judgement=Judgement.FAILED, detail="our suspension is not in the run's history")
        if since := after(history, idempotency_key):
            detail = f"the run is {since[-1].name}, no longer suspended"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=since[-1].name)
        if await self._worker_has_released(action.run_id, ours.at):
            detail = "its process has ended, and it stands suspended"
            return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=ours.name)
        detail = "its process has not heard of it yet, or has not come to a task since"
        return Check(judgement=Judgement.PENDING, detail=detail, final_state=ours.name)

    async def undo(self, action: SuspendRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the resumption."""
        back = step_key(idempotency_key, "undo")
        if marked(await self._api.history(action.run_id), back):
            return Delivery(effect=Effect.ALREADY)
        run = await self._api.run(action.run_id)
        if run.state.transition_id != idempotency_key or run.state.type is not StateType.PAUSED:
            return refused(f"the run is {run.state.name} already and no longer as we left it")
        return await resume(self._api, run, back, "pilotage resumed the run")

    async def _why_not(self, run: RunView) -> str:
        if not run.deployment_id:
            return "the run has no deployment, so nothing would start it again"
        if run.parent_task_run_id:
            return "the run belongs to another one; only whole runs are suspended"
        if SUSPEND_SAFE not in (await self._api.deployment(run.deployment_id)).tags:
            return f"its deployment is not tagged {SUSPEND_SAFE}"
        return ""
