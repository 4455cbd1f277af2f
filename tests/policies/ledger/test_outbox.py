"""From admission to what came of it: claims, the kill switch, deliveries, outcomes, undo."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from pilotage.planner.actions.types import ReserveSlot, RetryRun
from pilotage.policies.digests import idempotency_key_of
from pilotage.policies.gate.gate import LedgerFacts
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict
from pilotage.telemetry.errors import LedgerError

Make = Callable[..., Any]
LEASE = timedelta(seconds=30)
RUN = "11111111-1111-4111-8111-111111111111"


def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


@pytest.fixture
def admitted(ledger: SqlLedger, filed: Make, now: datetime) -> Callable[..., str]:
    """Files and admits a proposal; its id."""

    def make(*given: Any, **fields: Any) -> str:
        proposal = filed(*given, **fields)
        ledger.file(proposal)
        assert ledger.admit(proposal.proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW
        return str(proposal.proposal.id)

    return make


def test_a_claim_belongs_to_one_owner_until_its_lease_ends(
    ledger: SqlLedger, admitted: Make, filed: Make, now: datetime
) -> None:
    proposal_id = admitted()
    mine = ledger.claim("a", now, LEASE)
    assert mine is not None
    assert (mine.proposal_id, mine.state, mine.attempts) == (proposal_id, "claimed", 1)
    assert mine.idempotency_key == idempotency_key_of(filed().digest)
    assert mine.payload == filed().proposal.model_dump(mode="json")
    assert ledger.claim("b", now + timedelta(seconds=29), LEASE) is None
    theirs = ledger.claim("b", now + timedelta(seconds=30), LEASE)
    assert theirs is not None
    assert (theirs.proposal_id, theirs.idempotency_key, theirs.attempts) == (
        proposal_id,
        mine.idempotency_key,
        2,
    )


def test_claim_of_takes_only_what_was_named(ledger: SqlLedger, admitted: Make, now: datetime) -> None:
    admitted(number=1)
    second = admitted(number=2)
    entry = ledger.claim_of(second, "a", now, LEASE)
    assert entry is not None
    assert entry.proposal_id == second
    assert ledger.claim_of(second, "b", now, LEASE) is None
    assert ledger.claim_of("p-00000000ffff", "b", now, LEASE) is None


def test_the_kill_switch_stops_admission_and_claims(
    ledger: SqlLedger, admitted: Make, filed: Make, now: datetime
) -> None:
    admitted(number=1)
    assert ledger.stop("ann", "looks wrong", now) is True
    assert ledger.stop("bob", "too", now) is False
    assert ledger.claim("a", now, LEASE) is None
    ledger.file(filed(number=2))
    assert ledger.admit(filed(number=2).proposal.id, allow, Mode.AUTO, now).policy_ids == ("!stopped",)
    stop = ledger.stopped()
    assert stop is not None
    assert (stop.by, stop.reason) == ("ann", "looks wrong")
    assert ledger.resume_vote("ann", 2, now) is False
    assert ledger.resume_vote("ann", 2, now) is False
    assert ledger.resume_vote("bob", 2, now) is True
    assert ledger.stopped() is None
    assert ledger.claim("a", now, LEASE) is not None


def test_the_kill_switch_holds_over_a_restart(ledger: SqlLedger, ledger_url: str, now: datetime) -> None:
    ledger.stop("ann", "", now)
    again = SqlLedger(ledger_url)
    try:
        assert again.stopped() == ledger.stopped()
        assert again.stopped() is not None
    finally:
        again.close()


def test_what_waited_past_its_expiry_without_a_try_is_not_delivered(
    ledger: SqlLedger, admitted: Make, now: datetime
) -> None:
    proposal_id = admitted()
    assert ledger.claim("a", now + timedelta(hours=1), LEASE) is None
    assert ledger.status(proposal_id) == "expired"


def test_what_was_begun_is_finished_even_past_its_expiry(
    ledger: SqlLedger, admitted: Make, now: datetime
) -> None:
    admitted()
    ledger.claim("a", now, LEASE)
    again = ledger.claim("b", now + timedelta(hours=1), LEASE)
    assert again is not None
    assert again.attempts == 2


def test_a_delivery_is_recorded_once(ledger: SqlLedger, admitted: Make, now: datetime) -> None:
    proposal_id = admitted()
    ledger.claim("a", now, LEASE)
    assert ledger.record_delivery(proposal_id, {"after": {"state": "x"}}, "done", now) is True
    assert ledger.record_delivery(proposal_id, {}, "already", now) is False
    assert ledger.status(proposal_id) == "delivered"
    (change,) = ledger.awaiting_verification()
    assert (change.filed.proposal.id, change.effect) == (proposal_id, "done")
    assert change.receipt == {"after": {"state": "x"}}
    assert ledger.claim("a", now + timedelta(hours=1), LEASE) is None


def test_a_delivery_that_was_never_admitted_cannot_be_recorded(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(filed())
    with pytest.raises(LedgerError, match="never admitted"):
        ledger.record_delivery(filed().proposal.id, {}, "done", now)


def test_a_refused_delivery_changed_nothing_and_awaits_nothing(
    ledger: SqlLedger, admitted: Make, now: datetime
) -> None:
    proposal_id = admitted()
    ledger.claim("a", now, LEASE)
    ledger.record_delivery(proposal_id, {"reason": "it moved on"}, "refused", now)
    assert ledger.status(proposal_id) == "refused"
    assert ledger.awaiting_verification() == []
    assert ledger.delivered(proposal_id) is None


def test_a_passing_failure_is_tried_again_after_a_growing_pause(
    ledger: SqlLedger, admitted: Make, now: datetime
) -> None:
    proposal_id = admitted()
    ledger.claim("a", now, LEASE)
    ledger.record_failure(proposal_id, "no answer", True, now)
    assert ledger.claim("a", now, LEASE) is None
    assert ledger.claim("a", now + timedelta(seconds=1), LEASE) is not None
    ledger.record_failure(proposal_id, "no answer", True, now)
    assert ledger.claim("a", now + timedelta(seconds=1), LEASE) is None
    assert ledger.claim("a", now + timedelta(seconds=2), LEASE) is not None


def test_a_lasting_failure_is_given_up(ledger: SqlLedger, admitted: Make, now: datetime) -> None:
    proposal_id = admitted()
    ledger.claim("a", now, LEASE)
    ledger.record_failure(proposal_id, "forbidden", False, now)
    assert ledger.status(proposal_id) == "failed"
    assert ledger.claim("a", now + timedelta(days=1), LEASE) is None


def test_the_outcome_ends_the_wait(ledger: SqlLedger, admitted: Make, now: datetime) -> None:
    proposal_id = admitted()
    ledger.claim("a", now, LEASE)
    assert ledger.record_outcome(proposal_id, "verified", "too early", "", now) is False
    ledger.record_delivery(proposal_id, {}, "done", now)
    assert ledger.record_outcome(proposal_id, "pending", "", "", now) is False
    assert ledger.record_outcome(proposal_id, "verified", "completed", "COMPLETED", now) is True
    assert ledger.record_outcome(proposal_id, "failed", "", "", now) is False
    assert ledger.status(proposal_id) == "verified"
    assert ledger.awaiting_verification() == []


def test_what_is_held_is_due_to_be_undone_once(ledger: SqlLedger, admitted: Make, now: datetime) -> None:
    slot = ReserveSlot(pool="p", busy_queue="a", starved_queue="b", limit=1, hold=timedelta(seconds=60))
    proposal_id = admitted(slot)
    ledger.claim("a", now, LEASE)
    until = now + timedelta(seconds=60)
    ledger.record_delivery(proposal_id, {"before": {"limit": None}, "undo_at": until}, "done", now)
    ledger.record_outcome(proposal_id, "verified", "", "", now)
    assert ledger.due_undos(now + timedelta(seconds=59)) == []
    (due,) = ledger.due_undos(until)
    assert (due.filed.proposal.id, due.undo_at, due.receipt["before"]) == (
        proposal_id,
        until,
        {"limit": None},
    )
    assert ledger.record_undo(proposal_id, "clock", "done", {}, until) is True
    assert ledger.record_undo(proposal_id, "clock", "done", {}, until) is False
    assert ledger.due_undos(until) == []
    assert ledger.status(proposal_id) == "undone"


def test_an_incident_reads_recovered_and_its_story_is_whole(
    ledger: SqlLedger, admitted: Make, filed: Make, now: datetime
) -> None:
    proposal_id = admitted()
    ledger.claim("a", now, LEASE)
    ledger.record_delivery(proposal_id, {}, "done", now)
    ledger.record_outcome(proposal_id, "verified", "completed", "COMPLETED", now)
    (incident,) = ledger.incidents()
    assert (incident["status"], incident["run_id"]) == ("recovered", RUN)
    assert [row["proposal_id"] for row in incident["proposals"]] == [proposal_id]
    steps = ["found", "proposed", "admitted", "claimed", "injected", "verified"]
    for subject in (RUN, proposal_id):
        assert [step["step"] for step in ledger.story(subject)] == steps
    whole = [step["step"] for step in ledger.story(incident["incident_id"])]
    assert whole == [*steps[:-1], "incident_resolved", steps[-1]]
    assert ledger.story("another") == []
    (listed,) = ledger.proposals("verified")
    assert listed["action"] == {"kind": "retry_run", "run_id": RUN, "delay": "PT0S"}
    assert listed["verdict"]["policy_ids"] == ["test"]
    assert ledger.proposals("filed") == []


def test_the_mode_is_kept(ledger: SqlLedger, now: datetime) -> None:
    assert ledger.mode() is None
    ledger.set_mode(Mode.AUTO, "ann", now)
    ledger.set_mode(Mode.SHADOW, "ann", now)
    assert ledger.mode() is Mode.SHADOW


def test_retries_of_other_runs_are_counted_apart(
    ledger: SqlLedger, admitted: Make, filed: Make, now: datetime
) -> None:
    admitted(number=1)
    other = filed(RetryRun(run_id="33333333-1111-4111-8111-111111111111"), number=2)
    ledger_facts = ledger.facts(other, "judge", Mode.AUTO, now)
    assert (
        ledger_facts.actions_1h,
        ledger_facts.actions_of_run_24h,
        ledger_facts.seconds_since_same_target,
    ) == (1, 0, None)
