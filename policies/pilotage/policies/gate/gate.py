"""The gate: the one place where facts become a verdict.

Three answers without trust in annotations. Q1: with the approvals that exist, does the engine allow it? Q2:
with every seat filled, would it? If not, it is denied whatever anybody approves. Otherwise the requirement
is the cheapest set of seats that the engine itself accepts, so policy text and enforcement cannot drift
apart. What an agent proposes for a person is judged for both, and the stricter
answer holds. Any error, any missing fact, any surprise is a denial. The gate reads no clock, no file and no
database.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar

from pilotage.planner.actions.preconditions import AGAIN, STARTED_BY_A_WORKER, KnownRun, why_not
from pilotage.planner.actions.types import target_of
from pilotage.policies.cedar import entities as cedar_entities
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.cedar.context import cedar_context
from pilotage.policies.cedar.protocol import EngineRequest, Entity, RawAnswer, Uid
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.quorum import candidate_quorums, fillable
from pilotage.policies.grants import Asked
from pilotage.policies.ledger_facts import Autonomy
from pilotage.policies.ledger_facts import LedgerFacts as LedgerFacts
from pilotage.policies.ledger_facts import Stage as Stage
from pilotage.policies.refusals import refused
from pilotage.policies.roles import APPROVAL_ROLES, OWNER, Role, expanded
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, TargetFacts, Verdict, Vote

MOST_APPROVAL_REQUIREMENTS = 3
"""The most seats of one role that a policy may ask for; saturation fills this many of each."""
_KEPT_AT_MOST = 1000
"""Answers that are kept for one bundle; far more than an installation has people and agents."""
CLOCK_SKEW = timedelta(seconds=2)
"""Facts may seem to come from the future by this much; more is a broken clock."""

T = TypeVar("T")

Command = Literal[
    "stop", "resume", "undo", "set_mode", "break_glass", "delegate", "set_autonomy", "publish_policy"
]
_NEEDS: Mapping[Command, frozenset[str]] = {
    "undo": frozenset({"filed"}),
    "set_mode": frozenset({"to"}),
    "set_autonomy": frozenset({"to"}),
    "break_glass": frozenset({"grant"}),
    "delegate": frozenset({"grant"}),
}
"""What a command must say beside its name; nothing more and nothing less."""


class Gate:
    """Judges proposals, votes and commands under one bundle, which can be swapped while it works."""

    def __init__(
        self,
        bundle: Bundle,
        roles: Sequence[str] = APPROVAL_ROLES,
        *,
        server_lacks: Mapping[str, str] | None = None,
    ) -> None:
        """Judge under this bundle. `server_lacks`: kinds that the Prefect server cannot carry, each with the reason."""
        self._bundle = bundle
        self.server_lacks = dict(server_lacks or {})
        self._roles = tuple(str(role) for role in roles)
        self._kept: tuple[Bundle, dict[Hashable, Any]] = (bundle, {})

    @property
    def bundle(self) -> Bundle:
        """The bundle in force."""
        return self._bundle

    def reload(self, bundle: Bundle) -> None:
        """Puts another bundle in force. One assignment: a decision that has begun ends under the old one."""
        self._bundle = bundle

    def kept(self, key: Hashable, made: Callable[[Bundle], T]) -> T:
        """What follows from the bundle in force alone: made once for each bundle and key, then looked up."""
        bundle = self._bundle
        if self._kept[0] is not bundle:
            self._kept = (bundle, {})
        known = self._kept[1]
        if key not in known:
            if len(known) >= _KEPT_AT_MOST:
                known.clear()
            known[key] = made(bundle)
        answer: T = known[key]
        return answer

    def judge(
        self, filed: FiledProposal, target: TargetFacts | None, ledger: LedgerFacts, now: datetime
    ) -> Verdict:
        """The verdict on a proposal; never raises."""
        bundle = self._bundle
        if why := self.server_lacks.get(filed.proposal.action.kind):
            return refused("!server-lacks", detail=why, bundle=bundle.hash)
        try:
            refusal = _refusal(filed, target, ledger, now, bundle)
            if refusal is not None or target is None:
                return refusal or refused("!missing-fact", bundle=bundle.hash)
            own = self._three_way(bundle, filed, target, ledger, now)
            known = KnownRun(state_type=target.state_type, has_deployment=bool(target.deployment_id))
            if own.outcome is not Outcome.DENY and (why := why_not(filed.proposal.action, known)):
                return refused("!precondition", detail=why, bundle=bundle.hash)
            own = _with_what_is_assumed(own, target, bundle)
            person = filed.proposal.on_behalf_of
            if not person or person == filed.proposer.name:
                return own
            if ledger.behind is None or ledger.behind.name != person:
                return refused("!nobody-behind", detail=person, bundle=bundle.hash)
            return _stricter(own, self._three_way(bundle, filed, target, ledger, now, ledger.behind), person)
        except cedar_entities.MissingFact as exc:
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
        uid, entities = cedar_entities.proposal_resource(filed, now)
        context = {"digest": digest, "decision": decision}
        return _plain(bundle, voter, "approve", uid, entities, context)

    def judge_command(
        self,
        identity: Identity,
        command: Command,
        *,
        mode: Mode,
        now: datetime,
        to: Mode | Autonomy | None = None,
        filed: FiledProposal | None = None,
        grant: Asked | None = None,
    ) -> Verdict:
        """Whether this caller may give this command; never raises.

        `to` for set_mode and set_autonomy, `filed` for undo, `grant` for break_glass and delegate.
        """
        bundle = self._bundle
        said = {"to": to, "filed": filed, "grant": grant}
        if {name for name, value in said.items() if value is not None} != _NEEDS.get(command, frozenset()):
            return refused("!missing-fact", detail=f"what {command} is about", bundle=bundle.hash)
        if command == "break_glass" and identity.scope is not None:
            return refused("!narrowed-token", bundle=bundle.hash)
        context: dict[str, Any] = {} if to is None else {"to": str(to)}
        if grant is not None:
            numbers = bundle.guardrails
            most = numbers.max_break_glass if command == "break_glass" else numbers.max_delegation
            context = {
                "ttl": math.ceil((grant.until - now).total_seconds()),
                "max_ttl": int(most.total_seconds()),
                "explained": bool(grant.reason.strip()),
            }
        if filed is not None:
            uid, entities = cedar_entities.proposal_resource(filed, now)
        else:
            uid = Uid(type="Installation", id="pilotage")
            entities = (Entity(uid=uid, attributes={"mode": mode.value}),)
        return _plain(bundle, identity, command, uid, entities, context)

    def _three_way(
        self,
        bundle: Bundle,
        filed: FiledProposal,
        target: TargetFacts,
        ledger: LedgerFacts,
        now: datetime,
        person: Identity | None = None,
    ) -> Verdict:
        """The verdict for the proposer, or for the person who is behind the proposal."""
        action = filed.proposal.action
        who, who_entities = cedar_entities.principal(person or filed.proposer)
        what, what_entities = cedar_entities.resource(action, target, bundle.guardrails)
        entities = cedar_entities.whole((who, what), (*who_entities, *what_entities))
        people = _people(filed, ledger, target.team)
        args = cedar_entities.arguments(action, target, filed.filed_at)
        world = cedar_context(bundle.guardrails, action, target, ledger, now)

        def ask(asked: Sequence[Mapping[str, int]]) -> tuple[RawAnswer, ...]:
            return bundle.engine.evaluate(
                [
                    EngineRequest(
                        principal=who,
                        action=action.kind,
                        resource=what,
                        context={
                            "args": args,
                            "world": {**world, "approvals": dict(quorum)},
                        },
                    )
                    for quorum in asked
                ],
                entities,
            )

        real = ask(fillable(self._roles, people, MOST_APPROVAL_REQUIREMENTS))
        for answer in real:
            if answer.errors:
                return refused("!evaluation-error", bundle=bundle.hash, errors=answer.errors)
        allowing = next((answer for answer in real if answer.allowed), None)
        if allowing is not None:
            return _explained(bundle, Outcome.ALLOW, allowing.deciding)
        # what denies blindly denies in every seating
        if hard_denials := next((answer.hard_denials for answer in real if answer.hard_denials), ()):
            return _explained(bundle, Outcome.DENY, hard_denials)
        missing = self._cheapest(bundle, people, ask)
        if isinstance(missing, Verdict):
            return missing
        if ledger.stage == "judge" and ledger.waiting_alike:
            return refused("!asked-already", bundle=bundle.hash)
        if ledger.stage == "judge" and ledger.waiting >= bundle.guardrails.max_waiting:
            return refused("!too-many-waiting", bundle=bundle.hash)
        asking = sorted({name for answer in real for name in answer.deciding})
        return replace(
            _explained(bundle, Outcome.NEEDS_APPROVAL, asking),
            requirements=dict(missing),
            would_change=tuple(f"{count} more approval(s) by {role}" for role, count in missing.items()),
        )

    def _cheapest(
        self,
        bundle: Bundle,
        people: Mapping[str, frozenset[str]],
        ask: Callable[[Sequence[Mapping[str, int]]], tuple[RawAnswer, ...]],
    ) -> Mapping[str, int] | Verdict:
        """The fewest seats still missing with which the engine allows it, or the refusal where no seats are enough."""

        def enough(approval_requirements: Mapping[str, int]) -> bool:
            (answer,) = ask([approval_requirements])
            return answer.allowed and not answer.errors

        # a set that is full already was asked before, and refused
        options = candidate_quorums(self._roles, people, MOST_APPROVAL_REQUIREMENTS)
        # the first is mostly enough; where it is not, whether any can be is asked before the many others
        for missing, approval_requirements in options[:1]:
            if enough(approval_requirements):
                return missing
        (saturated,) = ask([dict.fromkeys(self._roles, MOST_APPROVAL_REQUIREMENTS)])
        if saturated.errors:
            return refused("!evaluation-error", bundle=bundle.hash, errors=saturated.errors)
        if not saturated.allowed:
            if not saturated.deciding:
                return refused("!default-deny", bundle=bundle.hash)
            return _explained(bundle, Outcome.DENY, saturated.deciding)
        for missing, approval_requirements in options[1:]:
            if enough(approval_requirements):
                return missing
        return refused("!evaluation-error", bundle=bundle.hash, errors=("no set of approvals was accepted",))


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
    if ledger.run_closed and proposal.action.kind in STARTED_BY_A_WORKER:
        return refused("!not-needed", detail=ledger.run_closed, bundle=bundle.hash)
    unasked = filed.proposer.kind == "agent" and not proposal.on_behalf_of
    if unasked and target.read_as not in ("", filed.case.failure_class) and proposal.action.kind in AGAIN:
        return refused("!diagnosed-anew", detail=target.read_as, bundle=bundle.hash)
    if proposal.expected_state_id not in ("", target.state_id, target.late_since_id):
        return refused(
            "!stale-target", detail=f"it is {target.state_name or target.state_type}", bundle=bundle.hash
        )
    return None


def before_deciding(filed: FiledProposal, ledger_facts: LedgerFacts, now: datetime) -> Verdict | None:
    """The refusal that holds at admission whatever the decision would be, or None."""
    if filed.proposal.expires_at <= now:
        return refused("!expired", detail=f"at {filed.proposal.expires_at.isoformat()}")
    if ledger_facts.stopped:
        return refused("!stopped")
    vetoes = [
        vote for vote in ledger_facts.votes if vote.decision == "reject" and vote.digest == filed.digest
    ]
    return refused("!vetoed", detail=vetoes[0].voter) if vetoes else None


def _people(filed: FiledProposal, ledger: LedgerFacts, team: str) -> dict[str, frozenset[str]]:
    """Who approved this very text, and what each can fill; never the proposer or whoever is behind it."""
    barred = {filed.proposer.name, filed.proposal.on_behalf_of} - {""}
    valid_votes = [
        vote
        for vote in ledger.votes
        if vote.decision == "approve"
        and vote.proposal_id == filed.proposal.id
        and vote.digest == filed.digest
        and vote.voter not in barred
        and vote.delegated_by not in barred
    ]
    # a right that was lent is one right, whoever uses it: its owner's own vote takes its place
    ordered = sorted(valid_votes, key=lambda vote: not vote.delegated_by)
    return {vote.delegated_by or vote.voter: _approval_requirements(vote, team) for vote in ordered}


def _approval_requirements(vote: Vote, team: str) -> frozenset[str]:
    """What this person can fill: an approver of the team that owns the target is also its owner."""
    roles = expanded(vote.role.split(","))
    return roles | {OWNER} if team and team in vote.teams and Role.APPROVER in roles else roles


def _explained(bundle: Bundle, outcome: Outcome, deciding: Sequence[str]) -> Verdict:
    notes = [bundle.notes[name] for name in deciding if name in bundle.notes]
    return Verdict(
        outcome=outcome,
        policy_ids=tuple(deciding),
        reasons=tuple(note.reason for note in notes),
        would_change=tuple(note.would_change for note in notes if note.would_change),
        bundle=bundle.hash,
    )


UNTAGGED = "it counts as production because its deployment has no `env:` tag"
"""Why a deployment that nobody labelled is judged as strictly as it is."""


def _with_what_is_assumed(verdict: Verdict, target: TargetFacts, bundle: Bundle) -> Verdict:
    """Return the verdict, which says so when it is not an allow and the target is only taken for production."""
    labelled = any(tag.startswith("env:") for tag in target.tags)
    production = bundle.guardrails.production(target.env)
    if verdict.outcome is Outcome.ALLOW or labelled or not production or not target.deployment_id:
        return verdict
    *others, last = verdict.reasons or (
        "",
    )  # one reason for each policy, so it is said with the last of them
    return replace(verdict, reasons=(*others, f"{last}; {UNTAGGED}".removeprefix("; ")))


def _stricter(agent: Verdict, person: Verdict, name: str) -> Verdict:
    """The verdict under which both would be allowed what both want: the intersection of their rights."""
    order = (Outcome.DENY, Outcome.NEEDS_APPROVAL, Outcome.ALLOW)
    theirs = replace(person, reasons=tuple(f"for {name}: {reason}" for reason in person.reasons))
    if agent.outcome is not person.outcome:
        return min(agent, theirs, key=lambda verdict: order.index(verdict.outcome))
    if agent.outcome is not Outcome.NEEDS_APPROVAL:
        return agent
    approval_requirements = {
        role: max(agent.requirements.get(role, 0), person.requirements.get(role, 0))
        for role in (*agent.requirements, *person.requirements)
    }
    return replace(
        agent,
        policy_ids=tuple(dict.fromkeys((*agent.policy_ids, *person.policy_ids))),
        reasons=tuple(dict.fromkeys((*agent.reasons, *theirs.reasons))),
        requirements=approval_requirements,
        would_change=tuple(
            f"{count} more approval(s) by {role}" for role, count in approval_requirements.items()
        ),
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
        who, who_entities = cedar_entities.principal(identity)
        request = EngineRequest(principal=who, action=action, resource=what, context=context)
        entities = cedar_entities.whole((who, what), (*who_entities, *what_entities))
        (answer,) = bundle.engine.evaluate([request], entities)
    except Exception as exc:  # any surprise is a denial
        return refused("!evaluation-error", bundle=bundle.hash, errors=(f"{type(exc).__name__}: {exc}",))
    if answer.errors:
        return refused("!evaluation-error", bundle=bundle.hash, errors=answer.errors)
    if not answer.allowed and not answer.deciding:
        return refused("!default-deny", bundle=bundle.hash)
    return _explained(bundle, Outcome.ALLOW if answer.allowed else Outcome.DENY, answer.deciding)
