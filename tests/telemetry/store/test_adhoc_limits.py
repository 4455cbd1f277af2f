"""Hostile SQL: each statement ends within its limits, in a process of its own, and nobody else notices."""

from __future__ import annotations

import gc
import json
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from tests.telemetry.hostile_sql import HOSTILE
from tests.telemetry.samples import a_run

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.store.adhoc_rules import LONGEST
from pilotage.telemetry.store.adhoc_sql import AdHocLimits, AdHocTurns
from pilotage.telemetry.store.duckdb import DuckDBFile, DuckDBStore
from pilotage.telemetry.store.socket import SocketStore, StoreServer

LIMITS = AdHocLimits(time=timedelta(seconds=1), memory=64 * 2**20, answer=2**20)


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBStore]:
    store = DuckDBStore(
        tmp_path_factory.mktemp("hostile") / "t.duckdb",
        ad_hoc=AdHocLimits(time=timedelta(seconds=1), memory=64 * 2**20, answer=2**20, a_minute=10_000),
    )
    store.merge_runs([a_run(f"r-{number}") for number in range(50)])
    yield store
    store.close()


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("sql", HOSTILE[::4])  # `make bench-hostile` asks them all
def test_a_hostile_statement_ends_and_the_owner_does_not_grow(owner: DuckDBStore, sql: str) -> None:
    before, began = _resident(), time.monotonic()
    with pytest.raises(StoreError, match="Reading the telemetry store: ") as told:
        owner.ad_hoc(sql)
    assert "did not start" not in str(told.value)
    assert time.monotonic() - began < 30
    assert _resident() - before < 64 * 2**20
    assert owner.rows("SELECT count(*) AS n FROM runs") == [{"n": 50}]


def test_what_was_written_a_moment_ago_is_seen(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    for number in range(3):
        store.merge_runs([a_run(f"r-{number}")])
        if number == 1:
            store.checkpoint()
        assert store.ad_hoc("SELECT count(*) AS n FROM runs")[0].to_pylist() == [{"n": number + 1}]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "t.duckdb.snapshots").iterdir()) == ["main"]
    store.close()
    assert not (tmp_path / "t.duckdb.snapshots").exists()


def test_the_owner_keeps_its_lock_on_the_file_when_copies_were_taken(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    store.ad_hoc("SELECT 1")
    import subprocess
    import sys

    code = f"import duckdb; duckdb.connect({str(tmp_path / 't.duckdb')!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert b"Could not set lock" in other.stderr
    store.close()


def test_a_statement_that_runs_into_its_time_is_asked_once_and_nobody_waits_behind_it(
    tmp_path: Path, owner: DuckDBStore
) -> None:
    server = StoreServer(owner, tmp_path / "s.sock")
    reader = SocketStore(tmp_path / "s.sock", asker="ann")
    asked: list[str] = []
    inner = owner.ad_hoc

    class Counting:
        query = owner.query

        def ad_hoc(self, sql: str, asker: str = "") -> object:
            asked.append(asker)
            return inner(sql, asker)

    server._store = Counting()  # type: ignore[assignment]
    impatient = SocketStore(tmp_path / "s.sock", timeout=0.2, asker="ann")
    endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t"
    with pytest.raises(StoreError):
        impatient.ad_hoc(endless)
    longest = 0.0

    def ask() -> None:
        with pytest.raises(StoreError):
            reader.ad_hoc(endless)

    running = threading.Thread(target=ask)
    running.start()
    while running.is_alive():
        began = time.monotonic()
        reader.rows("SELECT count(*) AS n FROM runs")
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.02)
    assert asked == ["ann", "ann"]
    assert longest < 0.25
    reader.close()
    impatient.close()
    server.close()


def test_the_longest_answer_is_held_about_twice_on_its_way_and_no_more(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    server = StoreServer(store, tmp_path / "s.sock")
    asked = json.dumps({"ad_hoc": "SELECT range(900000) AS n", "asker": "ann"}).encode()
    gc.collect()
    arrow = pa.total_allocated_bytes()
    tracemalloc.start()
    status, body = server._answer(asked)
    _, traced = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert status == 0, bytes(body)[:300]
    assert len(body) > 7_000_000
    # as the process said it, with what a growing array sets aside, and as it is sent
    assert traced < 1.3 * len(body)
    assert pa.total_allocated_bytes() - arrow < 1.1 * len(body)
    server.close()
    store.close()


def test_a_person_has_so_many_at_once_and_so_many_a_minute() -> None:
    now = 0.0
    turns = AdHocTurns(AdHocLimits(at_once=2, a_minute=4, everybody=3), clock=lambda: now)
    with turns.turn("ann"), turns.turn("ann"):
        with pytest.raises(StoreError, match="2 statements of yours"), turns.turn("ann"):
            pass
        with (
            turns.turn("bob"),
            pytest.raises(StoreError, match="3 statements of others"),
            turns.turn("carol"),
        ):
            pass
    for _ in range(2):
        with turns.turn("ann"):
            pass
    with pytest.raises(StoreError, match="4 statements of yours within a minute"), turns.turn("ann"):
        pass
    now = 61.0
    with turns.turn("ann"):
        pass


def test_what_reports_are_made_of_is_allowed(owner: DuckDBStore) -> None:
    sql = """
    WITH ended AS (
        SELECT coalesce(deployment_name, flow_name) AS what, state_type, ended, tags, parameters,
            epoch(ended - started) AS took, row_number() OVER (PARTITION BY flow_name ORDER BY ended DESC) AS nth,
            lag(state_type) OVER (PARTITION BY flow_name ORDER BY ended) AS before
        FROM runs WHERE ended > now() - INTERVAL 7 DAY OR ended IS NULL
    )
    SELECT what || '/' || lower(state_type) AS name, date_trunc('hour', ended) AS hour, count(*) AS n,
        count(*) FILTER (state_type = 'FAILED') / count(*) AS rate, quantile_cont(took, [0.5, 0.95]) AS p,
        max_by(what, took), list(DISTINCT what ORDER BY what)[1:3] AS some, round(avg(took), 1),
        string_agg(substring(what, 1, 8), ', '), CASE WHEN sum(took) > 60 THEN 'long' ELSE NULL END,
        extract(dow FROM ended), (ended AT TIME ZONE 'Europe/Paris')::DATE, strftime(ended, '%H:%M'),
        json_extract_string(parameters, '$.day'), parameters->>'$.day', tags LIKE '%env:prod%', what ILIKE 'a%',
        regexp_matches(what, '^n'), len(from_json(tags, '["VARCHAR"]')), [x + 1 FOR x IN [1, 2]], {'a': 1}.a
    FROM ended WHERE nth <= 10 AND what NOT IN ('x', 'y') AND what BETWEEN 'a' AND 'z'
    GROUP BY ALL HAVING count(*) > 0 ORDER BY n DESC LIMIT 5"""
    owner.ad_hoc(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1" + " " * LONGEST,
        "SELECT " + "(" * 100 + "1" + ")" * 100,
    ],
    ids=["long", "deep"],
)
def test_an_absurd_text_starts_no_process(tmp_path: Path, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    DuckDBStore(tmp_path / "t.duckdb").close()
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(StoreError, match="are taken"):
        DuckDBFile(tmp_path / "t.duckdb").ad_hoc(sql)


def test_the_process_of_a_statement_knows_nothing_of_ours(
    owner: DuckDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    given: list[dict[str, object]] = []
    started = subprocess.Popen

    class Noting(started):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **more: object) -> None:
            given.append(more)
            super().__init__(*args, **more)

    monkeypatch.setenv("PREFECT_API_KEY", "pnu_secret")
    monkeypatch.setattr("subprocess.Popen", Noting)
    owner.ad_hoc("SELECT 1")
    assert given
    assert all("PREFECT_API_KEY" not in (each["env"] or {}) for each in given)  # type: ignore[operator]
