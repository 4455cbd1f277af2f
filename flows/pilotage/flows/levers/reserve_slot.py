"""Frees a slot for a starved queue: a cap on the busy one, and the way back.

Priority is a strict waterfall in Prefect; only a cap on the queue above lets a queue below have a turn. Ranks
are never touched: they are unique, and moving one moves its neighbours, who do not move back.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import (
    ChangeRecords,
    as_before,
    fits_a_record,
    refused,
)
from pilotage.flows.levers.queue_pause import unheld_queues
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import QueueView, moment
from pilotage.flows.prefect.writes import edit_queue, keep_note
from pilotage.planner.actions.types import ReserveSlot
from pilotage.telemetry.facts import TERMINAL, StateType

_STARTED = [StateType.RUNNING, StateType.CANCELLING, *sorted(TERMINAL)]


class ReserveLever:
    """Caps a busy queue for a while."""

    kind = "reserve_slot"
    window = timedelta(minutes=5)
    writes = (edit_queue("concurrency_limit"), *keep_note("reserve"))
    undoable = "The busy queue gets its old limit back, unless somebody has set another one since."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)

    async def execute(
        self, action: ReserveSlot, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. The note that undo needs is written before the cap."""
        queues = await unheld_queues(self._api, action.pool, action.busy_queue, action.starved_queue)
        note = await self._records.read("reserve", idempotency_key)
        capped = _named(queues, action.busy_queue).limit == action.limit
        if note is not None and (capped or note.get("undone")):
            after = {"limit": action.limit, "at": note["at"]}
            return Delivery(effect=Effect.ALREADY, before=note, after=after)
        if note is None:
            if reason := why_not_cap(queues, action):
                return refused(reason)
            about = f"queue {action.pool}/{action.busy_queue}"
            if reason := await self._records.standing(about, "limit", "reserve"):
                return refused(reason)
            note = {
                **self._records.held_record(about, action.hold),
                "limit": _named(queues, action.busy_queue).limit,
                "queues": [[queue.name, queue.priority, queue.limit] for queue in queues],
            }
            if not fits_a_record(note):
                return refused(f"pool {action.pool!r} has too many queues to remember their limits")
            await self._records.write("reserve", idempotency_key, note)
        await self._api.set_queue_limit(action.pool, action.busy_queue, action.limit)
        return Delivery(effect=Effect.DONE, before=note, after={"limit": action.limit, "at": note["at"]})

    async def verify(self, action: ReserveSlot, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the cap stands and a run of the starved queue got a slot under it."""
        since = moment(str(delivery.after["at"]))
        # Prefect takes the expected start for the start of a run that has none, so it is looked at here;
        # and a retry keeps its first start time, so a run that runs now counts by its present state
        where = {"state": {"type": {"any_": _STARTED}}}
        seen = await self._api.runs_of_queue(action.pool, action.starved_queue, where)
        got = [
            run
            for run in seen
            if (run.started and run.started >= since)
            or (run.state.type is StateType.RUNNING and run.state.at >= since)
        ]
        if got:
            detail = f"run {got[0].id} of queue {action.starved_queue!r} got a slot"
            return Check(judgement=Judgement.VERIFIED, detail=detail, final_state=got[0].state.name)
        limit = _named(await self._queues(action), action.busy_queue).limit
        if limit != action.limit:
            detail = f"the limit of queue {action.busy_queue!r} is {limit}, not {action.limit}"
            return Check(judgement=Judgement.FAILED, detail=detail)
        detail = f"the cap stands; no run of queue {action.starved_queue!r} has started yet"
        return Check(judgement=Judgement.PENDING, detail=detail)

    async def undo(self, action: ReserveSlot, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old limit."""
        note = await self._records.read("reserve", idempotency_key)
        if note is None:
            return refused("nothing is known of this reservation")
        if note.get("undone"):
            return as_before(note)
        limit = _named(await self._queues(action), action.busy_queue).limit
        old = note["limit"]
        if limit not in (action.limit, old):
            why = f"somebody set the limit of queue {action.busy_queue!r} to {limit} since; it stays"
            await self._records.write("reserve", idempotency_key, self._records.tombstone(note, why))
            return refused(why)
        await self._api.set_queue_limit(action.pool, action.busy_queue, old)
        await self._records.write("reserve", idempotency_key, self._records.tombstone(note))
        return Delivery(effect=Effect.DONE, before={"limit": limit}, after={"limit": old})

    async def _queues(self, action: ReserveSlot) -> list[QueueView]:
        return await unheld_queues(self._api, action.pool, action.busy_queue)


def why_not_cap(queues: Sequence[QueueView], action: ReserveSlot) -> str:
    """Why this queue may not be capped, or an empty text."""
    names = {queue.name: queue for queue in queues}
    for name in (action.busy_queue, action.starved_queue):
        if name not in names:
            return f"pool {action.pool!r} has no queue {name!r}"
    if action.busy_queue == action.starved_queue:
        return "a queue cannot be capped for its own sake"
    busy, starved = names[action.busy_queue], names[action.starved_queue]
    if busy.limit is not None and busy.limit <= action.limit:
        return f"queue {busy.name!r} is limited to {busy.limit} already"
    if starved.paused:
        return f"queue {starved.name!r} is paused; a free slot would not help it"
    return ""


def _named(queues: Sequence[QueueView], name: str) -> QueueView:
    missing = QueueView(name=name, priority=0, limit=None, paused=False)
    return next((queue for queue in queues if queue.name == name), missing)
