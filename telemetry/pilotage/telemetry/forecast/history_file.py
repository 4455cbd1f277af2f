"""Reads a run history from Parquet, CSV or the Standard Workload Format (SWF). docs/forecast.md has the format."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pilotage.telemetry.errors import ConfigError
from pilotage.telemetry.forecast.run_history import Floats, RunHistory, coded
from pilotage.telemetry.store.table_file import quoted, read_table_file

ALIASES = {
    "run_id": ("run_id", "id", "job_id"),
    "deployment": ("deployment", "workflow", "deployment_id", "workflow_id", "flow_name", "job_name"),
    "owner": ("owner", "user", "user_id", "team"),
    "queue": ("queue", "work_queue", "partition"),
    "submitted_at": ("submitted_at", "submitted", "submit_s", "created_at"),
    "started_at": ("started_at", "started", "start_s"),
    "ended_at": ("ended_at", "ended", "end_s", "finished_at"),
    "outcome": ("outcome", "state", "status", "state_type"),
}
"""Column names that are understood, the documented one first."""
REQUIRED = ("deployment", "submitted_at", "outcome")
ENDS_AFTER_START = 1e8
"""Numbers below are seconds since a start that nobody named (three years), above they are epoch seconds."""
NUMERIC = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|FLOAT|DOUBLE|DECIMAL|BOOL)")
"""The DuckDB types of numeric columns."""
SWF_OUTCOMES = {"1": "COMPLETED", "0": "FAILED", "5": "CANCELLED", "-1": "RUNNING"}
SWF_FIELDS = 18


def read_history(path: Path) -> RunHistory:
    """Return the runs of a file in the order of submission. Raises ConfigError when it is no run history."""
    return read_table(path).coded()


def read_table(path: Path) -> HistoryTable:
    """Return the runs of a file with the names in it, in the order of submission. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"Reading the run history {path}: there is no such file. Name a Parquet, CSV or SWF file."
        )
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".swf", ".txt")):
        return _from_swf(path)
    if name.endswith((".parquet", ".pq", ".csv", ".tsv")):
        return _from_table(path)
    raise ConfigError(
        f"Reading the run history {path}: its name must end in .parquet, .csv(.gz) or .swf(.gz)."
    )


def _from_table(path: Path) -> HistoryTable:
    columns: dict[str, str] = {}
    numeric: list[str] = []
    stamped = False

    def select(types: Mapping[str, str]) -> dict[str, str]:
        nonlocal stamped
        lower = {name.lower(): name for name in reversed(list(types))}
        for ours, names in ALIASES.items():
            if (alias := next((a for a in names if a in lower), None)) is not None:
                columns[ours] = lower[alias]
        if missing := [name for name in REQUIRED if name not in columns]:
            raise ConfigError(
                f"Reading the run history {path}: it has no column {', '.join(missing)}; found "
                f"{', '.join(types)}. docs/forecast.md describes the format."
            )
        kind = types[columns["submitted_at"]]
        stamped = "TIME" in kind or kind.startswith(("VARCHAR", "DATE"))
        wanted = {
            name: _when(columns[name], types[columns[name]]) if name in columns else "NULL::DOUBLE"
            for name in ("submitted_at", "started_at", "ended_at")
        }
        for name in ("run_id", "deployment", "owner", "queue", "outcome"):
            wanted[name] = f"CAST({quoted(columns[name])} AS VARCHAR)" if name in columns else "NULL::VARCHAR"
        numeric.extend(n for n, kind in types.items() if n not in columns.values() and NUMERIC.match(kind))
        return wanted | {"n_" + n: f"CAST({quoted(n)} AS DOUBLE)" for n in numeric}

    table = read_table_file(path, select)
    times = {name: _floats(table[name]) for name in ("submitted_at", "started_at", "ended_at")}
    kept = np.flatnonzero(np.isfinite(times["submitted_at"]))
    if not len(kept):
        raise ConfigError(f"Reading the run history {path}: no row has a time of submission.")
    order = kept[np.argsort(times["submitted_at"][kept], kind="stable")]

    def texts(name: str) -> list[str]:
        column = np.ma.filled(table[name].astype(object), "")[order]
        return ["" if value is None else str(value) for value in column]

    deployment = texts("deployment")
    if columns["deployment"].lower() in ("workflow_id", "job_name") and "owner" in columns:
        # a job's name is its user's own
        deployment = [f"{owner}/{name}" for owner, name in zip(texts("owner"), deployment, strict=True)]
    ids = texts("run_id") if "run_id" in columns else [str(place) for place in order]
    return HistoryTable(
        run_id=ids,
        deployment=deployment,
        owner=texts("owner"),
        queue=texts("queue"),
        outcome=texts("outcome"),
        times=tuple(times[name][order] for name in ("submitted_at", "started_at", "ended_at")),
        numbers={name: _floats(table["n_" + name])[order] for name in numeric},
        clock=stamped or float(np.nanmin(times["submitted_at"])) > ENDS_AFTER_START,
        zero=0.0,
    )


def _when(column: str, kind: str) -> str:
    name = quoted(column)
    if kind.startswith("VARCHAR"):
        return f"epoch(CAST({name} AS TIMESTAMPTZ))"
    return f"epoch({name})" if "TIME" in kind or kind == "DATE" else f"CAST({name} AS DOUBLE)"


def _floats(column: np.ndarray) -> Floats:
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)


def _from_swf(path: Path) -> HistoryTable:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    zero, rows = 0.0, []
    try:
        with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith(";"):
                    if match := re.match(r";\s*UnixStartTime:\s*(\d+)", line):
                        zero = float(match[1])
                elif fields := line.split():
                    rows.append(fields[:SWF_FIELDS])
    except OSError as error:
        raise ConfigError(f"Reading the run history {path}: {error}. Name a readable SWF file.") from error
    if not rows or any(len(row) < SWF_FIELDS for row in rows):
        raise ConfigError(f"Reading {path} as SWF: a row needs {SWF_FIELDS} fields, blank-separated.")
    try:
        table = np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise ConfigError(f"Reading {path} as SWF: {error}. Every field is a number.") from error
    order = np.argsort(table[:, 1], kind="stable")
    table, rows = table[order], [rows[i] for i in order]
    unknown = np.where(table < 0, np.nan, table)
    procs = np.where(table[:, 7] > 0, table[:, 7], np.where(table[:, 4] > 0, table[:, 4], np.nan))
    submitted = table[:, 1] + zero
    started = submitted + unknown[:, 2]
    ended = started + unknown[:, 3]
    program = [row[13] if float(row[13]) > 0 else f"{row[7]}/{row[8]}" for row in rows]
    return HistoryTable(
        run_id=[row[0] for row in rows],
        deployment=[f"{row[11]}/{name}" for row, name in zip(rows, program, strict=True)],
        owner=[row[11] for row in rows],
        queue=[row[14] for row in rows],
        outcome=[SWF_OUTCOMES.get(str(int(float(row[10]))), "CANCELLED") for row in rows],
        times=(submitted, started, ended),
        numbers={
            name: column
            for name, column in (
                ("procs", procs),
                ("requested_s", unknown[:, 8]),
                ("requested_memory", unknown[:, 9]),
            )
            if np.isfinite(column).any()
        },
        clock=zero > 0,
        zero=zero,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryTable:
    """A run history as it is written down: names are text, times seconds, in the order of submission."""

    run_id: list[str]
    deployment: list[str]
    owner: list[str]
    queue: list[str]
    outcome: list[str]
    times: tuple[Floats, ...]
    """Submitted, started and ended; NaN where unknown."""
    numbers: dict[str, Floats]
    clock: bool
    zero: float

    def coded(self) -> RunHistory:
        """Return the history that models read."""
        submitted, started, ended = self.times
        ended = np.where(np.isfinite(ended), np.maximum(ended, submitted), np.inf)
        return RunHistory(
            run_id=tuple(self.run_id),
            deployment=coded(self.deployment),
            owner=coded(self.owner),
            queue=coded(self.queue),
            submitted=submitted,
            started=np.where(np.isfinite(started), started, np.nan),
            ended=ended,
            outcome=tuple(word.strip().upper() for word in self.outcome),
            numbers=self.numbers,
            clock=self.clock,
            zero=self.zero,
        )


def write_history(table: HistoryTable, path: Path) -> None:
    """Write a run history as Parquet under the documented column names. Raises ConfigError."""
    times = dict(zip(("submitted_at", "started_at", "ended_at"), table.times, strict=True))
    columns: dict[str, Any] = {
        name: getattr(table, name) for name in ("run_id", "deployment", "owner", "queue", "outcome")
    }
    for name, seconds in times.items():
        missing = ~np.isfinite(seconds)
        columns[name] = (
            pa.array((np.nan_to_num(seconds) * 1e6).round().astype(np.int64), mask=missing).cast(
                pa.timestamp("us", tz="UTC")
            )
            if table.clock
            else pa.array(seconds, mask=missing)
        )
    taken = {alias for names in ALIASES.values() for alias in names}
    columns |= {
        name: pa.array(values, mask=~np.isfinite(values))
        for name, values in table.numbers.items()
        if name.lower() not in taken
    }
    try:
        pq.write_table(pa.table(columns), path)
    except OSError as error:
        raise ConfigError(
            f"Writing the run history to {path}: {error}. Name a file in a folder that exists."
        ) from error
