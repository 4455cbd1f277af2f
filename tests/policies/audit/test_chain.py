"""The audit log only grows, and a change to it is seen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pilotage.policies.ledger.sql_ledger import SqlLedger

Make = Callable[..., Any]


@pytest.fixture
def written(ledger: SqlLedger, filed: Make) -> SqlLedger:
    for number in range(5):
        ledger.file(filed(number=number))
    return ledger


@contextmanager
def attacked(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database in the hands of somebody who has dropped the triggers."""
    connection = sqlite3.connect(folder / "ledger.sqlite")
    try:
        connection.execute("DROP TRIGGER audit_no_UPDATE")
        connection.execute("DROP TRIGGER audit_no_DELETE")
        yield connection
        connection.commit()
    finally:
        connection.close()


def test_an_untouched_log_verifies(written: SqlLedger) -> None:
    report = written.verify_audit()
    assert (report.ok, report.length, report.first_bad) == (True, 5, None)


@pytest.mark.parametrize("verb", ["UPDATE audit SET at = ''", "DELETE FROM audit"], ids=["update", "delete"])
def test_the_database_itself_refuses_to_change_it(written: SqlLedger, tmp_path: Path, verb: str) -> None:
    connection = sqlite3.connect(tmp_path / "ledger.sqlite")
    try:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(verb)
    finally:
        connection.close()
    assert written.verify_audit().ok


ATTACKS = {
    "edit a body": (
        "UPDATE audit SET body = replace(body, 'pilot', 'other') WHERE seq = 3",
        3,
        "was changed",
    ),
    "edit a column": ("UPDATE audit SET run_id = 'x' WHERE seq = 3", 3, "column run_id"),
    "delete a middle entry": ("DELETE FROM audit WHERE seq = 3", 3, "is missing"),
    "delete the first entry": ("DELETE FROM audit WHERE seq = 1", 1, "is missing"),
    "edit a hash": (
        "UPDATE audit SET hash = replace(hash, substr(hash, 1, 1), 'g') WHERE seq = 3",
        3,
        "changed",
    ),
    "edit the link": ("UPDATE audit SET prev = hash WHERE seq = 3", 3, "does not follow"),
    "close the gap": (
        "DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = seq - 1 WHERE seq > 3",
        3,
        "does not follow",
    ),
}


@pytest.mark.parametrize(("sql", "where", "why"), ATTACKS.values(), ids=ATTACKS.keys())
def test_an_attack_is_seen_and_located(
    written: SqlLedger, tmp_path: Path, sql: str, where: int, why: str
) -> None:
    with attacked(tmp_path) as connection:
        connection.executescript(sql)
    report = written.verify_audit()
    assert (report.ok, report.first_bad) == (False, where)
    assert why in report.why


def test_a_cut_tail_shows_against_a_head_kept_elsewhere(written: SqlLedger, tmp_path: Path) -> None:
    kept = written.verify_audit().head
    with attacked(tmp_path) as connection:
        connection.execute("DELETE FROM audit WHERE seq = 5")
    report = written.verify_audit()
    assert (report.ok, report.length) == (True, 4)
    assert report.head != kept


def test_the_export_is_one_json_line_for_each_entry(written: SqlLedger) -> None:
    lines = [json.loads(line) for line in written.export_audit()]
    assert [line["body"]["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[-1]["hash"] == written.verify_audit().head


def test_odd_text_and_numbers_go_in_and_verify(ledger: SqlLedger, filed: Make, now: datetime) -> None:
    ledger.file(filed())
    ledger.stop("ann", "\ud800 \x00 \u202e 'quotes\" and\nlines", now)
    ledger.resume_vote("ann", 1, now)
    assert ledger.verify_audit().ok
    assert ledger.verify_audit().length == 3
