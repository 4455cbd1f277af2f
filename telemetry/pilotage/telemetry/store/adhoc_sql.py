"""Statements that nobody wrote beforehand: a person's or a language model's SQL over the telemetry tables.

Such a statement is taken apart by DuckDB's own parser before it runs, and refused unless all it reads are
telemetry tables. What runs is stopped at a number of seconds and of bytes, and cut at a number of rows. The
owner of the file enforces it, so a reader cannot ask for more.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import duckdb
import pyarrow as pa

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.store.schema import TABLES

READ = frozenset(TABLES)
"""The tables that may be read."""
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest"})
"""What may stand in FROM beside them."""
FORBIDDEN_FUNCTIONS = frozenset(
    {"getenv", "getvariable", "current_setting", "write_log", "nextval", "currval"}
    # one call of these can take gigabytes, and cannot be interrupted
    | {"repeat", "lpad", "rpad", "list_resize", "array_resize"}
)
FORBIDDEN_PREFIXES = (
    "duckdb_",
    "pragma_",
    "pg_",
    "read_",
    "parquet_",
    "force_",
    "checkpoint",
    "enable_",
    "disable_",
)
"""Functions that tell about the machine instead of the runs, that do something, or that take too much."""
POLL = 0.05
"""Seconds between two looks at how much memory a statement has taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdHocLimits:
    """How much one such statement may take."""

    rows: int = 1000
    """Rows that are returned; the rest is cut off and said to be."""
    time: timedelta = timedelta(seconds=5)
    """Wall time, planning included."""
    memory: int = 256 * 1024 * 1024
    """Bytes that the store may grow by while it runs."""


def refusal(cursor: duckdb.DuckDBPyConnection, sql: str) -> str:
    """Why this statement may not run, or an empty string. Whatever cannot be taken apart may not."""
    try:
        row = cursor.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
        parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    except (duckdb.Error, ValueError) as exc:
        return f"a statement that cannot be read ({str(exc).splitlines()[0][:200]})"
    if parsed.get("error"):
        return str(parsed.get("error_message", "not a SELECT"))[:200]
    if len(parsed["statements"]) != 1:
        return f"{len(parsed['statements'])} statements where one is allowed"
    nodes = list(_objects(parsed["statements"][0]))
    own = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", ())}
    if hidden := own & (_all_tables(cursor) - READ):
        # the name would stand for the table itself where the WITH does not reach
        return f"WITH {min(hidden)}, the name of another table; choose another name"
    return next(filter(None, (_objection(node, own) for node in nodes)), "")


def _all_tables(cursor: duckdb.DuckDBPyConnection) -> set[str]:
    sql = "SELECT table_name FROM duckdb_tables() UNION SELECT view_name FROM duckdb_views()"
    return {str(name).lower() for (name,) in cursor.execute(sql).fetchall()}


def _objection(node: dict[str, Any], own: set[str]) -> str:
    match node.get("type"):
        case "BASE_TABLE":
            name = str(node["table_name"]).lower()
            plain = not node.get("catalog_name") and node.get("schema_name") in ("", "main")
            if not plain or name not in READ | own:
                return f"the table {node['table_name']!r}; there are {', '.join(sorted(READ))}"
        case "SHOW_REF":
            return "SHOW or DESCRIBE; the tool's description lists the columns"
        case "TABLE_FUNCTION":
            name = str(node["function"]["function_name"]).lower()
            if name not in TABLE_FUNCTIONS:
                return f"the table function {name!r}; there are {', '.join(sorted(TABLE_FUNCTIONS))}"
        case "FUNCTION":
            name = str(node.get("function_name", "")).lower()
            if name in FORBIDDEN_FUNCTIONS or name.startswith(FORBIDDEN_PREFIXES):
                return f"the function {name!r}, which a question about runs does not need"
    return ""


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a parsed statement, however deep."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)


def answered(
    connect: Callable[[], duckdb.DuckDBPyConnection], sql: str, limits: AdHocLimits
) -> tuple[pa.Table, bool]:
    """The rows of one SELECT, and whether more were cut off. Raises StoreError for anything else or too much."""
    cursor, watch = connect(), connect()
    taken: list[str] = []
    ended = threading.Event()
    guard = threading.Thread(
        target=_guard, args=(cursor, watch, limits, ended, taken), name="ad-hoc-guard", daemon=True
    )
    try:
        if why := refusal(cursor, sql):
            raise StoreError(f"Reading the telemetry store: found {why}. Ask one SELECT over the tables.")
        guard.start()
        reader = cursor.execute(sql).to_arrow_reader(1_000)
        batches, count = [], 0
        for batch in reader:
            batches.append(batch)
            count += batch.num_rows
            if count > limits.rows:
                break
        table = pa.Table.from_batches(batches, schema=reader.schema)
        return table.slice(0, limits.rows), count > limits.rows
    except (duckdb.Error, pa.ArrowException) as exc:
        message = taken[0] if taken else str(exc).strip().split("\n\n")[0].replace("\n", " ")[:400]
        raise StoreError(
            f"Reading the telemetry store: {message} Correct the statement, or ask for less."
        ) from exc
    finally:
        ended.set()
        if guard.is_alive():
            guard.join()
        cursor.close()
        watch.close()


def _guard(
    cursor: duckdb.DuckDBPyConnection,
    watch: duckdb.DuckDBPyConnection,
    limits: AdHocLimits,
    ended: threading.Event,
    taken: list[str],
) -> None:
    """Interrupts the statement when its time is up or it has taken too much memory; says which."""
    before, waited = _used(watch), 0.0
    while not ended.wait(POLL):
        waited += POLL
        if waited >= limits.time.total_seconds():
            taken.append(f"it took longer than {limits.time.total_seconds():g} s.")
        elif _used(watch) - before > limits.memory:
            taken.append(f"it took more than {limits.memory // 2**20} MiB.")
        if taken:
            cursor.interrupt()
            return


def _used(watch: duckdb.DuckDBPyConnection) -> int:
    row = watch.execute(
        "SELECT sum(memory_usage_bytes + temporary_storage_bytes) FROM duckdb_memory()"
    ).fetchone()
    return int(row[0] or 0) if row else 0
