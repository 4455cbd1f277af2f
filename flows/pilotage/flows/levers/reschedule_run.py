"""Moves a scheduled run in time without a worker starting it twice.

Prefect accepts Scheduled even for a run that a worker is just starting, and then executes it twice. So a
run that is far from due is moved by a guarded write; one that is due is moved only while its queue is held:
pause, let what is under way settle, look again, write, release. A note in Prefect outlives a crash in
between, and whoever repeats the delivery, or starts up afterwards, releases the queue first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import after, marked, refused, step_key, untouched
from pilotage.flows.levers.queue_pause import QUEUE_PAUSE, TemporaryQueuePause
from pilotage.flows.levers.retry_run import AWAITING_RETRY, settled
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import RunView, StateView, moment
from pilotage.flows.prefect.stopping import pause
from pilotage.flows.prefect.writes import set_state
from pilotage.planner.actions.types import RescheduleRun
from pilotage.telemetry import times
from pilotage.telemetry.facts import StateType

SAFE_DISTANCE = timedelta(seconds=30)
"""A worker asks for runs up to 10 s ahead, every 10 s; further out than this none has the run in hand."""
SETTLE = timedelta(seconds=3)
"""From pausing a queue until a worker that had already been handed a run has moved it to Pending."""
_LOOK_EVERY = 0.25


class RescheduleLever:
    """Moves a SCHEDULED run to another start time, earlier or later."""

    kind = "reschedule_run"
    window = timedelta(minutes=2)
    writes = (set_state(StateType.SCHEDULED), *QUEUE_PAUSE)
    undoable = "The old start time is restored, while the run has not started."

    def __init__(self, api: PrefectApi, *, settle: timedelta = SETTLE) -> None:
        self._api = api
        self._holds = TemporaryQueuePause(api)
        self._settle = settle

    async def execute(
        self, action: RescheduleRun, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. Whatever happens, the run's queue is not left paused by it."""
        await self._holds.release(idempotency_key)
        history = await self._api.history(action.run_id)
        if ours := marked(history, idempotency_key):
            return Delivery(
                effect=Effect.ALREADY, before=_before_of(history, idempotency_key), after=_after(ours)
            )
        run = await self._api.run(action.run_id)
        if reason := why_not_move(run, history, expected_state_id):
            return refused(reason)
        return await self._move(run, action.start, idempotency_key=idempotency_key, message=message)

    async def verify(self, action: RescheduleRun, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the run has the new time, and whether it has started since."""
        history = await self._api.history(action.run_id)
        ours = marked(history, idempotency_key)
        if ours is None or ours.scheduled_for != action.start:
            return Check(judgement=Judgement.FAILED, detail="the new time is not in the run's history")
        since = after(history, idempotency_key)
        begun = next((state for state in since if state.type is StateType.RUNNING), None)
        detail = f"due at {times.local(action.start, '%H:%M:%S')}"
        if begun:
            detail = f"started at {times.local(begun.at, '%H:%M:%S')}, {detail}"
        return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=(since or (ours,))[-1].name)

    async def undo(self, action: RescheduleRun, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old time."""
        back = step_key(idempotency_key, "undo")
        await self._holds.release(back)
        history = await self._api.history(action.run_id)
        if marked(history, back):
            return Delivery(effect=Effect.ALREADY)
        old = delivery.before.get("start") or _before_of(history, idempotency_key).get("start")
        run = await self._api.run(action.run_id)
        if not old:
            return refused("the old start time is not known")
        ours = marked(history, idempotency_key)
        # by its time, not by who set it last: a cancellation that was taken back has put it there again
        if run.state.type is not StateType.SCHEDULED or not ours or run.next_start != ours.scheduled_for:
            return refused(f"the run is {run.state.name} already and no longer where we put it")
        return await self._move(
            run, moment(str(old)), idempotency_key=back, message="pilotage restored the old start time"
        )

    async def release_all(self) -> int:
        """How many queues were still held by deliveries that died, and are released now. For start-up."""
        return await self._holds.release_all()

    async def _move(self, run: RunView, start: datetime, *, idempotency_key: str, message: str) -> Delivery:
        before: dict[str, object] = {"start": run.next_start.isoformat() if run.next_start else None}
        # a retry that waits must stay one, or Prefect counts it as a first attempt
        name = AWAITING_RETRY if run.state.name == AWAITING_RETRY else "Scheduled"
        now = self._api.now()
        far = run.next_start is not None and run.next_start > now + SAFE_DISTANCE
        if far or not run.queue:
            ruling = await self._api.set_state_if(
                run.id,
                (StateType.SCHEDULED,),
                StateType.SCHEDULED,
                name,
                message=message,
                idempotency_key=idempotency_key,
                scheduled_for=start,
                due_after=now + SAFE_DISTANCE if far else None,
            )
            return await settled(self._api, run, idempotency_key, ruling, before=before)
        held = await self._holds.hold(run.pool, run.queue, idempotency_key)
        try:
            if not await self._stays_scheduled(run):
                return refused("a worker took the run while its queue was being held; nothing was changed")
            if held and not await self._holds.stand([idempotency_key]):
                return refused("somebody opened the queue while it was being held; nothing was changed")
            ruling = await self._api.set_state_if(
                run.id,
                (StateType.SCHEDULED,),
                StateType.SCHEDULED,
                name,
                message=message,
                idempotency_key=idempotency_key,
                scheduled_for=start,
            )
            return await settled(self._api, run, idempotency_key, ruling, before=before)
        finally:
            await self._holds.release(idempotency_key)

    async def _stays_scheduled(self, run: RunView) -> bool:
        deadline = self._api.now() + self._settle
        while self._api.now() < deadline:
            await pause(_LOOK_EVERY)
            if (await self._api.run(run.id)).state.type is not StateType.SCHEDULED:
                return False
        return True


def why_not_move(run: RunView, history: Sequence[StateView], expected_state_id: str) -> str:
    """Why this run may not be moved, or an empty text."""
    if run.state.type is not StateType.SCHEDULED:
        return f"the run is {run.state.type.value}; moving it now would execute it twice"
    if untouched(run, history, expected_state_id):
        return ""
    return "the run has moved on since this was proposed"


def _before_of(history: Sequence[StateView], idempotency_key: str) -> dict[str, object]:
    earlier = [state for state in history if state.type is StateType.SCHEDULED]
    for index, state in enumerate(earlier):
        if state.transition_id == idempotency_key and index:
            old = earlier[index - 1].scheduled_for
            return {"start": old.isoformat() if old else None}
    return {}


def _after(state: StateView) -> dict[str, object]:
    start = state.scheduled_for.isoformat() if state.scheduled_for else None
    return {"state_id": state.id, "due": start, "at": state.at.isoformat()}
