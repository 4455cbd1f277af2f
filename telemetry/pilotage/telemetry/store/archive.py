"""Rows that are to be deleted, written to Parquet first: `DIRECTORY/KIND/FIRST-DAY-HASH.parquet`."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pilotage.telemetry.errors import StoreError


class ParquetArchive:
    """A directory of Parquet files that appear whole or not at all. Nothing in it is ever changed or taken away."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep(self, kind: str, rows: pa.Table, first: datetime | None = None) -> Path:
        """Write these rows; return the file once it is on the disk. The same rows make the same file.

        `first` is the moment of the oldest of them. Raises StoreError when they could not be written.
        """
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd")
        body = sink.getvalue().to_pybytes()
        day = f"{first:%Y%m%d}" if first else "undated"
        path = self.directory / kind / f"{day}-{hashlib.sha256(body).hexdigest()[:16]}.parquet"
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                with open(beside, "xb", opener=_private) as file:
                    file.write(body)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, path)
            finally:
                beside.unlink(missing_ok=True)
            _sync(path.parent)
        except OSError as exc:
            raise StoreError(
                f"Archiving {rows.num_rows} rows of {kind} to {path.parent}: {exc}. Nothing was deleted; make room, or "
                "name another `retention.archive`.",
                transient=True,
            ) from exc
        return path

    def keep_rows(self, kind: str, rows: list[dict[str, Any]], first: datetime | None = None) -> Path:
        """Write rows that are plain dictionaries."""
        return self.keep(kind, pa.Table.from_pylist(rows), first)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
