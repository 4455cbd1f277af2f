"""What the store's tables look like, and how a store of an older version becomes one of ours.

Each table has exactly the columns of the frozen dataclass whose facts it keeps, under the same names.
Tuples and mappings are JSON text; every time is TIMESTAMPTZ in UTC. There are no primary keys: at ten
million rows they cost half the loading speed and several times the space, so writers deduplicate
themselves. `at` and `limit` are words of SQL: quote them, as in `SELECT "at", "limit" FROM queues`.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from pilotage.telemetry.errors import InvariantError, StoreError
from pilotage.telemetry.facts import (
    AskedFact,
    AutomationFact,
    DecisionFact,
    DeploymentFact,
    EventFact,
    LimitFact,
    LogLine,
    PoolFact,
    QueueFact,
    RollupFact,
    RunFact,
    ScheduleFact,
    SpanFact,
    StateType,
    TaskRunFact,
    WorkerFact,
)
from pilotage.telemetry.forecasts import Forecast

SCHEMA_VERSION = 5
"""Raised by one with every change to a table, together with a row in `MIGRATIONS`; a new table is made without."""

MIGRATIONS: Mapping[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE runs ADD COLUMN parent_task_run_id VARCHAR",
        "ALTER TABLE runs ADD COLUMN retries BIGINT",
        # a DEFAULT in the same statement is refused once the configuration is locked
        "ALTER TABLE runs ADD COLUMN auto_scheduled BOOLEAN",
        "UPDATE runs SET auto_scheduled = false",
        "ALTER TABLE task_runs ADD COLUMN attempt BIGINT",
        "ALTER TABLE task_runs ADD COLUMN kept BOOLEAN",
        "UPDATE task_runs SET attempt = 0, kept = false",
    ),
    2: (
        "CREATE TABLE IF NOT EXISTS agent_spans (span_id VARCHAR, trace_id VARCHAR, parent_id VARCHAR, "
        '"at" TIMESTAMPTZ, ms DOUBLE, name VARCHAR, operation VARCHAR, conversation VARCHAR, model VARCHAR, '
        "tool VARCHAR, input_tokens BIGINT, output_tokens BIGINT, cost DOUBLE, first_token_ms DOUBLE, error VARCHAR)",
    ),
    3: (
        "ALTER TABLE agent_spans ADD COLUMN IF NOT EXISTS agent VARCHAR",
        "UPDATE agent_spans SET agent = '' WHERE agent IS NULL",
    ),
    4: (
        "ALTER TABLE runs ADD COLUMN IF NOT EXISTS state_at TIMESTAMPTZ",
        "ALTER TABLE task_runs ADD COLUMN IF NOT EXISTS tags VARCHAR",
        "ALTER TABLE queues ADD COLUMN IF NOT EXISTS pool_paused BOOLEAN",
        "ALTER TABLE queues ADD COLUMN IF NOT EXISTS status VARCHAR",
        "ALTER TABLE queues ADD COLUMN IF NOT EXISTS last_polled TIMESTAMPTZ",
        "UPDATE queues SET pool_paused = false, status = '' WHERE status IS NULL",
        "ALTER TABLE deployments ADD COLUMN IF NOT EXISTS status VARCHAR",
        "ALTER TABLE deployments ADD COLUMN IF NOT EXISTS last_polled TIMESTAMPTZ",
        "ALTER TABLE deployments ADD COLUMN IF NOT EXISTS paused_since TIMESTAMPTZ",
        "UPDATE deployments SET status = '' WHERE status IS NULL",
        "ALTER TABLE forecasts ADD COLUMN IF NOT EXISTS model_id VARCHAR",
        "ALTER TABLE forecasts ADD COLUMN IF NOT EXISTS low DOUBLE",
        "ALTER TABLE forecasts ADD COLUMN IF NOT EXISTS high DOUBLE",
        "ALTER TABLE forecasts ADD COLUMN IF NOT EXISTS muted VARCHAR",
        "ALTER TABLE forecasts ADD COLUMN IF NOT EXISTS failed BOOLEAN",
        "ALTER TABLE forecasts ADD COLUMN IF NOT EXISTS ended TIMESTAMPTZ",
        "UPDATE forecasts SET model_id = '', muted = '' WHERE model_id IS NULL",
    ),
}
"""For each old version, the statements that make a store of that version one of the next."""

COMPRESSED = frozenset({("events", "payload"), ("logs", "message")})
"""Long repetitive text. Zstd keeps a 1.9 KB event in 84 bytes, a tenth of the default compression."""

FactT = TypeVar("FactT")


class Kind(StrEnum):
    """How a field is kept: its SQL type."""

    TEXT = "VARCHAR"
    JSON = "VARCHAR /* JSON */"
    INTEGER = "BIGINT"
    REAL = "DOUBLE"
    FLAG = "BOOLEAN"
    TIME = "TIMESTAMPTZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of one table."""

    name: str
    kind: Kind
    shape: type | None = None
    """The class a stored value becomes again: an enum, `tuple` or `dict`; None when it is used as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table: whose facts it keeps, what names a fact, and which time it is found by."""

    name: str
    fact: type[Any]
    identity: str
    time: str

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns, in the order of the dataclass."""
        return columns_of(self.fact)  # type: ignore[arg-type]  # a class is hashable

    def ddl(self) -> str:
        """The statement that makes it."""
        lines = ", ".join(
            f"{quoted_name(column.name)} {column.kind.value}"
            + (" USING COMPRESSION zstd" if (self.name, column.name) in COMPRESSED else "")
            for column in self.columns
        )
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({lines})"


TABLES: Mapping[str, Table] = {
    table.name: table
    for table in (
        Table(name="runs", fact=RunFact, identity="run_id", time="updated"),
        Table(name="task_runs", fact=TaskRunFact, identity="task_run_id", time="updated"),
        Table(name="events", fact=EventFact, identity="event_id", time="occurred"),
        Table(name="logs", fact=LogLine, identity="log_id", time="at"),
        Table(name="queues", fact=QueueFact, identity="queue", time="at"),
        Table(name="deployments", fact=DeploymentFact, identity="deployment_id", time="updated"),
        Table(name="pools", fact=PoolFact, identity="pool", time="seen"),
        Table(name="workers", fact=WorkerFact, identity="worker_id", time="seen"),
        Table(name="limits", fact=LimitFact, identity="limit_id", time="seen"),
        Table(name="schedules", fact=ScheduleFact, identity="schedule_id", time="seen"),
        Table(name="automations", fact=AutomationFact, identity="automation_id", time="seen"),
        Table(name="asked", fact=AskedFact, identity="kind", time="at"),
        Table(name="forecasts", fact=Forecast, identity="run_id", time="made_at"),
        Table(name="agent_spans", fact=SpanFact, identity="span_id", time="at"),
        Table(name="decisions", fact=DecisionFact, identity="decision_id", time="at"),
        Table(name="rollups", fact=RollupFact, identity="deployment_id", time="start"),
    )
}

META_DDL = "CREATE TABLE IF NOT EXISTS meta (key VARCHAR, value VARCHAR)"


def quoted_name(name: str) -> str:
    """The name as an SQL identifier, safe when it is a reserved word."""
    return '"' + name.replace('"', '""') + '"'


def _column(name: str, hint: Any) -> Column:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        (hint,) = (option for option in typing.get_args(hint) if option is not type(None))
    origin = typing.get_origin(hint)
    if origin is tuple:
        return Column(name=name, kind=Kind.JSON, shape=tuple)
    if origin is not None and issubclass(origin, Mapping):
        return Column(name=name, kind=Kind.JSON, shape=dict)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return Column(name=name, kind=Kind.TEXT, shape=hint)
    plain = {str: Kind.TEXT, bool: Kind.FLAG, int: Kind.INTEGER, float: Kind.REAL, datetime: Kind.TIME}
    if hint not in plain:
        raise InvariantError(f"Laying out the column {name}: no SQL type for {hint!r}. Add one to schema.py.")
    return Column(name=name, kind=plain[hint])


@cache
def columns_of(fact: type[Any]) -> tuple[Column, ...]:
    """The columns that keep one kind of fact."""
    hints = typing.get_type_hints(fact)
    return tuple(_column(field.name, hints[field.name]) for field in fields(fact))


def columns_by_name(table: Table, facts: Sequence[Any]) -> dict[str, list[Any]]:
    """The facts turned on their side: one list of storable values for each column."""
    return {
        column.name: [_stored(column, getattr(fact, column.name)) for fact in facts]
        for column in table.columns
    }


def _stored(column: Column, value: Any) -> Any:
    if column.kind is Kind.JSON:
        return json.dumps(list(value) if column.shape is tuple else dict(value), default=str)
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    return value


def fact_from_row(fact: type[FactT], row: Mapping[str, Any]) -> FactT:
    """The fact that one row of its table stands for."""
    return fact(**{column.name: _loaded(column, row[column.name]) for column in columns_of(fact)})  # type: ignore[arg-type]


def _loaded(column: Column, value: Any) -> Any:
    if column.kind is Kind.JSON:
        decoded = json.loads(value or "null")
        return tuple(decoded or ()) if column.shape is tuple else dict(decoded or {})
    if column.shape is StateType:
        return StateType(value)
    return value


def facts_from_rows(fact: type[FactT], rows: Iterable[Mapping[str, Any]]) -> list[FactT]:
    """The facts that rows of one table stand for."""
    return [fact_from_row(fact, row) for row in rows]


def migration_plan(
    stored: int, known: int = SCHEMA_VERSION, migrations: Mapping[int, tuple[str, ...]] = MIGRATIONS
) -> tuple[str, ...]:
    """The statements that bring a store of version `stored` to `known`; none when it is already there.

    Raises StoreError when the store was written by a newer pilotage.
    """
    if stored > known:
        raise StoreError(
            f"Opening the telemetry store: it has schema version {stored}, and this pilotage knows "
            f"versions up to {known}. Use the newer pilotage that wrote it, or move the file away: "
            "it is rebuilt from Prefect."
        )
    missing = [version for version in range(stored, known) if version not in migrations]
    if missing:
        raise InvariantError(
            f"Opening the telemetry store: no migration from schema version {missing[0]}. "
            "Add a row to MIGRATIONS in schema.py."
        )
    return tuple(statement for version in range(stored, known) for statement in migrations[version])
