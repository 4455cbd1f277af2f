"""How much of each kind the store holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pilotage.telemetry.store.schema import TABLES, quoted_name


class Asked(Protocol):
    """Whoever answers a SELECT with plain rows."""

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """The result as plain dictionaries."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSize:
    """One table."""

    table: str
    rows: int
    oldest: datetime | None
    size: int
    """Bytes in the file; rows that are in the write-ahead log alone are not counted."""


def table_sizes(store: Asked) -> list[TableSize]:
    """Every table of the store, in the order of the schema."""
    (database,) = store.rows("SELECT block_size FROM pragma_database_size()")
    found: list[TableSize] = []
    there = {row["name"] for row in store.rows("SELECT table_name AS name FROM duckdb_tables()")}
    for name, table in TABLES.items():
        if name not in there:  # of a file that was last opened by an older version
            continue
        (row,) = store.rows(
            f"SELECT count(*) AS n, min({quoted_name(table.time)}) AS oldest, "  # noqa: S608 - names of our own tables
            f"(SELECT count(DISTINCT block_id) FROM pragma_storage_info('{name}') WHERE persistent) AS blocks "
            f"FROM {name}"
        )
        size = int(row["blocks"]) * int(database["block_size"])
        found.append(TableSize(table=name, rows=row["n"], oldest=row["oldest"], size=size))
    return found
