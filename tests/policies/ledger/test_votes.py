"""People vote on the text they saw: four eyes, one seat each, a veto, and nothing by somebody else's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest

from pilotage.planner.actions.types import KINDS, ResizeRun, RetryRun
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.gate.permitted_kinds import permitted_kinds
from pilotage.policies.gate.quorum import fillable, unfilled
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict, Vote

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
Cast = Callable[..., Vote | Verdict]
BEHIND = Identity(name="ann", kind="user", roles=frozenset({"operator"}))
"""For whom an agent proposes something."""


@pytest.fixture
def cast(ledger: SqlLedger, gate: Gate, now: datetime) -> Cast:
    """Votes the way the API does: the gate is asked, then the ledger."""

    def vote(
        of: FiledProposal,
        voter: Identity,
        decision: Literal["approve", "reject"] = "approve",
        digest: str = "",
        at: datetime = now,
    ) -> Vote | Verdict:
        seen = digest or of.digest
        may = gate.judge_vote(voter, of, seen, decision, at)
        return ledger.vote(of.proposal.id, seen, voter, decision, "", may, at)

    return vote


def refusal(answer: Vote | Verdict) -> tuple[str, ...]:
    assert isinstance(answer, Verdict)
    assert answer.outcome is Outcome.DENY
    return answer.policy_ids


def test_an_approver_and_an_admin_may_vote(ledger: SqlLedger, cast: Cast, filed: Make, person: Make) -> None:
    ledger.file(filed())
    for voter in (person("ann", "approver"), person("bob", "admin")):
        assert isinstance(cast(filed(), voter), Vote)


@pytest.mark.parametrize("roles", [(), ("viewer",), ("operator",)], ids=["nobody", "viewer", "operator"])
def test_others_may_not_vote(
    ledger: SqlLedger, cast: Cast, filed: Make, person: Make, roles: tuple[str, ...]
) -> None:
    ledger.file(filed())
    assert refusal(cast(filed(), person("eve", *roles))) == ("!default-deny",)


def test_an_agent_never_votes_whatever_its_roles(ledger: SqlLedger, cast: Cast, filed: Make) -> None:
    ledger.file(filed())
    agent = Identity(name="robot", kind="agent", roles=frozenset({"agent", "approver", "admin"}))
    assert refusal(cast(filed(), agent)) == ("people-vote",)


def test_the_proposer_and_the_person_behind_an_agent_do_not_vote(
    ledger: SqlLedger, cast: Cast, filed: Make, person: Make
) -> None:
    ann = person("ann", "operator", "approver")
    own = filed(number=1, proposer=ann)
    behind = filed(number=2, on_behalf_of="ann")
    for proposal in (own, behind):
        ledger.file(proposal)
        assert refusal(cast(proposal, ann)) == ("four-eyes",)
        assert refusal(cast(proposal, ann, "reject")) == ("four-eyes",)


def test_a_vote_of_the_proposer_in_the_facts_is_not_counted_either(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    proposal = filed(on_behalf_of="ann")
    votes = tuple(
        Vote(
            proposal_id=proposal.proposal.id,
            digest=proposal.digest,
            voter=voter,
            role="admin",
            decision="approve",
            reason="",
            at=now,
        )
        for voter in ("pilot", "ann")
    )
    ledger_facts = LedgerFacts(stage="judge", mode=Mode.AUTO, votes=votes, behind=BEHIND)
    verdict = gate.judge(proposal, facts_of(proposal, env="prod"), ledger_facts, now)
    assert verdict.outcome is Outcome.NEEDS_APPROVAL


@pytest.mark.parametrize(
    "change",
    [
        {"action": RetryRun(run_id=RUN, delay=timedelta(seconds=1))},
        {"action": RetryRun(run_id="33333333-1111-4111-8111-111111111111")},
        {"expected_state_id": "other"},
        {"evidence": ("log:1",)},
        {"incident_id": "i-0000000000bb"},
        {"playbook": "other"},
        {"on_behalf_of": "ann"},
        {"expires_at": datetime.fromisoformat("2027-03-01T12:11:00+00:00")},
        {"proposer": Identity(name="other", kind="agent", roles=frozenset({"agent"}))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_approval_is_void_for_any_other_text(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, change: dict[str, Any]
) -> None:
    seen, changed = filed(), filed(**change)
    vote = Vote(
        proposal_id=seen.proposal.id,
        digest=seen.digest,
        voter="ann",
        role="approver",
        decision="approve",
        reason="",
        at=now,
    )
    ledger_facts = LedgerFacts(stage="judge", mode=Mode.AUTO, votes=(vote,), behind=BEHIND)
    assert gate.judge(seen, facts_of(seen, env="prod"), ledger_facts, now).outcome is Outcome.ALLOW
    verdict = gate.judge(changed, facts_of(changed, env="prod", state_id="other"), ledger_facts, now)
    assert verdict.outcome is Outcome.NEEDS_APPROVAL


def test_a_filed_proposal_whose_text_was_swapped_is_denied(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    swapped = replace(filed(), proposal=filed(RetryRun(run_id=RUN, delay=timedelta(hours=1))).proposal)
    verdict = gate.judge(swapped, facts_of(swapped), LedgerFacts(stage="judge", mode=Mode.AUTO), now)
    assert verdict.policy_ids == ("!tampered",)


def test_a_vote_for_another_digest_is_refused(
    ledger: SqlLedger, cast: Cast, filed: Make, person: Make
) -> None:
    ledger.file(filed())
    assert refusal(cast(filed(), person("ann", "approver"), digest="0" * 64)) == ("!other-digest",)
    assert ledger.story(filed().proposal.id)[-1]["step"] == "vote_refused"


def test_one_person_votes_once(ledger: SqlLedger, cast: Cast, filed: Make, person: Make) -> None:
    ledger.file(filed())
    assert isinstance(cast(filed(), person("ann", "approver")), Vote)
    assert refusal(cast(filed(), person("ann", "approver"))) == ("!voted-before",)


def test_an_approver_may_still_veto_afterwards_and_then_voting_is_over(
    ledger: SqlLedger, cast: Cast, filed: Make, person: Make
) -> None:
    ledger.file(filed())
    cast(filed(), person("ann", "approver"))
    assert isinstance(cast(filed(), person("ann", "approver"), "reject"), Vote)
    assert refusal(cast(filed(), person("bob", "approver"))) == ("!closed",)


def test_nobody_votes_on_what_has_expired_or_was_admitted(
    ledger: SqlLedger, cast: Cast, filed: Make, person: Make, now: datetime
) -> None:
    ledger.file(filed())
    late = now + timedelta(hours=1)
    assert refusal(cast(filed(), person("ann", "approver"), at=late)) == ("no-vote-after-expiry",)
    ledger.admit(filed().proposal.id, lambda *_: Verdict(outcome=Outcome.ALLOW), Mode.AUTO, now)
    assert refusal(cast(filed(), person("ann", "approver"))) == ("!closed",)


def test_a_vote_that_policy_refuses_is_not_kept_even_when_the_ledger_is_asked(
    ledger: SqlLedger, filed: Make, person: Make, now: datetime
) -> None:
    ledger.file(filed())
    no = Verdict(outcome=Outcome.DENY, policy_ids=("four-eyes",))
    ledger.vote(filed().proposal.id, filed().digest, person("ann", "admin"), "approve", "", no, now)
    assert ledger.facts(filed(), "judge", Mode.AUTO, now).votes == ()


def test_one_person_with_two_roles_fills_one_seat(
    gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    proposal = filed(ResizeRun(run_id=RUN, memory_mb=512))
    target = facts_of(proposal, env="prod", tier=0)

    def after(*voters: tuple[str, str]) -> Verdict:
        votes = tuple(
            Vote(
                proposal_id=proposal.proposal.id,
                digest=proposal.digest,
                voter=name,
                role=role,
                decision="approve",
                reason="",
                at=now,
            )
            for name, role in voters
        )
        return gate.judge(proposal, target, LedgerFacts(stage="judge", mode=Mode.AUTO, votes=votes), now)

    # the engine accepts one admin seat and one approver seat: two people
    assert dict(after().requirements) == {"approver": 1, "admin": 1}
    assert dict(after(("ann", "admin,approver")).requirements) == {"approver": 1}
    assert dict(after(("ann", "approver")).requirements) == {"admin": 1}
    assert after(("ann", "approver"), ("bob", "approver")).outcome is Outcome.NEEDS_APPROVAL
    assert after(("ann", "admin"), ("bob", "approver")).outcome is Outcome.ALLOW
    assert after(("ann", "admin"), ("bob", "admin")).outcome is Outcome.ALLOW


def test_seats_are_matched_and_not_counted() -> None:
    both = frozenset({"approver", "admin"})
    one = frozenset({"approver"})
    need = {"approver": 1, "admin": 1}
    assert unfilled(need, {"ann": both, "bob": one}) == {}
    assert unfilled(need, {"bob": one, "zoe": both}) == {}
    assert unfilled(need, {"ann": both}) == {"approver": 1}
    assert unfilled(need, {}) == need
    assert unfilled({"approver": 2}, {"ann": one}) == {"approver": 1}
    assert fillable(("approver", "admin"), {}, 3) == ({"approver": 0, "admin": 0},)
    assert fillable(("approver", "admin"), {"ann": both}, 3) == (
        {"approver": 0, "admin": 1},
        {"approver": 1, "admin": 0},
    )


COMMANDS = {
    "viewer": (),
    "operator": ("stop", "undo"),
    "approver": ("stop", "resume"),
    "admin": ("stop", "resume", "undo", "set_mode"),
    "agent": (),
}


@pytest.mark.parametrize(("role", "allowed"), COMMANDS.items(), ids=COMMANDS.keys())
def test_commands_are_for_those_whose_role_has_them(
    gate: Gate, filed: Make, now: datetime, role: str, allowed: tuple[str, ...]
) -> None:
    who = Identity(name="x", kind="agent" if role == "agent" else "user", roles=frozenset({role}))
    answers = {
        "stop": gate.judge_command(who, "stop", mode=Mode.AUTO, now=now),
        "resume": gate.judge_command(who, "resume", mode=Mode.AUTO, now=now),
        "undo": gate.judge_command(who, "undo", mode=Mode.AUTO, now=now, filed=filed()),
        "set_mode": gate.judge_command(who, "set_mode", mode=Mode.AUTO, now=now, to=Mode.SHADOW),
    }
    assert tuple(name for name, answer in answers.items() if answer.outcome is Outcome.ALLOW) == allowed
    assert all(answer.policy_ids and answer.reasons for answer in answers.values())


def test_an_agent_with_a_persons_role_gives_no_command(gate: Gate, now: datetime) -> None:
    agent = Identity(name="robot", kind="agent", roles=frozenset({"admin"}))
    verdict = gate.judge_command(agent, "stop", mode=Mode.AUTO, now=now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("agents-never-govern",))


def test_a_command_without_what_it_is_about_is_denied(gate: Gate, person: Make, now: datetime) -> None:
    admin = person("ann", "admin")
    for command in ("undo", "set_mode"):
        verdict = gate.judge_command(admin, command, mode=Mode.AUTO, now=now)
        assert verdict.policy_ids == ("!missing-fact",)


def test_what_is_offered_follows_the_policies(gate: Gate, pilot: Identity, person: Make) -> None:
    assert permitted_kinds(gate, pilot) == KINDS
    assert permitted_kinds(gate, person("ann", "operator")) == KINDS
    assert permitted_kinds(gate, person("eve", "viewer")) == ()
