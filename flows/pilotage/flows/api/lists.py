"""Lists at the API, page by page: what the arguments of a caller ask for, checked, as a query of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pilotage.flows.api.client import ApiRejection
from pilotage.flows.api.resolve import Resolver
from pilotage.flows.api.server import READERS, Operation
from pilotage.policies.ledger.protocol import Ledger, Status
from pilotage.policies.ledger.queries import (
    MOST,
    AuditQuery,
    IncidentQuery,
    IncidentSort,
    IncidentState,
    Person,
    ProposalQuery,
    ProposalSort,
)
from pilotage.policies.roles import APPROVAL_ROLES, OWNER, Role, expanded
from pilotage.policies.types import Identity


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: str = Field("", max_length=200)
    after: str = Field("", max_length=400)
    limit: int = Field(50, ge=1, le=MOST)


class ProposalsAsked(_Asked):
    """Which proposals; `mine` are those that wait for the caller, `without` ids that the caller put off."""

    status: Status | Literal[""] = ""
    deployment: str = Field("", max_length=300)
    team: str = Field("", max_length=300)
    kind: str = Field("", max_length=100)
    env: str = Field("", max_length=100)
    incident: str = Field("", max_length=100)
    mine: bool = False
    without: Sequence[str] = Field((), max_length=5000)
    sort: ProposalSort = "newest"

    def query(self, mine: Person | None) -> ProposalQuery:
        """The ledger's query; `mine` is who asks, where only theirs are wanted."""
        return ProposalQuery(**{**self.model_dump(), "mine": mine if self.mine else None})


class IncidentsAsked(_Asked):
    """Which incidents."""

    state: IncidentState = "all"
    deployment: str = Field("", max_length=300)
    team: str = Field("", max_length=300)
    sort: IncidentSort = "newest"

    def query(self) -> IncidentQuery:
        """The ledger's query."""
        return IncidentQuery(**self.model_dump())


class AuditAsked(_Asked):
    """Which entries of the audit log; `changes` folds what changed nothing."""

    incident: str = Field("", max_length=100)
    person: str = Field("", max_length=100)
    policy: str = Field("", max_length=100)
    event: str = Field("", max_length=60)
    changes: bool = False

    def query(self) -> AuditQuery:
        """The ledger's query."""
        return AuditQuery(**self.model_dump())


def person_of(caller: Identity) -> Person:
    """Which seats a caller can fill, with what was lent to them."""
    roles = expanded(caller.roles)
    return Person(
        name=caller.name,
        seats=frozenset(str(role) for role in APPROVAL_ROLES if role in roles and role != OWNER),
        teams=caller.teams if Role.APPROVER in roles else frozenset(),
    )


class ListEndpoints:
    """Answers what changes nothing and every role may ask."""

    def __init__(self, *, ledger: Ledger, names: Resolver, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._names = names
        self._clock = clock

    def table(self) -> dict[str, Operation]:
        """Every operation by name."""
        return {
            "proposal_page": Operation(run=self.proposal_page, roles=READERS),
            "proposal_choices": Operation(run=self.proposal_choices, roles=READERS),
            "incident_page": Operation(run=self.incident_page, roles=READERS),
            "holds": Operation(run=self.holds, roles=READERS),
            "audit_page": Operation(run=self.audit_page, roles=READERS),
        }

    async def proposal_page(self, caller: Identity, **arguments: Any) -> dict[str, Any]:
        """`{rows, count, next}` of the proposals that are asked for, see `ProposalsAsked`."""
        asked = ProposalsAsked.model_validate(arguments)
        mine = None
        if asked.mine:
            acting, _ = await asyncio.to_thread(self._ledger.acting, caller, self._clock())
            mine = person_of(acting)
        query = asked.query(mine)
        return await self._page(lambda: self._ledger.proposal_page(query), asked.after)

    async def proposal_choices(self, caller: Identity, status: str = "") -> dict[str, dict[str, int]]:
        """What the proposals of a status can be filtered by, each with its count."""
        return await asyncio.to_thread(self._ledger.proposal_choices, status)

    async def incident_page(self, caller: Identity, **arguments: Any) -> dict[str, Any]:
        """`{rows, count, counts, next}` of the incidents that are asked for, see `IncidentsAsked`."""
        asked = IncidentsAsked.model_validate(arguments)
        return await self._page(lambda: self._ledger.incident_page(asked.query()), asked.after)

    async def holds(self, caller: Identity) -> list[dict[str, Any]]:
        """What was changed for a time that ends later, the next to end first."""
        return await asyncio.to_thread(self._ledger.holds, self._clock())

    async def audit_page(self, caller: Identity, **arguments: Any) -> dict[str, Any]:
        """`{rows, count, folded, next}` of the audit log, see `AuditAsked`."""
        asked = AuditAsked.model_validate(arguments)
        if asked.incident:
            incident = await asyncio.to_thread(self._names.resolve, asked.incident, "incident")
            asked = asked.model_copy(update={"incident": incident})
        return await self._page(lambda: self._ledger.audit_page(asked.query()), asked.after)

    async def _page(self, read: Callable[[], dict[str, Any]], after: str) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(read)
        except ValueError as exc:
            raise ApiRejection(
                "bad-request", f"Reading on after {after[:80]!r}: it is no end of a page. Begin again."
            ) from exc
