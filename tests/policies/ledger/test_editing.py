"""What a person edited is replaced: for good, by that edit alone, and it is never carried out beside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.flows.notify.projector import decision_of
from pilotage.planner.actions.types import RetryRun
from pilotage.policies.gate.gate import LedgerFacts
from pilotage.policies.ledger import proposals
from pilotage.policies.ledger import steps as sql_steps
from pilotage.policies.ledger.amending import amended
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict, Vote
from pilotage.telemetry.kpis import measured
from pilotage.telemetry.store.duckdb import DuckDBStore

Make = Callable[..., Any]
RUN = "11111111-1111-4111-8111-111111111111"
ANN = Identity(name="ann", kind="user", roles=frozenset({"approver"}))
YES = Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return YES


def edit_of(old: FiledProposal, by: str = "olga", seconds: int = 30) -> FiledProposal:
    editor = Identity(name=by, kind="user", roles=frozenset({"operator"}))
    return amended(old, RetryRun(run_id=RUN, delay=timedelta(seconds=seconds)), editor, old.filed_at)


def steps(ledger: SqlLedger, one: FiledProposal) -> list[str]:
    return [step["step"] for step in ledger.story(one.proposal.id)]


@pytest.fixture
def old(ledger: SqlLedger, filed: Make, now: datetime) -> FiledProposal:
    """Approved by ann, and allowed by policy."""
    proposal: FiledProposal = filed()
    ledger.file(proposal)
    ledger.record_verdict(proposal.proposal.id, "judge", YES, None, now)
    assert isinstance(ledger.vote(proposal.proposal.id, proposal.digest, ANN, "approve", "", YES, now), Vote)
    return proposal


def test_what_was_edited_is_never_admitted_whatever_was_said_of_it_before_or_after(
    ledger: SqlLedger, old: FiledProposal, now: datetime
) -> None:
    new, name = edit_of(old), old.proposal.id
    assert [row["proposal_id"] for row in ledger.proposals("allowed")] == [name]  # the loop has listed it
    assert ledger.amend(name, new) is None
    refused = ledger.admit(name, allow, Mode.AUTO, now)
    assert (refused.outcome, refused.policy_ids) == (Outcome.DENY, ("!closed",))
    assert f"replaced by {new.proposal.id}" in refused.reasons[0]
    bob = Identity(name="bob", kind="user", roles=frozenset({"approver"}))
    for decision in ("approve", "reject"):
        vote = ledger.vote(name, old.digest, bob, decision, "", YES, now)
        assert isinstance(vote, Verdict)
        assert vote.policy_ids == ("!closed",)
    ledger.record_verdict(name, "judge", YES, None, now)
    assert ledger.file(old) is False
    assert name not in ledger.expire(now + timedelta(days=1)) + ledger.lapse(now, "another mode")
    assert ledger.status(name) == "replaced"
    assert ledger.admit(name, allow, Mode.AUTO, now).policy_ids == ("!closed",)
    assert ledger.claim("t", now, timedelta(seconds=30)) is None
    assert steps(ledger, old).count("refused") == 2
    assert ledger.verify_audit().ok


def test_the_edit_is_judged_from_nothing(ledger: SqlLedger, old: FiledProposal, now: datetime) -> None:
    new = edit_of(old)
    ledger.amend(old.proposal.id, new)
    row = ledger.proposal(new.proposal.id) or {}
    assert (row["status"], row["votes"], row["verdict"]) == ("filed", [], {})
    assert (row["replaces"], row["replaced_by"]) == (old.proposal.id, "")
    assert ledger.facts(new, "inject", Mode.AUTO, now).votes == ()
    assert (ledger.proposal(old.proposal.id) or {})["replaced_by"] == new.proposal.id


def test_the_same_edit_again_is_the_same_and_another_one_comes_too_late(
    ledger: SqlLedger, old: FiledProposal
) -> None:
    assert [ledger.amend(old.proposal.id, edit_of(old)) for _ in range(2)] == [None, None]
    late = ledger.amend(old.proposal.id, edit_of(old, "bob"))
    assert late is not None
    assert late.policy_ids == ("!not-editable",)
    assert ledger.filed(edit_of(old, "bob").proposal.id) is None
    assert ledger.counts() == {"replaced": 1, "filed": 1}
    assert steps(ledger, old)[-2:] == ["replaced", "edit_refused"]


def _admit(ledger: SqlLedger, old: FiledProposal, now: datetime) -> None:
    ledger.admit(old.proposal.id, allow, Mode.AUTO, now)


def _deliver(ledger: SqlLedger, old: FiledProposal, now: datetime) -> None:
    _admit(ledger, old, now)
    ledger.claim("t", now, timedelta(seconds=30))
    ledger.record_delivery(old.proposal.id, {}, "done", now)


def _undo(ledger: SqlLedger, old: FiledProposal, now: datetime) -> None:
    _deliver(ledger, old, now)
    ledger.record_undo(old.proposal.id, "ann", "done", {}, now)


def _give_up(ledger: SqlLedger, old: FiledProposal, now: datetime) -> None:
    _admit(ledger, old, now)
    ledger.claim("t", now, timedelta(seconds=30))
    ledger.record_failure(old.proposal.id, "gone", False, now)


ENDS: dict[str, Callable[[SqlLedger, FiledProposal, datetime], Any]] = {
    "admitted": _admit,
    "delivered": _deliver,
    "undone": _undo,
    "failed": _give_up,
    "expired": lambda ledger, old, now: ledger.lapse(now, "another mode"),
    "rejected": lambda ledger, old, now: ledger.vote(
        old.proposal.id, old.digest, ANN, "reject", "", YES, now
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_what_has_ended_otherwise_is_not_edited_and_no_other_end_is_called_replaced(
    ledger: SqlLedger, old: FiledProposal, now: datetime, end: str
) -> None:
    ENDS[end](ledger, old, now)
    refused = ledger.amend(old.proposal.id, edit_of(old))
    assert refused is not None
    assert refused.policy_ids == ("!not-editable",)
    assert f"it is {end}" in refused.reasons[0]
    assert ledger.counts() == {end: 1}
    assert steps(ledger, old)[-1] == "edit_refused"


def test_what_lapsed_before_its_time_is_not_admitted_after_all(
    ledger: SqlLedger, old: FiledProposal, now: datetime
) -> None:
    ledger.lapse(now, "another mode")
    assert ledger.admit(old.proposal.id, allow, Mode.AUTO, now).policy_ids == ("!closed",)


def test_what_policy_denies_can_be_edited_into_something_else(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    denied = filed()
    ledger.file(denied)
    no = Verdict(outcome=Outcome.DENY, policy_ids=("test",))
    ledger.record_verdict(denied.proposal.id, "judge", no, None, now)
    assert ledger.amend(denied.proposal.id, edit_of(denied)) is None
    assert ledger.admit(denied.proposal.id, allow, Mode.AUTO, now).policy_ids == ("!closed",)


def test_a_crash_between_the_edit_and_the_end_of_the_old_one_leaves_all_as_it_was(
    ledger: SqlLedger, old: FiledProposal, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = sql_steps.note

    def dies(connection: Any, one: FiledProposal, event: str, *rest: Any, **detail: Any) -> None:
        if event == "replaced":
            raise KeyboardInterrupt
        noted(connection, one, event, *rest, **detail)

    with monkeypatch.context() as patched:
        patched.setattr(proposals, "note", dies)
        with pytest.raises(KeyboardInterrupt):
            ledger.amend(old.proposal.id, edit_of(old))
    assert ledger.filed(edit_of(old).proposal.id) is None
    assert ledger.counts() == {"allowed": 1}
    assert ledger.admit(old.proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW


def test_of_people_who_edit_and_a_loop_that_admits_at_once_exactly_one_comes_first(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    admitted = 0
    for number in range(1, 13):
        old = filed(RetryRun(run_id=f"{number:08x}-1111-4111-8111-111111111111"), number=number)
        ledger.file(old)
        ready = threading.Barrier(4)
        editors: list[Verdict | None] = []

        def edit(name: str, old: FiledProposal = old, ready: threading.Barrier = ready) -> None:
            ready.wait()
            editors.append(ledger.amend(old.proposal.id, edit_of(old, name)))  # noqa: B023

        threads = [threading.Thread(target=edit, args=(name,)) for name in ("olga", "bob", "adam")]
        for thread in threads:
            thread.start()
        ready.wait()
        ours = ledger.admit(old.proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW
        for thread in threads:
            thread.join()
        assert ours + editors.count(None) == 1
        assert ledger.status(old.proposal.id) == ("admitted" if ours else "replaced")
        admitted += ours
    assert ledger.counts().get("replaced", 0) == ledger.counts().get("filed", 0) == 12 - admitted


def test_readers_of_telemetry_see_that_a_person_edited_it(
    ledger: SqlLedger, filed: Make, now: datetime, tmp_path: Path
) -> None:
    for number in range(1, 4):
        old = filed(number=number, incident_id=f"i-{number:012x}")
        ledger.file(old)
        ledger.amend(old.proposal.id, edit_of(old))
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    try:
        store.add_decisions([decision_of(entry) for entry in ledger.entries(0, 100)])
        by_name = {one.name: one for one in measured(store, now - timedelta(days=1))}
        assert (by_name["taken as proposed"].value, by_name["taken as proposed"].cases) == (0.0, 3)
        mine = store.rows(
            "SELECT count(*) AS n FROM decisions WHERE step = 'proposed' "
            "AND json_extract_string(detail, '$.playbook') = 'person'"
        )
        assert mine[0]["n"] == 3
    finally:
        store.close()
