"""The gate: the one place where facts become a verdict.

Three answers without trust in annotations. Q1: with the approvals that exist, does the engine allow it? Q2:
with every seat filled, would it? If not, it is denied whatever anybody approves. Otherwise the requirement
is the cheapest set of seats that the engine itself accepts, so policy text and enforcement cannot drift
apart. Any error, any missing fact, any surprise is a denial. The gate reads no clock, no file and no
database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Literal

from pilotage.planner.actions import target_of
from pilotage.policies import slices
from pilotage.policies.bundle import Bundle
from pilotage.policies.digests import digest_of
from pilotage.policies.engines import EngineRequest, Entity, RawAnswer, Uid
from pilotage.policies.refusals import refused
from pilotage.policies.roles import APPROVAL_ROLES, expanded
from pilotage.policies.seats import fillable, unfilled
from pilotage.policies.verdicts import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict, Vote

MOST_SEATS = 3
"""The most seats of one role that a policy may ask for; saturation fills this many of each."""
LONG_AGO = 10**9
"""Seconds since the same target was acted on, when it never was."""
CLOCK_SKEW = timedelta(seconds=2)
"""Facts may seem to come from the future by this much; more is a broken clock."""

Stage = Literal["judge", "inject"]
Command = Literal["stop", "resume", "undo", "set_mode"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFacts:
    """What the ledger says at one moment about one proposal and the traffic around it."""

    stage: Stage
    mode: Mode
    stopped: bool = False
    """The kill switch."""
    actions_1h: int = 0
    """Admitted within the hour: notifications for a notification, changes for everything else."""
    actions_of_run_24h: int = 0
    """Retries and resizes of the same run admitted within 24 hours."""
    actions_of_deployment_1h: int = 0
    """Changes to the same deployment and its runs admitted within the hour."""
    seconds_since_same_target: int | None = None
    """Since the last change to the same target was admitted; None when there was none."""
    votes: tuple[Vote, ...] = ()
    """Every vote on the proposal, whatever digest it was for."""
    evidence_tainted: bool = False
    """True when the evidence quotes text that a user's code or a third party wrote; only ever tightens."""


class Gate:
    """Judges proposals, votes and commands under one bundle, which can be swapped while it works."""

    def __init__(self, bundle: Bundle, roles: Sequence[str] = APPROVAL_ROLES) -> None:
        self._bundle = bundle
        self._roles = tuple(str(role) for role in roles)

    @property
    def bundle(self) -> Bundle:
        """The bundle in force."""
        return self._bundle

    def reload(self, bundle: Bundle) -> None:
        """Puts another bundle in force. One assignment: a decision that has begun ends under the old one."""
        self._bundle = bundle

    def judge(
        self, filed: FiledProposal, target: TargetFacts | None, ledger: LedgerFacts, now: datetime
    ) -> Verdict:
        """The verdict on a proposal; never raises."""
        bundle = self._bundle
        try:
            refusal = _refusal(filed, target, ledger, now, bundle)
            if refusal is not None or target is None:
                return refusal or refused("!missing-fact", bundle=bundle.hash)
            return self._three_way(bundle, filed, target, ledger, now)
        except slices.MissingFact as exc:
            return refused("!missing-fact", detail=str(exc), bundle=bundle.hash)
        except Exception as exc:  # any surprise is a denial
            return refused("!evaluation-error", bundle=bundle.hash, errors=(f"{type(exc).__name__}: {exc}",))

    def judge_vote(
        self,
        voter: Identity,
        filed: FiledProposal,
        digest: str,
        decision: Literal["approve", "reject"],
        now: datetime,
    ) -> Verdict:
        """Whether this person may cast this vote on the text with this digest; never raises."""
        bundle = self._bundle
        try:
            intact = digest_of(filed.proposal, filed.proposer) == filed.digest
        except Exception as exc:  # text that cannot be hashed is not the text that was filed
            return refused("!tampered", detail=type(exc).__name__, bundle=bundle.hash)
        if filed.digest != digest or not intact:
            return refused("!other-digest", bundle=bundle.hash)
        uid, entities = slices.proposal_resource(filed, now)
        context = {"digest": digest, "decision": decision}
        return _plain(bundle, voter, "approve", uid, entities, context)

    def judge_command(
        self,
        identity: Identity,
        command: Command,
        *,
        mode: Mode,
        now: datetime,
        to: Mode | None = None,
        filed: FiledProposal | None = None,
    ) -> Verdict:
        """Whether this caller may give this command: `to` for set_mode, `filed` for undo; never raises."""
        bundle = self._bundle
        if (command == "undo") != (filed is not None) or (command == "set_mode") != (to is not None):
            return refused("!missing-fact", detail=f"what {command} is about", bundle=bundle.hash)
        context = {} if to is None else {"to": to.value}
        if filed is not None:
            uid, entities = slices.proposal_resource(filed, now)
        else:
            uid = Uid(type="Installation", id="pilotage")
            entities = (Entity(uid=uid, attributes={"mode": mode.value}),)
        return _plain(bundle, identity, command, uid, entities, context)

    def _three_way(
        self, bundle: Bundle, filed: FiledProposal, target: TargetFacts, ledger: LedgerFacts, now: datetime
    ) -> Verdict:
        action = filed.proposal.action
        who, who_entities = slices.principal(filed.proposer)
        what, what_entities = slices.resource(action, target, bundle.guardrails)
        entities = (*who_entities, *what_entities)
        people = _people(filed, ledger)
        args, world = slices.arguments(action, target, filed.filed_at), _world(bundle, ledger, now)

        def ask(seatings: Sequence[Mapping[str, int]]) -> tuple[RawAnswer, ...]:
            return bundle.engine.evaluate(
                [
                    EngineRequest(
                        principal=who,
                        action=action.kind,
                        resource=what,
                        context={
                            "args": args,
                            "world": {**world, "approvals": dict(seating)},
                        },
                    )
                    for seating in seatings
                ],
                entities,
            )

        real = ask(fillable(self._roles, people, MOST_SEATS))
        for answer in real:
            if answer.errors:
                return refused("!evaluation-error", bundle=bundle.hash, errors=answer.errors)
        allowing = next((answer for answer in real if answer.allowed), None)
        if allowing is not None:
            return _explained(bundle, Outcome.ALLOW, allowing.deciding)
        (saturated,) = ask([dict.fromkeys(self._roles, MOST_SEATS)])
        if saturated.errors:
            return refused("!evaluation-error", bundle=bundle.hash, errors=saturated.errors)
        if not saturated.allowed:
            if not saturated.deciding:
                return refused("!default-deny", bundle=bundle.hash)
            return _explained(bundle, Outcome.DENY, saturated.deciding)
        missing = self._cheapest(people, ask)
        if missing is None:
            return refused(
                "!evaluation-error", bundle=bundle.hash, errors=("no set of approvals was accepted",)
            )
        asking = sorted({name for answer in real for name in answer.deciding})
        return replace(
            _explained(bundle, Outcome.NEEDS_APPROVAL, asking),
            requirements=missing,
            would_change=tuple(f"{count} more approval(s) by {role}" for role, count in missing.items()),
        )

    def _cheapest(
        self,
        people: Mapping[str, frozenset[str]],
        ask: Callable[[Sequence[Mapping[str, int]]], tuple[RawAnswer, ...]],
    ) -> dict[str, int] | None:
        """The fewest seats still missing with which the engine allows it, or None when it never does."""
        seatings = [
            dict(zip(self._roles, counts, strict=True))
            for counts in sorted(
                product(range(MOST_SEATS + 1), repeat=len(self._roles)), key=lambda c: (sum(c), c[::-1])
            )
        ]
        missing = [(unfilled(seating, people), seating) for seating in seatings]
        for left, seating in sorted(missing, key=lambda pair: sum(pair[0].values())):
            # with nothing missing it was asked before, and refused
            if left:
                (answer,) = ask([seating])
                if answer.allowed and not answer.errors:
                    return left
        return None


def _refusal(
    filed: FiledProposal, target: TargetFacts | None, ledger: LedgerFacts, now: datetime, bundle: Bundle
) -> Verdict | None:
    """The refusal that needs no policy, or None."""
    proposal = filed.proposal
    if digest_of(proposal, filed.proposer) != filed.digest:
        return refused("!tampered", bundle=bundle.hash)
    if proposal.expires_at <= now:
        return refused("!expired", detail=f"at {proposal.expires_at.isoformat()}", bundle=bundle.hash)
    vetoes = [vote for vote in ledger.votes if vote.decision == "reject" and vote.digest == filed.digest]
    if vetoes:
        return refused("!vetoed", detail=f"{vetoes[0].voter}", bundle=bundle.hash)
    if target is None:
        return refused("!missing-fact", detail="the target's present state", bundle=bundle.hash)
    if target.target != target_of(proposal.action):
        return refused("!missing-fact", detail=f"facts are about {target.target}", bundle=bundle.hash)
    age = now - target.read_at
    if ledger.stage == "inject" and not -CLOCK_SKEW <= age <= bundle.guardrails.facts_max_age:
        return refused("!stale-facts", detail=f"{age.total_seconds():.1f} s old", bundle=bundle.hash)
    if proposal.expected_state_id and proposal.expected_state_id != target.state_id:
        return refused(
            "!stale-target", detail=f"it is {target.state_name or target.state_type}", bundle=bundle.hash
        )
    return None


def _people(filed: FiledProposal, ledger: LedgerFacts) -> dict[str, frozenset[str]]:
    """Who approved this very text, and what each can fill; never the proposer or whoever is behind it."""
    barred = {filed.proposer.name, filed.proposal.on_behalf_of}
    return {
        vote.voter: expanded(vote.role.split(","))
        for vote in ledger.votes
        if vote.decision == "approve"
        and vote.proposal_id == filed.proposal.id
        and vote.digest == filed.digest
        and vote.voter not in barred
    }


def _world(bundle: Bundle, ledger: LedgerFacts, now: datetime) -> dict[str, Any]:
    since = ledger.seconds_since_same_target
    return {
        "mode": ledger.mode.value,
        "stage": ledger.stage,
        "stopped": ledger.stopped,
        "frozen": bundle.guardrails.frozen_at(now),
        "tainted": ledger.evidence_tainted,
        "budget": {
            "actions_1h": ledger.actions_1h,
            "attempts_of_run_24h": ledger.actions_of_run_24h,
            "actions_of_deployment_1h": ledger.actions_of_deployment_1h,
            "seconds_since_same_target": LONG_AGO if since is None else since,
        },
        "limits": bundle.guardrails.limits(),
    }


def _explained(bundle: Bundle, outcome: Outcome, deciding: Sequence[str]) -> Verdict:
    notes = [bundle.notes[name] for name in deciding if name in bundle.notes]
    return Verdict(
        outcome=outcome,
        policy_ids=tuple(deciding),
        reasons=tuple(note.reason for note in notes),
        would_change=tuple(note.would_change for note in notes if note.would_change),
        bundle=bundle.hash,
    )


def _plain(
    bundle: Bundle,
    identity: Identity,
    action: str,
    what: Uid,
    what_entities: tuple[Entity, ...],
    context: Mapping[str, Any],
) -> Verdict:
    """Allow or deny, for what approvals do not bear on."""
    try:
        who, who_entities = slices.principal(identity)
        request = EngineRequest(principal=who, action=action, resource=what, context=context)
        (answer,) = bundle.engine.evaluate([request], (*who_entities, *what_entities))
    except Exception as exc:  # any surprise is a denial
        return refused("!evaluation-error", bundle=bundle.hash, errors=(f"{type(exc).__name__}: {exc}",))
    if answer.errors:
        return refused("!evaluation-error", bundle=bundle.hash, errors=answer.errors)
    if not answer.allowed and not answer.deciding:
        return refused("!default-deny", bundle=bundle.hash)
    return _explained(bundle, Outcome.ALLOW if answer.allowed else Outcome.DENY, answer.deciding)
