"""The telemetry store in one DuckDB file: the one writer, and the read-only guard on what readers ask.

DuckDB lets one process open a file for writing and then no other process open it at all, so the owner
serves everybody else (`socket.py`). Rows come in as Arrow tables; `executemany` is 20 to 60 times
slower. A second delivery of the same fact changes nothing. Longer than most modules, because writer, reader and
guard share the rules of one file.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.facts import (
    DecisionFact,
    DeploymentFact,
    EventFact,
    LogLine,
    QueueFact,
    RunFact,
    SpanFact,
    TaskRunFact,
)
from pilotage.telemetry.forecasts import Forecast
from pilotage.telemetry.redaction import redact
from pilotage.telemetry.store.adhoc_sql import AdHocLimits, AdHocTurns, answered, check_text
from pilotage.telemetry.store.archive import ParquetArchive
from pilotage.telemetry.store.changes import Changes
from pilotage.telemetry.store.compaction import (
    Readers,
    discard_unfinished,
    put_in_place,
    unfinished,
    wal_of,
    write_compact,
)
from pilotage.telemetry.store.retention import Cut, Retention, cuts
from pilotage.telemetry.store.rollups import ROLLED_UP, roll_up
from pilotage.telemetry.store.rows import rows_of, without_secrets
from pilotage.telemetry.store.schema import (
    META_DDL,
    MIGRATIONS,
    SCHEMA_VERSION,
    TABLES,
    Kind,
    Table,
    columns_by_name,
    migration_plan,
    quoted_name,
)
from pilotage.telemetry.store.snapshot import Snapshots

QUERY_TIMEOUT = timedelta(seconds=30)
"""A reader's statement is interrupted after this; the heaviest shipped one takes under a second."""
ROW_CAP = 500_000
"""Rows that one statement may return; more belongs into an aggregate."""
REDELIVERY_WINDOW = timedelta(minutes=15)
"""How far before a batch's first event redelivered ones are looked for: Prefect replays at most this."""

ARCHIVED_AT_ONCE = 50_000
"""Rows that one file of the archive takes; the writer waits while it is written."""
COUNTED_ANEW = timedelta(days=2)
"""How far back hours and days are counted anew each time: a run's end may be heard of late."""
_COUNTED_WHOLE = "counted_whole"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
UNSCORED_FOR = timedelta(days=30)
"""After this nothing is expected to end any more that was forecast."""
_ENDS = (
    "('prefect.flow-run.Completed', 'prefect.flow-run.Failed', 'prefect.flow-run.Crashed', "
    "'prefect.flow-run.TimedOut', 'prefect.flow-run.Cancelled')"
)
_SCORE = f"""
    UPDATE forecasts SET failed = scored.failed, ended = scored.ended FROM (
        WITH open AS (SELECT run_id, made_at FROM forecasts WHERE ended IS NULL AND made_at > $1),
        ends AS (
            SELECT run_id, occurred AS ended, name NOT IN ('prefect.flow-run.Completed', 'prefect.flow-run.Cancelled')
                AS failed
            FROM events SEMI JOIN open USING (run_id)
            WHERE occurred > $1 AND resource_id = 'prefect.flow-run.' || run_id AND name IN {_ENDS}
            UNION ALL
            SELECT run_id, ended, state_type IN ('FAILED', 'CRASHED') FROM runs SEMI JOIN open USING (run_id)
            WHERE ended > $1 AND state_type IN ('COMPLETED', 'FAILED', 'CRASHED', 'CANCELLED')
        )
        SELECT open.run_id, open.made_at, min(ends.ended) AS ended, arg_min(ends.failed, ends.ended) AS failed
        FROM open JOIN ends ON open.run_id = ends.run_id AND ends.ended > open.made_at GROUP BY ALL
    ) scored
    WHERE forecasts.run_id = scored.run_id AND forecasts.made_at = scored.made_at AND forecasts.ended IS NULL
"""  # noqa: S608
_CONFIG = {
    # 16 MB, the default, stalls the writer for half a second at a time
    "wal_autocheckpoint": "256MB",
    # without it DuckDB 1.5 ignores zstd and events take 27 times the space
    "storage_compatibility_version": "v1.5.0",
    "memory_limit": "2GB",
    # a runaway statement spills to the disk that the runs' own rows need
    "max_temp_directory_size": "4GB",
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
_ARROW = {
    Kind.TEXT: pa.string(),
    Kind.JSON: pa.string(),
    Kind.INTEGER: pa.int64(),
    Kind.REAL: pa.float64(),
    Kind.FLAG: pa.bool_(),
    Kind.TIME: pa.timestamp("us", tz="UTC"),
}
# SELECTs that do something; everything else that does is refused by its statement type
_ACTING = re.compile(
    r'\b(force_checkpoint|checkpoint|(en|dis)able_(logging|profiling)|truncate_duckdb_logs|write_log)"?\s*\(',
    re.IGNORECASE,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


def _translated(doing: str, exc: duckdb.Error) -> StoreError:
    """The foreign error as ours: what was attempted, what was found, what to do."""
    message = str(exc).strip().split("\n\n")[0].replace("\n", " ")
    match exc:
        case duckdb.IOException() if "lock" in message.lower():
            todo = "Another process owns the file: read through its socket, or stop it (`pilotage up`)."
            return StoreError(f"{doing}: {message} {todo}", transient=True)
        case duckdb.IOException() | duckdb.SerializationException() | duckdb.InternalException():
            todo = "Move the file away if it is damaged: it is rebuilt from Prefect."
        case duckdb.InterruptException():
            todo = "Ask for less, or narrow the time window."
        case duckdb.PermissionException():
            todo = "Readers may only SELECT from the telemetry tables."
        case _:
            todo = "Correct the statement; `pilotage.telemetry.store.schema` lists the columns."
    return StoreError(f"{doing}: {message} {todo}")


def _open(path: Path, *, read_only: bool, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    config = _CONFIG if threads is None else {**_CONFIG, "threads": str(threads)}
    try:
        connection = duckdb.connect(str(path), read_only=read_only, config=dict(config))
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
    except duckdb.Error as exc:
        raise _translated(f"Opening the telemetry store {path}", exc) from exc
    return connection


def _only_select(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = cursor.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise StoreError(
            f"Reading the telemetry store: found {kinds} where one SELECT is allowed. "
            "Ask one SELECT at a time."
        )
    if acting := _ACTING.search(_COMMENT.sub(" ", sql)):
        raise StoreError(
            f"Reading the telemetry store: {acting.group(1)} changes the store. "
            "Leave it out; readers only read."
        )


def guarded_query(
    cursor: duckdb.DuckDBPyConnection,
    sql: str,
    parameters: Sequence[Any] = (),
    *,
    timeout: timedelta = QUERY_TIMEOUT,
    row_cap: int = ROW_CAP,
) -> pa.Table:
    """The result of one SELECT. Raises StoreError for anything else, for too long and for too many rows."""
    alarm = threading.Timer(timeout.total_seconds(), cursor.interrupt)
    alarm.daemon = True
    try:
        _only_select(cursor, sql)
        alarm.start()
        reader = cursor.execute(sql, list(parameters)).to_arrow_reader(10_000)
        batches, count = [], 0
        for batch in reader:
            batches.append(batch)
            count += batch.num_rows
            if count > row_cap:
                raise StoreError(
                    f"Reading the telemetry store: more than {row_cap} rows. Aggregate in SQL or add a LIMIT."
                )
        return pa.Table.from_batches(batches, schema=reader.schema)
    except duckdb.Error as exc:
        raise _translated(
            f"Reading the telemetry store (at most {timeout.total_seconds():g} s)", exc
        ) from exc
    except pa.ArrowException as exc:  # an interrupt while batches are streaming comes out of Arrow
        raise StoreError(
            f"Reading the telemetry store (at most {timeout.total_seconds():g} s): "
            f"{str(exc).splitlines()[0]} Ask for less, or narrow the time window."
        ) from exc
    finally:
        alarm.cancel()
        cursor.close()


class DuckDBFile:
    """A `Store` over a file that nobody owns, held only while it reads, so that an owner can start."""

    def __init__(self, path: Path, *, asker: str = "") -> None:
        """`asker` is the person in whose name ad hoc statements are counted."""
        self.path = path
        self._asker = asker
        self._turns = AdHocTurns(AdHocLimits())

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of one SELECT as an Arrow table."""
        connection = _open(self.path, read_only=True)
        try:
            _check_version(connection)
            return guarded_query(connection.cursor(), sql, parameters)
        finally:
            connection.close()

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The same result as plain dictionaries."""
        return rows_of(self.query(sql, parameters))

    def ad_hoc(self, sql: str) -> tuple[pa.Table, bool]:
        """The result of a SELECT that nobody wrote beforehand, and whether rows were cut off."""
        check_text(sql)
        with self._turns.turn(self._asker):
            connection = _open(self.path, read_only=True)
            try:
                _check_version(connection)
            finally:
                connection.close()
            return answered(self.path, sql, AdHocLimits())

    def close(self) -> None:
        """Keep the file open only while it is read."""


def _check_version(connection: duckdb.DuckDBPyConnection) -> None:
    version = _found_version(connection)
    if version is None or migration_plan(version):
        raise StoreError(
            "Reading the telemetry store: it is not of this version yet. "
            "Start `pilotage up` once; it brings it up."
        )


def _found_version(connection: duckdb.DuckDBPyConnection) -> int | None:
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE NOT internal").fetchall()
    if ("meta",) not in tables:
        return None
    row = connection.execute("SELECT value FROM meta WHERE key = 'schema_version'").fetchone()
    return int(row[0]) if row else None


_WORTH_A_LOOK = frozenset({"runs", "task_runs", "logs", "deployments", "decisions"})


class DuckDBStore:
    """The one writer of the telemetry store; it reads too, for its own process. Threads may share it."""

    def __init__(
        self,
        path: Path,
        *,
        query_timeout: timedelta = QUERY_TIMEOUT,
        row_cap: int = ROW_CAP,
        ad_hoc: AdHocLimits | None = None,
        threads: int | None = None,
    ) -> None:
        """Opens the file and brings its tables to our version. Raises StoreError when that cannot be.

        `threads` read for one statement, as many as there are processors unless it is given.
        """
        self.path = path
        self._timeout = query_timeout
        self._row_cap = row_cap
        self._ad_hoc = ad_hoc or AdHocLimits()
        self._turns = AdHocTurns(self._ad_hoc)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        discard_unfinished(path)
        self._connection = _open(path, read_only=False, threads=threads)
        self._writer = self._connection.cursor()
        self._lock = threading.RLock()
        self._snapshots = Snapshots(path, self._lock)
        self._readers = Readers()
        self._closed = False
        self.changes = Changes()
        """Of runs, tasks, logs, deployments and decisions; snapshots and forecasts come all the time and do not count."""
        try:
            self._bring_up()
        except BaseException:
            self.close()
            raise
        path.chmod(0o600)

    def _bring_up(self) -> None:
        with self._writing("Bringing the telemetry store to this version") as writer:
            version = _found_version(writer)
            plan = () if version is None else migration_plan(version, SCHEMA_VERSION, MIGRATIONS)
            for statement in plan:
                writer.execute(statement)
            writer.execute(META_DDL)
            for table in TABLES.values():
                writer.execute(table.ddl())
            self._put(writer, "schema_version", str(SCHEMA_VERSION))

    @contextlib.contextmanager
    def _writing(self, doing: str) -> Iterator[duckdb.DuckDBPyConnection]:
        """One transaction of the one writer."""
        with self._lock:
            if self._closed:
                raise StoreError(f"{doing}: the store is closed. Open it again.")
            try:
                self._writer.begin()
                try:
                    yield self._writer
                except BaseException:
                    self._writer.rollback()
                    raise
                self._writer.commit()
            except duckdb.Error as exc:
                raise _translated(doing, exc) from exc

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of one SELECT as an Arrow table. Raises StoreError on anything else."""
        with self._readers.reading():
            if self._closed:
                raise StoreError("Reading the telemetry store: it is closed. Open it again.")
            cursor = self._connection.cursor()
            return guarded_query(cursor, sql, parameters, timeout=self._timeout, row_cap=self._row_cap)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The same result as plain dictionaries, times as aware UTC datetimes."""
        return rows_of(self.query(sql, parameters))

    def ad_hoc(self, sql: str, asker: str = "") -> tuple[pa.Table, bool]:
        """The result of a SELECT that nobody wrote beforehand, and whether rows were cut off.

        `asker` is the person in whose name it is counted.
        """
        if self._closed:
            raise StoreError("Reading the telemetry store: it is closed. Open it again.")
        check_text(sql)
        with self._turns.turn(asker), self._snapshots.taken() as copy:
            return answered(copy, sql, self._ad_hoc)

    def copied(self) -> contextlib.AbstractContextManager[Path]:
        """The path of a copy of everything that is committed, its log beside it; it goes with the end of the block."""
        return self._snapshots.taken()

    def add_events(self, events: Sequence[EventFact]) -> int:
        """How many of the events were new. Only the batch's own stretch of time is searched for old ones."""
        return self._append_new(TABLES["events"], events)

    def add_logs(self, lines: Sequence[LogLine]) -> int:
        """How many of the lines were new."""
        return self._append_new(TABLES["logs"], lines)

    def add_decisions(self, decisions: Sequence[DecisionFact]) -> int:
        """How many of the decisions were new."""
        return self._append_new(TABLES["decisions"], decisions)

    def add_queues(self, snapshots: Sequence[QueueFact]) -> int:
        """How many snapshots were added: all."""
        return self._append(TABLES["queues"], snapshots)

    def add_forecasts(self, forecasts: Sequence[Forecast]) -> int:
        """How many forecasts were added: all."""
        return self._append(TABLES["forecasts"], forecasts)

    def score_forecasts(self, now: datetime) -> int:
        """Write down how the attempts went that forecasts were about. Return how many forecasts have been scored.

        An attempt is the first that ends after its forecast was made.
        """
        with self._writing("Scoring the forecasts") as writer:
            return _count(writer.execute(_SCORE, [now - UNSCORED_FOR]))

    def add_spans(self, spans: Sequence[SpanFact]) -> int:
        """How many of the agent's spans were new."""
        return self._append_new(TABLES["agent_spans"], spans)

    def merge_runs(self, runs: Sequence[RunFact]) -> int:
        """How many runs were new or newer than what is kept."""
        return self._merge(TABLES["runs"], runs)

    def merge_task_runs(self, task_runs: Sequence[TaskRunFact]) -> int:
        """How many task runs were new or newer."""
        return self._merge(TABLES["task_runs"], task_runs)

    def merge_deployments(self, deployments: Sequence[DeploymentFact]) -> int:
        """How many deployments were new or newer."""
        return self._merge(TABLES["deployments"], deployments)

    def forget_runs(self, run_ids: Sequence[str]) -> int:
        """How many runs were taken out, because Prefect no longer has them."""
        return self._forget(TABLES["runs"], run_ids)

    def replace(self, name: str, facts: Sequence[Any], *, of_pool: str | None = None) -> int:
        """Make the rows of a table that keeps what is now those facts; `of_pool` leaves those of other pools alone."""
        table, of_pool = TABLES[name], of_pool and redact(of_pool)
        with self._staged(table, [without_secrets(fact) for fact in facts]) as writer:
            where = "" if of_pool is None else " WHERE pool = ?"
            writer.execute(f"DELETE FROM {table.name}{where}", [] if of_pool is None else [of_pool])  # noqa: S608
            return _count(writer.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM batch"))  # noqa: S608

    def put(self, name: str, facts: Sequence[Any]) -> int:
        """Keep these facts in place of what a table has under their names; the others stay."""
        table = TABLES[name]
        with self._staged(table, [without_secrets(fact) for fact in facts]) as writer:
            of = table.identity
            writer.execute(f"DELETE FROM {table.name} WHERE {of} IN (SELECT {of} FROM batch)")  # noqa: S608
            return _count(writer.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM batch"))  # noqa: S608

    def forget_deployments(self, deployment_ids: Sequence[str]) -> int:
        """How many deployments were taken out, because Prefect no longer has them."""
        return self._forget(TABLES["deployments"], deployment_ids)

    def _forget(self, table: Table, ids: Sequence[str]) -> int:
        with self._writing(f"Taking {len(ids)} rows out of {table.name}") as writer:
            sql = f"DELETE FROM {table.name} WHERE {table.identity} IN (SELECT unnest(?::VARCHAR[]))"  # noqa: S608
            gone = _count(writer.execute(sql, [list(ids)]))
        return self._noted(table, gone)

    def _noted(self, table: Table, count: int) -> int:
        if count and table.name in _WORTH_A_LOOK:
            self.changes.note()
        return count

    @contextlib.contextmanager
    def _staged(self, table: Table, facts: Sequence[Any]) -> Iterator[duckdb.DuckDBPyConnection]:
        schema = pa.schema([(column.name, _ARROW[column.kind]) for column in table.columns])
        batch = pa.table(columns_by_name(table, facts), schema=schema)
        with self._writing(f"Adding {len(facts)} rows to {table.name}") as writer:
            writer.register("batch", batch)
            try:
                yield writer
            finally:
                writer.unregister("batch")

    def _append(self, table: Table, facts: Sequence[Any]) -> int:
        if not facts:
            return 0
        with self._staged(table, facts) as writer:
            return _count(writer.execute(f"INSERT INTO {table.name} BY NAME SELECT * FROM batch"))  # noqa: S608

    def _append_new(self, table: Table, facts: Sequence[Any]) -> int:
        unique = list({getattr(fact, table.identity): fact for fact in facts}.values())
        if not unique:
            return 0
        since = min(getattr(fact, table.time) for fact in unique) - REDELIVERY_WINDOW
        sql = (
            f"INSERT INTO {table.name} BY NAME SELECT * FROM batch WHERE {table.identity} NOT IN "  # noqa: S608
            f"(SELECT {table.identity} FROM {table.name} WHERE {quoted_name(table.time)} >= ?)"
        )
        with self._staged(table, unique) as writer:
            new = _count(writer.execute(sql, [since]))
        return self._noted(table, new)

    def _merge(self, table: Table, facts: Sequence[Any]) -> int:
        newest: dict[str, Any] = {}
        for fact in facts:
            kept = newest.get(getattr(fact, table.identity))
            if kept is None or fact.updated >= kept.updated:
                newest[getattr(fact, table.identity)] = fact
        if not newest:
            return 0
        names = [quoted_name(column.name) for column in table.columns]
        sql = (
            f"MERGE INTO {table.name} kept USING batch ON kept.{table.identity} = batch.{table.identity} "  # noqa: S608
            f"WHEN MATCHED AND batch.updated > kept.updated THEN UPDATE SET "
            f"{', '.join(f'{name} = batch.{name}' for name in names)} "
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(names)}) "
            f"VALUES ({', '.join(f'batch.{name}' for name in names)})"
        )
        with self._staged(table, list(newest.values())) as writer:
            new = _count(writer.execute(sql))
        return self._noted(table, new)

    def watermark(self, name: str) -> datetime | None:
        """Up to when everything of this name has been read from Prefect, or None when nothing was."""
        with self._writing(f"Reading the watermark {name}") as writer:
            row = writer.execute("SELECT value FROM meta WHERE key = ?", [f"watermark:{name}"]).fetchone()
        return datetime.fromisoformat(row[0]).astimezone(UTC) if row else None

    def set_watermark(self, name: str, moment: datetime) -> None:
        """Remembers that everything of this name up to `moment` is in the store."""
        with self._writing(f"Moving the watermark {name}") as writer:
            self._put(writer, f"watermark:{name}", moment.astimezone(UTC).isoformat())

    @staticmethod
    def _put(writer: duckdb.DuckDBPyConnection, key: str, value: str) -> None:
        writer.execute("DELETE FROM meta WHERE key = ?", [key])
        writer.execute("INSERT INTO meta VALUES (?, ?)", [key, value])

    def retain(
        self,
        now: datetime,
        lives: Retention,
        *,
        needed: Collection[str] = (),
        archive: ParquetArchive | None = None,
    ) -> Mapping[str, int]:
        """Count hours and days, then delete what is past its age. Return the rows of each kind (`payload`: emptied).

        What belongs to the runs `needed` stays. With an archive rows are deleted once they are in it; StoreError when
        it cannot take them.
        """
        before = {cut.kind: cut.before for cut in cuts(now, lives)}
        self._roll_up(now, before.get("runs"))
        return {cut.kind: self._cut(cut, needed, archive) for cut in cuts(now, lives)}

    def _roll_up(self, now: datetime, cut_before: datetime | None) -> None:
        """Count the last days anew; once a day, and before any run goes, all that was not cut yet."""
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        counted, whole = self.watermark(ROLLED_UP), self.watermark(_COUNTED_WHOLE)
        recent = midnight - COUNTED_ANEW if whole == midnight else _NEVER
        with self._writing("Counting hours and days") as writer:
            roll_up(writer, max(counted or _NEVER, recent))
            self._put(writer, f"watermark:{_COUNTED_WHOLE}", midnight.isoformat())
            if cut_before is not None and cut_before > (counted or _NEVER):
                self._put(writer, f"watermark:{ROLLED_UP}", cut_before.isoformat())

    def _cut(self, cut: Cut, needed: Collection[str], archive: ParquetArchive | None) -> int:
        time = quoted_name(TABLES[cut.table].time)
        where = cut.where
        if cut.of_runs:
            where += " AND (run_id IS NULL OR run_id NOT IN (SELECT run_id FROM needed))"
        columns = "event_id, occurred, payload" if cut.kind == "payload" else "*"
        gone = 0
        while True:
            with self._writing(f"Dropping {cut.kind} past its age") as writer:
                writer.register("needed", pa.table({"run_id": pa.array(list(needed), pa.string())}))
                try:
                    if archive is None:
                        return _count(writer.execute(_doomed(cut, where), [cut.before]))
                    batch = writer.execute(
                        f"SELECT rowid AS row_id, {columns} FROM {cut.table} WHERE {where} "  # noqa: S608
                        f"ORDER BY {time}, rowid LIMIT {ARCHIVED_AT_ONCE}",
                        [cut.before],
                    ).to_arrow_table()
                    if not batch.num_rows:
                        return gone
                    first = batch[TABLES[cut.table].time][0].as_py()
                    archive.keep(cut.kind, batch.drop_columns(["row_id"]), first)
                    writer.register("doomed", batch.select(["row_id"]))
                    try:
                        gone += _count(writer.execute(_doomed(cut, "rowid IN (SELECT row_id FROM doomed)")))
                    finally:
                        writer.unregister("doomed")
                finally:
                    writer.unregister("needed")

    def compact(self) -> tuple[int, int]:
        """Make the file as small as its rows; return its bytes before and after. Readers wait for the change-over only.

        Raises StoreError, and the old file stays, when there is no room or readers do not end.
        """
        doing = "Compacting the telemetry store"
        fresh = unfinished(self.path)
        try:
            with self._snapshots.alone(), self._lock:
                if self._closed:
                    raise StoreError(f"{doing}: it is closed. Open it again.")
                self.checkpoint()
                before = self.path.stat().st_size
                with self._snapshots.taken() as copy:
                    write_compact(copy, fresh)
                with self._readers.alone():
                    self._writer.close()
                    self._connection.close()
                    try:
                        if not wal_of(self.path).exists():
                            put_in_place(fresh, self.path)
                    finally:
                        self._connection = _open(self.path, read_only=False)
                        self._writer = self._connection.cursor()
                return before, self.path.stat().st_size
        except duckdb.Error as exc:
            raise _translated(doing, exc) from exc
        except OSError as exc:
            raise StoreError(f"{doing}: {exc}. Make room for a second copy of it.", transient=True) from exc
        finally:
            discard_unfinished(self.path)

    def unused_share(self) -> float:
        """How much of the file holds nothing, from 0 to 1."""
        (row,) = self.rows("SELECT total_blocks, free_blocks FROM pragma_database_size()")
        return float(row["free_blocks"]) / max(int(row["total_blocks"]), 1)

    def checkpoint(self) -> None:
        """Folds the write-ahead log into the file. Do it when idle: at full load it stalls the writer."""
        with self._lock:
            try:
                self._writer.execute("CHECKPOINT")
            except duckdb.Error as exc:
                raise _translated("Folding the write-ahead log into the file", exc) from exc

    def close(self) -> None:
        """Lets the file go; harmless when called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._writer.close()
                self._connection.close()
                self._snapshots.close()


def _doomed(cut: Cut, where: str) -> str:
    if cut.kind == "payload":
        return f"UPDATE events SET payload = '{{}}' WHERE {where}"  # noqa: S608
    return f"DELETE FROM {cut.table} WHERE {where}"  # noqa: S608


def _count(result: duckdb.DuckDBPyConnection) -> int:
    row = result.fetchone()
    return int(row[0]) if row else 0
