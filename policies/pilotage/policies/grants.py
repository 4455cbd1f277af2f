"""Rights that are lent for a while: breaking the glass, and voting in somebody's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Protocol

from pilotage.planner.actions.types import ActionKind, target_of
from pilotage.policies.roles import Role, expanded
from pilotage.policies.types import FiledProposal, Identity, TargetFacts, Vote


class Asked(Protocol):
    """What policy wants to know of a grant before it is given."""

    @property
    def until(self) -> datetime:
        """When it ends by itself."""
        ...

    @property
    def reason(self) -> str:
        """Why it is needed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlassGrant:
    """One person's own, short right to go beyond budgets, cooldowns, breakers and freezes."""

    id: str
    holder: str
    """The person who broke the glass; it covers what this very person proposes."""
    reason: str
    since: datetime
    until: datetime
    kinds: tuple[ActionKind, ...]
    """The kinds of action that it covers; named, never all by default."""
    targets: tuple[str, ...]
    """Patterns of `run:…`, `queue:pool/queue`, `deployment:…` or of the full name of the deployment."""

    def covers(self, filed: FiledProposal, target: TargetFacts | None, now: datetime) -> bool:
        """Whether it stands now, for this proposer, this kind of action and this target."""
        names = [target_of(filed.proposal.action)]
        if target is not None and target.deployment_name:
            names.append(target.deployment_name)
        return (
            self.since <= now < self.until
            and filed.proposer.kind == "user"
            and filed.proposer.name == self.holder
            and filed.proposer.scope is None
            and filed.proposal.action.kind in self.kinds
            and any(fnmatchcase(name, pattern) for name in names for pattern in self.targets)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """One person's right to approve, used by another for a while. It cannot be passed on."""

    giver: str
    taker: str
    reason: str
    since: datetime
    until: datetime
    teams: frozenset[str] = frozenset()
    """The giver's teams when it was given."""


def acting(voter: Identity, delegations: tuple[Delegation, ...], now: datetime) -> tuple[Identity, str]:
    """The voter with what was lent to them, and whose right that is; their own right comes first.

    Only the right to approve is lent, never the admin's, and never to somebody who has it anyway. A token that was
    narrowed to some roles is lent nothing beside them.
    """
    if voter.kind != "user" or voter.scope is not None or Role.APPROVER in expanded(voter.roles):
        return voter, ""
    lent = [
        delegation
        for delegation in delegations
        if delegation.taker == voter.name and delegation.since <= now < delegation.until
    ]
    if not lent:
        return voter, ""
    first = min(lent, key=lambda delegation: (delegation.since, delegation.giver))
    roles = voter.roles | {Role.APPROVER.value}
    return Identity(name=voter.name, kind=voter.kind, roles=roles, teams=first.teams), first.giver


def still_active(votes: tuple[Vote, ...], people: Mapping[str, Identity | None]) -> tuple[Vote, ...]:
    """The votes with what their voters may still do: a right that was taken away since counts no more.

    A rejection stands whatever became of the person. `people` is everybody who voted or lent, by name.
    """
    kept: list[Vote] = []
    for vote in votes:
        if vote.decision == "reject":
            kept.append(vote)
            continue
        person, giver = people.get(vote.voter), people.get(vote.delegated_by)
        source = giver if vote.delegated_by else person
        if person is None or source is None or person.kind != "user":
            continue
        roles = expanded(source.roles) & expanded(vote.role.split(","))
        if vote.delegated_by:
            roles &= {Role.APPROVER.value}
        kept.append(
            Vote(
                proposal_id=vote.proposal_id,
                digest=vote.digest,
                voter=vote.voter,
                role=",".join(sorted(roles)),
                teams=vote.teams & source.teams,
                delegated_by=vote.delegated_by,
                decision=vote.decision,
                reason=vote.reason,
                at=vote.at,
            )
        )
    return tuple(kept)
