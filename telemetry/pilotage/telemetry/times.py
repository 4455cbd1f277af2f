"""Moments and spans of time: local with their zone for people, ISO 8601 with the offset for programs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

UNITS = (("d", 86_400), ("h", 3_600), ("min", 60))
"""Units of a span that are longer than a second, with their seconds, longest first."""


def utc_now() -> datetime:
    """Return the time of this machine, aware, in UTC."""
    return datetime.now(UTC)


def parsed(moment: Any) -> datetime | None:
    """Return the aware datetime that a datetime or an ISO 8601 text stands for, or None when it stands for none.

    A moment without an offset is one in UTC, as the ledger and the store keep theirs.
    """
    try:
        at = moment if isinstance(moment, datetime) else datetime.fromisoformat(str(moment))
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def local(moment: Any, style: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return the moment in the time zone of this machine, with the zone's name behind it.

    `style` is that of strftime. What is no moment is returned as text, and nothing for None.
    """
    at = parsed(moment)
    if at is None:
        return "" if moment is None else str(moment)
    here = at.astimezone()
    return f"{here:{style}} {here.tzname()}"


def short(moment: Any) -> str:
    """Return month, day and time of the moment to the second, local with its zone: the form of a table."""
    return local(moment, "%m-%d %H:%M:%S")


def clock_time(moment: Any) -> str:
    """Return hours and minutes of the moment, and its seconds where it has some, local with the zone."""
    at = parsed(moment)
    return local(moment, "%H:%M:%S" if at is not None and at.second else "%H:%M")


def utc_minute(moment: datetime) -> str:
    """Return the moment to the minute in UTC, with its date: for what a server reckons in UTC, such as a schedule."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def iso(moment: datetime) -> str:
    """Return the moment as ISO 8601 with its offset, for programs."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def span(length: timedelta) -> str:
    """Return the span exactly, in its units: `90 s` is `1 min 30 s`. Different spans have different words."""
    whole = length // timedelta(microseconds=1)
    sign, left = ("-" if whole < 0 else ""), abs(whole)
    parts = []
    for unit, seconds in UNITS:
        count, left = divmod(left, seconds * 1_000_000)
        parts += [f"{count} {unit}"] if count else []
    seconds, micros = divmod(left, 1_000_000)
    if seconds or micros or not parts:
        parts.append(f"{seconds}.{micros:06d}".rstrip("0") + " s" if micros else f"{seconds} s")
    return sign + " ".join(parts)
