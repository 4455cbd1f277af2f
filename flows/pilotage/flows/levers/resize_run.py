"""Gives an ended run more memory and runs it again in place.

Prefect lets job variables be changed only while a run is SCHEDULED. So the run is parked (AwaitingRetry, some
minutes out), changed, and let go. Each of the steps can be repeated after a crash: the old size is kept as a
label of the run before anything else is touched, and parking and letting go have marks of their own.
"""

from __future__ import annotations

from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import marked, refused, step_key
from pilotage.flows.levers.retry_run import (
    AWAITING_RETRY,
    RETRYABLE,
    WorkerReleased,
    cancel_waiting,
    judge_retry,
    settled,
    tasks_in_words,
    wait_for_worker,
    why_not_retry,
)
from pilotage.flows.levers.run_memory import RunMemory, is_set, not_set
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import edit_run, label_run, set_state
from pilotage.planner.actions.types import ResizeRun
from pilotage.telemetry.facts import StateType

PARKED_FOR = timedelta(minutes=5)
"""Long enough for a crashed delivery to be repeated before a worker takes the run as it was."""
_MIN_LEFT = timedelta(seconds=30)
"""A parked run is let go only while it is at least this far from being picked up by itself."""


class ResizeLever:
    """Retry a FAILED or CRASHED run in place with another size, in the job variables of its type of work pool."""

    kind = "resize_run"
    window = timedelta(minutes=15)
    writes = (set_state(StateType.SCHEDULED, StateType.CANCELLED), edit_run("job_variables"), label_run())
    undoable = "The old size is restored and the retry cancelled, while the run has not started."

    def __init__(self, api: PrefectApi, *, worker_has_released: WorkerReleased) -> None:
        self._api = api
        self._worker_has_released = worker_has_released

    async def execute(
        self, action: ResizeRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Raises a transient OrchestratorError while the worker still holds the run."""
        history = await self._api.history(action.run_id)
        run = await self._api.run(action.run_id)
        memory = await RunMemory.read(self._api, run, _label(idempotency_key))
        change = memory.change(run, action.memory_mb)
        if marked(history, idempotency_key):
            # what the run has, which may be the next size that its infrastructure takes and not the one asked for
            after = {"memory_mb": memory.size(run)} if isinstance(change, str) else memory.after(run, change)
            return Delivery(effect=Effect.ALREADY, before=memory.before(run), after=after)
        parked = step_key(idempotency_key, "park")
        if marked(history, parked) is None:
            if reason := why_not_retry(run, expected_state_id):
                return refused(reason)
            if isinstance(change, str):
                return refused(change)
            await wait_for_worker(self._worker_has_released, run, history, now=self._api.now())
            if not memory.keeps(run):
                await self._api.add_labels(run.id, {_label(idempotency_key): memory.to_keep(run, change)})
            ruling = await self._api.set_state_if(
                run.id,
                RETRYABLE,
                StateType.SCHEDULED,
                AWAITING_RETRY,
                message=f"{message} (waiting for its new size)",
                idempotency_key=parked,
                scheduled_for=self._api.now() + PARKED_FOR,
            )
            stood = await settled(self._api, run, parked, ruling, before={})
            if stood.effect is Effect.REFUSED:
                return stood
            run = await self._api.run(run.id)
        if run.state.transition_id != parked:
            return refused(f"the run was taken up while it was parked: it is {run.state.name}")
        if isinstance(change, str):  # the pool was changed since the run was parked
            return refused(change)
        await self._api.set_job_variables(run.id, {**run.job_variables, **change.variables})
        ruling = await self._api.set_state_if(
            run.id,
            (StateType.SCHEDULED,),
            StateType.SCHEDULED,
            AWAITING_RETRY,
            message=message,
            idempotency_key=idempotency_key,
            scheduled_for=self._api.now(),
            due_after=self._api.now() + _MIN_LEFT,
        )
        done = await settled(self._api, run, idempotency_key, ruling, before={})
        if done.effect is Effect.REFUSED:
            return done
        run = await self._api.run(run.id)
        tasks = await tasks_in_words(self._api, run.id)
        after = {**done.after, **memory.after(run, change), "tasks": tasks}
        return Delivery(effect=done.effect, before=memory.before(run), after=after)

    async def verify(self, action: ResizeRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run was started again with the new size, and how that ended."""
        run = await self._api.run(action.run_id)
        memory = await RunMemory.read(self._api, run, _label(idempotency_key))
        change = memory.change(run, action.memory_mb)
        if isinstance(change, str) or not is_set(run, change):
            detail = change if isinstance(change, str) else not_set(memory, run, change)
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=run.state.name)
        check = judge_retry(await self._api.history(action.run_id), idempotency_key, now=self._api.now())
        detail = f"{check.detail}, with {change.memory_mb} MiB"
        return Check(judgement=check.judgement, detail=detail, final_state=check.final_state)

    async def undo(self, action: ResizeRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the way back, while the run still waits."""
        run = await self._api.run(action.run_id)
        if run.state.transition_id == idempotency_key and run.state.type is StateType.SCHEDULED:
            memory = await RunMemory.read(self._api, run, _label(idempotency_key))
            await self._api.set_job_variables(run.id, memory.original(run))
        return await cancel_waiting(self._api, action.run_id, idempotency_key)


def _label(idempotency_key: str) -> str:
    # one label for each resize, so that a later one does not overwrite what an earlier one restores
    return f"pilotage.memory_mb.before.{idempotency_key[:8]}"
