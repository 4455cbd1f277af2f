"""Who is signed in, the log of that, and the end of sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.server import PEOPLE, Operation
from pilotage.policies.identity.session_tokens import How
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.protocol import Ledger, SignInStep
from pilotage.policies.roles import Role
from pilotage.policies.types import Identity
from pilotage.telemetry.redaction import redact

_LONGEST = 400
"""Characters that are kept of what somebody typed or a provider said."""


class SessionEndpoints:
    """Sessions, for the person whose they are and for admins."""

    def __init__(self, ledger: Ledger, book: IdentityBook, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._book = book
        self._clock = clock

    def table(self) -> dict[str, Operation]:
        """The operations by name."""
        return {
            "sessions": Operation(run=self.sessions, roles=PEOPLE),
            "end_sessions": Operation(run=self.end_sessions, roles=PEOPLE, changes=True),
        }

    async def sessions(self, caller: Identity) -> list[dict[str, Any]]:
        """The caller's sessions, or everybody's for an admin: `{id, name, how, since, until, roles, teams}`."""
        rows = await asyncio.to_thread(self._book.sessions)
        told = []
        for each in rows:
            if each.name != caller.name and Role.ADMIN not in caller.roles:
                continue
            now = each.identity or self._book.current_identity(each.name)
            told.append(
                {
                    "id": each.id,
                    "name": each.name,
                    "how": each.how,
                    "since": each.since.isoformat(),
                    "until": each.until.isoformat(),
                    "roles": sorted(now.roles) if now else [],
                    "teams": sorted(now.teams) if now else [],
                }
            )
        return told

    async def end_sessions(self, caller: Identity, name: str, session_id: str = "") -> dict[str, int]:
        """`{ended}`: sessions of a person that were ended, all or one. One's own, or anybody's for an admin."""
        if name != caller.name and Role.ADMIN not in caller.roles:
            raise ApiRejection("wrong-role", f"Signing {name} out: only {name} or an admin may do that.")
        ended = await asyncio.to_thread(self._book.end_sessions, str(name), str(session_id))
        await asyncio.to_thread(
            self._ledger.record_sign_in,
            "sessions_ended",
            caller.name,
            self._clock(),
            of=name[:80],
            ended=ended,
        )
        return {"ended": ended}

    async def note(self, step: SignInStep, name: str, how: How, **detail: object) -> None:
        """Write one row of the sign-in log. Raises LedgerError."""
        kept = {
            key: redact(value)[:_LONGEST] if isinstance(value, str) else value
            for key, value in detail.items()
        }
        await asyncio.to_thread(
            self._ledger.record_sign_in, step, redact(name)[:80] or "unknown", self._clock(), how=how, **kept
        )
