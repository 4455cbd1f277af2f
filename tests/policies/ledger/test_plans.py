"""What is said of a plan holds for each of its steps, and its steps are one change together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.policies.conftest import PILOT, Make

from pilotage.planner.actions.types import RetryRun
from pilotage.policies.digests import digest_of
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict

PLAN = "plan:0123456789abcdef"
ALLOW = Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


def step(
    filed: Make, now: datetime, number: int, *, plan: str = PLAN, run: int = 1, cause: str = "", **more: Any
) -> FiledProposal:
    run_id = f"00000000-0000-4000-8000-{run:012x}"
    action = RetryRun(run_id=run_id, delay=timedelta(seconds=10 * number), **more)
    one: FiledProposal = filed(
        action, number=number, incident_id=f"i-{number:012x}", evidence=(plan,) if plan else (),
        expires_at=now + timedelta(hours=9),
    )  # fmt: skip
    case = one.case.model_copy(update={"subject": f"run:{run_id}", "causes": (cause or f"fault:{run}",)})
    return replace(
        one, case=case, filed_at=now + timedelta(seconds=number), digest=digest_of(one.proposal, PILOT)
    )


def votes_on(
    ledger: SqlLedger, filed: FiledProposal, now: datetime, target: Any = None
) -> list[tuple[str, str]]:
    facts = ledger.facts(filed, "judge", Mode.APPROVE, now + timedelta(minutes=1), target)
    assert all(vote.digest == filed.digest for vote in facts.votes)
    return [(vote.voter, vote.decision) for vote in facts.votes]


def say(ledger: SqlLedger, one: FiledProposal, ann: Any, decision: Any, now: datetime) -> None:
    ledger.vote(one.proposal.id, one.digest, ann, decision, "", ALLOW, now)


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_what_a_person_said_of_the_first_step_holds_for_the_next(
    ledger: SqlLedger, filed: Make, person: Make, now: datetime, decision: str
) -> None:
    first, second = step(filed, now, 1), step(filed, now, 2)
    ledger.file(first)
    say(ledger, first, person("ann", "approver"), decision, now)
    ledger.file(second)
    assert votes_on(ledger, second, now) == [("ann", decision)]


@pytest.mark.parametrize(
    "changed",
    [
        {"plan": "plan:ffffffffffffffff"},
        {"plan": ""},
        {"run": 2},
        {"changes": ({"name": "day", "value": "x"},)},
    ],
    ids=["another plan", "no plan", "another run", "other parameters"],
)
def test_it_holds_for_nothing_else(
    ledger: SqlLedger, filed: Make, person: Make, now: datetime, changed: dict[str, Any]
) -> None:
    first = step(filed, now, 1)
    ledger.file(first)
    say(ledger, first, person("ann", "approver"), "approve", now)
    other = step(filed, now, 2, **changed)
    ledger.file(other)
    assert votes_on(ledger, other, now) == []


def test_a_step_that_may_do_work_twice_is_asked_about_anew(
    ledger: SqlLedger, filed: Make, facts_of: Make, person: Make, now: datetime
) -> None:
    first, second = step(filed, now, 1), step(filed, now, 2)
    ledger.file(first)
    say(ledger, first, person("ann", "approver"), "approve", now)
    ledger.file(second)
    assert votes_on(ledger, second, now, facts_of(second, half_done=True)) == []
    assert votes_on(ledger, second, now, facts_of(second, half_done=True, repeatable="yes")) != []


def carried_out(ledger: SqlLedger, one: FiledProposal, judgement: str, at: datetime) -> None:
    ledger.file(one)
    ledger.admit(one.proposal.id, lambda *_: ALLOW, Mode.AUTO, at)
    ledger.claim_of(one.proposal.id, "me", at, timedelta(seconds=9))
    ledger.record_delivery(one.proposal.id, {}, "done", at)
    ledger.record_outcome(one.proposal.id, judgement, "it ended", "Failed", at)


def test_an_outage_that_outlasts_a_wait_costs_no_trust_and_a_failure_outside_a_plan_does(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    one, other = step(filed, now, 1), step(filed, now, 2, plan="", run=2)
    carried_out(ledger, one, "failed", now + timedelta(seconds=1))
    assert ledger.autonomy("retry_run", one.case.subject) == "standard"
    carried_out(ledger, other, "failed", now + timedelta(seconds=2))
    assert ledger.autonomy("retry_run", other.case.subject) == "demoted"


def test_the_runs_of_one_incident_are_one_change_to_others_and_none_to_each_other(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    for number in range(1, 6):
        one = step(filed, now, number, run=number, cause="host:passing:h")
        ledger.file(one)
        ledger.admit(one.proposal.id, lambda *_: ALLOW, Mode.AUTO, now + timedelta(seconds=9))
    own, stranger = step(filed, now, 7, run=7, cause="host:passing:h"), step(filed, now, 8, run=8)
    counted = []
    for one in (own, stranger):
        ledger.file(one)
        facts = ledger.facts(one, "judge", Mode.AUTO, now + timedelta(minutes=1))
        counted.append((facts.actions_1h, facts.other_targets_1h))
    assert counted == [(0, 0), (1, 1)]


def test_many_runs_of_one_incident_wait_for_their_probe(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    for number in range(1, 9):
        one = step(filed, now, number, run=number, cause="host:passing:h")
        ledger.file(one)
        ledger.record_verdict(one.proposal.id, "judge", ALLOW, None, now)
    alone = step(filed, now, 99, run=99)
    ledger.file(alone)
    ledger.record_verdict(alone.proposal.id, "judge", ALLOW, None, now)
    later = now + timedelta(minutes=1)
    assert ledger.admissible(later) == ["p-000000000001", alone.proposal.id]
    probe = step(filed, now, 1, run=1, cause="host:passing:h")
    carried_out(ledger, probe, "verified", later)
    assert len(ledger.admissible(later)) == 1 + 5
