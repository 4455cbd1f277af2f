"""The store keeps what it is given once, and readers can only read."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.telemetry.samples import a_log, a_queue, a_run, a_task_run, an_event, at

from pilotage.telemetry.errors import InvariantError, StoreError
from pilotage.telemetry.facts import (
    AskedFact,
    AutomationFact,
    DecisionFact,
    DeploymentFact,
    LimitFact,
    PoolFact,
    RunFact,
    ScheduleFact,
    SpanFact,
    StateType,
    TaskRunFact,
    WorkerFact,
)
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.queries.site import site_facts
from pilotage.telemetry.store import schema
from pilotage.telemetry.store.duckdb import DuckDBFile, DuckDBStore
from pilotage.telemetry.store.retention import Retention


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DuckDBStore]:
    opened = DuckDBStore(tmp_path / "telemetry.duckdb")
    yield opened
    opened.close()


def every_run(store: DuckDBStore) -> list[RunFact]:
    return schema.facts_from_rows(RunFact, store.rows("SELECT * FROM runs ORDER BY run_id"))


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=lambda table: table.name)
def test_a_table_has_the_columns_of_its_dataclass(store: DuckDBStore, table: schema.Table) -> None:
    found = store.query(f"FROM {table.name}").column_names
    assert found == [field.name for field in dataclasses.fields(table.fact)]


SITE: dict[str, Any] = {
    "pools": PoolFact(pool="p", type="process", limit=3, status="READY", changed=at(1), seen=at(2)),
    "workers": WorkerFact(
        worker_id="w", pool="p", name="n", status="ONLINE", heard=at(1), every=30.0, seen=at(2)
    ),
    "limits": LimitFact(
        limit_id="l", name="tag:db", limit=2, taken=2, holders=("t",), full_since=at(1), seen=at(2)
    ),
    "schedules": ScheduleFact(
        schedule_id="s", deployment_id="d", cron="0 6 * * *", timezone="UTC", seen=at(2)
    ),
    "automations": AutomationFact(
        automation_id="a", name="n", actions=("pause-deployment",), targets=("d",), seen=at(2)
    ),
    "asked": AskedFact(kind="pools", at=at(2), ms=4.5, requests=1),
}
FACTS = {
    **{name: (functools.partial(DuckDBStore.put, name=name), fact) for name, fact in SITE.items()},
    "runs": (DuckDBStore.merge_runs, a_run(next_start=at(9), retries=3, parent_task_run_id="t-9")),
    "task_runs": (DuckDBStore.merge_task_runs, a_task_run(attempt=2, kept=True)),
    "events": (DuckDBStore.add_events, an_event()),
    "logs": (DuckDBStore.add_logs, a_log(message='it\'s "so" ☃')),
    "queues": (DuckDBStore.add_queues, a_queue(oldest_due=at(-5))),
    "deployments": (
        DuckDBStore.merge_deployments,
        DeploymentFact(deployment_id="d", name="n", flow_name="f", tags=("a", "b"), updated=at(0)),
    ),
    "forecasts": (
        DuckDBStore.add_forecasts,
        Forecast(run_id="r-1", made_at=at(1), p_fail=0.25, model="ewma", trained_on=4, reasons=("new",)),
    ),
    "decisions": (
        DuckDBStore.add_decisions,
        DecisionFact(
            decision_id="x",
            at=at(0),
            proposal_id="p",
            incident_id="i",
            run_id=None,
            step="judged",
            action="retry_run",
            outcome="allow",
            policy_ids=("a", "b"),
            detail={"n": 1},
        ),
    ),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_fact_comes_back_as_it_went_in(store: DuckDBStore, name: str) -> None:
    add: Any
    add, fact = FACTS[name]
    assert (add(store, facts=[fact]) if name in SITE else add(store, [fact])) == 1
    (row,) = store.rows(f"FROM {name}")
    assert schema.fact_from_row(type(fact), row) == fact


def test_times_come_back_in_utc(store: DuckDBStore) -> None:
    store.add_events([an_event()])
    (row,) = store.rows("SELECT occurred FROM events")
    assert row["occurred"].tzinfo is UTC


def test_a_sum_of_integers_is_an_integer(store: DuckDBStore) -> None:
    store.merge_runs([a_run(run_count=2), a_run("r-2", run_count=3)])
    (row,) = store.rows("SELECT sum(run_count) AS total FROM runs")
    assert row == {"total": 5}
    assert type(row["total"]) is int


def test_a_second_delivery_of_events_adds_nothing(store: DuckDBStore) -> None:
    batch = [an_event(1), an_event(2), an_event(2)]
    assert store.add_events(batch) == 2
    assert store.add_events([*batch, an_event(3)]) == 1
    assert store.rows("SELECT count(*) AS n FROM events") == [{"n": 3}]


def test_a_second_delivery_of_logs_and_decisions_adds_nothing(store: DuckDBStore) -> None:
    decision = FACTS["decisions"][1]
    assert isinstance(decision, DecisionFact)
    assert [store.add_logs([a_log(1), a_log(1)]), store.add_logs([a_log(1)])] == [1, 0]
    assert [store.add_decisions([decision]), store.add_decisions([decision])] == [1, 0]


def test_only_a_newer_fact_replaces_a_run(store: DuckDBStore) -> None:
    store.merge_runs([a_run(updated=at(60))])
    older = a_run(state=StateType.RUNNING, updated=at(30))
    newer = a_run(state=StateType.SCHEDULED, state_name="AwaitingRetry", updated=at(90))
    assert store.merge_runs([older]) == 0
    assert every_run(store)[0].state_type is StateType.FAILED
    assert store.merge_runs([newer, older]) == 1
    assert every_run(store) == [newer]


def test_a_forgotten_run_is_gone_and_the_others_stay(store: DuckDBStore) -> None:
    store.merge_runs([a_run("r-1"), a_run("r-2")])
    assert store.forget_runs(["r-1", "unheard-of"]) == 1
    assert [run.run_id for run in every_run(store)] == ["r-2"]


def test_an_empty_batch_is_no_batch(store: DuckDBStore) -> None:
    assert [store.add_events([]), store.merge_runs([]), store.add_queues([])] == [0, 0, 0]


def test_a_watermark_survives_reopening(tmp_path: Path) -> None:
    first = DuckDBStore(tmp_path / "t.duckdb")
    assert first.watermark("events") is None
    first.set_watermark("events", at(1))
    first.set_watermark("events", at(2))
    first.close()
    second = DuckDBStore(tmp_path / "t.duckdb")
    try:
        assert second.watermark("events") == at(2)
    finally:
        second.close()


def test_what_is_past_its_age_goes_and_runs_stay(store: DuckDBStore) -> None:
    now = at(0) + timedelta(days=100)
    store.add_events([an_event(1), an_event(2, occurred=now - timedelta(days=8)), an_event(3, occurred=now)])
    store.add_logs([a_log(1), a_log(2, at=now)])
    store.merge_task_runs([a_task_run(1)])
    store.merge_runs([a_run()])
    gone = store.retain(now, Retention())
    untouched = dict.fromkeys(("runs", "task_runs", "queues", "forecasts", "agent_spans", "decisions"), 0)
    assert gone == {"payload": 2, "events": 1, "logs": 1} | untouched
    kept = store.rows("SELECT event_id, payload FROM events ORDER BY event_id")
    assert kept == [{"event_id": "e-2", "payload": "{}"}, {"event_id": "e-3", "payload": '{"n": 3}'}]
    assert len(every_run(store)) == 1
    assert set(store.retain(now, Retention()).values()) == {0}


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM runs",
        "INSERT INTO meta VALUES ('a', 'b')",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE runs",
        "",
        "ATTACH '/tmp/x.duckdb'",
        "SET threads = 1",
        "COPY runs TO '/tmp/x.csv'",
        "EXPLAIN ANALYZE SELECT 1",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/hostname')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM checkpoint()",
        'SELECT * FROM "force_checkpoint" /* x */ ()',
        "SELECT * FROM enable_logging()",
        "SELECT nonsense FROM runs",
        "SELEKT",
    ],
)
def test_a_reader_can_do_nothing_but_select_from_the_tables(store: DuckDBStore, sql: str) -> None:
    with pytest.raises(StoreError, match="Reading the telemetry store"):
        store.query(sql)


def test_a_reader_does_not_see_python_variables(store: DuckDBStore) -> None:
    import pyarrow as pa

    hidden = pa.table({"x": [1]})
    with pytest.raises(StoreError):
        store.query("SELECT * FROM hidden")
    assert hidden.num_rows == 1


def test_too_many_rows_are_an_error_that_says_so(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb", row_cap=100)
    try:
        assert store.query("SELECT * FROM range(100)").num_rows == 100
        with pytest.raises(StoreError, match="more than 100 rows"):
            store.query("SELECT * FROM range(1000000000000)")
    finally:
        store.close()


def test_a_statement_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb", query_timeout=timedelta(seconds=0.2))
    try:
        with pytest.raises(StoreError, match=r"at most 0\.2 s"):
            store.query("SELECT count(*) FROM range(1000000000) a, range(1000) b")
        assert store.rows("SELECT 1 AS one") == [{"one": 1}]
    finally:
        store.close()


def test_readers_and_the_writer_do_not_disturb_each_other(store: DuckDBStore) -> None:
    faults: list[BaseException] = []
    counts: list[int] = []

    def read() -> None:
        try:
            for _ in range(30):
                counts.append(store.rows("SELECT count(*) AS n FROM events")[0]["n"])
        except BaseException as exc:
            faults.append(exc)

    def write(first: int) -> None:
        try:
            for number in range(first, first + 100, 10):
                store.add_events([an_event(number + step) for step in range(10)])
        except BaseException as exc:
            faults.append(exc)

    threads = [threading.Thread(target=read) for _ in range(3)]
    threads += [threading.Thread(target=write, args=(first,)) for first in (0, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not faults
    assert store.rows("SELECT count(*) AS n FROM events") == [{"n": 150}]
    assert len(counts) == 90
    assert all(count % 10 == 0 for count in counts), "a reader saw half a batch"


def test_a_failed_write_leaves_nothing_and_the_store_goes_on(store: DuckDBStore) -> None:
    broken = an_event(2, occurred="not a time")
    with pytest.raises(Exception, match="time"):
        store.add_events([an_event(1), broken])
    assert store.add_events([an_event(1)]) == 1


def test_closing_twice_is_harmless_and_afterwards_it_says_so(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.query("SELECT 1")
    with pytest.raises(StoreError, match="closed"):
        store.add_events([an_event()])


def test_a_checkpoint_folds_the_log_into_the_file(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    try:
        store.add_events([an_event(number) for number in range(1000)])
        store.checkpoint()
        log = tmp_path / "t.duckdb.wal"
        assert not log.exists() or log.stat().st_size == 0
    finally:
        store.close()


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StoreError, match=r"Opening the telemetry store .*not a valid.*Move the file away"):
        DuckDBStore(path)


def test_a_file_that_another_process_owns_says_so(store: DuckDBStore) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from pilotage.telemetry.store.duckdb import DuckDBStore, DuckDBFile\n"
        "from pilotage.telemetry.errors import StoreError\n"
        "for act in (lambda p: DuckDBStore(p), lambda p: DuckDBFile(p).query('SELECT 1')):\n"
        "    try: act(Path(sys.argv[1]))\n"
        "    except StoreError as exc: print(exc.transient, exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(store.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.count("True Opening the telemetry store") == 2
    assert done.stdout.count("read through its socket") == 2


def test_the_file_can_be_read_without_an_owner_and_does_not_keep_one_out(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    owner = DuckDBStore(path)
    owner.merge_runs([a_run()])
    owner.close()
    reader = DuckDBFile(path)
    assert reader.rows("SELECT run_id FROM runs") == [{"run_id": "r-1"}]
    with pytest.raises(StoreError):
        reader.query("DELETE FROM runs")
    script = "import sys, pathlib; from pilotage.telemetry.store.duckdb import DuckDBStore\n"
    script += "DuckDBStore(pathlib.Path(sys.argv[1])).close(); print('owned')"
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "owned\n", done.stderr
    reader.close()


def test_the_file_is_its_owners_alone(store: DuckDBStore) -> None:
    assert store.path.stat().st_mode & 0o077 == 0


def test_a_store_of_a_newer_schema_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    DuckDBStore(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    with pytest.raises(StoreError, match=r"version 99.*Use the newer pilotage"):
        DuckDBStore(path)


def test_a_store_of_an_older_schema_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.duckdb"
    old = DuckDBStore(path)
    old.merge_runs([a_run()])
    old.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE runs RENAME COLUMN flow_name TO flow")
        connection.execute("UPDATE meta SET value = '0' WHERE key = 'schema_version'")
    steps: dict[int, tuple[str, ...]] = dict.fromkeys(range(1, schema.SCHEMA_VERSION), ())
    steps[0] = ("ALTER TABLE runs RENAME COLUMN flow TO flow_name",)
    monkeypatch.setattr("pilotage.telemetry.store.duckdb.MIGRATIONS", steps)
    new = DuckDBStore(path)
    try:
        assert every_run(new) == [a_run()]
        assert new.rows("SELECT value FROM meta WHERE key = 'schema_version'") == [
            {"value": str(schema.SCHEMA_VERSION)}
        ]
    finally:
        new.close()


def test_a_store_of_the_first_version_becomes_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    old = DuckDBStore(path)
    old.merge_runs([a_run()])
    old.merge_task_runs([a_task_run()])
    old.close()
    with duckdb.connect(str(path)) as connection:
        for name in ("parent_task_run_id", "retries", "auto_scheduled"):
            connection.execute(f"ALTER TABLE runs DROP COLUMN {name}")
        for name in ("attempt", "kept"):
            connection.execute(f"ALTER TABLE task_runs DROP COLUMN {name}")
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    new = DuckDBStore(path)
    try:
        new.merge_runs([a_run("r-2", retries=2, auto_scheduled=True)])
        assert every_run(new) == [a_run(), a_run("r-2", retries=2, auto_scheduled=True)]
        assert schema.facts_from_rows(TaskRunFact, new.rows("SELECT * FROM task_runs")) == [a_task_run()]
    finally:
        new.close()


def test_a_store_from_before_the_facts_about_a_site_becomes_one_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    deployment = DeploymentFact(deployment_id="d", name="n", flow_name="f", paused=True, updated=at(0))
    old = DuckDBStore(path)
    old.merge_runs([a_run()])
    old.merge_task_runs([a_task_run()])
    old.merge_deployments([deployment])
    old.add_queues([a_queue()])
    old.close()
    with duckdb.connect(str(path)) as connection:
        for table, name in (
            ("runs", "state_at"),
            ("task_runs", "tags"),
            *(("queues", name) for name in ("pool_paused", "status", "last_polled")),
            *(("deployments", name) for name in ("status", "last_polled", "paused_since")),
        ):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
        for table in SITE:
            connection.execute(f"DROP TABLE {table}")
        connection.execute("UPDATE meta SET value = '4' WHERE key = 'schema_version'")
    new = DuckDBStore(path)
    try:
        assert every_run(new) == [a_run()]
        for table, fact in (("queues", a_queue()), ("deployments", deployment), ("task_runs", a_task_run())):
            assert schema.facts_from_rows(type(fact), new.rows(f"FROM {table}")) == [fact]
        new.put("pools", [PoolFact(pool="p", seen=at(0))])
        assert [row["pool"] for row in new.rows("FROM pools")] == ["p"]
        assert site_facts(new, at(60)).deployments == {"d": deployment}
    finally:
        new.close()


def test_what_is_now_replaces_what_was_and_leaves_other_pools_alone(store: DuckDBStore) -> None:
    def worker(name: str, pool: str) -> WorkerFact:
        return WorkerFact(worker_id=f"{pool}-{name}", pool=pool, name=name, seen=at(0))

    store.replace("workers", [worker("a", "p"), worker("b", "p")], of_pool="p")
    store.replace("workers", [worker("a", "q")], of_pool="q")
    store.replace("workers", [worker("b", "p")], of_pool="p")
    found = store.rows("SELECT pool, name FROM workers ORDER BY ALL")
    assert [(row["pool"], row["name"]) for row in found] == [("p", "b"), ("q", "a")]
    store.replace("workers", [])
    assert store.rows("FROM workers") == []
    for at_ms in (1.0, 2.0):
        store.put("asked", [AskedFact(kind="pools", ms=at_ms), AskedFact(kind="limits", ms=at_ms)])
    found = store.rows("SELECT kind, ms FROM asked ORDER BY kind")
    assert [tuple(row.values()) for row in found] == [("limits", 2.0), ("pools", 2.0)]


def test_steps_of_agents_that_nobody_was_named_for_stay(tmp_path: Path) -> None:
    path = tmp_path / "t.duckdb"
    span = SpanFact(span_id="s", trace_id="t", at=at(0), ms=1.0, name="chat m", operation="chat")
    old = DuckDBStore(path)
    old.add_spans([span])
    old.close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE agent_spans DROP COLUMN agent")
        connection.execute("UPDATE meta SET value = '3' WHERE key = 'schema_version'")
    new = DuckDBStore(path)
    try:
        assert schema.facts_from_rows(SpanFact, new.rows("SELECT * FROM agent_spans")) == [span]
    finally:
        new.close()


def test_migrations_are_walked_in_order() -> None:
    assert schema.migration_plan(1, 3, {1: ("a", "b"), 2: ("c",)}) == ("a", "b", "c")
    assert schema.migration_plan(3, 3, {}) == ()
    with pytest.raises(InvariantError, match="no migration from schema version 2"):
        schema.migration_plan(1, 3, {1: ("a",)})


def test_every_older_version_has_a_migration() -> None:
    assert set(schema.MIGRATIONS) == set(range(1, schema.SCHEMA_VERSION))


def test_events_take_little_space(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "t.duckdb")
    body = {"intended": {"from": "PENDING", "to": "RUNNING"}, "text": "the same words again " * 80}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for first in range(0, 20_000, 5_000):
        store.add_events(
            [
                an_event(n, occurred=start + timedelta(seconds=n), payload={**body, "n": n})
                for n in range(first, first + 5_000)
            ]
        )
    store.checkpoint()
    size = store.path.stat().st_size
    store.close()
    assert size < 20_000 * 300, "events of 1.8 KB are no longer compressed with zstd"
