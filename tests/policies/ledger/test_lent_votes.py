"""The right to approve can be lent, taken away and asked for higher up; an edited action starts from nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.planner.actions.types import CancelRun, RetryRun
from pilotage.policies.digests import digest_of
from pilotage.policies.gate.gate import Gate
from pilotage.policies.grants import Delegation
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.amending import amended
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict, Vote

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
ANN = Identity(name="ann", kind="user", roles=frozenset({"approver"}), teams=frozenset({"data"}))
BOB = Identity(name="bob", kind="user", roles=frozenset({"operator"}))
CAT = Identity(name="cat", kind="user", roles=frozenset({"operator"}))
ASKED = {"team": "data", "tags": frozenset({"pilotage:ask-owner"})}


class Delegations:
    """Lends, votes and judges the way the API does."""

    def __init__(self, ledger: SqlLedger, gate: Gate, facts_of: Make, now: datetime) -> None:
        self.ledger, self.gate, self._facts_of, self.now = ledger, gate, facts_of, now

    def issue_session_token(
        self, giver: Identity, taker: Identity, *, days: float = 1, why: str = "holiday"
    ) -> bool:
        lent = Delegation(
            giver=giver.name,
            taker=taker.name,
            reason=why,
            since=self.now,
            until=self.now + timedelta(days=days),
            teams=giver.teams,
        )
        may = self.gate.judge_command(giver, "delegate", mode=Mode.AUTO, now=self.now, grant=lent)
        return self.ledger.delegate(lent, may)

    def vote(self, of: FiledProposal, who: Identity, at: datetime | None = None) -> Vote | Verdict:
        moment = at or self.now
        voter, giver = self.ledger.acting(who, moment)
        may = self.gate.judge_vote(voter, of, of.digest, "approve", moment)
        return self.ledger.vote(
            of.proposal.id, of.digest, voter, "approve", "", may, moment, delegated_by=giver
        )

    def judge(self, of: FiledProposal, **facts: Any) -> Verdict:
        target = self._facts_of(of, **facts)
        ledger_facts = self.ledger.facts(of, "inject", Mode.AUTO, self.now, target)
        return self.gate.judge(of, target, ledger_facts, self.now)


@pytest.fixture
def delegations(ledger: SqlLedger, gate: Gate, facts_of: Make, now: datetime) -> Delegations:
    return Delegations(ledger, gate, facts_of, now)


def test_a_lent_right_approves_and_stands_for_the_givers_team(delegations: Delegations, filed: Make) -> None:
    delegations.ledger.file(filed())
    assert isinstance(delegations.vote(filed(), BOB), Verdict)
    assert delegations.issue_session_token(ANN, BOB)
    cast = delegations.vote(filed(), BOB)
    assert isinstance(cast, Vote)
    assert (cast.voter, cast.delegated_by, cast.teams) == ("bob", "ann", frozenset({"data"}))
    assert delegations.judge(filed(), **ASKED).outcome is Outcome.ALLOW


def test_a_lent_right_is_one_right_whoever_uses_it(delegations: Delegations, filed: Make) -> None:
    delegations.ledger.file(filed())
    delegations.issue_session_token(ANN, BOB)
    delegations.issue_session_token(ANN, CAT)
    for who in (ANN, BOB, CAT):
        assert isinstance(delegations.vote(filed(), who), Vote)
    two = delegations.judge(filed(), env="prod", **ASKED)
    assert (two.outcome, dict(two.requirements)) == (Outcome.NEEDS_APPROVAL, {"approver": 1})


def test_who_is_lent_a_right_has_no_say_over_the_givers_own_proposal(
    delegations: Delegations, filed: Make
) -> None:
    ann = Identity(name="ann", kind="user", roles=frozenset({"approver", "operator"}))
    own, behind = filed(number=1, proposer=ann), filed(number=2, on_behalf_of="ann")
    delegations.issue_session_token(ann, BOB)
    for proposal in (own, behind):
        delegations.ledger.file(proposal)
        answer = delegations.vote(proposal, BOB)
        assert isinstance(answer, Verdict)
        assert answer.policy_ids == ("!lent-by-proposer",)


def test_a_lent_right_is_not_passed_on_and_is_never_the_admins(delegations: Delegations, filed: Make) -> None:
    adam = Identity(name="adam", kind="user", roles=frozenset({"admin"}))
    assert delegations.issue_session_token(adam, BOB)
    voter, _ = delegations.ledger.acting(BOB, delegations.now)
    assert voter.roles == {"operator", "approver"}
    assert delegations.issue_session_token(BOB, CAT) is False
    assert delegations.ledger.acting(CAT, delegations.now) == (CAT, "")
    robot = Identity(name="bob", kind="agent", roles=frozenset({"agent"}))
    assert delegations.ledger.acting(robot, delegations.now) == (robot, "")


@pytest.mark.parametrize("given", [{"days": 15}, {"days": 0}, {"why": ""}], ids=["long", "no time", "no why"])
def test_what_may_not_be_lent_is_not_and_the_try_is_a_row(
    delegations: Delegations, given: dict[str, Any]
) -> None:
    assert delegations.issue_session_token(ANN, BOB, **given) is False
    assert delegations.issue_session_token(ANN, ANN) is False
    assert [step["step"] for step in delegations.ledger.entries(0, 9)] == ["delegation_refused"] * 2


def test_a_lent_right_ends_by_itself_and_when_it_is_taken_back(delegations: Delegations, filed: Make) -> None:
    delegations.issue_session_token(ANN, BOB)
    assert delegations.ledger.acting(BOB, delegations.now + timedelta(days=1)) == (BOB, "")
    assert delegations.ledger.acting(BOB, delegations.now)[1] == "ann"
    assert delegations.ledger.end_delegations("ann", delegations.now) == 1
    assert delegations.ledger.end_delegations("ann", delegations.now) == 0
    assert delegations.ledger.acting(BOB, delegations.now) == (BOB, "")


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "users.toml"
    book = IdentityBook(path)
    book.add("ann", ["approver"], ["data"])
    book.add("bob", ["operator"])
    return path


@pytest.fixture
def checked(
    ledger: SqlLedger, ledger_url: str, people: Path, gate: Gate, facts_of: Make, now: datetime
) -> Any:
    again = SqlLedger(ledger_url, current_identity=IdentityBook(people).current_identity)
    yield Delegations(again, gate, facts_of, now)
    again.close()


def test_a_vote_of_somebody_who_may_still_vote_counts(checked: Delegations, filed: Make) -> None:
    checked.ledger.file(filed())
    checked.vote(filed(), ANN)
    assert checked.judge(filed(), env="prod").outcome is Outcome.ALLOW


TAKEN = {
    "the person": lambda text: text.replace('"ann"', '"eve"'),
    "the role": lambda text: text.replace('["approver"]', '["viewer"]'),
    "the file's good shape": lambda text: text + "[",
}


@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN.keys())
@pytest.mark.parametrize("voter", [ANN, BOB], ids=["own", "lent"])
def test_a_vote_counts_no_more_when_its_right_was_taken_away(
    checked: Delegations, filed: Make, people: Path, take: Callable[[str], str], voter: Identity
) -> None:
    checked.ledger.file(filed())
    checked.issue_session_token(ANN, BOB)
    assert isinstance(checked.vote(filed(), voter), Vote)
    assert checked.judge(filed(), env="prod").outcome is Outcome.ALLOW
    people.write_text(take(people.read_text()))
    assert checked.judge(filed(), env="prod").outcome is Outcome.NEEDS_APPROVAL


def test_a_rejection_stands_whatever_became_of_the_person(
    checked: Delegations, filed: Make, people: Path, now: datetime
) -> None:
    checked.ledger.file(filed())
    may = checked.gate.judge_vote(ANN, filed(), filed().digest, "reject", now)
    checked.ledger.vote(filed().proposal.id, filed().digest, ANN, "reject", "", may, now)
    people.unlink()
    assert checked.judge(filed()).policy_ids == ("!vetoed",)


def test_a_proposal_that_waits_too_long_is_told_higher_up_once(
    delegations: Delegations, filed: Make, facts_of: Make, now: datetime
) -> None:
    for number in (1, 2, 3):
        delegations.ledger.file(filed(number=number, expires_at=now + timedelta(hours=1)))
    for number in (1, 2):
        asked = delegations.judge(filed(number=number, expires_at=now + timedelta(hours=1)), env="prod")
        delegations.ledger.record_verdict(f"p-{number:012x}", "judge", asked, None, now)
    delegations.vote(filed(number=2, expires_at=now + timedelta(hours=1)), ANN)
    after = timedelta(minutes=15)
    assert delegations.ledger.escalate(now + timedelta(minutes=14), after) == []
    told = delegations.ledger.escalate(now + after, after)
    assert told == ["p-000000000001", "p-000000000002"]
    assert delegations.ledger.escalate(now + timedelta(minutes=20), after) == []
    steps = [step for step in delegations.ledger.story("p-000000000001") if step["step"] == "escalated"]
    assert [step["detail"]["to"] for step in steps] == ["admin"]


def test_an_edited_action_is_a_new_proposal_that_nobody_has_approved(
    delegations: Delegations, filed: Make, now: datetime
) -> None:
    old = filed()
    delegations.ledger.file(old)
    delegations.vote(old, ANN)
    olga = Identity(name="olga", kind="user", roles=frozenset({"operator"}))
    new = amended(old, RetryRun(run_id=RUN, delay=timedelta(seconds=30)), olga, now)
    assert new.proposal.id != old.proposal.id
    assert new.digest == digest_of(new.proposal, olga) != old.digest
    assert (new.proposal.incident_id, new.proposal.playbook) == (old.proposal.incident_id, "person")
    assert new.proposer == olga
    delegations.ledger.file(new)
    assert delegations.judge(old, env="prod").outcome is Outcome.ALLOW
    assert delegations.judge(new, env="prod").policy_ids == ("prod-four-eyes",)
    again = amended(old, RetryRun(run_id=RUN, delay=timedelta(seconds=30)), olga, now)
    assert again.proposal.id == new.proposal.id
    other = amended(old, CancelRun(run_id=RUN), olga, now)
    assert other.proposal.id not in (old.proposal.id, new.proposal.id)
