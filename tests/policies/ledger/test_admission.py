"""Nothing gets into the outbox but by an allow verdict of the same transaction."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from pilotage.planner.actions.types import (
    Action,
    CancelRun,
    CancelTree,
    CatchUp,
    HoldQueue,
    MarkCrashed,
    NotifyOwner,
    PauseDeployment,
    RetryRun,
    SetPriority,
)
from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.gate.gate import Gate, LedgerFacts
from pilotage.policies.ledger.protocol import Decide, Ledger
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.refusals import refused
from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict, Vote
from pilotage.telemetry.errors import LedgerError

Make = Callable[..., Any]
LEASE = timedelta(seconds=30)
RUN = "11111111-1111-4111-8111-111111111111"


def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


def outbox_rows(path: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path / "ledger.sqlite")
    try:
        return connection.execute("SELECT proposal_id, state FROM outbox").fetchall()
    finally:
        connection.close()


def another_run(number: int) -> str:
    return f"{number:08x}-1111-4111-8111-111111111111"


@pytest.fixture
def decide(gate: Gate, facts_of: Make, now: datetime) -> Callable[..., Decide]:
    """Makes the real decision over fresh facts: decide(env="prod") and so on."""

    def make(at: datetime = now, **fields: Any) -> Decide:
        return lambda filed, ledger_facts: gate.judge(
            filed, facts_of(filed, **{"read_at": at, **fields}), ledger_facts, at
        )

    return make


def test_the_sql_ledger_keeps_the_protocol(ledger: SqlLedger) -> None:
    kept: Ledger = ledger
    assert kept.counts() == {}


def test_filing_twice_is_filing_once(ledger: SqlLedger, filed: Make) -> None:
    assert ledger.file(filed()) is True
    assert ledger.file(filed()) is False
    assert ledger.filed(filed().proposal.id) == filed()
    assert ledger.status(filed().proposal.id) == "filed"
    assert [step["step"] for step in ledger.story(filed().proposal.id)] == ["found", "proposed"]


def test_the_same_id_with_another_text_is_refused(ledger: SqlLedger, filed: Make) -> None:
    ledger.file(filed())
    with pytest.raises(LedgerError, match="stands for another text"):
        ledger.file(filed(RetryRun(run_id=RUN, delay=timedelta(seconds=9))))


def test_a_digest_that_is_not_of_the_text_is_refused(ledger: SqlLedger, filed: Make) -> None:
    proposal = filed()
    forged = FiledProposal(
        proposal=proposal.proposal,
        case=proposal.case,
        proposer=proposal.proposer,
        digest="0" * 64,
        filed_at=proposal.filed_at,
    )
    with pytest.raises(LedgerError, match="digest is not that of its text"):
        ledger.file(forged)
    assert ledger.status(proposal.proposal.id) == "unknown"


def test_an_allowed_proposal_is_admitted_once(
    ledger: SqlLedger, filed: Make, decide: Make, now: datetime, tmp_path: Path
) -> None:
    ledger.file(filed())
    first = ledger.admit(filed().proposal.id, decide(), Mode.AUTO, now)
    second = ledger.admit(filed().proposal.id, decide(), Mode.AUTO, now)
    assert (first.outcome, first.policy_ids) == (Outcome.ALLOW, ("agent-retries",))
    assert (second.outcome, second.policy_ids) == (Outcome.DENY, ("!already-admitted",))
    assert outbox_rows(tmp_path) == [(filed().proposal.id, "pending")]
    assert [step["step"] for step in ledger.story(RUN)] == ["found", "proposed", "admitted"]


def raising(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    raise RuntimeError("no decision today")


def denying(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return refused("!default-deny")


def asking(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return Verdict(outcome=Outcome.NEEDS_APPROVAL, requirements={"approver": 1})


@pytest.mark.parametrize(
    ("decision", "status"),
    [(raising, "denied"), (denying, "denied"), (asking, "needs_approval")],
    ids=["raises", "denies", "asks"],
)
def test_without_an_allow_there_is_no_outbox_row_and_the_refusal_is_on_record(
    ledger: SqlLedger, filed: Make, now: datetime, tmp_path: Path, decision: Decide, status: str
) -> None:
    ledger.file(filed())
    verdict = ledger.admit(filed().proposal.id, decision, Mode.AUTO, now)
    assert verdict.outcome is not Outcome.ALLOW
    assert outbox_rows(tmp_path) == []
    assert ledger.status(filed().proposal.id) == status
    assert ledger.story(filed().proposal.id)[-1]["step"] == "refused"
    assert ledger.claim("me", now, LEASE) is None


def test_an_interrupted_admission_leaves_nothing_behind(
    ledger: SqlLedger, filed: Make, now: datetime, tmp_path: Path
) -> None:
    def interrupted(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
        raise KeyboardInterrupt

    ledger.file(filed())
    before = ledger.verify_audit().length
    with pytest.raises(KeyboardInterrupt):
        ledger.admit(filed().proposal.id, interrupted, Mode.AUTO, now)
    assert (outbox_rows(tmp_path), ledger.verify_audit().length) == ([], before)
    assert ledger.admit(filed().proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW


def test_an_outbox_row_cannot_stand_without_a_verdict(ledger: SqlLedger, filed: Make, tmp_path: Path) -> None:
    ledger.file(filed())
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    try:
        connection.execute("PRAGMA foreign_keys=ON")
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            connection.execute(
                "INSERT INTO outbox VALUES (?, 99, 'd', 'm', 'k', 't', '', '', '', 'pending', '', 0, '', '', '')",
                (filed().proposal.id,),
            )
    finally:
        connection.close()


def test_what_was_never_filed_is_not_admitted(ledger: SqlLedger, now: datetime) -> None:
    assert ledger.admit("p-00000000ffff", allow, Mode.AUTO, now).policy_ids == ("!not-filed",)


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("proposal", "PT0S", "PT1H"),
        ("proposal", RUN, "99999999-9999-4999-8999-999999999999"),
        ("proposal", '"expected_state_id":""', '"expected_state_id":"x"'),
        ("proposal", '"on_behalf_of":""', '"on_behalf_of":"ann"'),
        ("proposer", '"pilot"', '"other"'),
        ("proposal", "retry_run", "no_such_kind"),
    ],
    ids=["delay", "target", "expected state", "on behalf of", "proposer", "not a proposal any more"],
)
def test_a_stored_proposal_that_was_changed_is_never_admitted(
    ledger: SqlLedger, filed: Make, now: datetime, tmp_path: Path, column: str, old: str, new: str
) -> None:
    ledger.file(filed())
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    changed = connection.execute(
        f"UPDATE proposals SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)",  # noqa: S608
        (old, new, old),
    )
    assert changed.rowcount == 1
    connection.commit()
    connection.close()
    verdict = ledger.admit(filed().proposal.id, allow, Mode.AUTO, now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!tampered",))
    assert outbox_rows(tmp_path) == []
    assert ledger.status(filed().proposal.id) == "refused"


def test_an_expired_proposal_is_not_admitted(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    ledger.file(filed(expires_at=now))
    assert ledger.admit(filed().proposal.id, allow, Mode.AUTO, now).policy_ids == ("!expired",)
    assert ledger.status(filed().proposal.id) == "expired"


def test_proposals_that_nobody_admitted_in_time_are_swept(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(filed())
    ledger.file(filed(number=2, expires_at=now + timedelta(hours=2)))
    assert ledger.expire(now + timedelta(hours=1)) == [filed().proposal.id]
    assert ledger.counts() == {"expired": 1, "filed": 1}


def test_shadow_admits_nothing(ledger: SqlLedger, filed: Make, decide: Make, now: datetime) -> None:
    ledger.file(filed())
    verdict = ledger.admit(filed().proposal.id, decide(), Mode.SHADOW, now)
    assert verdict.policy_ids == ("shadow-injects-nothing",)


def test_production_is_admitted_after_an_approval_and_not_before(
    ledger: SqlLedger, gate: Gate, filed: Make, decide: Make, person: Make, now: datetime
) -> None:
    proposal = filed()
    ledger.file(proposal)
    before = ledger.admit(proposal.proposal.id, decide(env="prod"), Mode.AUTO, now)
    assert (before.outcome, dict(before.requirements)) == (Outcome.NEEDS_APPROVAL, {"approver": 1})
    ann = person("ann", "approver")
    may = gate.judge_vote(ann, proposal, proposal.digest, "approve", now)
    assert isinstance(
        ledger.vote(proposal.proposal.id, proposal.digest, ann, "approve", "looked at it", may, now), Vote
    )
    after = ledger.admit(proposal.proposal.id, decide(env="prod"), Mode.AUTO, now)
    assert after.outcome is Outcome.ALLOW


def test_a_veto_holds_whatever_the_decision_would_be(
    ledger: SqlLedger, gate: Gate, filed: Make, person: Make, now: datetime, tmp_path: Path
) -> None:
    proposal = filed()
    ledger.file(proposal)
    cast: tuple[tuple[str, Literal["approve", "reject"]], ...] = (("ann", "approve"), ("bob", "reject"))
    for name, decision in cast:
        voter = person(name, "approver")
        may = gate.judge_vote(voter, proposal, proposal.digest, decision, now)
        ledger.vote(proposal.proposal.id, proposal.digest, voter, decision, "", may, now)
    assert ledger.status(proposal.proposal.id) == "rejected"
    assert ledger.admit(proposal.proposal.id, allow, Mode.AUTO, now).policy_ids == ("!vetoed",)
    assert outbox_rows(tmp_path) == []


def test_the_run_budget_is_counted_from_the_outbox_over_a_day(
    ledger: SqlLedger, filed: Make, decide: Make, now: datetime
) -> None:
    later = [now + timedelta(minutes=minute) for minute in range(4)]
    verdicts = []
    for number, at in enumerate(later):
        proposal = filed(number=number, expires_at=now + timedelta(days=2))
        ledger.file(proposal)
        verdicts.append(ledger.admit(proposal.proposal.id, decide(at), Mode.AUTO, at))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.ALLOW] * 3 + [Outcome.DENY]
    assert verdicts[3].policy_ids == ("run-budget",)
    next_day = later[0] + timedelta(hours=24, seconds=1)
    again = ledger.admit(filed(number=3).proposal.id, decide(next_day), Mode.AUTO, next_day)
    assert again.outcome is Outcome.ALLOW


def test_notifications_and_changes_do_not_spend_each_others_budget(
    ledger: SqlLedger, filed: Make, now: datetime
) -> None:
    ledger.file(filed(NotifyOwner(run_id=RUN)))
    ledger.admit(filed(NotifyOwner(run_id=RUN)).proposal.id, allow, Mode.AUTO, now)
    change, notice = filed(number=2), filed(NotifyOwner(run_id=RUN), number=3)
    later = now + timedelta(seconds=7)
    for proposal, expected in ((change, (0, None)), (notice, (1, 7))):
        ledger_facts = ledger.facts(proposal, "judge", Mode.AUTO, later)
        assert (ledger_facts.actions_1h, ledger_facts.seconds_since_same_target) == expected
        assert ledger_facts.actions_of_run_24h == 0


def test_text_of_runs_in_the_evidence_taints(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    named = {("run:x", "queue:p/q"): False, ("run:x", "log:1"): True, ("rule:x",): True, (): True}
    for evidence, tainted in named.items():
        ledger_facts = ledger.facts(filed(evidence=evidence), "judge", Mode.AUTO, now)
        assert ledger_facts.evidence_tainted is tainted, evidence


PAUSE = PauseDeployment(deployment_id=RUN, hold=timedelta(minutes=1))
HOLD = HoldQueue(pool="p", queue="q", hold=timedelta(minutes=1))
CATCH_UP = CatchUp(
    deployment_id=RUN, keep=1, first=datetime(2026, 1, 5, tzinfo=UTC), wave=1, every=timedelta(minutes=1)
)
RANK = SetPriority(pool="p", queue="q", priority=1, hold=timedelta(minutes=1))
BEGUN: dict[str, tuple[Action, dict[str, Any], bool]] = {
    "a run that runs": (CancelRun(run_id=RUN), {"state_type": "RUNNING", "run_count": 1}, True),
    "a run that failed": (CancelRun(run_id=RUN), {"state_type": "FAILED", "run_count": 1}, True),
    "a run that waits for its second attempt": (
        CancelRun(run_id=RUN),
        {"state_type": "SCHEDULED", "run_count": 1},
        True,
    ),
    "a run that never began": (CancelRun(run_id=RUN), {"state_type": "SCHEDULED", "run_count": 0}, False),
    "a run whose process is gone": (
        MarkCrashed(run_id=RUN),
        {"state_type": "RUNNING", "run_count": 1, "death": "process"},
        False,
    ),
    "a run that is only said to be dead": (
        MarkCrashed(run_id=RUN),
        {"state_type": "RUNNING", "run_count": 1, "death": ""},
        True,
    ),
    "children of a crashed run": (CancelTree(run_id=RUN), {"state_type": "CRASHED", "run_count": 1}, False),
    "a deployment whose runs fail": (PAUSE, {"failing": 3}, False),
    "a deployment that is only said to fail": (PAUSE, {"failing": 2}, True),
    "a queue whose runs fail": (HOLD, {"failing": 5}, False),
    "a queue that is only said to be at fault": (HOLD, {"failing": 0}, True),
    "a backlog": (CATCH_UP, {"overdue": 2}, False),
    "a backlog that nobody finds": (CATCH_UP, {"overdue": 1}, True),
    "a rank, which holds nobody up": (RANK, {"state_type": ""}, False),
    "children of a run that runs": (CancelTree(run_id=RUN), {"state_type": "RUNNING", "run_count": 1}, True),
}
"""By what is acted on, whether it is tainted although its proposer names nothing but what was counted."""


@pytest.mark.parametrize(("action", "known", "tainted"), BEGUN.values(), ids=BEGUN.keys())
def test_a_proposer_that_lies_about_its_evidence_gains_nothing(
    ledger: SqlLedger,
    filed: Make,
    facts_of: Make,
    now: datetime,
    action: Action,
    known: dict[str, Any],
    tainted: bool,
) -> None:
    proposal = filed(action, evidence=(f"run:{RUN}", "queue:p/q"))
    target = facts_of(proposal, **known)
    assert ledger.facts(proposal, "judge", Mode.AUTO, now, target).evidence_tainted is tainted


def test_a_budget_under_twenty_threads_gives_exactly_its_number(
    ledger: SqlLedger, bundle: Bundle, filed: Make, facts_of: Make, now: datetime, tmp_path: Path
) -> None:
    limit = bundle.guardrails.max_actions_per_deployment_per_hour
    gate = Gate(bundle)
    proposals = [filed(RetryRun(run_id=another_run(number)), number=number) for number in range(limit + 20)]
    for proposal in proposals:
        ledger.file(proposal)
    allowed: list[str] = []
    ready = threading.Barrier(20)

    def deciding(stored: FiledProposal, ledger_facts: LedgerFacts) -> Verdict:
        return gate.judge(stored, facts_of(stored), ledger_facts, now)

    def work(mine: list[FiledProposal]) -> None:
        ready.wait()
        for proposal in mine:
            verdict = ledger.admit(proposal.proposal.id, deciding, Mode.AUTO, now, facts_of(proposal))
            if verdict.outcome is Outcome.ALLOW:
                allowed.append(proposal.proposal.id)
            else:
                assert "deployment-budget" in verdict.policy_ids

    threads = [threading.Thread(target=work, args=(proposals[first::20],)) for first in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(allowed) == limit == len(outbox_rows(tmp_path))
    assert ledger.verify_audit().ok


def test_a_ledger_that_cannot_be_opened_says_so_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="opening the ledger"):
        SqlLedger(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.sqlite'}")
