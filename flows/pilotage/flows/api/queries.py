"""What frontends read at the API beside lists and stories: the ledger from a number on, the levers, who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.server import READERS, Operation
from pilotage.planner.detect.why import why_it_waits
from pilotage.planner.parameters import PlaybookParameters
from pilotage.policies.gate.capabilities import commands_open_to
from pilotage.policies.gate.gate import Gate
from pilotage.policies.gate.permitted_kinds import permitted_kinds
from pilotage.policies.ledger.protocol import Ledger
from pilotage.policies.types import Identity, Mode
from pilotage.telemetry.store.protocol import Store

MOST = 500
"""Entries in one answer."""


class QueryEndpoints:
    """Answers questions that change nothing and that every role may ask."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        gate: Gate,
        agent: Identity,
        mode: Callable[[], Mode],
        clock: Callable[[], datetime],
        levers: Mapping[str, Mapping[str, str]],
        paths: Mapping[str, str],
        store: Store | None = None,
        parameters: PlaybookParameters | None = None,
    ) -> None:
        """`levers` as `pilotage.flows.levers.docs.in_words`; `places` names where things are, such as `ui`."""
        self._ledger = ledger
        self._gate = gate
        self._agent = agent
        self._mode = mode
        self._clock = clock
        self._levers = levers
        self._paths = paths
        self._store = store
        self._parameters = parameters

    def table(self) -> dict[str, Operation]:
        """Every operation by name."""
        return {
            "entries": Operation(run=self.entries, roles=READERS),
            "levers": Operation(run=self.levers, roles=READERS),
            "surroundings": Operation(run=self.surroundings, roles=READERS),
            "waits": Operation(run=self.waits, roles=READERS),
            "permissions": Operation(run=self.permissions, roles=READERS),
        }

    async def entries(self, caller: Identity, after: int, limit: int = 200) -> list[dict[str, Any]]:
        """The audited steps that follow entry `after`, oldest first, each with its `seq`."""
        if after < 0 or not 1 <= limit <= MOST:
            raise ApiRejection("bad-request", f"Reading entries: after >= 0 and 1 <= limit <= {MOST}.")
        return await asyncio.to_thread(self._ledger.entries, after, limit)

    async def levers(self, caller: Identity) -> dict[str, dict[str, str]]:
        """What each kind of action does, how it is undone and how soon it is verified, in words."""
        return {kind: dict(row) for kind, row in self._levers.items()}

    async def surroundings(self, caller: Identity) -> dict[str, str]:
        """Where things are: `ui` is the address of Prefect's own pages."""
        return dict(self._paths)

    async def waits(self, caller: Identity, words: str) -> dict[str, Any]:
        """Why a run waits, or why a deployment has none, as `pilotage.planner.detect.why.why_it_waits` says it.

        Raises ApiRejection when the words name neither.
        """
        found = None
        if self._store is not None:
            found = await asyncio.to_thread(
                why_it_waits, self._store, words[:500], self._clock(), self._parameters
            )
        if found is None:
            raise ApiRejection(
                "unknown-subject",
                f"Looking for {words[:80]!r}: telemetry has no run and no deployment of that name.",
            )
        return found

    async def permissions(self, caller: Identity) -> dict[str, dict[str, Any]]:
        """What the caller and the agent may do at all: `{you, agent}`, each `{name, commands, proposes}`."""
        return {
            "you": await asyncio.to_thread(self._open_to, caller),
            "agent": await asyncio.to_thread(self._open_to, self._agent),
        }

    def _open_to(self, who: Identity) -> dict[str, Any]:
        return {
            "name": who.name,
            "roles": sorted(who.roles),
            "commands": commands_open_to(self._gate, who, self._mode(), self._clock()),
            "proposes": list(permitted_kinds(self._gate, who)),
        }
