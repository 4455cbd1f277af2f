"""Deliveries side by side: a slow one holds up no other, and neither verification nor undo.

Each runs under its lease, which is renewed while it lasts; the ledger lets one begin at a time for a target, and those
of an incident that has none under way go first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from pilotage.flows.execution.injector import Injector
from pilotage.policies.types import OutboxEntry
from pilotage.telemetry.errors import AdapterError

log = logging.getLogger("pilotage.injector")


class Deliveries:
    """Starts deliveries and keeps them under their leases."""

    def __init__(self, injector: Injector, *, wake: Callable[[], None], at_once: int) -> None:
        """`wake` is called when one has ended, so that its verification and the next delivery follow at once."""
        self._injector, self._wake, self._at_once = injector, wake, at_once
        self._under_way: dict[str, asyncio.Task[None]] = {}

    @property
    def under_way(self) -> int:
        """How many there are."""
        return len(self._under_way)

    async def start(self) -> int:
        """Renew the leases of those under way, and begin as many more as may be. Return how many were begun."""
        for proposal_id in list(self._under_way):
            await self._injector.renew(proposal_id)
        begun = 0
        while len(self._under_way) < self._at_once:
            entry = await self._injector.claim()
            if entry is None:
                break
            if entry.proposal_id in self._under_way:
                continue  # its lease had run out while the loop was held up; it is under way here
            self._under_way[entry.proposal_id] = asyncio.create_task(self._carry_out(entry))
            begun += 1
        return begun

    async def end(self) -> None:
        """Cut off what is under way; it is found by its idempotency key at the next start."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry_out(self, entry: OutboxEntry) -> None:
        try:
            await self._injector.carry_out(entry)
        except AdapterError as exc:
            # the ledger, mostly: the entry is claimed until its lease ends, and then delivered again
            log.warning("delivering %s: %s", entry.proposal_id, exc)
        except Exception:
            log.exception("delivering %s", entry.proposal_id)
        finally:
            self._under_way.pop(entry.proposal_id, None)
            self._wake()
