"""Writes down refusals that came before any verdict: a wrong role, a bad argument, a card that was out of date.

Refusals by policy are rows of the audit log by themselves; these are rows too, so that who tried what can be seen.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.server import PEOPLE, Operation, Refused
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.refusals import refused
from pilotage.policies.types import Identity
from pilotage.telemetry.redaction import redact

log = logging.getLogger("pilotage.desk")

MOST_A_MINUTE = 60
"""Rows that one caller can cause in a minute by being refused; what comes on top is a line in the log."""
LONGEST = 400
"""Characters that are kept of what was said."""


class RefusedRequests:
    """Keeps refused requests in the ledger."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[str, deque[datetime]] = {}

    def table(self) -> dict[str, Operation]:
        """The one operation: frontends that refuse a request by themselves say so."""
        return {"note_refusal": Operation(run=self.note_refusal, roles=PEOPLE)}

    async def record(self, request: Refused) -> None:
        """Write one down. Raises LedgerError."""
        if not self._room_for(request.by.name):
            log.warning("%s is refused more often than is written down: %s", request.by.name, request.request)
            return
        verdict = refused("!refused-request", detail=redact(request.why)[:LONGEST])
        await asyncio.to_thread(
            self._ledger.refuse_command,
            request.request[:LONGEST],
            request.by.name,
            verdict,
            self._clock(),
            kind=request.kind[:LONGEST],
            proposal=redact(request.about)[:LONGEST],
        )

    async def note_refusal(
        self, caller: Identity, request: str, kind: str, why: str, about: str = ""
    ) -> dict[str, bool]:
        """Write down that a frontend refused the caller. Raises ApiRejection for what is no text."""
        if not all(isinstance(each, str) for each in (request, kind, why, about)):
            raise ApiRejection("bad-request", "Writing down a refusal: all of it is text.")
        await self.record(Refused(by=caller, request=request, kind=kind, why=why, about=about))
        return {"noted": True}

    def _room_for(self, name: str) -> bool:
        now = self._clock()
        kept = self._kept.setdefault(name, deque(maxlen=MOST_A_MINUTE))
        if len(kept) == MOST_A_MINUTE and now - kept[0] < timedelta(minutes=1):
            return False
        kept.append(now)
        return True
