"""What is past its age goes and nothing else: archived before where that is wanted, counted by hour and day for good."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.telemetry.samples import NOON, a_log, a_run, a_task_run, an_event, at

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.facts import StateType
from pilotage.telemetry.store import duckdb as store_module
from pilotage.telemetry.store.archive import ParquetArchive
from pilotage.telemetry.store.compaction import unfinished
from pilotage.telemetry.store.duckdb import DuckDBStore
from pilotage.telemetry.store.retention import FOR_EVER, Retention
from pilotage.telemetry.store.sizes import table_sizes

YEAR = timedelta(days=365)


@pytest.fixture
def store(tmp_path: Path) -> DuckDBStore:
    return DuckDBStore(tmp_path / "t.duckdb")


def kept(store: DuckDBStore, table: str, column: str) -> set[str]:
    return {row[column] for row in store.rows(f"SELECT {column} FROM {table}")}  # noqa: S608


def archived(directory: Path, kind: str, column: str) -> list[str]:
    return [
        value
        for path in sorted((directory / kind).glob("*.parquet"))
        for value in pq.read_table(path)[column].to_pylist()
    ]


@settings(max_examples=12, deadline=None)
@given(
    ages=st.lists(
        st.tuples(st.integers(0, 900), st.sampled_from(StateType), st.booleans()), min_size=1, max_size=25
    ),
    life=st.integers(1, 800),
    into_archive=st.booleans(),
)
def test_only_ended_runs_past_their_age_go_and_never_one_that_is_needed(
    tmp_path_factory: pytest.TempPathFactory,
    ages: list[tuple[int, StateType, bool]],
    life: int,
    into_archive: bool,
) -> None:
    place = tmp_path_factory.mktemp("s")
    store = DuckDBStore(place / "t.duckdb")
    now = NOON
    runs = []
    for number, (age, state, _) in enumerate(ages):
        moment = now - timedelta(days=age)
        ended = moment if state in (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED) else None
        runs.append(a_run(f"r-{number}", state, updated=moment, ended=ended, started=moment))
    store.merge_runs(runs)
    store.add_logs(
        [a_log(n, run_id=f"r-{n}", at=now - timedelta(days=age)) for n, (age, _, _) in enumerate(ages)]
    )
    needed = {f"r-{n}" for n, (_, _, wanted) in enumerate(ages) if wanted}
    archive = ParquetArchive(place / "archive") if into_archive else None
    before = store.rows(
        "SELECT count(*) AS n FROM runs WHERE state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')"
    )
    lives = Retention(runs=timedelta(days=life), logs=timedelta(days=life))
    store.retain(now, lives, needed=needed, archive=archive)

    left = kept(store, "runs", "run_id")
    logs = kept(store, "logs", "run_id")
    midnight = now.replace(hour=0)
    for run, (age, state, wanted) in zip(runs, ages, strict=True):
        over = state in (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
        goes = over and not wanted and run.updated < midnight - timedelta(days=life)
        assert (run.run_id in left) is not goes
        assert (run.run_id in logs) is (wanted or age <= life)
        if goes and into_archive:
            assert run.run_id in archived(place / "archive", "runs", "run_id")
    days = store.rows("SELECT coalesce(sum(runs), 0)::BIGINT AS n FROM rollups WHERE grain = 'day'")
    assert days == before
    # a second pass finds nothing more, and counts nothing twice
    assert store.retain(now, lives, needed=needed, archive=archive)["runs"] == 0
    assert store.rows("SELECT coalesce(sum(runs), 0)::BIGINT AS n FROM rollups WHERE grain = 'day'") == before
    store.close()


def test_a_life_that_never_ends_keeps_all(store: DuckDBStore) -> None:
    store.merge_runs([a_run()])
    store.add_events([an_event()])
    gone = store.retain(NOON + 40 * YEAR, Retention(runs=FOR_EVER, events=FOR_EVER))
    assert "runs" not in gone
    assert kept(store, "events", "event_id") == {"e-1"}
    assert kept(store, "runs", "run_id") == {"r-1"}


def test_hours_and_days_tell_of_runs_that_are_gone(store: DuckDBStore) -> None:
    store.merge_runs(
        [
            a_run(f"r-{n}", StateType.COMPLETED, started=at(0), ended=at(10 * n), updated=at(10 * n))
            for n in range(1, 10)
        ]
        + [a_run("bad", StateType.FAILED, started=at(4000), ended=at(4060), updated=at(4060), run_count=3)]
    )
    store.retain(NOON + 2 * YEAR, Retention())
    assert kept(store, "runs", "run_id") == set()
    rows = store.rows(
        "SELECT grain, start, runs, completed, failed, retried, seconds, seconds_p50, late_p95 FROM rollups ORDER BY ALL"
    )
    day = NOON.replace(hour=0)
    assert [(r["grain"], r["start"], r["runs"], r["completed"], r["failed"], r["retried"]) for r in rows] == [
        ("day", day, 10, 9, 1, 1),
        ("hour", NOON, 9, 9, 0, 0),
        ("hour", NOON + timedelta(hours=1), 1, 0, 1, 1),
    ]
    assert rows[1]["seconds"] == pytest.approx(450)
    assert rows[1]["seconds_p50"] == pytest.approx(50)
    assert rows[2]["late_p95"] == pytest.approx(4000)


def test_a_run_heard_of_late_or_tried_again_is_counted_once(store: DuckDBStore) -> None:
    now = NOON + timedelta(days=1)
    store.merge_runs([a_run("r-1")])
    store.retain(now, Retention())
    later = a_run("r-1", StateType.COMPLETED, ended=at(7200), updated=at(7200))
    store.merge_runs([later, a_run("r-2", ended=at(30), updated=at(30))])
    store.retain(now, Retention())
    hours = store.rows("SELECT start, completed, failed FROM rollups WHERE grain = 'hour' ORDER BY start")
    assert hours == [
        {"start": NOON, "completed": 0, "failed": 1},
        {"start": NOON + timedelta(hours=2), "completed": 1, "failed": 0},
    ]


def test_what_the_archive_cannot_take_stays(store: DuckDBStore, tmp_path: Path) -> None:
    store.add_logs([a_log(1)])
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(StoreError, match=r"retention\.archive"):
        store.retain(NOON + YEAR, Retention(), archive=ParquetArchive(tmp_path / "file"))
    assert kept(store, "logs", "log_id") == {"l-1"}


def test_the_body_of_an_event_is_archived_before_it_is_emptied(store: DuckDBStore, tmp_path: Path) -> None:
    store.add_events([an_event(1)])
    store.retain(NOON + timedelta(days=8), Retention(), archive=ParquetArchive(tmp_path / "a"))
    assert archived(tmp_path / "a", "payload", "payload") == ['{"n": 1}']
    assert kept(store, "events", "payload") == {"{}"}


CRASHING = """
import os, sys
from datetime import datetime
from pathlib import Path
from pilotage.telemetry.store import archive, duckdb
from pilotage.telemetry.store.retention import Retention
duckdb.ARCHIVED_AT_ONCE = 10
store = duckdb.DuckDBStore(Path(sys.argv[1]) / "t.duckdb")
left = int(sys.argv[3])
place, replace = sys.argv[4], os.replace
class Dying(archive.ParquetArchive):
    def keep(self, kind, rows, first=None):
        global left
        left -= 1
        if left < 0 and place == "before":
            os._exit(9)
        path = super().keep(kind, rows, first)
        if left < 0:
            os._exit(9)
        return path
store.retain(datetime.fromisoformat(sys.argv[2]), Retention(), archive=Dying(Path(sys.argv[1]) / "a"))
os._exit(0)
"""


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("files", [0, 1, 3])
def test_a_crash_while_archiving_loses_nothing(tmp_path: Path, files: int, place: str) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    everything = {f"t-{n}" for n in range(45)}
    store.merge_task_runs([a_task_run(n) for n in range(45)])
    store.close()
    now = NOON + 2 * YEAR
    arguments = [sys.executable, "-c", CRASHING, str(tmp_path), now.isoformat(), str(files), place]
    assert subprocess.run(arguments, check=False, timeout=120).returncode == 9
    again = DuckDBStore(tmp_path / "t.duckdb")
    done = set(archived(tmp_path / "a", "task_runs", "task_run_id"))
    assert done | kept(again, "task_runs", "task_run_id") == everything
    assert len(done) == 10 * (files + (place == "after"))
    again.retain(now, Retention(), archive=ParquetArchive(tmp_path / "a"))
    assert kept(again, "task_runs", "task_run_id") == set()
    assert set(archived(tmp_path / "a", "task_runs", "task_run_id")) == everything
    again.close()


def filled(store: DuckDBStore, count: int = 8_000) -> None:
    store.merge_runs(
        [a_run(f"r-{n}", name=os.urandom(150).hex(), ended=at(n), updated=at(n)) for n in range(count)]
    )
    store.checkpoint()


def test_compaction_shrinks_the_file_and_loses_no_row(store: DuckDBStore, tmp_path: Path) -> None:
    filled(store)
    store.add_events([an_event(n) for n in range(500)])
    store.set_watermark("events", at(500))
    store.forget_runs([f"r-{n}" for n in range(8_000) if n % 50])
    store.checkpoint()

    def rows() -> list[object]:
        return [
            store.query(sql).to_pylist()
            for sql in ("SELECT * FROM runs ORDER BY ALL", "SELECT * FROM events ORDER BY ALL")
        ]

    before = rows()
    size, after = store.compact()
    assert after < size / 2
    assert (tmp_path / "t.duckdb").stat().st_size == after
    assert (tmp_path / "t.duckdb").stat().st_mode & 0o077 == 0
    assert rows() == before
    assert store.watermark("events") == at(500)
    store.add_events([an_event(9_999)])
    store.close()
    again = DuckDBStore(tmp_path / "t.duckdb")
    assert again.rows("SELECT count(*) AS n FROM events") == [{"n": 501}]
    assert not unfinished(store.path).exists()
    again.close()


def test_readers_writers_and_copies_go_on_beside_a_compaction(store: DuckDBStore) -> None:
    filled(store, 3_000)
    over, faults, counts = threading.Event(), [], []

    def repeat(step: object) -> None:
        while not over.is_set():
            try:
                step()  # type: ignore[operator]
            except Exception as exc:
                faults.append(exc)
                return

    written = iter(range(100_000))

    def write() -> None:
        store.add_logs([a_log(next(written))])

    def copy() -> None:
        with store.copied() as path:
            assert path.stat().st_size > 0

    steps = [write, copy, lambda: counts.append(store.rows("SELECT count(*) AS n FROM runs")[0]["n"])]
    threads = [threading.Thread(target=repeat, args=(step,), daemon=True) for step in steps]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            store.compact()
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=60)
    assert not faults
    assert not any(thread.is_alive() for thread in threads)
    assert set(counts) == {3_000}
    assert store.rows("SELECT count(*) AS n FROM logs") == [{"n": next(written)}]


def test_a_reader_that_does_not_end_leaves_the_old_file(
    store: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(store, 10)
    monkeypatch.setattr("pilotage.telemetry.store.compaction.READERS_END_WITHIN", 0.2)
    with store._readers.reading(), pytest.raises(StoreError, match="readers did not end"):
        store.compact()
    assert len(kept(store, "runs", "run_id")) == 10
    assert not unfinished(store.path).exists()


def test_what_an_interrupted_compaction_left_is_taken_away(store: DuckDBStore, tmp_path: Path) -> None:
    store.close()
    unfinished(store.path).write_bytes(b"half")
    DuckDBStore(tmp_path / "t.duckdb").close()
    assert not unfinished(store.path).exists()


def test_a_full_disk_leaves_the_old_file(store: DuckDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(store, 10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module, "put_in_place", full)
    with pytest.raises(StoreError, match="No space left"):
        store.compact()
    store.merge_runs([a_run("r-new")])
    assert len(kept(store, "runs", "run_id")) == 11


def test_each_table_has_its_rows_its_oldest_and_its_size(store: DuckDBStore) -> None:
    filled(store, 1_000)
    sizes = {each.table: each for each in table_sizes(store)}
    assert (sizes["runs"].rows, sizes["runs"].oldest) == (1_000, at(0))
    assert sizes["runs"].size > 0
    assert replace(sizes["logs"], size=0).rows == 0
    assert sizes["logs"].oldest is None
