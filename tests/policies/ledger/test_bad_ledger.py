"""A ledger that is locked, damaged or full: a clear error, nothing admitted, and nothing lost."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pilotage.policies.gate.gate import LedgerFacts
from pilotage.policies.ledger import schema as ledger_schema
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal, Mode, Outcome, Verdict
from pilotage.telemetry.errors import LedgerError

Make = Callable[..., Any]
LEASE = timedelta(seconds=30)


def allow(_filed: FiledProposal, _counted: LedgerFacts) -> Verdict:
    return Verdict(outcome=Outcome.ALLOW, policy_ids=("test",))


def test_a_locked_ledger_is_a_passing_error_and_admits_nothing(
    tmp_path: Path, filed: Make, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_schema, "BUSY_TIMEOUT_S", 0.05)
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    ledger.file(filed())
    other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LedgerError, match=r"(?s)admitting .*locked.*nothing was changed") as told:
            ledger.admit(filed().proposal.id, allow, Mode.AUTO, now)
        assert told.value.transient
        assert ledger.status(filed().proposal.id) == "filed"
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert ledger.admit(filed().proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW
    ledger.close()


@pytest.mark.parametrize("damage", [b"not a database at all" * 400, b""], ids=["another file", "emptied"])
def test_a_damaged_ledger_is_an_error_or_empty_and_never_admits(
    tmp_path: Path, filed: Make, now: datetime, damage: bytes
) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = SqlLedger(f"sqlite:///{path}")
    ledger.file(filed())
    ledger.close()
    path.write_bytes(damage)
    if damage:
        with pytest.raises(LedgerError, match="opening the ledger") as told:
            SqlLedger(f"sqlite:///{path}")
        assert not told.value.transient
        return
    again = SqlLedger(f"sqlite:///{path}")
    assert again.admit(filed().proposal.id, allow, Mode.AUTO, now).policy_ids == ("!not-filed",)
    again.close()


def test_a_disk_that_is_full_while_the_audit_is_written_admits_nothing_and_loses_nothing(
    tmp_path: Path, filed: Make, now: datetime
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    ledger = SqlLedger(url)
    kept = [filed(number=number) for number in range(1, 4)]
    for proposal in kept:
        ledger.file(proposal)
    ledger.close()
    full = SqlLedger(url)

    def no_room(connection: Any, _record: Any) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}").close()

    sa.event.listen(full._engine, "connect", no_room)
    full._engine.dispose()
    backlog = [
        filed(number=number, evidence=tuple("x" * 300 for _ in range(50))) for number in range(100, 200)
    ]
    filed_until_full: list[str] = []

    def backlog_in() -> None:
        for proposal in backlog:
            full.file(proposal)
            filed_until_full.append(proposal.proposal.id)

    with pytest.raises(LedgerError, match=r"(?s)full.*nothing was changed"):
        backlog_in()
    admitted = 0
    for proposal in kept:
        try:
            admitted += full.admit(proposal.proposal.id, allow, Mode.AUTO, now).outcome is Outcome.ALLOW
        except LedgerError:
            continue
    full.close()
    again = SqlLedger(url)
    try:
        assert again.verify_audit().ok
        assert all(again.filed(proposal.proposal.id) == proposal for proposal in kept)
        assert again.filed(backlog[len(filed_until_full)].proposal.id) is None
        # what was admitted stands with its audit row, what was not left none
        events = [step["step"] for step in again.entries(0, 1000)]
        assert events.count("admitted") == admitted == again.counts().get("admitted", 0)
    finally:
        again.close()
