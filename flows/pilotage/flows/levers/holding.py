"""Knows how to keep a queue from handing out runs for some seconds, while runs in it are moved.

A note in Prefect stands for each hold, so that starting up after a crash lets the queue go. Two deliveries, also of
two processes, may hold one queue at a time: the last that ends its hold lets it go. A queue that has no note of ours
was paused by somebody else, and stays theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pilotage.flows.levers.marks import Notes
from pilotage.flows.prefect_api import PrefectApi


class QueueHolds:
    """The short holds of queues, each under a key of its own."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._notes = Notes(api)

    async def hold(self, pool: str, queue: str, key: str) -> bool:
        """Whether the queue is held under this key; False where somebody else paused it, whose it stays."""
        notes = await self._notes.of("hold")
        ours = any(_where(note) == (pool, queue) for note in notes.values())
        if not ours and any(each.paused for each in await self._api.queues(pool) if each.name == queue):
            return False
        await self._notes.write("hold", key, {"pool": pool, "queue": queue})
        await self._api.set_queue_paused(pool, queue, True)
        return True

    async def stand(self, keys: Iterable[str]) -> bool:
        """Whether every queue held under these keys is paused still; one that is not is paused again."""
        stood = True
        for key in keys:
            pool, queue = _where(await self._notes.read("hold", key) or {})
            if any(each.name == queue and not each.paused for each in await self._api.queues(pool)):
                await self._api.set_queue_paused(pool, queue, True)
                stood = False
        return stood

    async def release(self, key: str) -> None:
        """Nothing; there is no hold under this key, and its queue is open unless another of ours stands."""
        note = await self._notes.read("hold", key)
        if note is None:
            return
        # said before the others are looked at: of two that end at once, each may then open the queue, and one does
        await self._notes.write("hold", key, {**note, "ending": True})
        others = {mark: each for mark, each in (await self._notes.of("hold")).items() if mark != key}
        if not any(_where(each) == _where(note) and not each.get("ending") for each in others.values()):
            await self._api.set_queue_paused(*_where(note), False)
        await self._notes.forget("hold", key)

    async def release_all(self) -> int:
        """How many holds were left by deliveries that died, and are released now. For start-up."""
        held = await self._notes.of("hold")
        for key in held:
            await self.release(key)
        return len(held)


def _where(note: Mapping[str, Any]) -> tuple[str, str]:
    return str(note.get("pool", "")), str(note.get("queue", ""))
