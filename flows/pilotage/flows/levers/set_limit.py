"""Changes the concurrency limit of a pool, a queue, a deployment, a tag or a global name, and back.

A deployment's limit is changed underneath, as the global limit `deployment:ID`: a change of the deployment
itself makes Prefect delete its future auto-scheduled runs. No limit is ever 0: waiting tasks would fail.
"""

from __future__ import annotations

from datetime import timedelta
from typing import assert_never

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import (
    ChangeRecords,
    as_before,
    refused,
)
from pilotage.flows.levers.queue_pause import unheld_queues
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import edit_limit, edit_pool, edit_queue, keep_note
from pilotage.planner.actions.types import LimitScope, SetLimit


class LimitLever:
    """Changes a concurrency limit for a while."""

    kind = "set_limit"
    window = timedelta(minutes=1)
    writes = (
        edit_pool("concurrency_limit"),
        edit_queue("concurrency_limit"),
        edit_limit(),
        *keep_note("limit"),
    )
    undoable = "The old limit is restored, unless somebody has set another one since."

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)

    async def execute(
        self, action: SetLimit, *, idempotency_key: str, expected_state_id: str, message: str
    ) -> Delivery:
        """The delivery. The old limit is written down before it is replaced."""
        limit, present = await self._present(action)
        note = await self._records.read("limit", idempotency_key)
        after = {"limit": action.limit}
        if note is not None and (note.get("undone") or present == action.limit):
            return Delivery(effect=Effect.ALREADY, before=note, after=after)
        if not limit:
            return refused(_not_there(action))
        if note is None:
            if present == action.limit:
                return refused(f"{_named(action)} is limited to {present} already")
            if reason := await self._records.standing(_about(action), "limit", "reserve"):
                return refused(reason)
            note = {**self._records.held_record(_about(action), action.hold), "limit": present}
            await self._records.write("limit", idempotency_key, note)
        await self._set(action, action.limit)
        return Delivery(effect=Effect.DONE, before=note, after=after)

    async def verify(self, action: SetLimit, delivery: Delivery, *, idempotency_key: str) -> Check:
        """Whether the limit stands."""
        _, present = await self._present(action)
        if present == action.limit:
            return Check(judgement=Judgement.VERIFIED, detail=f"{_named(action)} is limited to {present}")
        detail = f"the limit of {_named(action)} is {present}, not {action.limit}"
        return Check(judgement=Judgement.FAILED, detail=detail)

    async def undo(self, action: SetLimit, delivery: Delivery, *, idempotency_key: str) -> Delivery:
        """The delivery of the old limit."""
        note = await self._records.read("limit", idempotency_key)
        if note is None:
            return refused("nothing is known of this change")
        if note.get("undone"):
            return as_before(note)
        _, present = await self._present(action)
        old = note["limit"]
        if present not in (action.limit, old):
            why = f"somebody set the limit of {_named(action)} to {present} since; it stays"
            await self._records.write("limit", idempotency_key, self._records.tombstone(note, why))
            return refused(why)
        await self._set(action, old)
        await self._records.write("limit", idempotency_key, self._records.tombstone(note))
        return Delivery(effect=Effect.DONE, before={"limit": present}, after={"limit": old})

    async def _present(self, action: SetLimit) -> tuple[bool, int | None]:
        """Whether there is such a thing to limit, and its limit now."""
        match action.scope:
            case LimitScope.POOL:
                return True, (await self._api.pool(action.name)).limit
            case LimitScope.QUEUE:
                unheld = await unheld_queues(self._api, action.pool, action.name)
                queues = {queue.name: queue.limit for queue in unheld}
                return action.name in queues, queues.get(action.name)
            case LimitScope.DEPLOYMENT | LimitScope.TAG | LimitScope.GLOBAL:
                limit = await self._api.limit(_key(action))
                return limit is not None, limit.limit if limit else None
            case _:
                assert_never(action.scope)

    async def _set(self, action: SetLimit, limit: int | None) -> None:
        match action.scope:
            case LimitScope.POOL:
                await self._api.set_pool_limit(action.name, limit)
            case LimitScope.QUEUE:
                await self._api.set_queue_limit(action.pool, action.name, limit)
            case LimitScope.DEPLOYMENT | LimitScope.TAG | LimitScope.GLOBAL:
                # these exist only with a size, so there is always one to go back to
                await self._api.set_limit(_key(action), limit or 1)
            case _:
                assert_never(action.scope)


def _key(action: SetLimit) -> str:
    """The name of the limit as Prefect keeps it."""
    return action.name if action.scope is LimitScope.GLOBAL else f"{action.scope.value}:{action.name}"


def _about(action: SetLimit) -> str:
    where = f"{action.pool}/" if action.pool else ""
    return f"{action.scope.value} {where}{action.name}"


def _named(action: SetLimit) -> str:
    return f"{action.scope.value} {action.name!r}"


def _not_there(action: SetLimit) -> str:
    if action.scope is LimitScope.DEPLOYMENT:
        return (
            "the deployment has no limit. Giving it its first one would change the deployment, and Prefect "
            "would delete its future runs; a person sets a first limit, which can be changed from then on"
        )
    return f"there is no limit of {_named(action)}"
