"""SQL that nobody wrote beforehand: it reads the telemetry tables, and nothing else, within limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.telemetry.samples import a_run

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.store.adhoc_sql import AdHocLimits
from pilotage.telemetry.store.duckdb import DuckDBFile, DuckDBStore
from pilotage.telemetry.store.protocol import Store
from pilotage.telemetry.store.socket import SocketStore, StoreServer

SMALL = AdHocLimits(rows=10, time=timedelta(seconds=2), memory=32 * 2**20, a_minute=10_000)


@pytest.fixture(scope="module", params=["owner", "socket"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    directory = tmp_path_factory.mktemp("s")
    owner = DuckDBStore(directory / "telemetry.duckdb", ad_hoc=SMALL)
    owner.merge_runs([a_run(f"r-{number}") for number in range(50)])
    if request.param == "owner":
        yield owner
    else:
        server = StoreServer(owner, directory / "s.sock")
        reader = SocketStore(directory / "s.sock")
        yield reader
        reader.close()
        server.close()
    owner.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) AS n FROM runs",
        "FROM runs SELECT count(*) AS n",
        "WITH failed AS (SELECT * FROM runs WHERE state_type = 'FAILED') SELECT count(*) AS n FROM failed",
        "SELECT sum(i) - 1175 AS n FROM range(50) t(i), (VALUES (1)) v(one) WHERE 'it''s; -- DROP' <> ''",
        "SELECT (SELECT count(*) FROM main.runs) AS n",
    ],
)
def test_a_question_about_runs_is_answered(store: Store, sql: str) -> None:
    table, cut = store.ad_hoc(sql)
    assert table.to_pylist() == [{"n": 50}]
    assert not cut


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
        "INSERT INTO runs(run_id) VALUES ('x')",
        "DELETE FROM runs",
        "DROP TABLE runs",
        "CREATE TABLE mine AS SELECT 1",
        "COPY runs TO '/tmp/x.csv'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "EXPORT DATABASE '/tmp/x'",
        "ATTACH '/tmp/x.duckdb'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "PRAGMA database_list",
        "SET memory_limit = '1TB'",
        "CHECKPOINT",
        "CALL pragma_version()",
        "SHOW TABLES",
        "DESCRIBE runs",
        "EXPLAIN ANALYZE DELETE FROM runs",
        "SELECT * FROM meta",
        "WITH meta AS (SELECT 1) SELECT * FROM meta",
        "SELECT * FROM (WITH meta AS (SELECT 1) SELECT * FROM meta) x, meta",
        "SELECT * FROM 'secrets.csv'",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM duckdb_secrets()",
        "SELECT * FROM pragma_database_list()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM query('SELECT * FROM meta')",
        "SELECT * FROM query_table('meta')",
        "SELECT getenv('HOME')",
        "SELECT (SELECT current_setting('temp_directory'))",
        "SELECT force_checkpoint() FROM runs",
        "SELECT run_id FROM runs WHERE run_id IN (SELECT value FROM meta)",
        "SELECT CASE WHEN true THEN (SELECT max(value) FROM meta) END",
        "SELECT repeat('x', 1000000000)",
        "\x00SELECT 1",
    ],
)
def test_whatever_else_it_is_it_is_refused_and_leaves_no_trace(store: Store, sql: str) -> None:
    with pytest.raises(StoreError, match="Reading the telemetry store: "):
        store.ad_hoc(sql)
    assert store.rows("SELECT count(*) AS n FROM runs") == [{"n": 50}]


def test_rows_beyond_the_limit_are_cut_off_and_it_is_said(store: Store) -> None:
    table, cut = store.ad_hoc("SELECT run_id FROM runs")
    assert (table.num_rows, cut) == (10, True)
    table, cut = store.ad_hoc("SELECT run_id FROM runs LIMIT 10")
    assert (table.num_rows, cut) == (10, False)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        (
            "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t",
            "longer than 2 s",
        ),
        ("SELECT list(i::VARCHAR || 'padding to fill the memory') FROM range(200000000) t(i)", "32 MiB"),
    ],
    ids=["time", "memory"],
)
def test_a_runaway_statement_is_stopped_and_the_store_lives_on(store: Store, sql: str, found: str) -> None:
    with pytest.raises(StoreError, match=found):
        store.ad_hoc(sql)
    assert store.rows("SELECT count(*) AS n FROM runs") == [{"n": 50}]


def test_a_file_at_rest_is_guarded_just_so(tmp_path: Path) -> None:
    DuckDBStore(tmp_path / "t.duckdb").close()
    at_rest = DuckDBFile(tmp_path / "t.duckdb")
    assert at_rest.ad_hoc("SELECT count(*) AS n FROM runs")[0].to_pylist() == [{"n": 0}]
    with pytest.raises(StoreError, match="there are agent_spans, "):
        at_rest.ad_hoc("SELECT * FROM meta")
