"""What lists of the ledger are asked for: which rows, in which order, from where on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ProposalSort = Literal["newest", "oldest", "expiry", "risk", "deployment"]
IncidentSort = Literal["newest", "oldest"]
IncidentState = Literal["open", "over", "all"]
MOST = 200
"""Rows of one page."""
QUIET_EVENTS = ("claimed", "judged", "waiting")
"""Entries after which everything is as it was: steps of the machinery."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """For whom it is asked which proposals wait for them."""

    name: str
    seats: frozenset[str]
    """Roles whose seat they can fill."""
    teams: frozenset[str] = frozenset()
    """Teams for which they fill the seat `owner`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposalQuery:
    """Which proposals, in which order. An empty text asks for all."""

    status: str = ""
    deployment: str = ""
    team: str = ""
    kind: str = ""
    env: str = ""
    incident: str = ""
    words: str = ""
    """All of them occur in the proposal's id, action, target, deployment, class, error or notes."""
    mine: Person | None = None
    """Only what this person's approval is missing of."""
    without: Sequence[str] = ()
    """Ids that are left out: what the caller put off."""
    sort: ProposalSort = "newest"
    after: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentQuery:
    """Which incidents, in which order."""

    state: IncidentState = "all"
    deployment: str = ""
    team: str = ""
    words: str = ""
    sort: IncidentSort = "newest"
    after: str = ""
    limit: int = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which entries of the audit log, the newest first."""

    incident: str = ""
    person: str = ""
    policy: str = ""
    """The id of a policy or of a rule of ours that a verdict rests on."""
    event: str = ""
    words: str = ""
    changes: bool = False
    """Without what changed nothing: see QUIET_EVENTS."""
    after: str = ""
    limit: int = 50
