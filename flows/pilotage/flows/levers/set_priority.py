"""Gives a queue another rank and restores the ranks of all.

Ranks in a pool are unique. A queue that is given a taken rank moves its neighbours down, and they do not move
back when it leaves; so all ranks are written down first, and all are restored, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import (
    ChangeRecords,
    as_before,
    fits_a_record,
    refused,
)
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import QueueView
from pilotage.flows.prefect.writes import keep_note, rank_queues
from pilotage.planner.actions.types import SetPriority
from pilotage.telemetry.errors import OrchestratorError


class PriorityLever:
    """Changes the rank of a queue for a while."""

    kind = "set_priority"
    window = timedelta(minutes=1)
    writes = (rank_queues(), *keep_note("priority"))
    undoable = "The ranks of all queues of the pool are restored, unless somebody has moved one since."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)

    async def execute(
        self, action: SetPriority, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. All ranks are written down before one is changed."""
        queues = await self._api.queues(action.pool)
        ranks = _ranks(queues)
        note = await self._records.read("priority", idempotency_key)
        if note is not None and (note.get("undone") or ranks.get(action.queue) == action.priority):
            return Delivery(effect=Effect.ALREADY, before=note, after={"ranks": ranks})
        if action.queue not in ranks:
            return refused(f"pool {action.pool!r} has no queue {action.queue!r}")
        if note is None:
            if ranks[action.queue] == action.priority:
                return refused(f"queue {action.queue!r} has rank {action.priority} already")
            about = f"the ranks of {action.pool}"
            if reason := await self._records.standing(about, "priority"):
                return refused(reason)
            note = {
                **self._records.held_record(about, action.hold),
                "ranks": ranks,
                "then": ranks_after(ranks, action.queue, action.priority),
            }
            if not fits_a_record(note):
                return refused(f"pool {action.pool!r} has too many queues to remember their ranks")
            await self._records.write("priority", idempotency_key, note)
        await self._api.set_queue_priority(action.pool, action.queue, action.priority)
        return Delivery(
            effect=Effect.DONE, before=note, after={"ranks": _ranks(await self._api.queues(action.pool))}
        )

    async def verify(self, action: SetPriority, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the queue has its rank and the others stand in their old order."""
        ranks = _ranks(await self._api.queues(action.pool))
        detail = ", ".join(f"{name} {rank}" for name, rank in ranks.items())
        if ranks.get(action.queue) == action.priority:
            return Check(judgement=Judgement.VERIFIED, detail=f"the ranks are {detail}")
        return Check(judgement=Judgement.FAILED, detail=f"the ranks are {detail}")

    async def undo(self, action: SetPriority, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of all the old ranks."""
        note = await self._records.read("priority", idempotency_key)
        if note is None:
            return refused("nothing is known of this change")
        if note.get("undone"):
            return as_before(note)
        present = _ranks(await self._api.queues(action.pool))
        old: dict[str, int] = dict(note["ranks"])
        if present not in (dict(note["then"]), old) and not note.get("restoring"):
            why = f"somebody moved queues of pool {action.pool!r} since; their ranks stay"
            await self._records.write("priority", idempotency_key, self._records.tombstone(note, why))
            return refused(why)
        await self._records.write("priority", idempotency_key, {**note, "restoring": True})
        # in their order: each finds the ranks above it settled, and pushes only those that come later
        for name, rank in sorted(old.items(), key=lambda each: each[1]):
            await self._api.set_queue_priority(action.pool, name, rank)
        now = _ranks(await self._api.queues(action.pool))
        if now != old:
            raise OrchestratorError(
                f"Restoring the ranks of pool {action.pool!r}: they are {now} and should be {old}. "
                "It will be tried again.",
                transient=True,
            )
        await self._records.write("priority", idempotency_key, self._records.tombstone(note))
        return Delivery(effect=Effect.DONE, before={"ranks": present}, after={"ranks": old})


def ranks_after(ranks: dict[str, int], queue: str, priority: int) -> dict[str, int]:
    """The ranks that Prefect makes of these when the queue is given that one: whoever is in the way moves down.

    As `bulk_update_work_queue_priorities` of Prefect 3.8 does it.
    """
    order = sorted((name for name in ranks if name != queue), key=lambda name: ranks[name])
    wanted = {**ranks, queue: priority}
    place = next((at for at, name in enumerate(order) if ranks[name] >= priority), None)
    if place is None:
        return dict(sorted(wanted.items(), key=lambda each: each[1]))
    order.insert(place, queue)
    last = 0
    for name in order:
        wanted[name] = last = wanted[name] if wanted[name] > last else last + 1
    return dict(sorted(wanted.items(), key=lambda each: each[1]))


def _ranks(queues: Sequence[QueueView]) -> dict[str, Any]:
    return {queue.name: queue.priority for queue in queues}
