"""Plain JSON values: what the ledger stores and hashes, whatever types came in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from pydantic import BaseModel

_EXACT = 2**53 - 1
"""RFC 8785 knows no whole number beyond this."""


def timestamp(at: datetime) -> str:
    """The moment as text that sorts as the moments do: UTC, microseconds always there."""
    if at.tzinfo is None:
        raise ValueError(f"{at} has no time zone; every time here is aware")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str) -> datetime:
    """The aware moment that such a text stands for."""
    return datetime.fromisoformat(text)


def plain(value: object) -> Any:
    """The value as JSON can carry it: times as text, durations in seconds, odd numbers as text."""
    match value:
        case None | bool():
            return value
        case Enum():
            return plain(value.value)
        case str():
            return value.encode("utf-8", "replace").decode()
        case int():
            return value if -_EXACT <= value <= _EXACT else str(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case datetime():
            return timestamp(value)
        case timedelta():
            return value.total_seconds()
        case BaseModel():
            return plain(value.model_dump(mode="json"))
        case Mapping():
            return {str(key): plain(part) for key, part in value.items()}
        case AbstractSet():
            return sorted(plain(part) for part in value)
        case list() | tuple():
            return [plain(part) for part in value]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return str(value)
