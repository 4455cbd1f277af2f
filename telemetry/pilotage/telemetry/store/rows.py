"""How an Arrow table becomes plain Python rows: aware UTC times and ordinary numbers."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


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
