"""Follow the ledger through the API: each decision becomes a row of the activity feed and of the threads with its card.

So the verification of what somebody approved is posted where they approved it, and two people see the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from pilotage.console.session.engine import Engine
from pilotage.console.session.events import ACTIVITY_FEED
from pilotage.console.session.ports import User
from pilotage.flows.notify.describe import QUIET, told
from pilotage.telemetry.errors import AdapterError

log = logging.getLogger("pilotage.console")

MARK = "ledger"
INTERVAL = 1.0
"""Seconds between two looks."""
PAGE = 200


class Watcher:
    """Reads on behalf of one caller, who may read everything that a viewer may."""

    def __init__(self, engine: Engine, user: User, asks: Any) -> None:
        self._engine = engine
        self._user = user
        self._asks = asks
        self._banner: tuple[str, str] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until `stop` is set; an API that is away is waited for."""
        while not stop.is_set():
            more = False
            try:
                more = await self.look()
            except AdapterError as exc:
                log.info("following the ledger: %s", exc)
            if not more:
                try:
                    await asyncio.wait_for(stop.wait(), INTERVAL)
                except TimeoutError:
                    continue

    async def look(self) -> bool:
        """Writes down what is new. True when there may be more at once."""
        events = self._engine.log
        await self._look_at_banner()
        seen = await asyncio.to_thread(events.mark, MARK)
        rows = await asyncio.to_thread(lambda: self._asks.call("entries", after=seen, limit=PAGE))
        if not rows:
            return False
        if not await asyncio.to_thread(events.advance, MARK, seen, rows[-1]["seq"]):
            return True  # another process of this installation wrote them down
        touched: dict[str, None] = {}
        for row in rows:
            if row["step"] in QUIET:
                continue
            await asyncio.to_thread(events.append, ACTIVITY_FEED, "step", row["actor"], _step(row))
            if row["proposal_id"]:
                touched[row["proposal_id"]] = None
                for thread in await asyncio.to_thread(events.threads_showing, row["proposal_id"]):
                    if thread != ACTIVITY_FEED:
                        await asyncio.to_thread(events.append, thread, "step", row["actor"], _step(row))
        for proposal_id in touched:
            card = await self._engine.card(self._user, proposal_id)
            threads = {ACTIVITY_FEED, *await asyncio.to_thread(events.threads_showing, proposal_id)}
            for thread in sorted(threads):
                await asyncio.to_thread(events.append, thread, "card", "pilotage", {"card": card})
        return len(rows) == PAGE

    async def _look_at_banner(self) -> None:
        status = await asyncio.to_thread(lambda: self._asks.call("status"))
        banner = (str(status["mode"]), str(status["stopped"] or ""))
        if banner != self._banner:
            self._banner = banner
            words = f"stopped: {banner[1]}" if banner[1] else f"running in mode {banner[0]}"
            await asyncio.to_thread(
                self._engine.log.append,
                ACTIVITY_FEED,
                "notice",
                "pilotage",
                {"text": words, "mode": banner[0], "stopped": banner[1]},
            )


def _step(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "step": row["step"],
        "words": told(row),
        "proposal_id": row["proposal_id"],
        "incident_id": row["incident_id"],
        "run_id": row["run_id"],
        "at": row["at"],
    }
