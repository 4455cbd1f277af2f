"""Moves a waiting run to another queue: Prefect cannot, so the run is cancelled and made again there.

The new run is made first, parked far ahead, under an idempotency key; then the old one is cancelled by a guarded
write; only then does the new one get the old time. Whoever dies in between leaves one run that will start, not
two and not none: a repetition finds both by their marks. Labels and tags link the two.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import marked, refused, step_key, untouched
from pilotage.flows.levers.retry_run import settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, moment
from pilotage.flows.prefect.stopping import finishing
from pilotage.flows.prefect.writes import create_run, set_state
from pilotage.planner.actions.types import MoveRun
from pilotage.telemetry.errors import OrchestratorError
from pilotage.telemetry.facts import StateType

PARKED_FOR = timedelta(days=30)
"""How far ahead the new run waits until the old one is certainly cancelled."""
_START = "pilotage.moved.start"
_FROM = "pilotage.moved.from"
_QUEUE = "pilotage.moved.queue"


class MoveLever:
    """Moves a SCHEDULED run to another queue of its pool."""

    kind = "move_run"
    window = timedelta(minutes=2)
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
        set_state(StateType.SCHEDULED, StateType.CANCELLED),
    )
    undoable = "It is moved back, as a third run, while the new one has not started."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    async def execute(
        self, action: MoveRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery."""
        run = await self._api.run(action.run_id)
        if not marked(await self._api.history(run.id), idempotency_key):
            if reason := await self._why_not_move(run, action, expected_state_id):
                return refused(reason)
        elif (new := await self._arrived(idempotency_key)) is not None:
            return _moved(Effect.ALREADY, run, new, action.queue)
        return await self._move(run, action.queue, idempotency_key=idempotency_key, message=message)

    async def verify(self, action: MoveRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the old run is cancelled and the new one waits in, or has started from, the other queue."""
        old = await self._api.run(action.run_id)
        runs = await self._api.runs_with_key(idempotency_key)
        if old.state.type is not StateType.CANCELLED or not runs:
            detail = f"the run is {old.state.name} in queue {old.queue!r}"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=old.state.name)
        new = runs[0]
        if new.queue != action.queue:
            detail = f"run {new.id} is in queue {new.queue!r}"
            return Check(judgement=Judgement.FAILED, detail=detail, final_state=new.state.name)
        detail = f"run {new.id} took its place in queue {new.queue!r}"
        return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=new.state.name)

    async def undo(self, action: MoveRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the way back: the same once more, from the new run into the old queue."""
        runs = await self._api.runs_with_key(idempotency_key)
        if not runs:
            return refused("nothing is known of this move")
        new = runs[0]
        queue = str(new.labels.get(_QUEUE) or "")
        back = step_key(idempotency_key, "undo")
        if marked(await self._api.history(new.id), back):
            if (run := await self._arrived(back)) is not None:
                return _moved(Effect.ALREADY, new, run, queue)
        elif new.state.type is not StateType.SCHEDULED:
            return refused(f"the run that took its place is {new.state.name} already")
        return await self._move(new, queue, idempotency_key=back, message="pilotage moved the run back")

    async def _arrived(self, key: str) -> RunView | None:
        """The run that was made under this key, once it has been given its time; None before that."""
        for new in await self._api.runs_with_key(key):
            if marked(await self._api.history(new.id), step_key(key, "due")):
                return new
        return None

    async def _move(self, run: RunView, queue: str, *, idempotency_key: str, message: str) -> Delivery:
        due = run.next_start or self._api.now()
        new = await self._api.create_run_of(
            run.deployment_id,
            _twin(run, queue, due, idempotency_key, message, parked_until=self._api.now() + PARKED_FOR),
        )
        with finishing():  # once the old run is cancelled, the new one must get its time
            return await self._swap(run, new, queue, due, idempotency_key=idempotency_key, message=message)

    async def _swap(
        self, run: RunView, new: RunView, queue: str, due: datetime, *, idempotency_key: str, message: str
    ) -> Delivery:
        """Cancel the old run and let the new one have its time."""
        ruling = await self._api.set_state_if(
            run.id,
            (StateType.SCHEDULED,),
            StateType.CANCELLED,
            "Cancelled",
            message=message,
            idempotency_key=idempotency_key,
        )
        stood = await settled(self._api, run, idempotency_key, ruling, before={})
        if stood.effect is Effect.REFUSED:
            # the old run got away; the new one must never start
            await self._api.set_state_if(
                new.id,
                (StateType.SCHEDULED,),
                StateType.CANCELLED,
                "Cancelled",
                message="the run that it was to replace had started",
                idempotency_key=step_key(idempotency_key, "unneeded"),
            )
            return stood
        start = moment(str(new.labels.get(_START) or due.isoformat()))
        step = step_key(idempotency_key, "due")
        ruling = await self._api.set_state_if(
            new.id,
            (StateType.SCHEDULED,),
            StateType.SCHEDULED,
            "Scheduled",
            message=message,
            idempotency_key=step,
            scheduled_for=start,
            due_after=self._api.now() + timedelta(days=1),
        )
        came = await settled(self._api, new, step, ruling, before={})
        if came.effect is Effect.REFUSED:
            raise OrchestratorError(
                f"Moving run {run.id}: it is cancelled, but run {new.id}, which takes its place, could not be "
                f"given its time: {came.reason}. It will be tried again.",
                transient=True,
            )
        return _moved(Effect.DONE, run, new, queue)

    async def _why_not_move(self, run: RunView, action: MoveRun, expected_state_id: str) -> str:
        if run.state.type is not StateType.SCHEDULED:
            return f"the run is {run.state.name}; only one that waits is moved"
        if not untouched(run, await self._api.history(run.id), expected_state_id):
            return "the run has moved on since this was proposed"
        if not run.deployment_id or not run.pool:
            return "the run has no deployment or no work pool, so there is no other queue for it"
        if run.run_count or run.parent_task_run_id:
            return "the run has been tried already or belongs to another; a new one would lose that"
        queues = {queue.name: queue for queue in await self._api.queues(run.pool)}
        if action.queue not in queues:
            return f"pool {run.pool!r} has no queue {action.queue!r}; it has {', '.join(queues)}"
        if action.queue == run.queue:
            return f"the run is in queue {action.queue!r} already"
        return ""


def _twin(
    run: RunView, queue: str, due: datetime, idempotency_key: str, message: str, *, parked_until: datetime
) -> dict[str, Any]:
    """What a run that takes the place of another is made from."""
    return {
        "name": run.name,
        "parameters": dict(run.parameters),
        # they were accepted once; a schema that has changed since must not lose the run
        "enforce_parameter_schema": False,
        "job_variables": dict(run.job_variables),
        "tags": sorted({*run.tags, f"cause:{run.id}"}),
        "labels": {_FROM: run.id, _START: due.isoformat(), _QUEUE: run.queue},
        "work_queue_name": queue,
        "idempotency_key": idempotency_key,
        "state": {
            "type": "SCHEDULED",
            "name": "Scheduled",
            "message": message,
            "state_details": {"scheduled_time": parked_until.isoformat()},
        },
    }


def _moved(effect: Effect, old: RunView, new: RunView, queue: str) -> Delivery:
    return Delivery(
        effect=effect,
        before={"run_id": old.id, "queue": old.queue},
        after={"run_id": new.id, "queue": queue},
    )
