"""How facts become rows, without secrets, and an Arrow table plain Python rows: aware UTC times, ordinary numbers."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from pilotage.telemetry.redaction import redact, redact_json

if TYPE_CHECKING:
    import pyarrow as pa


F = TypeVar("F")


def without_secrets(fact: F) -> F:
    """The fact with secrets masked in each of its texts: names are chosen by people as well."""
    known = {each.name: getattr(fact, each.name) for each in fields(fact)}  # type: ignore[arg-type]
    masked = {name: _masked(value) for name, value in known.items()}
    return replace(fact, **{name: value for name, value in masked.items() if value != known[name]})  # type: ignore[type-var]


def _masked(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case tuple():
            return tuple(_masked(each) for each in value)
        case dict():
            return redact_json(value)
        case _:
            return value


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as dictionaries. Sums of integers, which DuckDB widens to decimals, come back as `int`."""
    columns = [_plain(column.to_pylist()) for column in table.columns]
    return [dict(zip(table.column_names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(values: list[Any]) -> list[Any]:
    first = next((value for value in values if value is not None), None)
    if getattr(first, "tzinfo", None) is not None:
        return [value if value is None else value.astimezone(UTC) for value in values]
    if isinstance(first, Decimal):
        return [value if value is None else _number(value) for value in values]
    return values


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
