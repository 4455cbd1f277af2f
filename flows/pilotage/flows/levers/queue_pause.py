"""Keeps a queue from handing out runs for some seconds, while runs in it are moved.

A note in Prefect stands for each hold, so that starting up after a crash lets the queue go. Two deliveries, also of
two processes, may hold one queue at a time: the last that ends its hold lets it go. A queue that has no note of ours
was paused by somebody else, and stays theirs.

A queue with a backlog of due runs is throttled first: it hands out one at a time. To pause a queue Prefect needs a second
connection to its database while it has the lock for which the others wait. Where a worker proposes states for hundreds
of runs they have all connections: with SQLite the server stands still for 30 s, and the queue is not paused.
To limit it takes one connection.

Levers that change queues read them through `unheld_queues`: what a hold of ours does to a queue for some seconds is not
how somebody set it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

from pilotage.flows.levers.idempotency import ChangeRecords
from pilotage.flows.prefect.api import PrefectApi
from pilotage.flows.prefect.models import QueueView
from pilotage.flows.prefect.stopping import finishing, pause
from pilotage.flows.prefect.writes import edit_queue, keep_note
from pilotage.telemetry.errors import OrchestratorError

_THROTTLE = 1
"""The limit of a queue that is calmed."""
_LIMIT, _ONLY_THROTTLED = "limit", "only_calmed"
PATIENCE = timedelta(seconds=20)
"""How long a lever waits for a hold of another delivery to end; a delivery holds a queue for some seconds."""
_LOOK_EVERY = 0.5


QUEUE_PAUSE = (edit_queue("is_paused", "concurrency_limit"), *keep_note("hold"))
"""What a lever writes that pauses queues for a while."""


class TemporaryQueuePause:
    """The short holds of queues, each under a key of its own."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._records = ChangeRecords(api)

    async def throttle(self, pool: str, queue: str, key: str) -> bool:
        """Whether the queue hands out one run at a time, until it is released under this key."""
        view = await self._queue(pool, queue)
        if view is None or view.paused or view.limit == _THROTTLE:
            return False
        note = await self._records.read("hold", key) or {"pool": pool, "queue": queue, _ONLY_THROTTLED: True}
        # the limit before the first attempt is the one to be restored
        await self._records.write("hold", key, {_LIMIT: view.limit, **note})
        await self._api.set_queue_limit(pool, queue, _THROTTLE)
        return True

    async def hold(self, pool: str, queue: str, key: str) -> bool:
        """Whether the queue is held under this key; False where somebody else paused it, whose it stays."""
        notes = await self._records.of("hold")
        ours = any(_where(note) == (pool, queue) and not note.get(_ONLY_THROTTLED) for note in notes.values())
        view = await self._queue(pool, queue)
        if view is not None and view.paused and not ours:
            return False
        limit = {name: value for name, value in notes.get(key, {}).items() if name == _LIMIT}
        await self._records.write("hold", key, {"pool": pool, "queue": queue, **limit})
        await self._api.set_queue_paused(pool, queue, True)
        return True

    async def stand(self, keys: Iterable[str]) -> bool:
        """Whether every queue held under these keys is paused still; one that is not is paused again."""
        stood = True
        for key in keys:
            pool, queue = _where(await self._records.read("hold", key) or {})
            view = await self._queue(pool, queue)
            if view is not None and not view.paused:
                await self._api.set_queue_paused(pool, queue, True)
                stood = False
        return stood

    async def release(self, key: str) -> None:
        """End the hold of this key, and open its queue unless another hold of ours is active.

        Also when everything was stopped meanwhile: a queue that stays paused stops more than pilotage.
        """
        with finishing():
            await self._release(key)

    async def _release(self, key: str) -> None:
        note = await self._records.read("hold", key)
        if note is None:
            return
        if _LIMIT in note and await self._is_throttled(*_where(note)):
            await self._api.set_queue_limit(*_where(note), note[_LIMIT])
        if not note.get(_ONLY_THROTTLED):
            # said before the others are looked at: of two that end at once each may then open the queue, and one does
            await self._records.write("hold", key, {**note, "ending": True})
            others = {
                idempotency_key: each
                for idempotency_key, each in (await self._records.of("hold")).items()
                if idempotency_key != key
            }
            if not any(_where(each) == _where(note) and _stands(each) for each in others.values()):
                await self._api.set_queue_paused(*_where(note), False)
        await self._records.forget("hold", key)

    async def release_all(self) -> int:
        """How many holds were left by deliveries that died, and are released now. For start-up."""
        held = await self._records.of("hold")
        for key in held:
            await self.release(key)
        return len(held)

    async def _queue(self, pool: str, queue: str) -> QueueView | None:
        return next((each for each in await self._api.queues(pool) if each.name == queue), None)

    async def _is_throttled(self, pool: str, queue: str) -> bool:
        view = await self._queue(pool, queue)
        return view is not None and view.limit == _THROTTLE


async def unheld_queues(api: PrefectApi, pool: str, *names: str) -> list[QueueView]:
    """Return the queues of a pool at a moment when no delivery of ours holds one of those named.

    Raises OrchestratorError, transient, when one is held still after `PATIENCE`: the delivery is made again later.
    """
    until = time.monotonic() + PATIENCE.total_seconds()
    while True:
        # looked for on both sides: a hold may begin or end between two requests
        held = await _held(api, pool, names)
        queues = list(await api.queues(pool))
        held = held or await _held(api, pool, names)
        if not held:
            return queues
        if time.monotonic() >= until:
            raise OrchestratorError(
                f"Reading queue {held!r} of pool {pool!r}: another delivery holds it, and did not let it go within "
                f"{PATIENCE.total_seconds():.0f} s.",
                transient=True,
            )
        await pause(_LOOK_EVERY)


async def _held(api: PrefectApi, pool: str, names: Collection[str]) -> str:
    notes = await ChangeRecords(api).of("hold")
    return next(
        (queue for where, queue in map(_where, notes.values()) if where == pool and queue in names), ""
    )


def _stands(note: Mapping[str, Any]) -> bool:
    return not note.get("ending") and not note.get(_ONLY_THROTTLED)


def _where(note: Mapping[str, Any]) -> tuple[str, str]:
    return str(note.get("pool", "")), str(note.get("queue", ""))
