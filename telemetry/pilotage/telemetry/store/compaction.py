"""A store's file made as small as its rows: they are copied into a new file, which takes the old one's place."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb

from pilotage.telemetry.errors import StoreError
from pilotage.telemetry.store.schema import META_DDL, TABLES, quoted_name

READERS_END_WITHIN = 45.0
"""Seconds that readers have to end before the files are changed over; a statement may take 30."""
_CONFIG = {"storage_compatibility_version": "v1.5.0", "memory_limit": "1GB", "threads": "1"}


class Readers:
    """Lets readers in together, and one who wants to be alone when they have all left."""

    def __init__(self) -> None:
        self._inside = 0
        self._closed = False
        self._condition = threading.Condition()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Be one reader of several; waits while somebody is alone."""
        with self._condition:
            self._condition.wait_for(lambda: not self._closed)
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one. Raises StoreError when the readers do not leave."""
        with self._condition:
            self._closed = True
            left = self._condition.wait_for(lambda: self._inside == 0, timeout=READERS_END_WITHIN)
        try:
            if not left:
                raise StoreError(
                    "Compacting the telemetry store: readers did not end. It is tried again.", transient=True
                )
            yield
        finally:
            with self._condition:
                self._closed = False
                self._condition.notify_all()


def unfinished(path: Path) -> Path:
    """Where the new file grows; of no use to anybody once its maker is gone."""
    return path.with_name(f"{path.name}.compacting")


def discard_unfinished(path: Path) -> None:
    """Take away what an interrupted compaction left."""
    for each in path.parent.glob(f"{unfinished(path).name}*"):
        each.unlink(missing_ok=True)


def write_compact(source: Path, target: Path) -> None:
    """Write the rows of `source`, which nobody writes to, into the new file `target`, in the order of their time.

    Raises duckdb.Error.
    """
    before = os.umask(0o177)  # for this user alone from the first moment on
    try:
        with contextlib.closing(duckdb.connect(config=dict(_CONFIG))) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"ATTACH {_text(source)} AS old (READ_ONLY)")
            connection.execute(f"ATTACH {_text(target)} AS new (STORAGE_VERSION 'v1.5.0')")
            connection.execute("USE new")
            connection.execute(META_DDL)
            connection.execute("INSERT INTO new.meta SELECT * FROM old.meta")
            for table in TABLES.values():
                connection.execute(table.ddl())
                connection.execute(
                    f"INSERT INTO new.{table.name} BY NAME SELECT * FROM old.{table.name} "  # noqa: S608
                    f"ORDER BY {quoted_name(table.time)}"
                )
            connection.execute("CHECKPOINT new")
    finally:
        os.umask(before)


def put_in_place(fresh: Path, path: Path) -> None:
    """Make the new file the store's. Raises OSError; the old one stays then."""
    descriptor = os.open(fresh, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(fresh, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def wal_of(path: Path) -> Path:
    """DuckDB's write-ahead log beside the file."""
    return path.with_name(f"{path.name}.wal")
