"""A whole installation past its ages: what is open stays whole, the rest is archived and goes, the files shrink."""

from __future__ import annotations

import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.flows.make_installation import ROOT
from tests.telemetry.samples import a_log, a_run

from pilotage.flows.api.offline import OfflineReader
from pilotage.flows.config.paths import StatePaths
from pilotage.flows.config.retention import RetentionSettings
from pilotage.flows.controller.checkpoints import signer_of
from pilotage.flows.controller.retention import Upkeep
from pilotage.policies.audit.checkpoints import kept_in
from pilotage.policies.audit.ed25519 import Ed25519Verifier
from pilotage.policies.ledger.checkpoint_job import sign_checkpoint
from pilotage.policies.ledger.sql_ledger import SqlLedger
from pilotage.telemetry.errors import InvariantError, StoreError
from pilotage.telemetry.store.duckdb import DuckDBStore

OLD = Path(__file__).parents[2] / "data" / "installations" / "80a8c89" / "state.tar.gz"
FAR = datetime(2040, 1, 1, 12, tzinfo=UTC)


@contextmanager
def kept_house(tmp_path: Path, *, archive: Path | None = None, checkpoints: bool = True) -> Iterator[Upkeep]:
    """The stored installation, with proposals in every status, many years later."""
    with tarfile.open(OLD) as tar:
        tar.extractall(tmp_path, filter="data")
    paths = StatePaths(root=tmp_path / ROOT)
    store, ledger = DuckDBStore(paths.telemetry), SqlLedger(f"sqlite:///{paths.ledger}")
    place = tmp_path / "checkpoints" if checkpoints else None
    if place:
        sign_checkpoint(ledger, signer_of(paths), place, "test", datetime(2026, 12, 1, tzinfo=UTC))
    try:
        yield Upkeep(
            store=store,
            ledger=ledger,
            lives=RetentionSettings(archive=archive),
            paths=paths,
            signer=signer_of(paths),
            checkpoints=place,
            clock=lambda: FAR,
        )
    finally:
        ledger.close()
        store.close()


def test_what_an_open_proposal_or_incident_is_about_outlives_every_age(tmp_path: Path) -> None:
    with kept_house(tmp_path) as house:
        needed = house.ledger.needed_runs()
        standing = {
            row["proposal_id"]
            for row in house.ledger.proposals(None, 1000)
            if row["status"] in ("allowed", "needs_approval", "admitted", "delivered")
        }
        assert needed
        assert standing
        house.store.merge_runs([a_run(run_id) for run_id in needed] + [a_run("forgotten")])
        house.store.add_logs([a_log(n, run_id=run_id) for n, run_id in enumerate([*needed, "forgotten"])])
        house.keep()
        for table in ("runs", "logs"):
            left = {row["run_id"] for row in house.store.rows(f"SELECT run_id FROM {table}")}  # noqa: S608
            assert needed <= left
            assert "forgotten" not in left
        assert standing <= {row["proposal_id"] for row in house.ledger.proposals(None, 1000)}
        assert house.ledger.needed_runs() == needed


def test_an_old_installation_is_cut_and_still_whole(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    with kept_house(tmp_path, archive=archive) as house:
        for row in house.ledger.incidents(1000):
            house.ledger.waive_incident(row["incident_id"], "ann", "long ago", FAR - timedelta(days=4000))
        house.ledger.expire(FAR - timedelta(days=4000))
        before = house.ledger.verify_audit().length
        sign_checkpoint(
            house.ledger, house.signer, tmp_path / "checkpoints", "test", FAR - timedelta(days=3999)
        )
        # telemetry was told of all of it: that it is before the log is cut
        first = house.keep()
        verifier = Ed25519Verifier(house.signer.public())
        report = house.ledger.verify_audit(kept_in(tmp_path / "checkpoints", verifier), verifier)
        assert report.ok
        assert first["proposals"] > 0
        gone = pq.read_table(archive / "ledger_proposals")
        assert gone.num_rows == first["proposals"]
        assert report.length >= before
        status = {each["kind"]: each for each in (house.store_status_now())["kinds"]}
        assert status["audit"]["rows"] == report.length - report.cut
        assert status["proposals"]["life_days"] == 1095
        assert status["rollups"]["life_days"] is None


def test_without_a_checkpoint_the_audit_log_is_not_cut(tmp_path: Path) -> None:
    with kept_house(tmp_path, checkpoints=False) as house:
        length = house.ledger.verify_audit().length
        assert house.keep()["audit"] == 0
        assert (house.ledger.verify_audit().cut, house.ledger.verify_audit().length) == (0, length)


def test_a_log_that_is_not_what_was_vouched_for_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kept_house(tmp_path) as house:
        monkeypatch.setattr(house.ledger, "cuttable_audit", lambda before: 10**6)
        house.store.add_decisions([])
        monkeypatch.setattr(house.store, "rows", lambda sql: [{"last": "a-000000999999"}])
        with sqlite3.connect(house.paths.ledger) as raw:
            raw.execute("DROP TRIGGER audit_no_UPDATE")
            raw.execute("UPDATE audit SET body = replace(body, 'pilot', 'ghost') WHERE seq = 2")
        raw.close()
        with pytest.raises(InvariantError, match="nothing was cut"):
            house._cut_audit(FAR, lambda kind, rows: None)


def test_a_full_archive_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with kept_house(tmp_path, archive=tmp_path / "file") as house:
        runs = house.store.rows("SELECT count(*) AS n FROM runs")
        decisions = house.store.rows("SELECT count(*) AS n FROM decisions")
        with pytest.raises(StoreError, match="make room"):
            house.keep()
        assert house.store.rows("SELECT count(*) AS n FROM runs") == runs
        assert house.store.rows("SELECT count(*) AS n FROM decisions") == decisions


def test_what_telemetry_was_told_of_stays_known_after_all_decisions_are_old(tmp_path: Path) -> None:
    with kept_house(tmp_path) as house:
        last = house.store.rows("SELECT max(decision_id) AS last FROM decisions")
        assert last[0]["last"]
        house.keep()
        assert house.store.rows("SELECT max(decision_id) AS last FROM decisions") == last


def test_files_are_made_small_when_asked(tmp_path: Path) -> None:
    with kept_house(tmp_path) as house:
        house.store.merge_runs([a_run(f"r-{n}", name=f"{n:x}" * 20) for n in range(20_000)])
        house.store.checkpoint()
        house.store.forget_runs([f"r-{n}" for n in range(20_000)])
        done = house.compact(0.0, 0)
        before, after = done["telemetry.duckdb"]
        assert after < before
        assert house.paths.telemetry.stat().st_size == after


def test_an_installation_at_rest_tells_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTAGE_STATE_DIR", str(tmp_path / ROOT))
    with kept_house(tmp_path) as house:
        paths = house.paths
    reply = OfflineReader(paths).answer("store_status")
    kinds = {each["kind"]: each for each in reply["kinds"]}
    assert kinds["runs"]["rows"] > 0
    assert kinds["runs"]["life_days"] == 395
    assert kinds["agent_spans"]["life_days"] == 90
    assert kinds["audit"]["oldest"] < "2030"
    assert {"telemetry.duckdb", "ledger.sqlite"} <= set(reply["files"])


@pytest.mark.parametrize("life", ["PT5M", "-P3D"])
def test_a_life_shorter_than_a_day_is_no_life(life: str) -> None:
    with pytest.raises(ValueError, match="P1D"):
        RetentionSettings(runs=life)
