"""Bad input while everything runs: each a clear error, a denial, and nothing lost.

A bad bundle is in test_publications, a wrong key in test_guardrails, a ledger that is locked, damaged or full
when it is opened or written in test_bad_ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilotage.flows.api.admin import AdminEndpoints
from pilotage.flows.execution.mode import ModeSwitch
from pilotage.policies.gate.gate import Gate
from pilotage.policies.identity.users import IdentityBook
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Identity, Mode, Outcome, Verdict
from pilotage.telemetry.errors import LedgerError

Make = Callable[..., Any]


def admitted(ledger: SqlLedger, gate: Gate, proposal: FiledProposal, target: Any, at: datetime) -> Verdict:
    return ledger.admit(
        proposal.proposal.id,
        lambda stored, ledger_facts: gate.judge(stored, target, ledger_facts, at),
        Mode.AUTO,
        at,
        target,
    )


def test_a_role_that_does_not_exist_counts_for_nobody_and_earlier_votes_wait(
    tmp_path: Path, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    """The users file goes bad after a vote: no approval counts until it is right again, and then the vote does."""
    users = tmp_path / "users.toml"
    book = IdentityBook(users)
    book.add("ann", roles=("approver",))
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", current_identity=book.current_identity)
    try:
        asked, ann = filed(), book.current_identity("ann")
        assert ann is not None
        ledger.file(asked)
        yes = gate.judge_vote(ann, asked, asked.digest, "approve", now)
        ledger.vote(asked.proposal.id, asked.digest, ann, "approve", "", yes, now)
        good = users.read_text()
        users.write_text(good.replace("approver", "emperor"))
        target = facts_of(asked, env="prod")
        told = admitted(ledger, gate, asked, target, now)
        assert (told.outcome, told.requirements) == (Outcome.NEEDS_APPROVAL, {"approver": 1})
        users.write_text(good)
        assert admitted(ledger, gate, asked, target, now).outcome is Outcome.ALLOW
    finally:
        ledger.close()


def test_a_caller_with_an_unknown_role_is_denied_by_name(
    gate: Gate, filed: Make, facts_of: Make, now: datetime, ledger: SqlLedger, person: Make
) -> None:
    asked = filed(proposer=person("ned", "emperor"))
    ledger.file(asked)
    verdict = admitted(ledger, gate, asked, facts_of(asked), now)
    assert (verdict.outcome, verdict.policy_ids) == (Outcome.DENY, ("!missing-fact",))
    assert "emperor" in verdict.reasons[0]


@pytest.mark.parametrize("back", [timedelta(minutes=5), timedelta(days=2)], ids=["minutes", "days"])
def test_a_clock_that_was_set_back_gives_no_budget_back(
    ledger: SqlLedger, gate: Gate, filed: Make, facts_of: Make, now: datetime, back: timedelta
) -> None:
    """What was admitted in what is the future now goes on counting, and the cooldown waits for the clock."""
    first = filed(number=1)
    ledger.file(first)
    assert admitted(ledger, gate, first, facts_of(first), now).outcome is Outcome.ALLOW
    earlier = now - back
    second = filed(number=2, filed_at=earlier)
    ledger.file(second)
    ledger_facts = ledger.facts(second, "inject", Mode.AUTO, earlier, facts_of(second))
    assert (ledger_facts.actions_1h, ledger_facts.actions_of_run_24h) == (1, 1)
    told = admitted(ledger, gate, second, facts_of(second, read_at=earlier), earlier)
    assert (told.outcome, told.policy_ids) == (Outcome.DENY, ("cooldown",))


def test_a_clock_that_ran_ahead_makes_facts_stale_and_proposals_expire(
    ledger: SqlLedger, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    one, two = filed(number=1), filed(number=2)
    for each in (one, two):
        ledger.file(each)
    told = admitted(ledger, gate, one, facts_of(one), now + timedelta(minutes=1))
    assert told.policy_ids == ("!stale-facts",)
    late = now + timedelta(hours=1)
    assert admitted(ledger, gate, two, facts_of(two, read_at=late), late).policy_ids == ("!expired",)
    assert ledger.verify_audit().ok


def test_a_ledger_that_is_damaged_while_it_is_open_admits_nothing_and_says_so(
    tmp_path: Path, gate: Gate, filed: Make, facts_of: Make, now: datetime
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SqlLedger(f"sqlite:///{path}")
    kept = [filed(number=number) for number in range(1, 30)]
    for proposal in kept:
        ledger.file(proposal)
    ledger.close()  # the write-ahead log is folded in, the pool is empty, the object is still usable
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(LedgerError, match=r"(?s)admitting .*nothing was changed"):
        admitted(ledger, gate, kept[0], facts_of(kept[0]), now)
    ledger.close()
    path.write_bytes(whole)
    for leftover in (tmp_path / "ledger.sqlite-wal", tmp_path / "ledger.sqlite-shm"):
        leftover.unlink(missing_ok=True)
    again = SqlLedger(f"sqlite:///{path}")
    try:
        assert again.verify_audit().ok
        assert all(again.filed(proposal.proposal.id) == proposal for proposal in kept)
        assert again.counts() == {"filed": len(kept)}
    finally:
        again.close()


def test_without_room_in_the_audit_log_a_command_does_not_happen(
    ledger: SqlLedger, gate: Gate, now: datetime, person: Make
) -> None:
    """The row and what it tells of are one: the mode stays, no glass breaks, nobody votes for anybody."""
    adam = person("adam", "admin")

    async def never(filed: FiledProposal) -> Verdict:
        raise AssertionError

    switch = ModeSwitch(ledger, Mode.SHADOW, lambda: now)
    governance = AdminEndpoints(
        ledger=ledger, gate=gate, judge=never, mode=switch, clock=lambda: now, wake=lambda: None,
        current_identity=lambda name: Identity(name=name, kind="user"),
    )  # fmt: skip
    with ledger.writing("leaving no package") as connection:
        (pages,) = connection.exec_driver_sql("PRAGMA page_count").fetchone() or (0,)
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    long = "x" * 500  # longer than what is left of the last page, soon
    outcomes: list[str] = []
    for _ in range(200):
        try:
            asyncio.run(governance.set_mode(adam, "auto", long))
            asyncio.run(governance.set_mode(adam, "shadow", long))
        except LedgerError as exc:
            outcomes.append(str(exc))
            break
    assert outcomes, "the disk was never full"
    assert "nothing was changed" in outcomes[0]
    steps = [step["detail"]["mode"] for step in ledger.entries(0, 1000) if step["step"] == "mode_set"]
    assert switch.mode() is ledger.mode() is ledger.asked_mode()
    assert steps[-1] == switch.mode().value
    assert ledger.verify_audit().ok
