"""Reads columns of a Parquet or CSV file, whatever they are named, for those who know what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from pilotage.telemetry.errors import ConfigError

Columns = dict[str, np.ndarray[Any, Any]]
SOURCES = {
    (".parquet", ".pq"): "read_parquet(?)",
    (".csv", ".tsv"): "read_csv(?, sample_size = -1)",
}
THREADS = 2


def read_table_file(path: Path, select: Callable[[Mapping[str, str]], Mapping[str, str]]) -> Columns:
    """Return columns of a file as NumPy arrays, masked where a value is missing.

    `select` is given the file's column names with their DuckDB types, and returns the SQL expression of each
    column that is wanted, by name. Times are read in UTC. Raises ConfigError when the file cannot be read.
    """
    name = path.name.lower().removesuffix(".gz")
    source = next((sql for ends, sql in SOURCES.items() if name.endswith(ends)), None)
    if source is None:
        raise ConfigError(f"Reading {path}: its name must end in .parquet, .csv or .csv.gz.")
    con = duckdb.connect(config={"threads": THREADS})
    try:
        con.execute("SET TimeZone = 'UTC'")
        described = con.execute(f"DESCRIBE SELECT * FROM {source}", [str(path)]).fetchall()  # noqa: S608
        wanted = select({str(row[0]): str(row[1]).upper() for row in described})
        parts = ", ".join(f"{expression} AS {quoted(name)}" for name, expression in wanted.items())
        columns: Columns = con.execute(f"SELECT {parts} FROM {source}", [str(path)]).fetchnumpy()  # noqa: S608
        return columns
    except duckdb.Error as error:
        raise ConfigError(f"Reading {path}: {error}. Check the file and its columns.") from error
    finally:
        con.close()


def quoted(name: str) -> str:
    """Return a column's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'
