"""Votes, the lending of the right to vote, and what happens to a proposal that nobody votes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from pilotage.planner.actions.types import target_of
from pilotage.policies.audit import chain as log
from pilotage.policies.audit.chain import Entry
from pilotage.policies.digests import digest_of
from pilotage.policies.grants import Delegation, acting, still_active
from pilotage.policies.json_values import moment, timestamp
from pilotage.policies.ledger.plans import plan_of
from pilotage.policies.ledger.protocol import OPEN
from pilotage.policies.ledger.rows import Row, as_text, dicts, filed_from, vote_from
from pilotage.policies.ledger.schema import delegations, escalations, proposals, votes
from pilotage.policies.ledger.steps import NO_PROPOSAL, found, note, note_row, set_status, status_in
from pilotage.policies.ledger.transaction import Transactions
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, Identity, Outcome, Verdict, Vote

CurrentIdentity = Callable[[str], Identity | None]
"""Who this person is now, by name; None when there is no such person any more."""


class VoteRepository:
    """The part of the ledger that people's answers go through."""

    def vote(
        self: Transactions,
        proposal_id: str,
        digest: str,
        voter: Identity,
        decision: Literal["approve", "reject"],
        reason: str,
        verdict: Verdict,
        at: datetime,
        *,
        delegated_by: str = "",
    ) -> Vote | Verdict:
        """The vote that now counts, or the refusal; `verdict` is the gate's answer to the vote itself.

        `voter` and `delegated_by` as `acting` gives them.
        """
        with self.writing(f"voting on {proposal_id}") as connection:
            filed = found(connection, proposal_id)
            if filed is None:
                return refused("!not-filed", detail=proposal_id)
            refusal = _refusal(connection, filed, digest, voter, decision, verdict, delegated_by)
            if refusal is not None:
                note(connection, filed, "vote_refused", at, voter.name, decision=decision, verdict=refusal)
                return refusal
            row: dict[str, Any] = {
                "proposal_id": proposal_id,
                "digest": digest,
                "voter": voter.name,
                "role": ",".join(sorted(voter.roles)),
                "teams": as_text(voter.teams),
                "delegated_by": delegated_by,
                "decision": decision,
                "reason": reason,
                "at": timestamp(at),
            }
            connection.execute(votes.insert().values(**row))
            if decision == "reject":
                set_status(connection, proposal_id, "rejected")
            event = "approved" if decision == "approve" else "rejected"
            note(
                connection,
                filed,
                event,
                at,
                voter.name,
                digest=digest,
                reason=reason,
                roles=voter.roles,
                delegated_by=delegated_by,
                verdict=verdict,
            )
            return vote_from(row)

    def delegate(self: Transactions, delegation: Delegation, verdict: Verdict) -> bool:
        """True when the right is lent now; `verdict` is the gate's answer, and a refusal is a row as well."""
        with self.writing("delegating") as connection:
            allowed = verdict.outcome is Outcome.ALLOW and delegation.giver != delegation.taker
            if allowed:
                connection.execute(
                    delegations.insert().values(
                        giver=delegation.giver,
                        taker=delegation.taker,
                        reason=delegation.reason,
                        since=timestamp(delegation.since),
                        until=timestamp(delegation.until),
                        teams=as_text(delegation.teams),
                        ended_at="",
                    )
                )
            log.append(
                connection,
                Entry(
                    event="delegated" if allowed else "delegation_refused",
                    at=delegation.since,
                    actor=delegation.giver,
                    detail={"delegation": delegation, "verdict": verdict},
                ),
            )
            return allowed

    def end_delegations(self: Transactions, giver: str, at: datetime) -> int:
        """How many of this person's delegations were ended by this call."""
        with self.writing("ending delegations") as connection:
            result = connection.execute(
                delegations.update()
                .where(delegations.c.giver == giver, delegations.c.ended_at == "")
                .values(ended_at=timestamp(at))
            )
            if result.rowcount:
                log.append(
                    connection,
                    Entry(event="delegation_ended", at=at, actor=giver, detail={"ended": result.rowcount}),
                )
            return result.rowcount

    def acting(self: Transactions, voter: Identity, now: datetime) -> tuple[Identity, str]:
        """The voter with what was lent to them, and by whom, or empty when the right is their own."""
        with self.reading("reading delegations") as connection:
            return acting(voter, _delegations(connection, voter.name, now), now)

    def escalate(self: Transactions, now: datetime, after: timedelta, to: str = "admin") -> list[str]:
        """The ids of proposals that have waited for approvals for longer than `after`, each told of once.

        What was asked of approvers is then everybody's of role `to`; the requirement itself stays as it is.
        """
        with self.writing("escalating") as connection:
            notified = sa.select(escalations.c.proposal_id)
            waiting = sa.select(proposals).where(
                proposals.c.status == "needs_approval",
                proposals.c.filed_at <= timestamp(now - after),
                proposals.c.expires_at > timestamp(now),
                proposals.c.id.not_in(notified),
            )
            rows = dicts(connection.execute(waiting.order_by(proposals.c.filed_at, proposals.c.id)))
            for row in rows:
                connection.execute(
                    escalations.insert().values(proposal_id=row["id"], asked=to, at=timestamp(now))
                )
                note_row(
                    connection,
                    row,
                    "escalated",
                    now,
                    "clock",
                    to=to,
                    waited_since=row["filed_at"],
                )
            return [row["id"] for row in rows]


def votes_in(
    connection: sa.Connection, proposal_id: str, current_identity: CurrentIdentity | None
) -> tuple[Vote, ...]:
    """The votes on a proposal, in order, with what their voters may still do when `current_identity` can tell.

    When it cannot, because the users file went bad, no approval counts; a rejection always does.
    """
    rows = connection.execute(
        sa.select(votes).where(votes.c.proposal_id == proposal_id).order_by(votes.c.seq)
    )
    cast = tuple(vote_from(row) for row in dicts(rows))
    if current_identity is None:
        return cast
    names = {name for vote in cast for name in (vote.voter, vote.delegated_by) if name}
    try:
        people = {name: current_identity(name) for name in names}
    except Exception:  # not knowing who somebody is means that they may nothing
        people = {}
    return still_active(cast, people)


def plan_votes_in(
    connection: sa.Connection,
    filed: FiledProposal,
    now: datetime,
    current_identity: CurrentIdentity | None,
) -> tuple[Vote, ...]:
    """The votes on earlier steps of the plan that a proposal is the next step of, as votes on it.

    What people saw said how often and after which waits the run is tried. A step is of that plan only when it names
    the same plan (which is in the digest that they voted on), by the same proposer, and differs in its wait alone.
    """
    ref = plan_of(filed)
    if not ref:
        return ()
    earlier = connection.execute(
        sa.select(proposals).where(
            proposals.c.kind == filed.proposal.action.kind,
            proposals.c.target == target_of(filed.proposal.action),
            proposals.c.id != filed.proposal.id,
            proposals.c.filed_at < timestamp(filed.filed_at),
            proposals.c.filed_at > timestamp(now - PLAN_LASTS),
            proposals.c.status != "replaced",
        )
    )
    votes_cast: list[Vote] = []
    for row in dicts(earlier):
        try:
            step = filed_from(row)
        except NO_PROPOSAL:
            continue  # nobody's vote on what cannot be read counts for anything else
        same = step.proposal.action.model_copy(update={"delay": timedelta(0)}) == (
            filed.proposal.action.model_copy(update={"delay": timedelta(0)})
        )
        if plan_of(step) != ref or not same or step.proposer.name != filed.proposer.name:
            continue
        if digest_of(step.proposal, step.proposer) != step.digest:
            continue
        votes_cast += [
            replace(vote, proposal_id=filed.proposal.id, digest=filed.digest)
            for vote in votes_in(connection, step.proposal.id, current_identity)
            if vote.digest == step.digest
        ]
    return tuple(votes_cast)


PLAN_LASTS = timedelta(hours=24)
"""How long what was said of a plan holds for its further steps."""


def _delegations(connection: sa.Connection, taker: str, now: datetime) -> tuple[Delegation, ...]:
    rows = connection.execute(
        sa.select(delegations).where(
            delegations.c.taker == taker,
            delegations.c.ended_at == "",
            delegations.c.until > timestamp(now),
        )
    )
    return tuple(_delegation(row) for row in dicts(rows))


def _delegation(row: Row) -> Delegation:
    return Delegation(
        giver=row["giver"],
        taker=row["taker"],
        reason=row["reason"],
        since=moment(row["since"]),
        until=moment(row["until"]),
        teams=frozenset(json.loads(row["teams"])),
    )


def _refusal(
    connection: sa.Connection,
    filed: FiledProposal,
    digest: str,
    voter: Identity,
    decision: str,
    verdict: Verdict,
    delegated_by: str,
) -> Verdict | None:
    if digest != filed.digest or digest_of(filed.proposal, filed.proposer) != digest:
        return refused("!other-digest")
    if verdict.outcome is not Outcome.ALLOW:
        return verdict
    if delegated_by and delegated_by in (filed.proposer.name, filed.proposal.on_behalf_of):
        return refused("!lent-by-proposer", detail=delegated_by)
    if status_in(connection, filed.proposal.id) not in OPEN:
        return refused("!closed", detail=status_in(connection, filed.proposal.id))
    before = connection.execute(
        sa.select(votes.c.seq).where(
            votes.c.proposal_id == filed.proposal.id,
            votes.c.voter == voter.name,
            votes.c.decision == decision,
        )
    ).first()
    return refused("!voted-before") if before is not None else None
