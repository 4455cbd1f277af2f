"""The ledger forgets what ended long ago, whole, and nothing that is open; the log is cut behind a checkpoint only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.policies.conftest import NOW, Make

from pilotage.planner.actions.types import RetryRun
from pilotage.policies.audit.checkpoints import SUFFIX, kept_in
from pilotage.policies.audit.ed25519 import Ed25519Signer, Ed25519Verifier
from pilotage.policies.ledger.checkpoint_job import sign_checkpoint
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.policies.types import FiledProposal
from pilotage.telemetry.errors import InvariantError

LIFE = timedelta(days=1000)
OF_A_PROPOSAL = ("listed", "verdicts", "votes", "outbox", "receipts", "outcomes")


def at_day(filed: Make, number: int, days_ago: int, cause: str = "") -> FiledProposal:
    when = NOW - timedelta(days=days_ago)
    run_id = f"00000000-0000-4000-8000-{number:012x}"
    one: FiledProposal = filed(
        RetryRun(run_id=run_id),
        number=number,
        incident_id=f"i-{number:012x}",
        filed_at=when,
        expires_at=when + timedelta(minutes=10),
    )
    said = {"subject": f"run:{run_id}", "causes": (cause or f"fault:{number}",), "failure_class": "transient"}
    return replace(one, case=one.case.model_copy(update=said))


def ended(ledger: SqlLedger, one: FiledProposal) -> None:
    """Its proposal expires and its incident is waived, a day after it was filed."""
    after = one.filed_at + timedelta(days=1)
    ledger.expire(after)
    incident = ledger.incident_of(one.proposal.incident_id)
    ledger.waive_incident(incident, "ann", "done elsewhere", after)


def proposals(ledger: SqlLedger) -> set[str]:
    return {row["proposal_id"] for row in ledger.proposals(None, 1000)}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    troubles=st.lists(
        st.tuples(st.integers(0, 2000), st.booleans(), st.integers(0, 3)), min_size=1, max_size=8
    ),
    life=st.integers(2, 1900),
)
def test_what_is_open_or_young_is_never_deleted_and_what_ended_long_ago_goes(
    tmp_path_factory: pytest.TempPathFactory, filed: Make, troubles: list[tuple[int, bool, int]], life: int
) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path_factory.mktemp('l')}/ledger.sqlite")
    made = []
    # a cause in common makes one incident of several
    for number, (days, over, cause) in enumerate(sorted(troubles, reverse=True), start=1):
        one = at_day(filed, number, days, f"host:{cause}")
        ledger.file(one)
        made.append((one, over))
    for one, over in made:
        if over:
            ended(ledger, one)
    before = NOW - timedelta(days=life)
    standing = {row["proposal_id"]: row for row in ledger.proposals(None, 1000)}
    incidents = {row["incident_id"]: row for row in ledger.incidents(1000)}
    needed = ledger.needed_runs()
    taken: dict[str, list[dict[str, Any]]] = {}

    def keep(kind: str, rows: Sequence[dict[str, Any]]) -> None:
        taken.setdefault(kind, []).extend(rows)

    gone = ledger.forget_history(before, keep)

    left = proposals(ledger)
    for incident in incidents.values():
        runs_open = incident["state"] == "open"
        ids = {each["proposal_id"] for each in incident["proposals"]}
        newest = max(standing[each]["filed_at"] for each in ids)
        if runs_open or datetime.fromisoformat(newest) >= before:
            assert ids <= left, "something open or young is gone"
        assert not ids & left or ids <= left, "an incident is gone in part"
    assert {row["id"] for row in taken.get("proposals", [])} == set(standing) - left
    assert gone["proposals"] == len(standing) - len(left)
    assert ledger.needed_runs() == needed
    assert ledger.forget_history(before, keep) == {"proposals": 0, "incidents": 0}
    assert ledger.verify_audit().ok
    for each in left:
        assert ledger.proposal(each) is not None
    ledger.close()


def test_what_ended_long_ago_leaves_no_row_behind(ledger: SqlLedger, filed: Make, tmp_path: Path) -> None:
    one = at_day(filed, 1, 2000)
    ledger.file(one)
    ended(ledger, one)
    assert ledger.forget_history(NOW - LIFE) == {"proposals": 1, "incidents": 1}
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        for table in (*OF_A_PROPOSAL, "proposals", "incidents", "incident_runs", "incident_causes"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # noqa: S608
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def test_an_archive_that_cannot_take_it_keeps_it_in_the_ledger(ledger: SqlLedger, filed: Make) -> None:
    one = at_day(filed, 1, 2000)
    ledger.file(one)
    ended(ledger, one)

    def full(kind: str, rows: Sequence[dict[str, Any]]) -> None:
        if kind == "incidents":
            raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        ledger.forget_history(NOW - LIFE, full)
    assert proposals(ledger) == {one.proposal.id}
    assert ledger.incident(one.proposal.incident_id) is not None


@pytest.fixture
def signer(tmp_path: Path) -> Ed25519Signer:
    return Ed25519Signer.kept_at(tmp_path / "audit.key")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "elsewhere"


@pytest.fixture
def aged(ledger: SqlLedger, filed: Make, signer: Ed25519Signer, elsewhere: Path) -> SqlLedger:
    """Three old troubles that ended, one of today, a checkpoint after each; the old ones are forgotten."""
    for number in (1, 2, 3):
        one = at_day(filed, number, 2000 - number)
        ledger.file(one)
        ended(ledger, one)
        sign_checkpoint(ledger, signer, elsewhere, "test", one.filed_at + timedelta(days=2))
    ledger.file(at_day(filed, 4, 0))
    sign_checkpoint(ledger, signer, elsewhere, "test", NOW)
    ledger.forget_history(NOW - LIFE)
    return ledger


def cut(ledger: SqlLedger, signer: Ed25519Signer, elsewhere: Path, which: int = -2) -> int:
    vouched = kept_in(elsewhere, Ed25519Verifier(signer.public()))[which]
    note = (elsewhere / f"{vouched.size:012d}{SUFFIX}").read_text()
    return ledger.cut_audit(vouched, note, NOW - LIFE, NOW)


def test_a_cut_log_is_verified_from_its_checkpoint_on(
    aged: SqlLedger, filed: Make, signer: Ed25519Signer, elsewhere: Path
) -> None:
    verifier = Ed25519Verifier(signer.public())
    length = aged.verify_audit().length
    gone = cut(aged, signer, elsewhere)
    assert gone > 0
    report = aged.verify_audit(kept_in(elsewhere, verifier), verifier)
    assert (report.ok, report.cut, report.length) == (True, gone, length + 1)
    assert aged.entries(0, 100)[0]["seq"] == gone + 1
    # it goes on: more entries, another checkpoint, another cut
    for number in (5, 6):
        aged.file(at_day(filed, number, 0))
    assert sign_checkpoint(aged, signer, elsewhere, "test", NOW) is not None
    assert aged.verify_audit(kept_in(elsewhere, verifier), verifier).ok


def test_a_log_that_is_cut_to_its_last_entry_goes_on_behind_it(
    ledger: SqlLedger, filed: Make, signer: Ed25519Signer, elsewhere: Path
) -> None:
    one = at_day(filed, 1, 2000)
    ledger.file(one)
    ended(ledger, one)
    sign_checkpoint(ledger, signer, elsewhere, "test", one.filed_at + timedelta(days=2))
    ledger.forget_history(NOW - LIFE)
    gone = cut(ledger, signer, elsewhere, -1)
    assert [entry["step"] for entry in ledger.entries(0, 10)] == ["audit_cut"]
    assert ledger.verify_audit().length == gone + 1
    assert ledger.verify_audit().ok


def test_entries_of_what_is_kept_are_not_cut(
    ledger: SqlLedger, filed: Make, signer: Ed25519Signer, elsewhere: Path
) -> None:
    old = at_day(filed, 1, 2000)  # still open: nobody decided
    ledger.file(old)
    sign_checkpoint(ledger, signer, elsewhere, "test", old.filed_at)
    assert ledger.cuttable_audit(NOW - LIFE) == 0
    with pytest.raises(InvariantError, match="of what is kept"):
        cut(ledger, signer, elsewhere, -1)
    assert ledger.verify_audit().length == 1


def test_young_entries_are_not_cut(aged: SqlLedger, signer: Ed25519Signer, elsewhere: Path) -> None:
    with pytest.raises(InvariantError, match="younger"):
        cut(aged, signer, elsewhere, -1)


@contextmanager
def attacked(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path / "ledger.sqlite")
    for table in ("audit", "audit_cuts"):
        connection.executescript(f"DROP TRIGGER {table}_no_UPDATE; DROP TRIGGER {table}_no_DELETE")
    yield connection
    connection.commit()
    connection.close()


def test_the_log_is_append_only_again_after_a_cut(
    aged: SqlLedger, signer: Ed25519Signer, elsewhere: Path, tmp_path: Path
) -> None:
    cut(aged, signer, elsewhere)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        for statement in ("DELETE FROM audit", "UPDATE audit SET at = ''", "DELETE FROM audit_cuts"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("DELETE FROM audit_cuts", "is missing"),
        ("UPDATE audit_cuts SET peaks = '[[1, \"00\"]]'", "vouches for others"),
        ("UPDATE audit_cuts SET hash = replace(hash, 'a', 'b')", "vouches for others"),
        ("UPDATE audit_cuts SET note = 'nothing'", "no signed note"),
        ("UPDATE audit_cuts SET peaks = 'x'", "damaged"),
        ("UPDATE audit_cuts SET note = replace(note, 'test', 'tess')", "no valid signature"),
        ("DELETE FROM audit WHERE seq = (SELECT min(seq) FROM audit)", "is missing"),
    ],
    ids=["base gone", "other tree", "other head", "no note", "damaged", "forged note", "one more cut"],
)
def test_whoever_touches_a_cut_log_is_found(
    aged: SqlLedger, signer: Ed25519Signer, elsewhere: Path, tmp_path: Path, attack: str, said: str
) -> None:
    cut(aged, signer, elsewhere)
    with attacked(tmp_path) as connection:
        connection.execute(attack)
    report = aged.verify_audit((), Ed25519Verifier(signer.public()))
    assert not report.ok
    assert said in report.why


def test_a_beginning_that_somebody_made_up_is_found_by_a_later_checkpoint(
    aged: SqlLedger, signer: Ed25519Signer, elsewhere: Path, tmp_path: Path
) -> None:
    verifier = Ed25519Verifier(signer.public())
    forger = Ed25519Signer.kept_at(tmp_path / "forger.key")
    cut(aged, signer, elsewhere)
    with attacked(tmp_path) as connection:
        (first,) = connection.execute("SELECT min(seq) FROM audit").fetchone()
        connection.execute("DELETE FROM audit WHERE seq = ?", (first,))
    kept = kept_in(elsewhere, verifier)
    assert not aged.verify_audit(kept, Ed25519Verifier(forger.public())).ok
    assert not aged.verify_audit(kept, verifier).ok


def test_checkpoints_of_cut_entries_alone_prove_nothing(
    aged: SqlLedger, signer: Ed25519Signer, elsewhere: Path
) -> None:
    verifier = Ed25519Verifier(signer.public())
    cut(aged, signer, elsewhere)
    report = aged.verify_audit(kept_in(elsewhere, verifier)[:1], verifier)
    assert not report.ok
    assert "give a later one" in report.why


def test_the_file_of_a_ledger_that_forgot_much_becomes_small(
    ledger: SqlLedger, filed: Make, tmp_path: Path
) -> None:
    for number in range(1, 120):
        one = at_day(filed, number, 2000)
        ledger.file(one)
    ledger.expire(NOW)
    for row in ledger.incidents(1000):
        ledger.waive_incident(row["incident_id"], "ann", "done", NOW - timedelta(days=1500))
    assert not ledger.shrink(0.3)
    assert ledger.forget_history(NOW - LIFE)["proposals"] == 119
    before = (tmp_path / "ledger.sqlite").stat().st_size
    assert ledger.shrink(0.3)
    assert (tmp_path / "ledger.sqlite").stat().st_size < before
    assert ledger.verify_audit().ok
    ledger.file(at_day(filed, 500, 0))
