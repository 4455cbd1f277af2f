"""What the ledger recorded reaches the store and the pager, each once, also when it is about no incident."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.flows.notify.test_notifier import Receiver

from pilotage.flows.api.refused_requests import RefusedRequests
from pilotage.flows.notify.notifier import Notifier
from pilotage.flows.notify.projector import AuditProjector, readable
from pilotage.policies.grants import BreakGlassGrant
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import Identity, Mode, Outcome, Verdict
from pilotage.telemetry.store.duckdb import DuckDBStore


@pytest.mark.parametrize(("mode", "pages"), [(Mode.AUTO, 1), (Mode.SHADOW, 0)], ids=["auto", "shadow"])
def test_broken_glass_is_a_page_of_its_own(tmp_path: Path, mode: Mode, pages: int) -> None:
    now = datetime.now(UTC)
    receiver = Receiver()
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    try:
        grant = BreakGlassGrant(
            id="g-1", holder="ada", reason="outage", since=now, until=now + timedelta(minutes=5),
            kinds=("retry_run",), targets=("run:*",),
        )  # fmt: skip
        assert ledger.break_glass(grant, Verdict(outcome=Outcome.ALLOW))
        notifier = Notifier(webhook_url=receiver.url)
        chronicle = AuditProjector(ledger=ledger, store=store, notifier=notifier, mode=lambda: mode)
        assert asyncio.run(chronicle.catch_up()) == 1
        assert asyncio.run(chronicle.catch_up()) == 0
        assert len(receiver.bodies) == pages
        for body in receiver.bodies:
            assert body["dedup_key"] == "pilotage-1"
            assert "BREAK-GLASS by ada, retry_run on run:*" in body["payload"]["summary"]
    finally:
        store.close()
        ledger.close()
        receiver.close()


def test_a_refused_request_reaches_the_store_and_what_makes_no_sense_holds_nothing_up(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    store = DuckDBStore(tmp_path / "telemetry.duckdb")
    try:
        vic = Identity(name="vic", kind="user", roles=frozenset({"viewer"}))
        refusals = RefusedRequests(ledger, clock=lambda: datetime.now(UTC))
        asyncio.run(refusals.note_refusal(vic, "vote", "denied", "no role", about="p-000000000001"))
        notifier = Notifier(webhook_url="")
        projector = AuditProjector(ledger=ledger, store=store, notifier=notifier, mode=lambda: Mode.AUTO)
        assert asyncio.run(projector.catch_up()) == 1
        assert [row["actor"] for row in store.rows("SELECT actor FROM decisions")] == ["vic"]
        (entry,) = ledger.entries(0, 10)
        broken = readable({**entry, "detail": {"verdict": "allow", "case": 7}})
        assert (broken.decision_id, broken.actor, broken.outcome) == (f"a-{entry['seq']:012d}", "vic", "")
        assert "could not be read" in broken.detail["told"]
    finally:
        store.close()
        ledger.close()
