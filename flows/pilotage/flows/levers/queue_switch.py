"""Pauses and resumes a queue or a whole pool, for the levers that hold and release them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotage.flows.execution.receipts import Check, Delivery, Effect, Judgement
from pilotage.flows.levers.idempotency import ChangeRecords, as_before, refused
from pilotage.flows.levers.queue_pause import unheld_queues
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.writes import edit_pool, edit_queue, keep_note
from pilotage.telemetry.errors import OrchestratorError


class QueueSwitch:
    """The pause switch of a queue, or of a pool where the queue is empty, thrown one way and back."""

    writes = (edit_queue("is_paused"), edit_pool("is_paused"), *keep_note("queue"))

    def __init__(self, api: PrefectApi, *, paused: bool) -> None:
        self._api = api
        self._records = ChangeRecords(api)
        self._paused = paused

    async def execute(self, pool: str, queue: str, idempotency_key: str, message: str) -> Delivery:
        note = await self._records.read("queue", idempotency_key)
        paused = await self._now(pool, queue)
        if note is not None and (note.get("undone") or note.get("done") or paused is self._paused):
            return Delivery(effect=Effect.ALREADY, before=note, after={"paused": paused})
        if note is None:
            if paused is self._paused:
                by = await self._ours(pool, queue, paused) or "somebody else"
                return refused(f"{_named(pool, queue)} is {_word(paused)} already, by {by}")
            note = {
                "at": self._api.now().isoformat(),
                "paused": paused,
                "about": _named(pool, queue),
                "by": message.partition(":")[0][:60],
            }
            await self._records.write("queue", idempotency_key, note)
        await self._set(pool, queue, self._paused)
        return Delivery(effect=Effect.DONE, before=note, after={"paused": self._paused})

    async def verify(self, pool: str, queue: str) -> Check:
        paused = await self._now(pool, queue)
        judgement = Judgement.VERIFIED if paused is self._paused else Judgement.FAILED
        return Check(judgement=judgement, detail=f"{_named(pool, queue)} is {_word(paused)}")

    async def undo(self, pool: str, queue: str, idempotency_key: str) -> Delivery:
        note: Mapping[str, Any] | None = await self._records.read("queue", idempotency_key)
        if note is None:
            return refused("nothing is known of this change")
        if note.get("undone"):
            return as_before(note)
        if await self._now(pool, queue) is not self._paused and not note.get("restoring"):
            if by := await self._ours(pool, queue, not self._paused):
                # not buried: it is taken back once what lies on top of it is; a repeated delivery does nothing
                await self._records.write(
                    "queue", idempotency_key, {**note, "done": self._api.now().isoformat()}
                )
                return refused(
                    f"{by} has {_word(not self._paused)} {_named(pool, queue)}; take that back first"
                )
            why = f"somebody has {_word(not self._paused)} {_named(pool, queue)} already"
            await self._records.write("queue", idempotency_key, self._records.tombstone(note, why))
            return refused(why)
        await self._records.write("queue", idempotency_key, {**note, "restoring": True})
        await self._set(pool, queue, not self._paused)
        await self._records.write("queue", idempotency_key, self._records.tombstone(note))
        return Delivery(effect=Effect.DONE, after={"paused": not self._paused})

    async def _ours(self, pool: str, queue: str, paused: bool) -> str:
        """Which change of ours, perhaps of another pilotage, has thrown the switch this way and stands; or empty."""
        for note in (await self._records.of("queue")).values():
            # `paused` of a note is what it found; one that was taken back is about nothing any more
            if note.get("about") == _named(pool, queue) and note["paused"] is not paused:
                return str(note.get("by") or "a change of ours")
        return ""

    async def _now(self, pool: str, queue: str) -> bool:
        if not queue:
            return (await self._api.pool(pool)).paused
        for each in await unheld_queues(self._api, pool, queue):
            if each.name == queue:
                return each.paused
        raise OrchestratorError(
            f"Looking for queue {queue!r} of pool {pool!r}: the pool has none of this name. "
            "Propose one that it has."
        )

    async def _set(self, pool: str, queue: str, paused: bool) -> None:
        if queue:
            await self._api.set_queue_paused(pool, queue, paused)
        else:
            await self._api.set_pool_paused(pool, paused)


def _named(pool: str, queue: str) -> str:
    return f"queue {queue!r} of pool {pool!r}" if queue else f"pool {pool!r}"


def _word(paused: bool) -> str:
    return "held" if paused else "released"
