"""Very many decisions are replayed on several processes, with the report that one process would have given."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update
from tests.bench.many_decisions import filled

from pilotage.policies.cedar.bundle import Bundle
from pilotage.policies.ledger.schema import proposals
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.replay.parallel import BATCH, replayed_rows
from pilotage.policies.replay.what_if import SHOWN

COUNT = 3 * BATCH + 7
NOON = datetime(2027, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> SqlLedger:
    ledger = SqlLedger(f"sqlite:///{tmp_path_factory.mktemp('past') / 'ledger.sqlite'}")
    filled(ledger, Bundle.load(), COUNT, NOON)
    return ledger


def test_what_was_decided_is_decided_again_by_the_same_bundle(past: SqlLedger) -> None:
    report = replayed_rows(Bundle.load(), past.stored_decisions(), processes=1)
    assert (report.decisions, report.same, report.skipped) == (COUNT, COUNT, 0)
    assert report.moves == {}


def test_two_processes_report_what_one_does(past: SqlLedger, tmp_path: Path) -> None:
    numbers = tmp_path / "g.yaml"
    numbers.write_text(
        "non_production: [prod]\nmax_attempts_per_run: 1\ncooldown: 6m\nmax_actions_per_hour: 2\n"
    )
    bundle = Bundle.load(guardrails=numbers)
    alone = replayed_rows(bundle, past.stored_decisions(), processes=1)
    shared = replayed_rows(bundle, past.stored_decisions(), processes=2)
    assert shared.as_json() == alone.as_json()
    assert alone.moves["needs_approval", "allow"] > 0
    assert alone.moves["allow", "deny"] > 0
    assert sum(alone.moves.values()) > len(alone.changed) == SHOWN


def test_a_row_that_is_no_decision_any_more_is_counted_and_passed_over(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    try:
        filled(ledger, Bundle.load(), 5, NOON)
        with ledger.writing("spoiling a row") as connection:
            connection.execute(
                update(proposals).where(proposals.c.id == "p-000000000003").values(proposal='{"id": 3}')
            )
        report = replayed_rows(Bundle.load(), ledger.stored_decisions())
    finally:
        ledger.close()
    assert (report.decisions, report.same, report.skipped) == (4, 4, 1)
